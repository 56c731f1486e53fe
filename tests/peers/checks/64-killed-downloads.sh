#!/bin/bash
# One large download on a slow line, killed (SIGKILL) at random moments and started again each time: what comes over the line is at
# most 1.05 of its size and 1 MiB for each kill, and the file is right. KILLS (default 5) sets how many runs are killed, SEED the
# moments, MEGABYTES (default 500) the size, and RATE (default 25000000) the bytes per second of the line. CONNECTIONS (default 4)
# is for subst.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

KILLS=${KILLS:-5}
MEGABYTES=${MEGABYTES:-500}
RATE=${RATE:-25000000}
CONNECTIONS=${CONNECTIONS:-4}
RANDOM=${SEED:-1}
# All runs together would take the whole time of the download: each gets a random part of its share.
LONGEST_MS=$((MEGABYTES * 1000000 / (RATE / 1000) * 18 / 10 / (KILLS + 1)))

read -r server line <<< "$(free_ports 2 | tr '\n' ' ')"
item=$(python3 "$PEERS_HERE/large-item.py" "$WORK/cache" "$MEGABYTES")
nar_size=$(stat -c %s "$WORK/cache/large.nar")
most_memory=0 most_disk=0

fetch() {
    exec env -i PATH="$PATH" HOME="$WORK/home" "$SUBST" fetch --root "$WORK/root" --store-dir /nix/store \
        --substitute-urls "http://127.0.0.1:$line" --connections "$CONNECTIONS" --progress none "$item"
}

# measure CLIENT: notes the memory that the client has used, and what is on the disk.
measure() {
    local memory disk
    memory=$(awk '$1 == "VmHWM:" { print $2 }' "/proc/$1/status" 2> /dev/null || true)
    disk=$(du -sk "$WORK/root" 2> /dev/null | cut -f1 || true)
    [ "${memory:-0}" -le "$most_memory" ] || most_memory=$memory
    [ "${disk:-0}" -le "$most_disk" ] || most_disk=$disk
}

# A run that is killed after a random time, if it has not ended.
kill_fetch() {
    local client milliseconds=$((RANDOM * LONGEST_MS / 32768))
    fetch > /dev/null 2>> "$WORK/killed.err" &
    client=$!
    sleep "$(printf '%d.%03d' $((milliseconds / 1000)) $((milliseconds % 1000)))"
    measure "$client"
    kill -KILL "$client" 2> /dev/null || true
    wait "$client" || true
}

last_fetch() {
    local client
    fetch > "$WORK/last.out" &
    client=$!
    while kill -0 "$client" 2> /dev/null; do measure "$client"; sleep 0.2; done
    wait "$client"
}

killed_downloads() {
    local sent most
    for _ in $(seq "$KILLS"); do kill_fetch; done
    expect 0 last_fetch
    expect_equal output "$(cat "$WORK/last.out")" "$item"
    service_stop line-proxy
    sent=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["bytes"])' "$WORK/totals.json")
    most=$((nar_size * 105 / 100 + KILLS * 1048576))
    printf '%s bytes for a download of %s, killed %s times; at most %s\n' "$sent" "$nar_size" "$KILLS" "$most"
    printf 'memory %s KiB, disk %s KiB\n' "$most_memory" "$most_disk"
    [ "$sent" -le "$most" ] || return 1
    tail -c +97 "$WORK/cache/large.nar" | head -c $((MEGABYTES * 1000000)) | cmp - "$WORK/root$item"
    expect_equal 'unfinished downloads' "$(find "$WORK/root/nix/var/nix/subst/partial" -type f | wc -l)" 0
}

trap 'service_stop nginx-large; service_stop line-proxy' EXIT
printf 'large %s %s -\n' "$server" "$WORK/cache" | nginx_start nginx-large
service_start line-proxy python3 "$PEERS_HERE/bench/line-proxy.py" "$line" "$server" "$RATE" --round-trip 40 --totals "$WORK/totals.json"
wait_for 10 port_open "$server"
wait_for 10 port_open "$line"
check killed-downloads killed_downloads
