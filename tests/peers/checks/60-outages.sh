#!/bin/bash
# Servers that fail in the middle of a closure: killed and started again, gone for good, or silent. The fetch completes where any
# server can still serve, and ends with exit status 4 and one line per server where none can.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

# slow_server PORT: nginx with the cached publisher's files, so slow that the closure takes about half a minute.
slow_server() { printf 'outage %s %s 1\n' "$1" "$PEERS_STATIC_DIR" | NGINX_LIMIT_RATE=1200k nginx_start nginx-outage; wait_for 10 port_open "$1"; }

# fetch ROOT URLS [OPTION]...: the whole closure.
fetch() {
    local root=$1 urls=$2; shift 2
    subst fetch --root "$root" --acl "$PEERS_GUIX_ACL" --substitute-urls "$urls" --progress plain "$@" - < "$PEERS_TOPS"
}

items() { find "$1/gnu/store" -mindepth 1 -maxdepth 1 ! -name '.*' ! -name '*.tmp' ! -name '*.lock' 2> /dev/null | wc -l; }
has_items() { [ "$(items "$1")" -ge "$2" ]; }

# is_complete ROOT: the same store as the stock client's, and nothing left.
is_complete() {
    compare "$(stock_store)" "$1"
    expect_equal leftovers "$(find "$1/gnu/store" -maxdepth 1 \( -name '*.lock' -o -name '*.tmp' \) | wc -l)" 0
}

# killed_for SECONDS: the only server dies when some items are there, and is back after SECONDS.
killed_for() {
    local port root=$WORK/killed-$1 client
    port=$(free_ports 1)
    slow_server "$port"
    fetch "$root" "http://127.0.0.1:$port" > "$WORK/killed-$1.out" 2> "$WORK/killed-$1.err" &
    client=$!
    wait_for 60 has_items "$root" 20
    kill -KILL -- "-$(cut -d' ' -f1 "$PEERS_RUN/nginx-outage.pid")"
    sleep "$1"
    slow_server "$port"
    expect 0 wait "$client" || { tail -n 5 "$WORK/killed-$1.err"; return 1; }
    service_stop nginx-outage
    grep -i 'retrying' "$WORK/killed-$1.err" | head -n 3
    is_complete "$root"
}

# The only server dies for good: the retry time, then exit status 4; the next run completes what is missing.
gone_for_good() {
    local port root=$WORK/gone client began
    port=$(free_ports 1)
    slow_server "$port"
    fetch "$root" "http://127.0.0.1:$port" --retry-time 5s > "$WORK/gone.out" 2> "$WORK/gone.err" &
    client=$!
    wait_for 60 has_items "$root" 20
    kill -KILL -- "-$(cut -d' ' -f1 "$PEERS_RUN/nginx-outage.pid")"
    began=$(now)
    expect 4 wait "$client" || { tail -n 5 "$WORK/gone.err"; return 1; }
    printf 'gave up after %s s\n' "$(since "$began")"
    expect_equal leftovers "$(find "$root/gnu/store" -maxdepth 1 \( -name '*.lock' -o -name '*.tmp' \) | wc -l)" 0
    fetch "$root" "$PEERS_STATIC_URL" > /dev/null
    is_complete "$root"
}

# silent WHERE: a server that falls silent there stands before the good one; 20 s more than the good one alone at the most.
silent() {
    local port root=$WORK/silent-$1 began alone together
    began=$(now)
    fetch "$root-alone" "$PEERS_STATIC_URL" > /dev/null
    alone=$(since "$began")
    port=$(free_ports 1)
    service_start stalling-server python3 "$PEERS_HERE/stalling-server.py" "$port" "$PEERS_STATIC_DIR" "$1"
    wait_for 10 port_open "$port"
    began=$(now)
    fetch "$root" "http://127.0.0.1:$port $PEERS_STATIC_URL" > /dev/null 2> "$WORK/silent-$1.err"
    together=$(since "$began")
    service_stop stalling-server
    printf 'the good server alone: %s s, behind a silent one: %s s\n' "$alone" "$together"
    is_complete "$root"
    awk -v a="$alone" -v b="$together" 'BEGIN { exit !(b < a + 20) }'
}

trap 'service_stop nginx-outage; service_stop stalling-server' EXIT
check stock-store stock_store
for seconds in 3 20 50; do check "outage-killed-for-$seconds-s" killed_for "$seconds"; done
check outage-server-stays-down gone_for_good
for where in accept head headers body; do check "outage-silent-$where" silent "$where"; done
