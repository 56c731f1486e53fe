#!/bin/bash
# `subst query` against real guix publish (the same answers as the stock helper, no request sent twice), against servers that are
# down or slow, and against servers with faults: each ends in the right status, in bounded time and memory.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

python3 "$PEERS_HERE/fill-narinfos.py" 200 "$WORK/fill"
faulty_port=$(free_ports 1)
faulty_log=$WORK/faulty.log
service_start faulty-server python3 "$PEERS_HERE/faulty-server.py" "$faulty_port" "$WORK/fill/www" "$faulty_log"
trap 'service_stop faulty-server' EXIT
wait_for 10 port_open "$faulty_port"
FAULTY=http://127.0.0.1:$faulty_port
refuses=http://127.0.0.1:$(free_ports 1)

# query_items ROOT URLS LIST [ARGUMENT]...: JSON to WORK/answer.json, messages to WORK/stderr, seconds and kilobytes to WORK/cost.
query_items() {
    local root=$WORK/roots/$1 urls=$2 list=$3; shift 3
    python3 "$PEERS_HERE/measure-query.py" "$WORK" "$list" env -i PATH="$PATH" HOME="$WORK/home" "$SUBST" query --json --root "$root" \
        --acl "${ACL:-$WORK/fill/acl}" --substitute-urls "$urls" - "$@"
    cat "$WORK/stderr" >&2
    read -r SECONDS_TAKEN KILOBYTES STATUS < "$WORK/cost"
    printf '%s s, %s kB, exit %s\n' "$SECONDS_TAKEN" "$KILOBYTES" "$STATUS"
}

# holds EXPRESSION: a Python expression over `items`, `servers`, `summary`, `by` (items per status) and `said` (answers per kind).
holds() {
    python3 "$PEERS_HERE/check-answer.py" "$WORK/answer.json" "$1"
}

# below WHAT VALUE LIMIT
below() { awk -v v="$2" -v l="$3" 'BEGIN { exit !(v < l) }' || { echo "$1: $2, expected less than $3"; return 1; }; }

# bounded SECONDS: what the last `query_items` took.
bounded() { below seconds "$SECONDS_TAKEN" "$1"; below kilobytes "$KILOBYTES" 60000; }

# --- real publishers ------------------------------------------------------------------------------------------------

# stock_info URL: the reply of the stock helper to `info`: path, number of references, references, sizes; sorted.
stock_info() {
    rm -rf "$WORK/stock-cache"
    stock_query "$1" "$PEERS_GUIX_ACL" "$WORK/stock-cache" info "$PEERS_LIST" | python3 "$PEERS_HERE/sort-info.py" | sort
}

subst_info() {
    python3 "$PEERS_HERE/print-available.py" "$WORK/answer.json" | sort
}

# same_as_stock NAME URL: every path of the closure and ten missing ones.
same_as_stock() {
    local log=$PEERS_LOG/publish-$1.log lines
    { cat "$PEERS_LIST"; for n in $(seq 10 19); do echo "/gnu/store/${n}zzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-missing"; done; } > "$WORK/requested.list"
    lines=$(wc -l < "$log")
    ACL=$PEERS_GUIX_ACL query_items "$1" "$2" "$WORK/requested.list"
    tail -n +$((lines + 1)) "$log" | grep -o '^GET .*\.narinfo' | sort > "$WORK/requests"
    expect_equal 'requested twice' "$(uniq -d "$WORK/requests" | wc -l)" 0
    expect_equal 'requests in the server log' "$(wc -l < "$WORK/requests")" $((PEERS_COUNT + 10))
    holds "by['available'] == $PEERS_COUNT and by['missing'] == 10"
    expect_equal status "$STATUS" 1
    subst_info > "$WORK/ours"
    stock_info "$2" > "$WORK/stock"
    expect_equal 'items stock knows' "$(wc -l < "$WORK/stock")" "$PEERS_COUNT"
    diff "$WORK/ours" "$WORK/stock"
}

