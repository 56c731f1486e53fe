#!/bin/bash
# `subst mirror` to a directory: the closures of guix publish, nginx and a Nix cache are copied byte for byte; stock clients fetch
# them from the mirror, which nginx and Caddy serve as docs/guides/mirror.md says; runs that are killed (SIGKILL) leave no narinfo
# without its nar or its references, as a checker says that has no code of the program, and the next runs download little again.
# KILLS (default 10) sets how many runs are killed, SEED the moments.
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

# documented WORD PORT DIRECTORY: the block of docs/guides/mirror.md below the line that ends with `WORD:`, for that port and directory.
documented() {
    awk -v word="$1:" '$NF == word { here = 1 } here && /^```/ { if (inside) exit; inside = 1; next } here && inside' \
        "$REPOSITORY/docs/guides/mirror.md" \
        | sed -e "s|listen 80;|listen 127.0.0.1:$2;|" -e "s|^:80 |http://127.0.0.1:$2 |" -e "s|/srv/mirror|$3|"
}

# documented_nginx DIRECTORY, documented_caddy DIRECTORY: serve it so; prints the URL.
documented_nginx() {
    local port conf=$PEERS_RUN/mirror-nginx.conf
    port=$(free_ports 1)
    { nginx_conf mirror-nginx < /dev/null | sed '$d'; echo 'access_log off;'; documented nginx "$port" "$1"; echo '}'; } > "$conf"
    service_start mirror-nginx nginx -e "$PEERS_LOG/mirror-nginx.error.log" -c "$conf"
    wait_for 10 port_open "$port" || return 1
    printf 'http://127.0.0.1:%s\n' "$port"
}

documented_caddy() {
    local port
    port=$(free_ports 1)
    { printf '{\n admin off\n}\n'; documented Caddy "$port" "$1"; } > "$WORK/Caddyfile"
    service_start mirror-caddy env HOME="$WORK/home" caddy run --adapter caddyfile --config "$WORK/Caddyfile"
    wait_for 10 port_open "$port" || return 1
    printf 'http://127.0.0.1:%s\n' "$port"
}

# answer URL [ARGUMENT]...: the status, and the fields that matter.
answer() {
    curl -sS -o /dev/null -w '%{http_code}' -D "$WORK/fields" "$@"
    tr -d '\r' < "$WORK/fields" | awk 'tolower($1) ~ /^(content-type|cache-control):$/ { name = tolower($1); $1 = ""; print " " name $0 }' \
        | LC_ALL=C sort | tr -d '\n'
}

# answers_are_right URL DIRECTORY: a narinfo and a nar are answered with the fields that proxies and clients need, and what is
# of no use to them is not answered, nor kept by proxies.
answers_are_right() {
    local narinfo nar
    narinfo=$(find "$2" -maxdepth 1 -name '*.narinfo' -printf '%f' -quit)
    nar=$(sed -n 's/^URL: //p' "$2/$narinfo" | head -n 1)
    expect_equal narinfo "$(answer "$1/$narinfo")" '200 cache-control: max-age=3600 content-type: text/x-nix-narinfo'
    # Items may have names that end so, and their nars the names of the items.
    echo nar > "$2/nar/page.html"
    for name in "$nar" nar/page.html; do
        expect_equal "$name" "$(answer "$1/$name")" \
            '200 cache-control: public, max-age=31536000, immutable content-type: application/octet-stream'
    done
    rm "$2/nar/page.html"
    case $(answer "$1/$nar" -r 1-2) in 206*) ;; *) answer "$1/$nar" -r 1-2; return 1 ;; esac
    expect_equal nix-cache-info "$(answer "$1/nix-cache-info" | cut -c1-3)" 200
    for name in subst/lock subst/incoming/ 0000.narinfo nar/none; do
        case $(answer "$1/$name") in
            404*cache-control*) echo "$name: $(answer "$1/$name")"; return 1 ;;
            404*) ;;
            *) echo "$name: $(answer "$1/$name")"; return 1 ;;
        esac
    done
}

# Stock guix-daemon with the stock helper.
guix_fetches() {
    local url
    url=$(documented_nginx "$WORK/static")
    answers_are_right "$url" "$WORK/static"
    client_new "$WORK/client"
    client_realize "$WORK/client" "$url" "$PEERS_LIST" || { tail -n 20 "$WORK/client/log"; return 1; }
    service_stop mirror-nginx
    compare "$(stock_store)" "$WORK/client"
}

# The same with one item: the rest takes long and differs in nothing.
guix_fetches_from_caddy() {
    local url
    url=$(documented_caddy "$WORK/static")
    answers_are_right "$url" "$WORK/static"
    client_new "$WORK/caddy-client"
    grep -m 1 -- '-subst-file$' "$PEERS_LIST" > "$WORK/caddy.list"
    client_realize "$WORK/caddy-client" "$url" "$WORK/caddy.list" || { tail -n 20 "$WORK/caddy-client/log"; return 1; }
    service_stop mirror-caddy
    cmp "$PEERS_GUIX_STORE/$(basename "$(cat "$WORK/caddy.list")")" "$WORK/caddy-client/store/$(basename "$(cat "$WORK/caddy.list")")"
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

nar_bytes() { awk '$2 ~ "^/nar/" { sum += $4 } END { printf "%.0f\n", sum }' "$PEERS_STATIC_LOG"; }

# The time of a whole run decides when runs are killed, so that kills fall into all of it. A mirror that gets complete is
# removed: the next run begins anew.
killed_runs_leave_no_hole() {
    local began longest whole sent again rounds=1 kills=0 with_narinfos=0
    began=$(date +%s%3N)
    mirror_guix timed "$PEERS_STATIC_URL" > /dev/null
    longest=$(($(date +%s%3N) - began))
    clear_requests static
    while [ $kills -lt "$KILLS" ]; do
        if ! kill_mirror $((RANDOM % longest)); then
            complete
            rounds=$((rounds + 1))
            continue
        fi
        kills=$((kills + 1))
        if [ -d "$WORK/killed" ]; then
            set -- "$(checked "$WORK/killed")"
            [ "${1% *}" = 0 ] || [ "${1% *}" = "$PEERS_COUNT" ] || with_narinfos=$((with_narinfos + 1))
        fi
    done
    complete
    whole=$(find "$WORK/timed/nar" -type f -printf '%s\n' | awk '{ sum += $1 } END { printf "%.0f\n", sum }')
    sent=$(nar_bytes)
    again=$((sent - rounds * whole))
    echo "$KILLS kills within $longest ms, $with_narinfos of them among the narinfos; $sent bytes were sent for $rounds times $whole:" \
        "$(awk -v again=$again -v whole=$((rounds * whole)) 'BEGIN { printf "%.1f %%", 100 * again / whole }') again"
    [ $again -le $((rounds * whole / 20 + KILLS * 8388608)) ]
}

check mirror-guix-static guix_is_copied
check mirror-guix-publish publisher_is_copied
check mirror-nix nix_is_copied
check mirror-second-run second_run_sends_no_nar
check mirror-stock-store stock_store
check mirror-guix-daemon-fetches guix_fetches
check mirror-caddy guix_fetches_from_caddy
check mirror-nix-stock-store nix_store
check mirror-nix-copy-fetches nix_fetches
check mirror-killed-runs killed_runs_leave_no_hole
