#!/bin/bash
# Power cuts while and after `subst fetch`: every valid item has its right bytes.
#
# After the end: ext4 in a file is shut down without writing its journal. During a fetch: a loop device on a file that logs its writes and flushes,
# replayed to CUTS random instants (default 10; 100 for the figures in docs/explanation/reliability.md), with SEED (default: the time).
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
own_mounts "${BASH_SOURCE[0]}" "$@"
fresh_work
DISK=$WORK/disk
BLOCKS=$WORK/blocks
SIZE=$((2 << 30))
CUTS=${CUTS:-10}
SEED=${SEED:-$(date +%s)}
# Some of the closure, so that it takes seconds and not minutes; TOPS=all for all of it.
[ "${TOPS:-}" = all ] && TOPS=$(cat "$PEERS_TOPS") || TOPS=${TOPS:-$(head -n 12 "$PEERS_TOPS")}

# fetch WHAT ARGUMENT...: fetch with --sync WHAT to the disk.
fetch() {
    local what=$1; shift
    subst fetch --sync "$what" --root "$DISK/root" --acl "$PEERS_GUIX_ACL" --substitute-urls "$PEERS_STATIC_URL" "$@"
}

# cut_and_mount: a power cut now; the disk is mounted again as it was written.
cut_and_mount() {
    python3 "$PEERS_HERE/cut-power.py" "$DISK"
    umount "$DISK"
    mount -o loop "$DISK.img" "$DISK"
}

store_is_sound() { python3 "$PEERS_HERE/check-cut-store.py" "$DISK/root" "$@"; }

# after_the_end WHAT: the power is cut as soon as the fetch has ended.
after_the_end() {
    fresh_disk "$DISK"
    # shellcheck disable=SC2086
    fetch "$1" $TOPS > "$WORK/reported"
    cut_and_mount
    [ "$1" = full ] || : > "$WORK/reported"
    store_is_sound "$WORK/reported"
}

# Shows that the cut is one: without waiting for the disk, items are lost.
cut_is_noticed() { expect 1 after_the_end none; }

# The whole tree has its name, or nothing has.
output_after_the_end() {
    local item
    item=$(head -n 2 "$PEERS_TOPS" | tail -n 1)
    fresh_disk "$DISK"
    fetch items "$item" > "$WORK/reported"
    cp -a "$DISK/root$item" "$WORK/expected"
    fresh_disk "$DISK"
    subst fetch --sync full --output "$DISK/tree" --acl "$PEERS_GUIX_ACL" --substitute-urls "$PEERS_STATIC_URL" "$item"
    cut_and_mount
    diff -r --no-dereference "$WORK/expected" "$DISK/tree"
}

# What the helper has answered for is on the disk.
helper_after_the_end() {
    local item
    item=$(head -n 2 "$PEERS_TOPS" | tail -n 1)
    fresh_disk "$DISK"
    mkdir "$DISK/state"
    printf 'substitute %s %s\n' "$item" "$DISK/tree" | env -i PATH="$PATH" HOME="$WORK/home" GUIX_STATE_DIRECTORY="$DISK/state" \
        _NIX_OPTIONS="substitute-urls=$PEERS_STATIC_URL" SUBST_ACL="$PEERS_GUIX_ACL" SUBST_SYNC=items \
        sh -c 'exec 4>&1 1>&2; exec "$0" substitute --substitute' "$SUBST" > "$WORK/reply"
    grep '^success ' "$WORK/reply"
    cut_and_mount
    diff -r --no-dereference "$WORK/expected" "$DISK/tree"
}

# logged WHAT: fetch with --sync WHAT to a disk whose writes are logged in BLOCKS.
logged() {
    local device name
    drop_disk "$DISK"
    mkdir -p "$DISK" "$WORK/log"
    python3 "$PEERS_HERE/block-log.py" "$WORK/log" "$SIZE" "$BLOCKS" &
    wait_for 10 test -e "$WORK/log/disk"
    device=$(losetup --find --show "$WORK/log/disk")
    PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q "$device"
    mount "$device" "$DISK"
    rmdir "$DISK/lost+found"
    sync -f "$DISK"

    echo start > "$WORK/log/mark"
    # shellcheck disable=SC2086
    fetch "$1" $TOPS | while read -r name; do printf '%s\n' "$name" > "$WORK/log/mark"; done
    umount "$DISK"
    losetup --detach "$device"
    umount "$WORK/log"
    wait
}

# during WHAT: cuts at random instants of a fetch with --sync WHAT.
during() {
    logged "$1"
    python3 "$PEERS_HERE/replay-cuts.py" "$BLOCKS" "$SIZE" "$CUTS" "$SEED" "$WORK/image" "$PEERS_HERE/check-cut-image" "$1" "$WORK/image"
}

# The same for cuts during a fetch.
cuts_are_noticed() { expect 1 during none; }

check power-cut-is-noticed cut_is_noticed
check power-cut-after-items after_the_end items
check power-cut-after-full after_the_end full
check power-cut-after-output output_after_the_end
check power-cut-after-helper-reply helper_after_the_end
check power-cuts-during-fetch-are-noticed cuts_are_noticed
check power-cuts-during-items during items
check power-cuts-during-full during full
drop_disk "$DISK"
rm -rf --one-file-system "$WORK"/image* "$BLOCKS"
