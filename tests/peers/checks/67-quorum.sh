#!/bin/bash
# Two of three must agree: two real `guix publish` with different keys over one store, and a third one over a store with other builds of two
# items. Real guix-daemon with our helper installs only what two keys have signed alike, and `subst query` says so beforehand.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

item() { grep -- "-twice-$1\$" "$WORK/one.paths"; }
hash_of() { curl -fsS "$(cat "$WORK/$1.url")/$(basename "$2" | cut -d- -f1).narinfo" | grep '^NarHash: '; }

# co_signer: another publisher of the store of `one`, through its daemon, with a key of its own.
co_signer() {
    local port
    mkdir -p "$WORK/two/etc"
    client_enter "$WORK/one" --bind "$WORK/two/etc" /etc/guix guix archive --generate-key
    port=$(free_ports 1)
    service_start publish-two "$PEERS_HERE/enter" --bind "$WORK/one/store" /gnu/store --bind "$WORK/one/var" /var/guix \
        --bind "$WORK/two/etc" /etc/guix guix publish --listen=127.0.0.1 -p "$port" -C gzip --ttl=1d
    wait_for 30 port_open "$port"
    printf 'http://127.0.0.1:%s\n' "$port" > "$WORK/two.url"
}

# The servers are as the checks below expect: the leaves are alike everywhere, the others only at the first two.
builds_differ() {
    local name
    for name in first second same other; do
        expect_equal "$name at two" "$(hash_of two "$(item "$name")")" "$(hash_of one "$(item "$name")")"
    done
    for name in first second; do expect_equal "$name at three" "$(hash_of three "$(item "$name")")" "$(hash_of one "$(item "$name")")"; done
    for name in same other; do [ "$(hash_of three "$(item "$name")")" != "$(hash_of one "$(item "$name")")" ]; done
}

urls() { for name in "$@"; do cat "$WORK/$name.url"; done | tr '\n' ' '; }

# realize DIR SERVERS ITEM...: by guix-daemon with our helper and the policy in WORK/config.toml.
realize() {
    local dir=$WORK/$1 servers=$2; shift 2
    client_new "$dir"
    cp "$WORK/config.toml" "$dir/config.toml"
    for name in "$@"; do item "$name"; done > "$dir.list"
    client_realize "$dir" "$servers" "$dir.list" --bind "$SUBST" /opt/subst/guix --env GUIX=/opt/subst/guix \
        --env SUBST_CONFIG=/subst-client/config.toml --bind "$WORK/acl" /etc/guix/acl
}

is_of_one() { diff -r "$WORK/one/store/$(basename "$(item "$2")")" "$WORK/$1/store/$(basename "$(item "$2")")"; }

installs() {
    local dir=$1 servers=$2; shift 2
    realize "$dir" "$servers" "$@" || { tail -n 20 "$WORK/$dir/log"; return 1; }
    for name in "$@"; do is_of_one "$dir" "$name"; done
}

refuses() {
    ! realize "$1" "$2" "$3" || { echo 'installed, without two votes'; return 1; }
    [ ! -e "$WORK/$1/store/$(basename "$(item "$3")")" ]
    grep -q "$4" "$WORK/$1/log"
}

query() {
    expect "$1" subst query --root "$WORK/query-root" --config "$WORK/config.toml" --acl "$WORK/acl" --substitute-urls "$2" \
        "$(item first)" "$(item second)" "$(item same)" "$(item other)"
}

says_beforehand() {
    query 3 "$(urls one two three)" | tee "$WORK/said"
    expect_equal available "$(grep -c '^available' "$WORK/said")" 2
    expect_equal disagree "$(grep -c 'signers disagree: alice and bob signed .* but carol signed' "$WORK/said")" 2
    query 3 "$(urls one three)" > "$WORK/said"
    expect_equal available "$(grep -c '^available' "$WORK/said")" 2
    query 0 "$(urls one two)" > "$WORK/said"
    expect_equal available "$(grep -c '^available' "$WORK/said")" 4
}

policy() {
    local name=$1; shift
    printf '[trust]\nneed = 2\n%s\n' "$@" > "$WORK/$name"
    local key who
    for key in one:alice two:bob three:carol; do
        who=$WORK/${key%%:*}/etc/signing-key.pub
        printf '[[trust.principal]]\nname = "%s"\nkeys = ["guix:%s"]\n' "${key##*:}" "$(grep -o '#[0-9A-F]*#' "$who" | tr -d '#')"
    done >> "$WORK/$name"
}

warns() {
    policy config.toml 'on-dissent = "warn"'
    installs warned "$(urls one two three)" same
}

trap 'service_stop publish-two; service_stop publish-one; service_stop publish-three' EXIT
for name in one three; do check "quorum-publisher-$name" publisher "$name"; done
check quorum-co-signer co_signer
check quorum-builds-differ builds_differ
{
    echo '(acl'
    for name in one two three; do printf '(entry %s (tag (guix import)))\n' "$(cat "$WORK/$name/etc/signing-key.pub")"; done
    echo ')'
} > "$WORK/acl"
policy config.toml ''
check quorum-query says_beforehand
check quorum-all-of-two installs all "$(urls one two)" first second same other
check quorum-alike installs alike "$(urls three one)" first second
check quorum-one-vote refuses one-vote "$(urls two three)" same 'signers disagree'
check quorum-single refuses single "$(urls one)" first 'too few votes'
check quorum-dissent refuses dissent "$(urls one two three)" other 'signers disagree'
check quorum-dissent-warned warns
