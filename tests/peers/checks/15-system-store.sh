#!/bin/bash
# `subst fetch` into the system's store, shared with a real guix-daemon and its collector while they work.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work
cp "$SUBST" "$WORK/subst"

# inside FLAGS COMMAND...: beside a guix-daemon with an own, empty system store.
inside() {
    local flags=$1; shift
    client_enter "$WORK/client" --bind "$WORK" /subst-work --bind "$PEERS_GUIX_ACL" /etc/guix/acl \
        sh /subst-peers/inside/with-daemon "$flags" "$@"
}

# Everything closure_is_fetched though the collector runs all the time, and what stays behind is sound.
under_gc() {
    client_new "$WORK/client"
    cp "$PEERS_TOPS" "$WORK/tops"
    local collections
    collections=$(inside --no-substitutes sh /subst-peers/inside/fetch-under-gc /subst-work/subst "$PEERS_STATIC_URL" /subst-work/tops)
    echo "$collections collections"
    [ "$collections" -ge 1 ]
}

# Once the fetch is over nothing protects the items: the collector takes all of them, and leaves nothing of ours behind.
nothing_left() {
    inside --no-substitutes guix gc
    local left
    left=$(find "$WORK/client/store" -mindepth 1 -maxdepth 1 ! -name .links ! -name trash)
    expect_equal 'left in the store' "$left" ''
    expect_equal 'left in temproots' "$(find "$WORK/client/var/temproots" -type f 2> /dev/null)" ''
}

# The daemon and subst fetch the same closure at the same time, into the same store.
beside_daemon() {
    cp "$PEERS_LIST" "$WORK/list"
    # shellcheck disable=SC2016
    inside "--substitute-urls=$PEERS_STATIC_URL" sh -c '
        /subst-work/subst fetch --substitute-urls "$1" - < /subst-work/tops > /tmp/ours 2>&1 & ours=$!
        guix repl /subst-peers/scheme/realize.scm /subst-work/list > /tmp/theirs 2>&1 || { cat /tmp/theirs; exit 1; }
        wait $ours || { cat /tmp/ours; exit 1; }
        guix gc --verify=contents' sh "$PEERS_STATIC_URL"
    mkdir -p "$WORK/as-root/gnu" "$WORK/as-root/var"
    ln -sfn "$WORK/client/store" "$WORK/as-root/gnu/store"
    ln -sfn "$WORK/client/var" "$WORK/as-root/var/guix"
    compare --list "$PEERS_LIST" "$(stock_store)" "$WORK/as-root"
}

# A store on a read-only mount, as on Guix System: made writable for us alone.
read_only_mount() {
    inside --no-substitutes guix gc
    # shellcheck disable=SC2016
    inside --no-substitutes sh -c '
        mount --bind /gnu/store /gnu/store && mount -o remount,ro,bind /gnu/store
        /subst-work/subst fetch --substitute-urls "$1" "$2" && ! touch /gnu/store/x 2> /dev/null' sh \
        "$PEERS_STATIC_URL" "$(tail -n 1 "$PEERS_TOPS")"
}

# The daemon is an ordinary user, as on Debian: its collector has to be able to remove what root has fetched, and what a fetch
# that was killed has left.
unprivileged_daemon() {
    client_new "$WORK/client"
    cp "$PEERS_TOPS" "$WORK/tops"
    # Makes what only root can make.
    inside --no-substitutes guix gc > "$WORK/first-gc" 2>&1
    # shellcheck disable=SC2016
    client_enter "$WORK/client" --bind "$WORK" /subst-work --bind "$PEERS_GUIX_ACL" /etc/guix/acl --env DAEMON_USER=4711 \
        sh -c 'chown -R 4711:4711 /gnu/store /var/guix
        exec sh /subst-peers/inside/with-daemon --no-substitutes sh -c "$@"' sh '
        set -e
        for seconds in 0.2 0.5 0.8; do
            timeout --signal=KILL $seconds /subst-work/subst fetch --limit-rate 10M --substitute-urls "$1" - < /subst-work/tops || :
            guix gc
        done
        /subst-work/subst fetch --substitute-urls "$1" - < /subst-work/tops
        guix gc --verify=contents
        find /gnu/store /var/guix ! -user 4711 ! -path "/var/guix/subst*" > /subst-work/of-root
        guix gc' sh "$PEERS_STATIC_URL"
    expect_equal 'not of the user' "$(cat "$WORK/of-root")" ''
    local left
    left=$(find "$WORK/client/store" -mindepth 1 -maxdepth 1 ! -name .links ! -name trash)
    expect_equal 'left in the store' "$left" ''
    expect_equal 'left in temproots' "$(find "$WORK/client/var/temproots" -type f 2> /dev/null)" ''
}

check system-fetch-under-gc under_gc
check system-nothing-left nothing_left
check system-beside-daemon beside_daemon
check system-read-only-mount read_only_mount
check system-unprivileged-daemon unprivileged_daemon
