#!/bin/bash
# Fetches of the closure that are killed (SIGKILL) at random moments, several on one root: the run after them completes it, the store
# is that of the stock client, and nothing of the killed ones is left. KILLS (default 20) sets how many fetches are killed, SEED the
# moments, LONGEST_MS the longest time that a fetch gets.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

KILLS=${KILLS:-20}
LONGEST_MS=${LONGEST_MS:-700}
PER_ROOT=10
RANDOM=${SEED:-1}

fetch() {
    exec env -i PATH="$PATH" HOME="$WORK/home" "$SUBST" fetch --root "$1" --acl "$PEERS_GUIX_ACL" \
        --substitute-urls "$PEERS_STATIC_URL" --progress none - < "$PEERS_TOPS"
}

# kill_fetch ROOT: starts a fetch and kills it after a random time; prints how it ended.
kill_fetch() {
    local client status=0 milliseconds=$((RANDOM % LONGEST_MS))
    fetch "$1" > /dev/null 2>> "$WORK/killed.err" &
    client=$!
    sleep "$(printf '%d.%03d' $((milliseconds / 1000)) $((milliseconds % 1000)))"
    kill -KILL "$client" 2> /dev/null || true
    wait "$client" || status=$?
    printf '%s\n' "$status"
}

# leftovers ROOT: what a run leaves only when it is killed.
leftovers() {
    find "$1/gnu/store" -maxdepth 1 \( -name '*.lock' -o -name '*.tmp' \)
    find "$1/gnu/store/.links" -type f -links 1
    find "$1/var/guix/temproots" -type f
    find "$1/var/guix/db" -type f ! -name db.sqlite ! -name '*.sqlite-*' ! -name big-lock ! -name reserved ! -name schema
    find "$1/var/cache" "$1/var/guix" \( -name '*.new' -o -name '*.part' -o -name '*-journal' \) 2> /dev/null
}

# killed_fetches ROOT COUNT: COUNT killed fetches, then one that completes.
killed_fetches() {
    local root=$1
    for _ in $(seq "$2"); do kill_fetch "$root"; done | sort | uniq -c
    expect 0 eval '( fetch "$root" ) > "$WORK/last.out"'
    expect_equal leftovers "$(leftovers "$root")" ''
    compare "$(stock_store)" "$root"
    expect 0 eval '( fetch "$root" ) > "$WORK/again.out"'
    root_guix "$root" guix gc --verify=contents
    chmod -R u+w "$root" && rm -rf --one-file-system "$root"
}

check stock-store stock_store
for round in $(seq $(((KILLS + PER_ROOT - 1) / PER_ROOT))); do
    left=$((KILLS - (round - 1) * PER_ROOT))
    check "killed-fetches-$round" killed_fetches "$WORK/root" $((left < PER_ROOT ? left : PER_ROOT))
    rm -rf --one-file-system "$WORK/root"
done
