#!/bin/bash
# Damaged narinfos and nars are refused, with the right exit status, and the store does not change.
# The servers are damaged copies of the fixtures; the requested item is subst-tools, whose only reference is valid already.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

item() { sed -n "s|^\(/[a-z]*/store/[^\t]*-subst-$1-1.0\)\t.*|\1|p" "$FIXTURES/$2/expected-rows.txt"; }

mkdir -p "$WORK/server"
SERVER_URL=$(static_serve refusals "$WORK/server" -)

# --- Guix ---------------------------------------------------------------------------------------------------------

TOOLS=$(item tools guix)
NOTES=$(item notes guix)
COPY=$(item copy guix)
TOOLS_INFO=$(basename "$TOOLS" | cut -c1-32).narinfo
COPY_INFO=$(basename "$COPY" | cut -c1-32).narinfo

# server KIND: a fresh copy of the fixture server in the place that nginx serves.
server() {
    find "$WORK/server" -mindepth 1 -delete
    cp -r "$FIXTURES/$1/." "$WORK/server/"
}

# only METHOD: leave only that compression's URL group in the narinfo of subst-tools.
only() {
    python3 "$PEERS_HERE/keep-download.py" "$WORK/server/$TOOLS_INFO" "$1"
}

# nar METHOD: the file of subst-tools' nar.
nar() { if [ "$1" = none ]; then echo "$WORK/server/nar/$(basename "$TOOLS")"; else echo "$WORK/server/nar/$1/$(basename "$TOOLS")"; fi; }

# flip FILE POSITION: turn one bit of the byte at POSITION (a fraction of the size).
flip() {
    python3 "$PEERS_HERE/flip-bit.py" "$1" "$2"
}

fetch_guix() { subst fetch --root "$WORK/root" --acl "${ACL:-$FIXTURES/guix/acl}" --substitute-urls "$SERVER_URL" --refresh "$TOOLS"; }

rows() { sqlite3 "$1" 'select path, hash, narSize, deriver from ValidPaths order by path; select referrer, reference from Refs order by 1, 2'; }

# refused CODES COMMAND...: make the damage with COMMAND, then fetch: the exit status is one of CODES, nothing was printed on
# standard output, and neither the store nor the database has changed.
refused() {
    local codes=$1 out; shift
    server guix
    "$@"
    listing "$WORK/root/gnu/store" > "$WORK/before"
    rows "$WORK/root/var/guix/db/db.sqlite" >> "$WORK/before"
    out=$(expect "$codes" fetch_guix 2> "$WORK/stderr") || { cat "$WORK/stderr"; echo "$out"; return 1; }
    cat "$WORK/stderr"
    expect_equal 'standard output' "$out" ''
    listing "$WORK/root/gnu/store" > "$WORK/after"
    rows "$WORK/root/var/guix/db/db.sqlite" >> "$WORK/after"
    diff "$WORK/before" "$WORK/after"
}

