#!/bin/bash
# Servers that fail in the middle of the lookups or the downloads of a closure: killed and started again, out of reach, gone for good,
# silent, trickling, or refusing requests for being too many. The fetch completes where any server can still serve, with few extra bytes, and ends with exit status 4
# and one line per server where none can.
# OUTAGES: for how many seconds servers are away (default: 3 20 50).
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

# far_server: the same in a network namespace of its own, at FAR_URL; `far_bytes` counts what it sends.
FAR_URL=http://198.18.60.2:8080
far_network() {
    ip netns add subst-outage
    ip link add subst-outage0 type veth peer name subst-outage1 netns subst-outage
    ip address add 198.18.60.1/30 dev subst-outage0
    ip link set subst-outage0 up
    ip -n subst-outage address add 198.18.60.2/30 dev subst-outage1
    ip -n subst-outage link set subst-outage1 up
    : > "$PEERS_LOG/nginx-outage.access.log"
}
far_server() {
    printf 'outage 8080 %s 1\n' "$PEERS_STATIC_DIR" | NGINX_LIMIT_RATE=${NGINX_LIMIT_RATE:-1200k} nginx_conf nginx-outage \
        | sed "s/listen 127.0.0.1:/listen 198.18.60.2:/; s/^http {/&\n    limit_req_zone \$server_port zone=all:1m rate=20r\/s; ${FAR_LIMIT:-}/" > "$PEERS_RUN/nginx-outage.conf"
    service_start nginx-outage ip netns exec subst-outage nginx -e "$PEERS_LOG/nginx-outage.error.log" -c "$PEERS_RUN/nginx-outage.conf"
    wait_for 10 bash -c ': < /dev/tcp/198.18.60.2/8080'
}
far_bytes() { cat /sys/class/net/subst-outage0/statistics/rx_bytes; }
far_stop() {
    service_stop nginx-outage
    ip netns del subst-outage 2> /dev/null || true
}

# few_extra_bytes SENT: that is less than 5 % more than all nars that the server was asked for have.
few_extra_bytes() {
    python3 - "$1" "$PEERS_LOG/nginx-outage.access.log" "$PEERS_STATIC_DIR" <<'PYTHON'
import os, sys, urllib.parse
sent, log, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3]
files = {urllib.parse.unquote(line.split()[1]) for line in open(log) if " /nar/" in line}
whole = sum(os.path.getsize(directory + file) for file in files)
print(f"{sent} bytes sent for nars of {whole} bytes")
sys.exit(sent > 1.05 * whole)
PYTHON
}

# away_for SECONDS HOW: the only server is away when some items are there, and is back after SECONDS. HOW: `killed`, or `unreachable`: it
# stays up, but nothing that it sends arrives.
away_for() {
    local root=$WORK/$2-$1 client sent
    far_stop
    far_network
    far_server
    fetch "$root" "$FAR_URL" > "$root.out" 2> "$root.err" &
    client=$!
    wait_for 60 has_items "$root" 20
    if [ "$2" = killed ]; then
        kill -KILL -- "-$(cut -d' ' -f1 "$PEERS_RUN/nginx-outage.pid")"
        sleep "$1"
        far_server
    else
        ip -n subst-outage route add blackhole 198.18.60.1/32
        sleep "$1"
        ip -n subst-outage route del blackhole 198.18.60.1/32
    fi
    expect 0 wait "$client" || { tail -n 5 "$root.err"; return 1; }
    sent=$(far_bytes)
    far_stop
    # A short outage is not noticed: the system sends again what was lost.
    grep -i 'retrying' "$root.err" | head -n 3 || true
    few_extra_bytes "$sent"
    is_complete "$root"
}

# away_in_lookups HOW: the only server answers 20 lookups in a second; it is away when some are answered, and is back after 12 s. HOW:
# `killed`, `unreachable`, or `gateway`: killed behind another server, which answers with 502.
away_in_lookups() {
    local root=$WORK/lookups-$1 url=$FAR_URL port client
    far_stop
    far_network
    slow_lookups
    if [ "$1" = gateway ]; then
        port=$(free_ports 1)
        url=http://127.0.0.1:$port
        printf 'gateway %s %s -\n' "$port" "$PEERS_STATIC_DIR" | nginx_conf nginx-gateway \
            | sed "s|location ~ .*|location / { proxy_pass $FAR_URL; }|" > "$PEERS_RUN/nginx-gateway.conf"
        service_start nginx-gateway nginx -e "$PEERS_LOG/nginx-gateway.error.log" -c "$PEERS_RUN/nginx-gateway.conf"
        wait_for 10 port_open "$port"
    fi
    fetch "$root" "$url" --stall-timeout 4s > "$root.out" 2> "$root.err" &
    client=$!
    wait_for 60 narinfos_sent 30
    if [ "$1" = unreachable ]; then
        ip -n subst-outage route add blackhole 198.18.60.1/32
        sleep 12
        ip -n subst-outage route del blackhole 198.18.60.1/32
    else
        kill -KILL -- "-$(cut -d' ' -f1 "$PEERS_RUN/nginx-outage.pid")"
        sleep 12
        slow_lookups
    fi
    expect 0 wait "$client" || { tail -n 5 "$root.err"; return 1; }
    far_stop
    service_stop nginx-gateway
    grep -i 'retrying' "$root.err" | head -n 3
    is_complete "$root"
}
narinfos_sent() { [ "$(grep -c '\.narinfo 200' "$PEERS_LOG/nginx-outage.access.log")" -ge "$1" ]; }
slow_lookups() { NGINX_LIMIT_RATE=0 FAR_LIMIT='limit_req zone=all burst=10000;' far_server; }

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