closure_of_tops() {
    ACL=$PEERS_GUIX_ACL query_items closure "$PEERS_GUIX_CACHED_URL" "$PEERS_TOPS" --closure
    holds "by == {'available': $PEERS_COUNT} and summary['requests'] == $PEERS_COUNT"
}

# --- servers that are down -------------------------------------------------------------------------------------------

# one_of_three ORDER...: the same 200 items with a good server alone, then with a black hole and one that refuses.
one_of_three() {
    local alone urls="$*"
    query_items "alone-${1##*/}" "$FAULTY/late-20" "$WORK/fill/list"
    alone=$SECONDS_TAKEN
    query_items "three-${1##*/}" "$urls" "$WORK/fill/list"
    holds "by == {'available': 200}"
    below 'more than the good server alone' "$(awk -v a="$SECONDS_TAKEN" -v b="$alone" 'BEGIN { print a - b }')" 1
    if [ "$1" != "$FAULTY/late-20" ]; then
        holds "sum(server['state'] in ('down', 'slow') for server in servers) == 2"
        grep -q "$FAULTY/silent is not used" "$WORK/stderr"
        grep -q "$refuses is not used" "$WORK/stderr"
    fi
    # The next process does not wait at all: what is cached, and what is not.
    query_items "three-${1##*/}" "$urls" "$WORK/fill/list"
    below 'next process' "$SECONDS_TAKEN" 0.3
    subst cache flush --root "$WORK/roots/three-${1##*/}" $(cat "$WORK/fill/list")
    query_items "three-${1##*/}" "$urls" "$WORK/fill/list"
    holds "by == {'available': 200}"
    below 'next process that has to ask, more than the good server alone' \
        "$(awk -v a="$SECONDS_TAKEN" -v b="$alone" 'BEGIN { print a - b }')" 0.3
}

# No server has the item: the unresponsive server costs its timeouts, once, and the item is unknown, not missing.
black_hole_alone() {
    head -n 3 "$WORK/fill/list" > "$WORK/few.list"
    query_items hole "$FAULTY/silent" "$WORK/few.list" --stall-timeout 1
    holds "by == {'unknown': 3}"
    expect_equal status "$STATUS" 4
    below seconds "$SECONDS_TAKEN" 5
    query_items hole "$FAULTY/silent $FAULTY/missing" "$WORK/few.list" --stall-timeout 1
    below 'next process' "$SECONDS_TAKEN" 0.3
    holds "by == {'unknown': 3} and said == {'skipped': 3, 'missing': 3}"
}

# The preferred server answers, but takes its time; the other one has everything at once.
trickling() {
    query_items trickle "$FAULTY/trickle $FAULTY/good" "$WORK/fill/list"
    holds "by == {'available': 200}"
    below seconds "$SECONDS_TAKEN" 4
}

# A preferred server that is a little later than the other one is waited for, and is not called down.
a_little_later() {
    head -n 5 "$WORK/fill/list" > "$WORK/five.list"
    query_items later "$FAULTY/late-100 $FAULTY/good" "$WORK/five.list"
    holds "by == {'available': 5} and all(item['server'].endswith('late-100') for item in items)"
    query_items later2 "$FAULTY/good $FAULTY/late-400" "$WORK/five.list"
    holds "all(item['server'].endswith('good') for item in items)"
    query_items later2 "$FAULTY/late-400" "$WORK/five.list"
    holds "by == {'available': 5}"
}

# --- faulty servers ------------------------------------------------------------------------------------------------------

# faulty KIND CODE SECONDS EXPRESSION: all 200 items from a server of that kind.
faulty() {
    : > "$faulty_log"
    query_items "fault-$1" "$FAULTY/$1" "$WORK/fill/list"
    holds "$4"
    expect_equal status "$STATUS" "$2"
    bounded "$3"
}

# every one answered once: no answered request is sent again.
answered_once() { expect_equal 'requested twice' "$(grep -c 'narinfo' "$faulty_log")" 200; }

