#!/bin/bash
# `subst query` against real guix publish (the same answers as the stock helper, nothing asked twice), against servers that are
# down or slow, and against servers that behave oddly: each ends in the right status, in bounded time and memory.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

python3 "$PEERS_HERE/fill-narinfos.py" 200 "$WORK/fill"
odd_port=$(free_ports 1)
odd_log=$WORK/odd.log
service_start odd-server python3 "$PEERS_HERE/odd-server.py" "$odd_port" "$WORK/fill/www" "$odd_log"
trap 'service_stop odd-server' EXIT
wait_for 10 port_open "$odd_port"
ODD=http://127.0.0.1:$odd_port
refuses=http://127.0.0.1:$(free_ports 1)

# ask ROOT URLS LIST [ARGUMENT]...: JSON to WORK/answer.json, words to WORK/words, seconds and kilobytes to WORK/cost.
ask() {
    local root=$WORK/roots/$1 urls=$2 list=$3; shift 3
    python3 - "$WORK" "$list" env -i PATH="$PATH" HOME="$WORK/home" "$SUBST" query --json --root "$root" \
        --acl "${ACL:-$WORK/fill/acl}" --substitute-urls "$urls" - "$@" <<'PY'
import os, resource, sys, time
work, items, *command = sys.argv[1:]
opened = [(0, items, os.O_RDONLY), (1, f"{work}/answer.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
          (2, f"{work}/words", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)]
began = time.perf_counter()
child = os.posix_spawn(command[0] if "/" in command[0] else "/usr/bin/" + command[0], command, os.environ,
                       file_actions=[(os.POSIX_SPAWN_OPEN, fd, name, flags, 0o644) for fd, name, flags in opened])
_, status, usage = os.wait4(child, 0)
with open(f"{work}/cost", "w") as file:
    file.write(f"{time.perf_counter() - began:.3f} {usage.ru_maxrss} {os.waitstatus_to_exitcode(status)}\n")
PY
    cat "$WORK/words" >&2
    read -r SECONDS_TAKEN KILOBYTES STATUS < "$WORK/cost"
    printf '%s s, %s kB, exit %s\n' "$SECONDS_TAKEN" "$KILOBYTES" "$STATUS"
}

# holds EXPRESSION: a Python expression over `items`, `servers`, `summary`, `by` (items per status) and `said` (answers per word).
holds() {
    python3 - "$WORK/answer.json" "$1" <<'PY'
import collections, json, sys
answer = json.load(open(sys.argv[1]))
items, servers, summary = answer["items"], answer["servers"], answer["summary"]
by = collections.Counter(item["status"] for item in items)
said = collections.Counter(row["answer"] for item in items for row in item["answers"])
if not eval(sys.argv[2]):
    sys.exit(f"not so: {sys.argv[2]}\n{dict(by)} {dict(said)} {summary} {servers}\n{items[0]['answers'] if items else ''}")
PY
}

# below WHAT VALUE LIMIT
below() { awk -v v="$2" -v l="$3" 'BEGIN { exit !(v < l) }' || { echo "$1: $2, expected less than $3"; return 1; }; }

# bounded SECONDS: what the last `ask` took.
bounded() { below seconds "$SECONDS_TAKEN" "$1"; below kilobytes "$KILOBYTES" 60000; }

# --- real publishers ------------------------------------------------------------------------------------------------

# stock_says URL: what the stock helper's `info` says: path, number of references, references, sizes; sorted.
stock_says() {
    rm -rf "$WORK/stock-cache"
    stock_query "$1" "$PEERS_GUIX_ACL" "$WORK/stock-cache" info "$PEERS_LIST" | python3 -c '
import sys
lines = iter(sys.stdin.read().split("\n"))
for path in lines:
    if not path:
        break
    deriver = next(lines)
    references = [next(lines) for _ in range(int(next(lines)))]
    download, nar = next(lines), next(lines)
    print(path, nar, *sorted(references))
' | sort
}

we_say() {
    python3 -c '
import json, sys
for item in json.load(open(sys.argv[1]))["items"]:
    if item["status"] == "available":
        print(item["path"], item["nar_size"], *sorted(item["references"]))
' "$WORK/answer.json" | sort
}

# same_as_stock NAME URL: every path of the closure and ten that nobody has.
same_as_stock() {
    local log=$PEERS_LOG/publish-$1.log lines
    { cat "$PEERS_LIST"; for n in $(seq 10 19); do echo "/gnu/store/${n}zzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-nobody"; done; } > "$WORK/asked.list"
    lines=$(wc -l < "$log")
    ACL=$PEERS_GUIX_ACL ask "$1" "$2" "$WORK/asked.list"
    tail -n +$((lines + 1)) "$log" | grep -o '^GET .*\.narinfo' | sort > "$WORK/requests"
    expect_equal 'asked twice' "$(uniq -d "$WORK/requests" | wc -l)" 0
    expect_equal 'requests in the server log' "$(wc -l < "$WORK/requests")" $((PEERS_COUNT + 10))
    holds "by['available'] == $PEERS_COUNT and by['missing'] == 10"
    expect_equal status "$STATUS" 1
    we_say > "$WORK/ours"
    stock_says "$2" > "$WORK/stock"
    expect_equal 'items stock knows' "$(wc -l < "$WORK/stock")" "$PEERS_COUNT"
    diff "$WORK/ours" "$WORK/stock"
}

closure_of_tops() {
    ACL=$PEERS_GUIX_ACL ask closure "$PEERS_GUIX_CACHED_URL" "$PEERS_TOPS" --closure
    holds "by == {'available': $PEERS_COUNT} and summary['requests'] == $PEERS_COUNT"
}

# --- servers that are down -------------------------------------------------------------------------------------------

# one_of_three ORDER...: the same 200 items with a good server alone, then with a black hole and one that refuses.
one_of_three() {
    local alone urls="$*"
    ask "alone-${1##*/}" "$ODD/late-20" "$WORK/fill/list"
    alone=$SECONDS_TAKEN
    ask "three-${1##*/}" "$urls" "$WORK/fill/list"
    holds "by == {'available': 200}"
    below 'more than the good server alone' "$(awk -v a="$SECONDS_TAKEN" -v b="$alone" 'BEGIN { print a - b }')" 1
    if [ "$1" != "$ODD/late-20" ]; then
        holds "sum(server['state'] in ('down', 'slow') for server in servers) == 2"
        grep -q "$ODD/silent is not used" "$WORK/words"
        grep -q "$refuses is not used" "$WORK/words"
    fi
    # The next process does not wait at all: what is cached, and what is not.
    ask "three-${1##*/}" "$urls" "$WORK/fill/list"
    below 'next process' "$SECONDS_TAKEN" 0.3
    subst cache flush --root "$WORK/roots/three-${1##*/}" $(cat "$WORK/fill/list")
    ask "three-${1##*/}" "$urls" "$WORK/fill/list"
    holds "by == {'available': 200}"
    below 'next process that has to ask, more than the good server alone' \
        "$(awk -v a="$SECONDS_TAKEN" -v b="$alone" 'BEGIN { print a - b }')" 0.3
}

# Nobody has the item: the black hole costs its timeouts, once, and the item is unknown, not missing.
black_hole_alone() {
    head -n 3 "$WORK/fill/list" > "$WORK/few.list"
    ask hole "$ODD/silent" "$WORK/few.list" --stall-timeout 1
    holds "by == {'unknown': 3}"
    expect_equal status "$STATUS" 4
    below seconds "$SECONDS_TAKEN" 5
    ask hole "$ODD/silent $ODD/missing" "$WORK/few.list" --stall-timeout 1
    below 'next process' "$SECONDS_TAKEN" 0.3
    holds "by == {'unknown': 3} and said == {'skipped': 3, 'missing': 3}"
}

# The preferred server answers, but takes its time; the other one has everything at once.
trickling() {
    ask trickle "$ODD/trickle $ODD/good" "$WORK/fill/list"
    holds "by == {'available': 200}"
    below seconds "$SECONDS_TAKEN" 4
}

# A preferred server that is a little later than the other one is waited for, and is not called down.
a_little_later() {
    head -n 5 "$WORK/fill/list" > "$WORK/five.list"
    ask later "$ODD/late-100 $ODD/good" "$WORK/five.list"
    holds "by == {'available': 5} and all(item['server'].endswith('late-100') for item in items)"
    ask later2 "$ODD/good $ODD/late-400" "$WORK/five.list"
    holds "all(item['server'].endswith('good') for item in items)"
    ask later2 "$ODD/late-400" "$WORK/five.list"
    holds "by == {'available': 5}"
}

# --- odd servers ------------------------------------------------------------------------------------------------------

# odd KIND CODE SECONDS EXPRESSION: all 200 items from a server of that kind.
odd() {
    : > "$odd_log"
    ask "odd-$1" "$ODD/$1" "$WORK/fill/list"
    holds "$4"
    expect_equal status "$STATUS" "$2"
    bounded "$3"
}

# every one answered once: nothing that was answered is asked again.
answered_once() { expect_equal 'asked twice' "$(grep -c 'narinfo' "$odd_log")" 200; }

# Connections that break take requests with them, which are sent again.
odd_good() { odd "$1" 0 "$2" "by == {'available': 200} and summary['requests'] >= 200"; }
odd_once() { odd "$1" 0 "$2" "by == {'available': 200} and summary['requests'] == 200"; answered_once; }
odd_unknown() { odd "$1" 4 "$2" "by == {'unknown': 200} and said == {'failed': 200}"; }
odd_refused() { odd "$1" 3 "$2" "by == {'refused': 200} and items[0]['answers'][0]['reason'] == '$3'"; }

baking() {
    odd "$1" 1 5 "by == {'preparing': 200} and 25 <= items[0]['answers'][0]['expires_in'] <= 30"
    : > "$odd_log"
    ask "odd-$1" "$ODD/$1" "$WORK/fill/list"
    expect_equal 'asked again' "$(grep -c narinfo "$odd_log" || true)" 0
    holds "by == {'preparing': 200} and items[0]['answers'][0]['from_cache']"
}

not_kept() {
    odd_good kept-0 5
    : > "$odd_log"
    ask odd-kept-0 "$ODD/kept-0" "$WORK/fill/list"
    expect_equal 'asked again' "$(grep -c narinfo "$odd_log")" 200
}

kept() {
    odd_good kept-77 5
    holds "all(70 <= item['expires_in'] <= 77 for item in items)"
    : > "$odd_log"
    ask odd-kept-77 "$ODD/kept-77" "$WORK/fill/list"
    expect_equal 'asked again' "$(grep -c narinfo "$odd_log" || true)" 0
}

overloaded() {
    odd_good busy-3 8
    below 0.9 0.9 "$SECONDS_TAKEN"
}

remembers_that_it_closes() {
    odd_good close-7 10
    : > "$odd_log"
    ask odd-close-7 "$ODD/close-7" "$WORK/fill/list" --refresh
    holds "by == {'available': 200}"
    answered_once
}

check lookups-publish-cached same_as_stock cached "$PEERS_GUIX_CACHED_URL"
check lookups-publish-gzip same_as_stock gzip "$PEERS_GUIX_GZIP_URL"
check lookups-publish-none same_as_stock none "$PEERS_GUIX_NONE_URL"
check lookups-closure closure_of_tops
check lookups-one-of-three-first one_of_three "$ODD/late-20" "$ODD/silent" "$refuses"
check lookups-one-of-three-last one_of_three "$ODD/silent" "$refuses" "$ODD/late-20"
check lookups-black-hole-alone black_hole_alone
check lookups-trickling trickling
check lookups-a-little-later a_little_later
check lookups-odd-good odd_once good 5
check lookups-odd-close-1 odd_good close-1 10
check lookups-odd-close-7 remembers_that_it_closes
check lookups-odd-bytes odd_once bytes 10
check lookups-odd-continue odd_once continue 5
check lookups-odd-nolength odd_good nolength 10
check lookups-odd-half odd_unknown half 30
check lookups-odd-hugehead odd_unknown hugehead 30
check lookups-odd-hugebody odd_unknown hugebody 30
check lookups-odd-endless odd_unknown endless 30
check lookups-odd-garbage odd_unknown garbage 30
check lookups-odd-loop odd_unknown loop 30
check lookups-odd-away odd_good "away-http:%2F%2F127.0.0.1:$odd_port%2Fgood" 10
check lookups-odd-403 odd_unknown status-403 10
check lookups-odd-500 odd_unknown status-500 60
check lookups-odd-410 odd status-410 1 5 "by == {'missing': 200}"
check lookups-odd-busy overloaded
check lookups-odd-baking baking baking-30
check lookups-odd-accepted baking accepted-30
check lookups-odd-max-age-0 not_kept
check lookups-odd-max-age kept
check lookups-odd-other-item odd_refused other 5 wrong-item
check lookups-odd-corrupt odd_refused corrupt 5 signed-hash-mismatch
check lookups-odd-unsigned odd_refused unsigned 5 unsigned