# timed NAME ROOT URLS: a fetch that begins when what earlier ones wrote is on the disk; its seconds are a line of WORK/NAME.seconds.
timed() {
    local began
    sync -f "$WORK"
    began=$(now)
    fetch "$2" "$3" > /dev/null 2>> "$WORK/$1.err"
    since "$began" >> "$WORK/$1.seconds"
    echo >> "$WORK/$1.seconds"
}

# mixed: servers that fall silent in three places and one that trickles stand before the good one; 20 s more than the good one alone
# at the most, and 1 s more when the lookup cache knows them. The bars are about these servers, not about other work of the machine: the
# good one alone and the others with the cache alternate, and the fastest of each count.
mixed() {
    local root=$WORK/mixed urls='' where port round alone first again
    for where in accept headers body trickle; do
        port=$(free_ports 1)
        service_start "stalling-$where" python3 "$PEERS_HERE/stalling-server.py" "$port" "$PEERS_STATIC_DIR" "$where"
        wait_for 10 port_open "$port"
        urls="$urls http://127.0.0.1:$port"
    done

    timed mixed-first "$root" "$urls $PEERS_STATIC_URL"
    is_complete "$root"
    for round in 1 2 3; do
        timed mixed-alone "$root-alone" "$PEERS_STATIC_URL"
        rm -rf "$root-alone"
        mkdir -p "$root-again/var/guix"
        cp -r "$root/var/guix/subst" "$root-again/var/guix/subst"
        timed mixed-again "$root-again" "$urls $PEERS_STATIC_URL"
        is_complete "$root-again"
        rm -rf "$root-again"
    done
    for where in accept headers body trickle; do service_stop "stalling-$where"; done

    first=$(cat "$WORK/mixed-first.seconds")
    alone=$(sort -n "$WORK/mixed-alone.seconds" | head -n 1)
    again=$(sort -n "$WORK/mixed-again.seconds" | head -n 1)
    printf 'the good server alone: %s s, behind four bad ones: %s s, once more: %s s\n' "$alone" "$first" "$again"
    awk -v a="$alone" -v b="$first" -v c="$again" 'BEGIN { exit !(b < a + 20 && c < a + 1) }'
}

# too_many STATUS RATE BURST: the only server answers RATE requests in a second, BURST at once, and refuses the others.
too_many() {
    local port root=$WORK/too-many-$1
    port=$(free_ports 1)
    printf 'outage %s %s 1\n' "$port" "$PEERS_STATIC_DIR" | nginx_conf nginx-outage \
        | sed "s/^http {/&\n    limit_req_zone \$server_port zone=all:1m rate=$2r\/s; limit_req_status $1; limit_req zone=all burst=$3 nodelay;/" > "$PEERS_RUN/nginx-outage.conf"
    : > "$PEERS_LOG/nginx-outage.access.log"
    service_start nginx-outage nginx -e "$PEERS_LOG/nginx-outage.error.log" -c "$PEERS_RUN/nginx-outage.conf"
    wait_for 10 port_open "$port"
    fetch "$root" "http://127.0.0.1:$port" > "$root.out" 2> "$root.err" || { tail -n 20 "$root.err"; return 1; }
    service_stop nginx-outage
    awk -v status="$1" '$3 == status { refused++ } END { print refused + 0, "of", NR, "requests were refused"; exit refused + 0 == 0 }' "$PEERS_LOG/nginx-outage.access.log"
    is_complete "$root"
}

stop_all() {
    local where
    far_stop
    service_stop nginx-gateway
    for where in server accept headers body trickle; do service_stop "stalling-$where"; done
}
trap stop_all EXIT
check stock-store stock_store
for seconds in ${OUTAGES:-3 20 50}; do
    check "outage-killed-for-$seconds-s" away_for "$seconds" killed
    check "outage-unreachable-for-$seconds-s" away_for "$seconds" unreachable
done
for how in killed unreachable gateway; do check "outage-in-lookups-$how" away_in_lookups "$how"; done
check outage-server-stays-down gone_for_good
check outage-four-bad-servers mixed
check outage-too-many-requests-503 too_many 503 100 20
check outage-too-many-requests-429 too_many 429 20 5
for where in accept head headers body; do check "outage-silent-$where" silent "$where"; done
