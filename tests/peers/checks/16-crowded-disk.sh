#!/bin/bash
# `subst fetch` on ext4 without a journal, where much has just been deleted: directories are made elsewhere, and nobody can tell.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
own_mounts "${BASH_SOURCE[0]}" "$@"
fresh_work
DISK=$WORK/disk
ROOT=$DISK/root

# fetch COMMAND...: the whole closure, by COMMAND subst.
fetch() {
    env -i PATH="$PATH" HOME="$WORK/home" "$@" "$SUBST" fetch --root "$ROOT" --acl "$PEERS_GUIX_ACL" \
        --substitute-urls "$PEERS_STATIC_URL" - < "$PEERS_TOPS"
}

made_elsewhere() {
    MKFS_OPTIONS='-O ^has_journal' fresh_disk "$DISK"
    fetch
    rm -r "$ROOT"
    # Inodes that were deleted in the very same second ext4 does take again.
    sleep 1.1
    fetch strace -f -e trace=renameat -o "$WORK/renames"
    # What is made elsewhere has a random name for a moment.
    grep -qE 'renameat\([0-9]+, "\.[0-9a-f]{16}", [0-9]+, "[^"]+"\) = 0' "$WORK/renames"
}

same_as_stock() { compare "$(stock_store)" "$ROOT"; }

# No directory of an item keeps the flag that has its entries made elsewhere.
no_flags() {
    lsattr -R "$ROOT/gnu/store" 2> /dev/null | grep -E '^[-a-zA-Z]{10,} ' > "$WORK/flags"
    grep -qF "$(tail -n 1 "$PEERS_TOPS")" "$WORK/flags"
    ! grep -E '^[^ ]*T' "$WORK/flags"
}

check crowded-disk-made-elsewhere made_elsewhere
check crowded-disk-same-as-stock same_as_stock
check crowded-disk-no-flags no_flags
drop_disk "$DISK"
