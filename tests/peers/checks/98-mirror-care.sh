#!/bin/bash
# `subst mirror verify` and `subst mirror gc`: random damage is found and repaired; random sequences of copies and collections, killed
# (SIGKILL) or not, leave no narinfo without its nars or its references, no nar that a client may still want, and in the end no
# orphan, as a checker says that has no code of the program. SEQUENCES (default 10) sets how many, SEED which.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

SEQUENCES=${SEQUENCES:-10}
RANDOM=${SEED:-1}

checked() { python3 "$PEERS_HERE/check-mirror.py" "$WORK/care" "$@"; }

care() { subst mirror "$1" --acl "$PEERS_GUIX_ACL" --substitute-urls "$PEERS_STATIC_URL" --to "$WORK/care" "${@:2}"; }

copy() { subst mirror --acl "$PEERS_GUIX_ACL" --substitute-urls "$PEERS_STATIC_URL" --to "$WORK/care" --list "$1" "${@:2}"; }

# nars: the files in nar/.
nars() { (cd "$WORK/care" && find nar -type f | sort); }

# some_of NUMBER: so many random lines of standard input. some_items NUMBER: so many random items, in the file items.
some_of() {
    local seed=$RANDOM
    shuf -n "$1" --random-source=<(yes "$seed")
}
some_items() { some_of "$1" < "$PEERS_LIST" > "$WORK/items"; }

damage_is_repaired() {
    local file
    copy "$PEERS_TOPS" > "$WORK/copy.out"
    nars > "$WORK/nars"
    some_of 9 < "$WORK/nars" > "$WORK/damaged"
    while read -r file; do
        case $((RANDOM % 3)) in
            0) rm "$WORK/care/$file" ;;
            1) truncate -s -1 "$WORK/care/$file" ;;
            # Another byte in the middle, whatever is there.
            2) python3 -c 'import sys
with open(sys.argv[1], "r+b") as file:
    middle = file.seek(0, 2) // 2
    file.seek(middle)
    byte = file.read(1)[0] ^ 1
    file.seek(middle)
    file.write(bytes([byte]))' "$WORK/care/$file" ;;
        esac
    done < "$WORK/damaged"
    care verify --deep --json > "$WORK/verify.json" && return 1
    expect_equal damaged "$(python3 -c 'import json, sys; print(*sorted({it["file"] for it in json.load(sys.stdin)["findings"]}), sep="\n")' \
        < "$WORK/verify.json")" "$(LC_ALL=C sort "$WORK/damaged")"
    care verify --deep --repair > "$WORK/repair.out"
    checked --deep --no-orphans > /dev/null
}

# A client that has kept the narinfos fetches from the mirror, which does not have them any more.
old_narinfos_lead_to_nars() {
    local url item
    mkdir "$WORK/old"
    cp "$WORK"/care/*.narinfo "$WORK/care/nix-cache-info" "$WORK/old"
    ln -s "$WORK/care/nar" "$WORK/old/nar"
    some_items 1
    care gc --keep-list "$WORK/items" > "$WORK/gc.out"
    item=$(head -n 1 "$WORK/gc.out")
    url=$(static_serve mirror-old "$WORK/old" -)
    subst fetch --root "$WORK/client" --acl "$PEERS_GUIX_ACL" --substitute-urls "$url" "$item" > "$WORK/fetch.out"
    service_stop nginx-mirror-old
}

# step: a copy or a collection, killed in two of three cases.
step() {
    local client
    some_items $((RANDOM % 9 + 1))
    if [ $((RANDOM % 2)) = 0 ]; then set -- --list "$WORK/items"; else set -- gc --keep-list "$WORK/items"; fi
    (exec env -i PATH="$PATH" HOME="$WORK/home" "$SUBST" mirror "$@" --to "$WORK/care" --acl "$PEERS_GUIX_ACL" \
        --substitute-urls "$PEERS_STATIC_URL" --quiet) > /dev/null 2>> "$WORK/steps.err" &
    client=$!
    if [ $((RANDOM % 3)) != 0 ]; then
        sleep "$(printf '0.%03d' $((RANDOM % 500)))"
        kill -KILL "$client" 2> /dev/null || true
    fi
    wait "$client" || true
}

sequences_leave_no_hole() {
    local number
    rm -rf "$WORK/care"
    some_items 3
    copy "$WORK/items" > /dev/null
    for number in $(seq "$SEQUENCES"); do
        nars > "$WORK/before"
        for _ in $(seq $((RANDOM % 4 + 1))); do step; done
        nars > "$WORK/after"
        checked > "$WORK/checked" || { echo "sequence $number"; return 1; }
        expect_equal "nars that are gone after sequence $number" "$(comm -23 "$WORK/before" "$WORK/after")" ''
    done
    care gc --grace 0 > /dev/null
    checked --deep --no-orphans
}

check mirror-repair damage_is_repaired
check mirror-gc-grace old_narinfos_lead_to_nars
check mirror-gc-killed sequences_leave_no_hole
