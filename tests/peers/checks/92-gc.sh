#!/bin/bash
# `subst gc` on copies of stores that real guix-daemon and real Nix collect too: the same rows, trees and entries of .links are left. Then
# beside a running fetch, and killed (SIGKILL) at random instants: real Guix verifies what is left. KILLS (default 10) sets how many
# collections are killed, SEED the instants, LONGEST_MS the longest time that a collection gets.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

KILLS=${KILLS:-10}
LONGEST_MS=${LONGEST_MS:-400}
PER_FETCH=10
RANDOM=${SEED:-1}
ROOT=$WORK/root
# Of the top items of the closure: all but the largest, which takes most of the time and adds nothing, and three.
TOPS=$WORK/tops
SOME_TOPS=$WORK/some-tops
NIX_TOPS=$WORK/nix-tops

# fetch ROOT ARGUMENT...
fetch() {
    exec env -i PATH="$PATH" HOME="$WORK/home" "$SUBST" fetch --root "$1" --acl "$PEERS_GUIX_ACL" \
        --substitute-urls "$PEERS_STATIC_URL" --progress none "${@:2}"
}

# without_largest TOPS STORE
without_largest() {
    local largest
    largest=$(sed "s|.*/|$2/|" "$1" | xargs du -s | sort -n | tail -n 1 | sed 's|.*/||')
    grep -vF "$largest" "$1"
}

collect() { subst gc --root "$ROOT" "$@"; }

remove() { chmod -R u+w "$1" 2> /dev/null || true; rm -rf --one-file-system "$1"; }

# spoil ROOT STATE STORE: leftovers of every kind that a collector removes, and roots of every kind.
spoil() {
    local root=$1 state=$1/$2 store=$1/$3 place=/$3 pick
    mapfile -t pick < "$4"
    mkdir -p "$state/gcroots/auto" "$state/gcroots/mine" "$state/profiles/per-user/me" "$root/home"
    ln -s "${pick[0]}" "$state/gcroots/mine/direct"
    ln -s "${pick[1]}/file" "$state/gcroots/inside"
    ln -s "${pick[2]}" "$state/profiles/per-user/me/profile-1-link"
    ln -s profile-1-link "$state/profiles/per-user/me/profile"
    ln -s /nowhere/at/all "$state/gcroots/auto/stale"
    ln -s "$place/00000000000000000000000000000000-nothing" "$state/gcroots/dead"
    mkdir -p "$store/left/below" "$store/11111111111111111111111111111111-left.tmp/x"
    printf x > "$store/22222222222222222222222222222222-left"
    : > "$store/33333333333333333333333333333333-left.lock"
    ln -s nowhere "$store/link"
    head -c 9000 /dev/zero > "$store/.links/0000000000000000000000000000000000000000000000000000"
    printf '%s\0' "${pick[4]}" > "$state/temproots/2000000000"
}

# valid DATABASE: all valid items; pick: five of those on standard input.
valid() { sqlite3 "$1" 'SELECT path FROM ValidPaths ORDER BY path'; }
pick() { awk '{ all[NR] = $0 } END { for (i = 1; i <= 5; i++) print all[int(NR * i / 6)] }'; }

# left STORE STATE: what a collector may leave different, besides what compare-stores.py compares.
left() {
    ls -A "$1" | LC_ALL=C sort
    ls -A "$1/.links" | LC_ALL=C sort
    find "$2/temproots" -type f
    find "$2/gcroots/auto" "$2/gcroots/mine" -mindepth 1
}

guix_leaves_the_same() {
    local stock subst
    stock=$WORK/guix-stock subst=$WORK/guix-subst
    ( fetch "$stock" - < "$TOPS" ) > "$WORK/guix.tops"
    valid "$stock/var/guix/db/db.sqlite" | pick > "$WORK/guix.pick"
    spoil "$stock" var/guix gnu/store "$WORK/guix.pick"
    cp -a "$stock" "$subst"

    root_guix "$stock" guix gc > "$WORK/guix-gc.out" 2>&1
    subst gc --root "$subst" > "$WORK/subst-gc.out" 2> "$WORK/subst-gc.err"
    cat "$WORK/subst-gc.err"
    expect_equal 'items deleted' "$([ "$(wc -l < "$WORK/subst-gc.out")" -gt 20 ] && echo many)" many
    diff <(cd "$stock" && left gnu/store var/guix) <(cd "$subst" && left gnu/store var/guix)
    compare "$stock" "$subst"
    root_guix "$subst" guix gc --verify=contents
    # Nothing is left to delete for the other one, on either side.
    subst gc --root "$stock" > "$WORK/again.out"
    expect_equal 'items that subst deletes after guix' "$(cat "$WORK/again.out")" ''
    root_guix "$subst" guix gc --list-dead > "$WORK/dead.out" 2> /dev/null
    expect_equal 'items that guix deletes after subst' "$(cat "$WORK/dead.out")" ''
    remove "$stock"; remove "$subst"
}

