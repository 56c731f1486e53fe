#!/bin/bash
# `subst mirror` to a directory: the closures of guix publish, nginx and a Nix cache are copied byte for byte; stock clients fetch
# them from the mirror; runs that are killed (SIGKILL) leave no narinfo without its nar or its references, as a checker says
# that has no code of the program. KILLS (default 10) sets how many runs are killed, SEED the moments.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

KILLS=${KILLS:-10}
RANDOM=${SEED:-1}

mirror_guix() { subst mirror --acl "$PEERS_GUIX_ACL" --substitute-urls "$2" --to "$WORK/$1" --list "$PEERS_TOPS" "${@:3}"; }

mirror_nix() {
    subst mirror --store-dir /nix/store --trusted-public-keys "$PEERS_NIX_KEY" --substitute-urls "$2" --to "$WORK/$1" --list "$PEERS_NIX_TOPS"
}

checked() { python3 "$PEERS_HERE/check-mirror.py" "$@"; }

# same_files SERVER MIRROR: every narinfo and nar of the mirror is that of the server's directory.
same_files() {
    local file
    (cd "$2" && find . -type f ! -path './subst/*' ! -name nix-cache-info) | while read -r file; do
        cmp "$1/$file" "$2/$file" || return 1
    done
}

guix_is_copied() {
    mirror_guix static "$PEERS_STATIC_URL" > "$WORK/static.out"
    expect_equal narinfos "$(checked "$WORK/static" | cut -d' ' -f1)" "$PEERS_COUNT"
    same_files "$PEERS_STATIC_DIR" "$WORK/static"
}

publisher_is_copied() {
    mirror_guix publish "$PEERS_GUIX_CACHED_URL" > "$WORK/publish.out"
    expect_equal narinfos "$(checked "$WORK/publish" | cut -d' ' -f1)" "$PEERS_COUNT"
    checked "$WORK/publish" --same-as "$PEERS_GUIX_CACHED_URL"
}

nix_is_copied() {
    mirror_nix nix "$PEERS_NIX_ZSTD_URL" > "$WORK/nix.out"
    expect_equal narinfos "$(checked "$WORK/nix" --deep | cut -d' ' -f1)" "$PEERS_NIX_COUNT"
    same_files "$PEERS_NIX_ZSTD_DIR" "$WORK/nix"
}

second_run_sends_no_nar() {
    clear_requests static
    mirror_guix static "$PEERS_STATIC_URL" > "$WORK/second.out"
    expect_equal 'nar requests' "$(grep -c ' /nar/' "$PEERS_STATIC_LOG" || true)" 0
}

# Stock guix-daemon with the stock helper.
guix_fetches() {
    local url
    url=$(static_serve mirror-guix "$WORK/static" -)
    client_new "$WORK/client"
    client_realize "$WORK/client" "$url" "$PEERS_LIST" || { tail -n 20 "$WORK/client/log"; return 1; }
    service_stop nginx-mirror-guix
    compare "$(stock_store)" "$WORK/client"
}

nix_fetches() {
    local url
    url=$(static_serve mirror-nix "$WORK/nix" -)
    mkdir -p "$WORK/nix-client"
    root_nix "$WORK/nix-client" --bind "$PEERS_NIX_TOPS" /subst-tops sh -c \
        "xargs nix --extra-experimental-features nix-command copy --from '$url' --to 'local?root=$WORK/nix-client' \
         --option trusted-public-keys '$PEERS_NIX_KEY' < /subst-tops"
    service_stop nginx-mirror-nix
    compare --no-links --list "$PEERS_NIX_LIST" "$(nix_store)" "$WORK/nix-client"
}

# kill_mirror MILLISECONDS: starts a run and kills it after that time; fails if it had ended by then.
kill_mirror() {
    local client
    (exec env -i PATH="$PATH" HOME="$WORK/home" "$SUBST" mirror --acl "$PEERS_GUIX_ACL" --substitute-urls "$PEERS_STATIC_URL" \
        --to "$WORK/killed" --list "$PEERS_TOPS" --quiet) > /dev/null 2>> "$WORK/killed.err" &
    client=$!
    sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"
    kill -KILL "$client" 2> /dev/null || { wait "$client"; return 1; }
    wait "$client" || [ $? = 137 ]
}

# complete: what the last run has to do it does, and the mirror is the server.
complete() {
    mirror_guix killed "$PEERS_STATIC_URL" > "$WORK/last.out"
    expect_equal narinfos "$(checked "$WORK/killed" | cut -d' ' -f1)" "$PEERS_COUNT"
    same_files "$PEERS_STATIC_DIR" "$WORK/killed"
    expect_equal leftovers "$(find "$WORK/killed/subst/incoming" -type f)" ''
    rm -rf "$WORK/killed"
}

nar_bytes() { awk '$2 ~ "^/nar/" { sum += $4 } END { print sum + 0 }' "$PEERS_STATIC_LOG"; }

# The time of a whole run decides when runs are killed, so that kills fall into all of it. A mirror that gets complete is
# removed: the next run begins anew.
killed_runs_leave_no_hole() {
    local began longest whole sent rounds=1 with_narinfos=0
    began=$(date +%s%3N)
    mirror_guix timed "$PEERS_STATIC_URL" > /dev/null
    longest=$(($(date +%s%3N) - began))
    clear_requests static
    for _ in $(seq "$KILLS"); do
        if ! kill_mirror $((RANDOM % longest)); then
            complete
            rounds=$((rounds + 1))
        elif [ -d "$WORK/killed" ]; then
            set -- "$(checked "$WORK/killed")"
            [ "${1% *}" = 0 ] || [ "${1% *}" = "$PEERS_COUNT" ] || with_narinfos=$((with_narinfos + 1))
        fi
    done
    complete
    whole=$(find "$WORK/timed/nar" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
    sent=$(nar_bytes)
    echo "$KILLS kills within $longest ms, $with_narinfos of them among the narinfos; $sent bytes were sent for $rounds times $whole"
}

check mirror-guix-static guix_is_copied
check mirror-guix-publish publisher_is_copied
check mirror-nix nix_is_copied
check mirror-second-run second_run_sends_no_nar
check mirror-stock-store stock_store
check mirror-guix-daemon-fetches guix_fetches
check mirror-nix-stock-store nix_store
check mirror-nix-copy-fetches nix_fetches
check mirror-killed-runs killed_runs_leave_no_hole
