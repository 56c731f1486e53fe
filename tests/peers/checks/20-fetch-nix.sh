#!/bin/bash
# `subst fetch --store-dir /nix/store` from Nix caches that nix copy wrote; real Nix judges the result.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

fetch_from() {
    subst fetch --store-dir /nix/store --root "$1" --trusted-public-keys "$PEERS_NIX_KEY" --substitute-urls "$2" - < "$PEERS_NIX_TOPS"
}

closure_is_fetched() {
    fetch_from "$WORK/$1" "$2" > "$WORK/$1.out"
    diff <(sort "$WORK/$1.out") <(sort "$PEERS_NIX_TOPS")
}

same_as_stock() { compare --no-links --list "$PEERS_NIX_LIST" "$(nix_store)" "$WORK/$1"; }

nix_verifies() { root_nix "$WORK/$1" nix-store --store "local?root=$WORK/$1" --verify --check-contents; }

# path_info ROOT: the output of nix path-info for the closure, without the time of registration.
path_info() {
    root_nix "$1" sh -c "xargs nix path-info --store 'local?root=$1' --json --json-format 1" < "$PEERS_NIX_LIST" | python3 "$PEERS_HERE/print-path-info.py"
}

path_info_agrees() {
    path_info "$(nix_store)" > "$WORK/stock.info"
    path_info "$WORK/$1" > "$WORK/$1.info"
    expect_equal items "$(wc -l < "$WORK/$1.info")" "$PEERS_NIX_COUNT"
    diff "$WORK/stock.info" "$WORK/$1.info" | cut -c1-300 | head -n 20
    cmp "$WORK/stock.info" "$WORK/$1.info"
}

second_fetch_sends_no_requests() {
    clear_requests nix-zstd
    fetch_from "$WORK/zstd" "$PEERS_NIX_ZSTD_URL" > "$WORK/second.out"
    expect_equal requests "$(requests nix-zstd)" 0
}

check nix-stock-store nix_store
while read -r name url; do
    check "nix-$name-closure_is_fetched" closure_is_fetched "$name" "$url"
    check "nix-$name-same-as-stock" same_as_stock "$name"
done <<SERVERS
xz $PEERS_NIX_XZ_URL
zstd $PEERS_NIX_ZSTD_URL
SERVERS
check nix-second-sends-no-requests second_fetch_sends_no_requests
for name in xz zstd; do
    check "nix-$name-verify" nix_verifies "$name"
    check "nix-$name-path-info" path_info_agrees "$name"
done