nix_leaves_the_same() {
    local stock subst
    stock=$WORK/nix-stock subst=$WORK/nix-subst
    subst fetch --store-dir /nix/store --root "$stock" --trusted-public-keys "$PEERS_NIX_KEY" \
        --substitute-urls "$PEERS_NIX_ZSTD_URL" --progress none - < "$NIX_TOPS" > "$WORK/nix.tops"
    valid "$stock/nix/var/nix/db/db.sqlite" | pick > "$WORK/nix.pick"
    spoil "$stock" nix/var/nix nix/store "$WORK/nix.pick"
    cp -a "$stock" "$subst"

    root_nix "$stock" nix store gc --store "local?root=$stock" > "$WORK/nix-gc.out" 2>&1
    subst gc --root "$subst" --store-dir /nix/store > "$WORK/subst-nix-gc.out" 2> "$WORK/subst-nix-gc.err"
    cat "$WORK/subst-nix-gc.err"
    diff <(cd "$stock" && left nix/store nix/var/nix) <(cd "$subst" && left nix/store nix/var/nix)
    compare "$stock" "$subst"
    root_nix "$subst" nix-store --store "local?root=$subst" --verify --check-contents
    remove "$stock"; remove "$subst"
}

# Roots that subst makes are roots for the real collectors.
stock_collectors_keep_roots() {
    ( fetch "$ROOT" --gc-root some - < "$SOME_TOPS" ) > "$WORK/rooted.out"
    root_guix "$ROOT" guix gc > "$WORK/rooted.gc" 2>&1
    ( fetch "$ROOT" --offline - < "$SOME_TOPS" ) > "$WORK/rooted.again"
    # Items are printed as they become valid.
    cmp <(sort "$WORK/rooted.out") <(sort "$WORK/rooted.again")
    remove "$ROOT"
}

beside_a_fetch() {
    local client collections=0
    ( fetch "$ROOT" - < "$SOME_TOPS" ) > "$WORK/before.out"
    fetch "$ROOT" --gc-root all - < "$TOPS" > "$WORK/beside.out" 2> "$WORK/beside.err" &
    client=$!
    while kill -0 "$client" 2> /dev/null; do
        collect > "$WORK/beside.gc"
        collections=$((collections + 1))
        sleep 0.1
    done
    wait "$client" || { cat "$WORK/beside.err"; return 1; }
    printf '%s collections\n' "$collections"
    collect > "$WORK/beside.gc"
    expect_equal 'deleted after the fetch' "$(cat "$WORK/beside.gc")" ''
    valid "$ROOT/var/guix/db/db.sqlite" > "$WORK/beside.list"
    ( fetch "$WORK/alone" - < "$TOPS" ) > "$WORK/alone.out"
    valid "$WORK/alone/var/guix/db/db.sqlite" | diff - "$WORK/beside.list"
    compare --no-links --list "$WORK/beside.list" "$(stock_store)" "$ROOT"
    remove "$WORK/alone"
    root_guix "$ROOT" guix gc --verify=contents
    remove "$ROOT"
}

# kill_collection: starts a collection and kills it after a random time.
kill_collection() {
    local collector status=0 milliseconds=$((RANDOM % LONGEST_MS))
    env -i PATH="$PATH" HOME="$WORK/home" "$SUBST" gc --root "$ROOT" > /dev/null 2>> "$WORK/killed.err" &
    collector=$!
    sleep "$(printf '%d.%03d' $((milliseconds / 1000)) $((milliseconds % 1000)))"
    kill -KILL "$collector" 2> /dev/null || true
    wait "$collector" || status=$?
    printf '%s\n' "$status"
}

# sound: every row has its tree with its hash, and every reference is valid.
sound() {
    sqlite3 "$ROOT/var/guix/db/db.sqlite" 'PRAGMA integrity_check; PRAGMA foreign_key_check;' | diff - <(echo ok)
    valid "$ROOT/var/guix/db/db.sqlite" | while read -r path; do
        [ -e "$ROOT$path" ] || [ -L "$ROOT$path" ] || { printf '%s has a row and no tree\n' "$path"; return 1; }
    done
}

# killed_collections COUNT: on one store, which is filled again before each.
killed_collections() {
    ( fetch "$ROOT" --gc-root some - < "$SOME_TOPS" ) > "$WORK/killed.out"
    for _ in $(seq "$1"); do
        ( fetch "$ROOT" - < "$TOPS" ) > "$WORK/killed.out"
        kill_collection
        sound
    done
    root_guix "$ROOT" guix gc --verify=contents
    collect > "$WORK/killed.gc"
    cp -a "$ROOT" "$WORK/plain"
    root_guix "$WORK/plain" guix gc > "$WORK/plain.gc" 2>&1
    diff <(cd "$WORK/plain" && left gnu/store var/guix) <(cd "$ROOT" && left gnu/store var/guix)
    compare "$WORK/plain" "$ROOT"
    remove "$WORK/plain"; remove "$ROOT"
}

without_largest "$PEERS_TOPS" "$PEERS_GUIX_STORE" > "$TOPS"
without_largest "$PEERS_NIX_TOPS" "$PEERS_NIX_STORE" > "$NIX_TOPS"
head -n 3 "$TOPS" > "$SOME_TOPS"
check stock-store stock_store
check guix-leaves-the-same guix_leaves_the_same
check nix-leaves-the-same nix_leaves_the_same
check stock-collectors-keep-roots stock_collectors_keep_roots
check beside-a-fetch beside_a_fetch
for round in $(seq $(((KILLS + PER_FETCH - 1) / PER_FETCH))); do
    rest=$((KILLS - (round - 1) * PER_FETCH))
    check "killed-collections-$round" killed_collections $((rest < PER_FETCH ? rest : PER_FETCH))
done
rm -rf --one-file-system "$WORK"
