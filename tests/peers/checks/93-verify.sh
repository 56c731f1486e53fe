#!/bin/bash
# `subst verify` finds every damaged file of a closure, and --repair makes the store that of the stock client again, also when it is
# killed; real guix-daemon and real Nix judge the result. FLIPS (default 100) bits are flipped and DELETIONS (default 10) files deleted
# at random (SEED); KILLS (default 5) repairs are killed.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

FLIPS=${FLIPS:-100}
DELETIONS=${DELETIONS:-10}
KILLS=${KILLS:-5}
SEED=${SEED:-1}
RANDOM=$SEED

guix_subst() { subst "$@" --root "$WORK/guix" --acl "$PEERS_GUIX_ACL" --substitute-urls "$PEERS_STATIC_URL"; }
nix_subst() {
    subst "$@" --root "$WORK/nix" --store-dir /nix/store --trusted-public-keys "$PEERS_NIX_KEY" --substitute-urls "$PEERS_NIX_ZSTD_URL"
}

fetch_all() {
    guix_subst fetch - < "$PEERS_TOPS" > "$WORK/guix.out"
    nix_subst fetch - < "$PEERS_NIX_LIST" > "$WORK/nix.out"
    guix_subst verify
    nix_subst verify
}

# damage KIND STORE: the list of damaged items and entries is KIND.damaged.
damage() { python3 "$PEERS_HERE/damage-store.py" "$2" "$FLIPS" "$DELETIONS" "$SEED" > "$WORK/$1.damaged"; }

# found JSON: the same of what was found.
found() {
    python3 - "$1" <<'PYTHON'
import json, sys
findings = json.load(open(sys.argv[1]))["findings"]
paths = {finding["path"] for finding in findings if finding["status"] in ("damaged", "missing")}
items = sorted(path.split("/")[3] for path in paths if "/.links/" not in path)
entries = sorted(path.split("/")[4] for path in paths if "/.links/" in path)
print(*items, "", *entries, sep="\n")
PYTHON
}

# findings KIND: KIND.json.
findings() { "$1_subst" verify --json > "$WORK/$1.json"; }

# all_are_found KIND STORE
all_are_found() {
    damage "$1" "$2"
    expect 3 findings "$1"
    diff "$WORK/$1.damaged" <(found "$WORK/$1.json")
}

# items_of LIST: the items in what `damage` or `found` has printed.
items_of() { sed '/^$/q' "$1" | sed '/^$/d' | sort; }

# killed_repairs KIND STORE: none makes a missing tree of a damaged one, wherever in its work it is killed.
killed_repairs() {
    local client killed=0 _
    for _ in $(seq "$KILLS"); do
        # The process itself, and not a shell that waits for it.
        (
            subst() { exec env -i PATH="$PATH" HOME="$WORK/home" "$SUBST" "$@"; }
            "$1_subst" verify --repair
        ) > "$WORK/killed.out" 2>&1 &
        client=$!
        sleep "$((RANDOM % 2)).$(printf %03d "$((RANDOM % 1000))")"
        kill -KILL "$client" 2> /dev/null || true
        # 137: it was at work.
        if wait "$client"; then :; elif [ $? = 137 ]; then killed=$((killed + 1)); fi
        findings "$1" || [ $? = 3 ]
        found "$WORK/$1.json" > "$WORK/$1.found"
        expect_equal 'newly damaged' "$(comm -13 <(items_of "$WORK/$1.damaged") <(items_of "$WORK/$1.found"))" ''

        # The next one has work too.
        if [ -z "$(items_of "$WORK/$1.found")" ]; then damage "$1" "$2"; fi
    done
    echo "$killed of $KILLS were at work"
}

all_are_repaired() {
    "$1_subst" verify --repair
    "$1_subst" verify
}

same_as_stock() { compare "$(stock_store)" "$WORK/guix"; }
guix_agrees() { root_guix "$WORK/guix" guix gc --verify=contents; }
nix_agrees() { root_nix "$WORK/nix" nix-store --store "local?root=$WORK/nix" --verify --check-contents; }

check verify-stock-store stock_store
check verify-fetched fetch_all
check verify-guix-finds-all all_are_found guix "$WORK/guix/gnu/store"
check verify-guix-killed-repairs killed_repairs guix "$WORK/guix/gnu/store"
check verify-guix-repairs-all all_are_repaired guix
check verify-guix-same-as-stock same_as_stock
check verify-guix-daemon guix_agrees
check verify-nix-finds-all all_are_found nix "$WORK/nix/nix/store"
check verify-nix-repairs-all all_are_repaired nix
check verify-nix nix_agrees
chmod -R u+w "$WORK" && rm -rf --one-file-system "$WORK/guix" "$WORK/nix"