# Connections that break take requests with them, which are sent again.
faulty_good() { faulty "$1" 0 "$2" "by == {'available': 200} and summary['requests'] >= 200"; }
faulty_once() { faulty "$1" 0 "$2" "by == {'available': 200} and summary['requests'] == 200"; answered_once; }
faulty_unknown() { faulty "$1" 4 "$2" "by == {'unknown': 200} and said == {'failed': 200}"; }
faulty_refused() { faulty "$1" 3 "$2" "by == {'refused': 200} and items[0]['answers'][0]['reason'] == '$3'"; }

baking() {
    faulty "$1" 1 5 "by == {'preparing': 200} and 25 <= items[0]['answers'][0]['expires_in'] <= 30"
    : > "$faulty_log"
    query_items "fault-$1" "$FAULTY/$1" "$WORK/fill/list"
    expect_equal 'asked again' "$(grep -c narinfo "$faulty_log" || true)" 0
    holds "by == {'preparing': 200} and items[0]['answers'][0]['from_cache']"
}

not_kept() {
    faulty_good kept-0 5
    : > "$faulty_log"
    query_items fault-kept-0 "$FAULTY/kept-0" "$WORK/fill/list"
    expect_equal 'asked again' "$(grep -c narinfo "$faulty_log")" 200
}

kept() {
    faulty_good kept-77 5
    holds "all(70 <= item['expires_in'] <= 77 for item in items)"
    : > "$faulty_log"
    query_items fault-kept-77 "$FAULTY/kept-77" "$WORK/fill/list"
    expect_equal 'asked again' "$(grep -c narinfo "$faulty_log" || true)" 0
}

overloaded() {
    faulty_good busy-3 8
    below 0.9 0.9 "$SECONDS_TAKEN"
}

closing_is_cached() {
    faulty_good close-7 10
    : > "$faulty_log"
    query_items fault-close-7 "$FAULTY/close-7" "$WORK/fill/list" --refresh
    holds "by == {'available': 200}"
    answered_once
}

check lookups-publish-cached same_as_stock cached "$PEERS_GUIX_CACHED_URL"
check lookups-publish-gzip same_as_stock gzip "$PEERS_GUIX_GZIP_URL"
check lookups-publish-none same_as_stock none "$PEERS_GUIX_NONE_URL"
check lookups-closure closure_of_tops
check lookups-one-of-three-first one_of_three "$FAULTY/late-20" "$FAULTY/silent" "$refuses"
check lookups-one-of-three-last one_of_three "$FAULTY/silent" "$refuses" "$FAULTY/late-20"
check lookups-black-hole-alone black_hole_alone
check lookups-trickling trickling
check lookups-a-little-later a_little_later
check lookups-fault-good faulty_once good 5
check lookups-fault-close-1 faulty_good close-1 10
check lookups-fault-close-7 closing_is_cached
check lookups-fault-bytes faulty_once bytes 10
check lookups-fault-continue faulty_once continue 5
check lookups-fault-nolength faulty_good nolength 10
check lookups-fault-half faulty_unknown half 30
check lookups-fault-hugehead faulty_unknown hugehead 30
check lookups-fault-hugebody faulty_unknown hugebody 30
check lookups-fault-endless faulty_unknown endless 30
check lookups-fault-garbage faulty_unknown garbage 30
check lookups-fault-loop faulty_unknown loop 30
check lookups-fault-away faulty_good "away-http:%2F%2F127.0.0.1:$faulty_port%2Fgood" 10
check lookups-fault-403 faulty_unknown status-403 10
check lookups-fault-500 faulty_unknown status-500 60
check lookups-fault-410 faulty status-410 1 5 "by == {'missing': 200}"
check lookups-fault-busy overloaded
check lookups-fault-baking baking baking-30
check lookups-fault-accepted baking accepted-30
check lookups-fault-max-age-0 not_kept
check lookups-fault-max-age kept
check lookups-fault-other-item faulty_refused other 5 wrong-item
check lookups-fault-corrupt faulty_refused corrupt 5 signed-hash-mismatch
check lookups-fault-unsigned faulty_refused unsigned 5 unsigned
