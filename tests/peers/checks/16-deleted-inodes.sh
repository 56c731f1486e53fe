#!/bin/bash
# `subst fetch` on ext4 without a journal, where much has just been deleted: directories are created away from the deleted inodes, without visible effects.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
own_mounts "${BASH_SOURCE[0]}" "$@"
fresh_work
DISK=$WORK/disk
ROOT=$DISK/root
# mkfs.ext4 keeps so many inodes together: 16 groups of 8192.
INODES_TOGETHER=$((8192 * 16))

fetch() { subst fetch --root "$ROOT" --acl "$PEERS_GUIX_ACL" --substitute-urls "$PEERS_STATIC_URL" - < "$PEERS_TOPS"; }

# scattered: how many items have directories in more than one place of the disk.
scattered() {
    (cd "$ROOT/gnu/store" && find . -mindepth 1 -type d ! -path './.links*' -printf '%P %i\n') \
        | awk -v together="$INODES_TOGETHER" '{ sub("/.*", "", $1); print $1, int(($NF - 1) / together) }' \
        | sort -u | cut -d' ' -f1 | uniq -d | wc -l
}

made_elsewhere() {
    local before after
    OWN_DISK='' DISK_SIZE=256G MKFS_OPTIONS='-O ^has_journal' fresh_disk "$DISK"
    fetch
    before=$(scattered)
    rm -r "$ROOT"
    # Inodes that were deleted in the very same second ext4 does take again.
    sleep 1.1
    fetch
    after=$(scattered)
    echo "$before items scattered, after the deletion $after"
    # Not compared: a busy machine takes so long for some directories that they are made elsewhere before too.
    [ "$after" -ge 10 ]
}

same_as_stock() { compare "$(stock_store)" "$ROOT"; }

# No directory of an item keeps the flag by which others are made elsewhere.
no_flags() {
    lsattr -Ra "$ROOT/gnu/store" 2> /dev/null | grep -E '^[-a-zA-Z]{10,} ' | grep -v '/\.\.\?$' > "$WORK/flags"
    [ "$(wc -l < "$WORK/flags")" -gt "$PEERS_COUNT" ]
    ! grep -E '^[^ ]*T' "$WORK/flags"
}

check deleted-inodes-made-elsewhere made_elsewhere
check deleted-inodes-same-as-stock same_as_stock
check deleted-inodes-no-flags no_flags
drop_disk "$DISK"
