#!/bin/bash
# A real `guix publish` with an empty cache answers 404 with X-Baking at first: `fetch --wait` gets the whole closure in one command, and so
# does a real guix-daemon whose helper waits.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

# A few items with what they refer to: each level has to be prepared before the next one is known.
top() { grep -- '-libgit2-1' "$PEERS_LIST" | grep -v -- -dev | head -n 1; }

# publisher_start NAME: a publisher that has prepared nothing; prints its URL.
publisher_start() {
    local port
    port=$(free_ports 1)
    mkdir -p "$WORK/cache-$1"
    service_start "$1" "$PEERS_HERE/enter" --bind "$WORK/cache-$1" /subst-publish-cache \
        guix publish --listen=127.0.0.1 -p "$port" --cache=/subst-publish-cache --cache-bypass-threshold=0 -C zstd:3 --workers=2
    wait_for 30 port_open "$port"
    printf 'http://127.0.0.1:%s\n' "$port"
}

# valid ROOT: how many items are valid.
valid() { sqlite3 "$1" 'select count(*) from ValidPaths'; }

with_fetch() {
    local url root=$WORK/root
    url=$(publisher_start preparing-fetch)
    expect 1 subst fetch --root "$root" --acl "$PEERS_GUIX_ACL" --substitute-urls "$url" "$(top)" 2> "$WORK/without"
    grep -q 'hint: .*--wait 10m' "$WORK/without"
    expect 0 subst fetch --wait 5m --progress plain --root "$root" --acl "$PEERS_GUIX_ACL" --substitute-urls "$url" "$(top)" 2> "$WORK/with"
    cat "$WORK/with"
    grep -q 'being prepared by the server, waiting (0:0' "$WORK/with"
    [ "$(valid "$root/var/guix/db/db.sqlite")" -gt 5 ]
    root_guix "$root" guix gc --verify=contents
    service_stop preparing-fetch
}

with_daemon() {
    local url
    url=$(publisher_start preparing-daemon)
    client_new "$WORK/client"
    top > "$WORK/list"
    CLIENT_DAEMON_FLAGS='' client_realize "$WORK/client" "$url" "$WORK/list" \
        --bind "$SUBST" /opt/subst/guix --env GUIX=/opt/subst/guix --env SUBST_HELPER_WAIT=5m || { tail "$WORK/client/log"; return 1; }
    grep -q 'being prepared by the server' "$WORK/client/log"
    [ "$(valid "$WORK/client/var/db/db.sqlite")" -gt 5 ]
    service_stop preparing-daemon
}

check preparing-fetch with_fetch
check preparing-daemon with_daemon