flipped_nar() { only "$1"; flip "$(nar "$1")" "$2"; }
truncated_nar() { only "$1"; truncate -s "$2" "$(nar "$1")"; }
grown_nar() { only "$1"; printf 'more' >> "$(nar "$1")"; }
missing_nar() { rm -f "$WORK"/server/nar/"$(basename "$TOOLS")" "$WORK"/server/nar/*/"$(basename "$TOOLS")"; }
other_nar() { only "$1"; cp "$FIXTURES/guix/nar/$([ "$1" = none ] || echo "$1/")$(basename "$COPY")" "$(nar "$1")"; }
narinfo_edit() { sed -i -E "$1" "$WORK/server/$TOOLS_INFO"; ! cmp -s "$WORK/server/$TOOLS_INFO" "$FIXTURES/guix/$TOOLS_INFO"; }
other_narinfo() { cp "$FIXTURES/guix/$COPY_INFO" "$WORK/server/$TOOLS_INFO"; }
garbage_narinfo() { head -c 5000 /dev/urandom > "$WORK/server/$TOOLS_INFO"; }
other_store() { sed -i 's|/gnu/store|/other/store|' "$WORK/server/nix-cache-info"; }

# signature_edit WHAT: change the decoded signature and encode it again.
signature_edit() {
    python3 "$PEERS_HERE/edit-signature.py" "$WORK/server/$TOOLS_INFO" "$1"
}

nothing() { :; }
unknown_key() { ACL=$PEERS_GUIX_ACL refused 3 nothing; }
no_acl() { ACL=$WORK/no-such-acl refused '3 5' nothing; }

guix_prepared() {
    server guix
    subst fetch --root "$WORK/root" --acl "$FIXTURES/guix/acl" --substitute-urls "$SERVER_URL" "$NOTES"
}

# Afterward the undamaged server is used, and the result equals that of stock guix-daemon.
guix_good_again() {
    server guix
    subst fetch --root "$WORK/root" --acl "$FIXTURES/guix/acl" --substitute-urls "$SERVER_URL" --refresh - < "$FIXTURES/guix/roots"
    sed -n 's|^\(/[^\t]*\)\t.*|\1|p' "$FIXTURES/guix/expected-rows.txt" > "$WORK/list"
    mkdir -p "$WORK/got"
    python3 "$FIXTURES/source/listing.py" "$WORK/root/gnu/store" "$WORK/root/var/guix/db/db.sqlite" "$WORK/list" "$WORK/got"
    local name
    for name in expected.txt expected-rows.txt expected-links.txt; do diff "$FIXTURES/guix/$name" "$WORK/got/$name"; done
}

# One spoiled nar among several URLs does no harm: the next one is taken.
other_url_is_taken() {
    local root=$WORK/root-second
    server guix
    flip "$(nar "$1")" 0.5
    subst fetch --root "$root" --acl "$FIXTURES/guix/acl" --substitute-urls "$SERVER_URL" --refresh "$TOOLS"
    rm -rf "$root"
}

check refuse-prepared guix_prepared
for method in zstd lzip gzip xz none; do
    check "refuse-$method-flipped-middle" refused 3 flipped_nar $method 0.5
    check "refuse-$method-flipped-early" refused 3 flipped_nar $method 0.3
    check "refuse-$method-flipped-late" refused 3 flipped_nar $method 0.8
    check "refuse-$method-truncated" refused '3 4' truncated_nar $method -1
    check "refuse-$method-half" refused '3 4' truncated_nar $method 200
    check "refuse-$method-empty" refused '3 4' truncated_nar $method 0
    check "refuse-$method-garbage-after" refused 3 grown_nar $method
    check "refuse-$method-other-nar" refused 3 other_nar $method
    check "fallback-$method-flipped" other_url_is_taken $method
done
check refuse-missing-nar refused '1 4' missing_nar
check refuse-nar-hash refused 3 narinfo_edit '/^NarHash:/ s/.$/0/'
check refuse-nar-size refused 3 narinfo_edit '/^NarSize:/ s/.$/0/'
check refuse-references refused 3 narinfo_edit '/^References:/ s/subst/subsu/'
check refuse-deriver refused 3 narinfo_edit '/^Deriver:/ s/subst/subsu/'
check refuse-store-path refused 3 narinfo_edit '/^StorePath:/ s/subst/subsu/'
check refuse-line-added-above refused 3 narinfo_edit '1 i System: x86_64-linux'
check refuse-no-signature refused 3 narinfo_edit '/^Signature:/ d'
check refuse-references-below-signature refused 3 narinfo_edit '/^References:/ { h; d }; /^Signature:/ G'
for what in r s q hash shape version base64; do
    check "refuse-signature-$what" refused 3 signature_edit $what
done
check refuse-below-url refused '1 3 4' narinfo_edit '/^URL:/ s/subst/subsu/'
check refuse-below-compression refused '3 4' narinfo_edit '/^Compression:/ s/: ./: q/'
check refuse-below-scheme refused '3 4' narinfo_edit '/^URL:/ s|: |: ftp://127.0.0.1/|'
check refuse-other-narinfo refused 3 other_narinfo
check refuse-garbage-narinfo refused '3 4' garbage_narinfo
check refuse-other-store refused '1 3 4' other_store
check refuse-unknown-key unknown_key
check refuse-no-acl no_acl
check refuse-then-good guix_good_again

# --- Nix ------------------------------------------------------------------------------------------------------------

NIX_TOOLS=$(item tools nix)
NIX_NOTES=$(item notes nix)
NIX_COPY=$(item copy nix)
NIX_TOOLS_INFO=$(basename "$NIX_TOOLS" | cut -c1-32).narinfo

fetch_nix() {
    subst fetch --store-dir /nix/store --root "$WORK/nix-root" --trusted-public-keys "${NIX_KEY:-$(cat "$FIXTURES/nix/public-key")}" \
        --substitute-urls "$SERVER_URL" --refresh "$@"
}

nix_prepared() { server nix/zstd; fetch_nix "$NIX_NOTES"; }

nix_refused() {
    local codes=$1 out; shift
    server nix/zstd
    "$@"
    listing "$WORK/nix-root/nix/store" > "$WORK/before"
    rows "$WORK/nix-root/nix/var/nix/db/db.sqlite" >> "$WORK/before"
    out=$(expect "$codes" fetch_nix "$NIX_TOOLS" 2> "$WORK/stderr") || { cat "$WORK/stderr"; echo "$out"; return 1; }
    cat "$WORK/stderr"
    listing "$WORK/nix-root/nix/store" > "$WORK/after"
    rows "$WORK/nix-root/nix/var/nix/db/db.sqlite" >> "$WORK/after"
    diff "$WORK/before" "$WORK/after"
}

nix_narinfo_edit() { sed -i -E "$1" "$WORK/server/$NIX_TOOLS_INFO"; ! cmp -s "$WORK/server/$NIX_TOOLS_INFO" "$FIXTURES/nix/zstd/$NIX_TOOLS_INFO"; }
nix_nar() { echo "$WORK/server/$(sed -n 's/^URL: //p' "$WORK/server/$NIX_TOOLS_INFO")"; }
nix_flipped_nar() { flip "$(nix_nar)" "$1"; }
nix_truncated_nar() { truncate -s -5 "$(nix_nar)"; }
nix_other_narinfo() { cp "$FIXTURES/nix/zstd/$(basename "$NIX_COPY" | cut -c1-32).narinfo" "$WORK/server/$NIX_TOOLS_INFO"; }
nix_unknown_key() { NIX_KEY=$PEERS_NIX_KEY nix_refused 3 nothing; }
nix_good_again() {
    server nix/zstd

    # shellcheck disable=SC2046
    fetch_nix $(cat "$FIXTURES/nix/roots")
    root_nix "$WORK/nix-root" nix-store --store "local?root=$WORK/nix-root" --verify --check-contents
}

check refuse-nix-prepared nix_prepared
check refuse-nix-flipped-nar nix_refused 3 nix_flipped_nar 0.5
check refuse-nix-truncated-nar nix_refused '3 4' nix_truncated_nar
check refuse-nix-signature nix_refused 3 nix_narinfo_edit '/^Sig:/ s/:([^:]{20})./:\1A/'
check refuse-nix-no-signature nix_refused 3 nix_narinfo_edit '/^Sig:/ d'
check refuse-nix-hash nix_refused 3 nix_narinfo_edit '/^NarHash:/ s/.$/0/'
check refuse-nix-size nix_refused 3 nix_narinfo_edit '/^NarSize:/ s/.$/0/'
check refuse-nix-references nix_refused 3 nix_narinfo_edit '/^References:/ s/subst/subsu/'
check refuse-nix-other-narinfo nix_refused 3 nix_other_narinfo
check refuse-nix-unknown-key nix_unknown_key
check refuse-nix-then-good nix_good_again
service_stop nginx-refusals
