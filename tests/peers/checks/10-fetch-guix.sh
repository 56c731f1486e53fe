#!/bin/bash
# `subst fetch` of a whole closure from real guix publish and from nginx; real guix-daemon judges the result.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

# An lzip-only server: the publisher's narinfos without their zstd groups (those lines are not signed).
lzip_only() {
    mkdir -p "$WORK/lzip"
    ln -s "$PEERS_STATIC_DIR/nar" "$WORK/lzip/nar"
    python3 "$PEERS_HERE/lzip-narinfos.py" "$PEERS_STATIC_DIR" "$WORK/lzip"
}

fetch_from() { subst fetch --root "$1" --acl "$PEERS_GUIX_ACL" --substitute-urls "$2" - < "$PEERS_TOPS"; }

# closure_is_fetched SERVER URL: the top items are requested and printed; every item of the closure is in the store.
closure_is_fetched() {
    fetch_from "$WORK/$1" "$2" > "$WORK/$1.out"
    diff <(sort "$WORK/$1.out") <(sort "$PEERS_TOPS")
    expect_equal items "$(find "$WORK/$1/gnu/store" -mindepth 1 -maxdepth 1 ! -name .links | wc -l)" "$PEERS_COUNT"
}

same_as_stock() { compare "$(stock_store)" "$WORK/$1"; }

# The real daemon on the result. Last, since it may write to var/guix.
daemon_verifies() {
    root_guix "$WORK/$1" guix gc --verify=contents
    root_guix "$WORK/$1" guix gc --references "$(sqlite3 "$WORK/$1/var/guix/db/db.sqlite" 'select max(path) from ValidPaths')"
}

second_fetch_sends_no_requests() {
    clear_requests static
    fetch_from "$WORK/static" "$PEERS_STATIC_URL" > "$WORK/second.out"
    diff <(sort "$WORK/second.out") <(sort "$PEERS_TOPS")
    expect_equal requests "$(requests static)" 0
}

# query MORE...: all items of the closure, as JSON, with the lookup cache of the root that was fetched into, but without its
# store, whose items are valid.
query() {
    if [ ! -e "$WORK/queried" ]; then
        mkdir -p "$WORK/queried/var/guix"
        cp -r "$WORK/static/var/guix/subst" "$WORK/queried/var/guix/subst"
    fi
    # shellcheck disable=SC2046
    subst query --root "$WORK/queried" --acl "$PEERS_GUIX_ACL" --substitute-urls "$PEERS_STATIC_URL" --json "$@" \
        $(cat "$PEERS_LIST") > "$WORK/query.json"
    python3 "$PEERS_HERE/check-available.py" "$WORK/query.json" "$PEERS_LIST"
}

query_from_cache() {
    clear_requests static
    query
    expect_equal requests "$(requests static)" 0
    expect_equal 'cache hits' "$(json_value summary.cache_hits)" "$PEERS_COUNT"
}

query_refreshed() {
    clear_requests static
    query --refresh
    local asked
    asked=$(grep -c '\.narinfo 200 ' "$PEERS_STATIC_LOG")
    expect_equal 'narinfo requests' "$asked" "$PEERS_COUNT"
    expect_equal 'requested twice' "$(awk '{ print $2 }' "$PEERS_STATIC_LOG" | sort | uniq -d | wc -l)" 0
}

query_offline() { query --offline; }

# json_value A.B: a value of the last query.
json_value() { python3 -c 'import functools, json, sys; print(functools.reduce(lambda d, k: d[k], sys.argv[2].split("."), json.load(open(sys.argv[1]))))' "$WORK/query.json" "$1"; }

# The same items, one after another and as a closure of one top item only.
one_top() {
    local top
    top=$(tail -n 1 "$PEERS_TOPS")
    subst fetch --root "$WORK/one" --acl "$PEERS_GUIX_ACL" --substitute-urls "$PEERS_STATIC_URL" "$top" > "$WORK/one.out"
    expect_equal printed "$(cat "$WORK/one.out")" "$top"
    sqlite3 "$WORK/one/var/guix/db/db.sqlite" 'select path from ValidPaths' | sort > "$WORK/one.list"
    compare --list "$WORK/one.list" "$(stock_store)" "$WORK/one"
}

# guix archive --authorize and subst authorize make the same decision possible.
authorize() {
    local top
    top=$(grep -- '-subst-empty$' "$PEERS_LIST")
    expect 3 subst fetch --root "$WORK/authorize" --substitute-urls "$PEERS_STATIC_URL" "$top"
    subst authorize --root "$WORK/authorize" "$PEERS_GUIX_KEY"
    subst fetch --root "$WORK/authorize" --substitute-urls "$PEERS_STATIC_URL" "$top"
}

# After a fetch the real daemon continues on the same store: it deletes the items, and fetches them again.
daemon_goes_on() {
    local top
    top=$(tail -n 1 "$PEERS_TOPS")
    root_guix "$WORK/one" guix gc -D "$top"
    [ ! -e "$WORK/one$top" ]
    subst fetch --root "$WORK/one" --acl "$PEERS_GUIX_ACL" --substitute-urls "$PEERS_STATIC_URL" "$top"
    root_guix "$WORK/one" guix gc --verify=contents
}

check stock-store stock_store
lzip_only
lzip_url=$(static_serve lzip-only "$WORK/lzip" 1)
while read -r name url; do
    check "fetch-$name-closure_is_fetched" closure_is_fetched "$name" "$url"
    check "fetch-$name-same-as-stock" same_as_stock "$name"
done <<SERVERS
cached $PEERS_GUIX_CACHED_URL
gzip $PEERS_GUIX_GZIP_URL
none $PEERS_GUIX_NONE_URL
static $PEERS_STATIC_URL
polite $PEERS_POLITE_URL
lzip $lzip_url
SERVERS
service_stop nginx-lzip-only
check fetch-second-sends-no-requests second_fetch_sends_no_requests
check query-from-cache query_from_cache
check query-offline query_offline
check query-refreshed query_refreshed
check fetch-one-top one_top
check fetch-after-authorize authorize
for name in cached gzip none static polite lzip one; do
    check "fetch-$name-guix-daemon" daemon_verifies "$name"
done
check fetch-and-guix-gc daemon_goes_on
