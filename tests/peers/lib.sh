# What the peer scripts share: places, services with pid files, waiting, stock clients, roots made by subst.
# To be sourced by bash. Needs root.
# shellcheck shell=bash disable=SC2034

PEERS_HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PEERS_DIR=${SUBST_PEERS_DIR:-/var/tmp/subst-peers}
export SUBST_PEERS_DIR=$PEERS_DIR
PEERS_ROOT=$PEERS_DIR/chroot
# What debootstrap made: the chroot was this in the beginning.
PEERS_DEBIAN=$PEERS_DIR/debian.tar
PEERS_CLOSURE=$PEERS_DIR/closure
PEERS_RUN=$PEERS_DIR/run
PEERS_LOG=$PEERS_DIR/log
PEERS_STATE=$PEERS_DIR/state

say() { printf 'peers: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

need_root() { [ "$(id -u)" = 0 ] || die "root is needed (chroot and mounts)"; }

# enter ...: run a command inside the chroot (see the script of that name).
enter() { "$PEERS_HERE/enter" "$@"; }

# enter_with_proxies ...: enter, with the proxies of this machine.
enter_with_proxies() {
    local proxies=() name
    for name in http_proxy https_proxy no_proxy; do
        [ -z "${!name:-}" ] || proxies+=(--env "$name=${!name}")
    done
    enter "${proxies[@]}" "$@"
}

# --- Debian systems -------------------------------------------------------------------------------------------

# debian_bootstrap SUITE DIRECTORY: make a minimal Debian there; once more from the start if a download fails.
debian_bootstrap() {
    local attempt
    for attempt in 1 2; do
        debootstrap --variant=minbase --include=ca-certificates "$1" "$2" > "$PEERS_LOG/debootstrap.log" 2>&1 && return
        tail -20 "$PEERS_LOG/debootstrap.log" >&2
        [ "$attempt" = 2 ] || { rm -rf --one-file-system "$2"; sleep 30; }
    done
    return 1
}

# debian_apt DIRECTORY: prepare the Debian there for apt-get, which then starts no services.
debian_apt() {
    printf '#!/bin/sh\nexit 101\n' > "$1/usr/sbin/policy-rc.d"
    chmod +x "$1/usr/sbin/policy-rc.d"
    rm -f "$1/etc/resolv.conf"
    cp -L /etc/resolv.conf "$1/etc/resolv.conf" 2> /dev/null || true
    # A mirror that is frozen or lags must do: what is installed is still signed.
    printf 'Acquire::Check-Valid-Until "false";\nAcquire::Retries "10";\n' > "$1/etc/apt/apt.conf.d/90subst-peers"
}

# --- services -----------------------------------------------------------------------------------------------

# start_time PID: when that process began, in kernel ticks: tells a process from a later one with its number.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# service_alive NAME
service_alive() {
    local pid started
    [ -s "$PEERS_RUN/$1.pid" ] || return 1
    read -r pid started < "$PEERS_RUN/$1.pid"
    [ "$(start_time "$pid")" = "$started" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null
}

# service_start NAME COMMAND...: in the background, in a session of its own, log in log/NAME.log.
service_start() {
    local name=$1; shift
    mkdir -p "$PEERS_RUN" "$PEERS_LOG"
    service_stop "$name"
    setsid "$@" >> "$PEERS_LOG/$name.log" 2>&1 < /dev/null &
    local pid=$!
    disown "$pid" 2>/dev/null || true
    printf '%s %s\n' "$pid" "$(start_time "$pid")" > "$PEERS_RUN/$name.pid"
}

# service_stop NAME: the whole process group, gently, then not.
service_stop() {
    local pid started n
    [ -s "$PEERS_RUN/$1.pid" ] || return 0
    read -r pid started < "$PEERS_RUN/$1.pid"
    if service_alive "$1"; then
        kill -TERM -- "-$pid" 2>/dev/null || kill -TERM "$pid" 2>/dev/null || true
        for n in $(seq 50); do
            service_alive "$1" || break
            sleep 0.05
        done
        kill -KILL -- "-$pid" 2>/dev/null || true
    fi
    rm -f "$PEERS_RUN/$1.pid"
}

services_stop_all() {
    local file
    for file in "$PEERS_RUN"/*.pid; do
        [ -e "$file" ] || continue
        service_stop "$(basename "$file" .pid)"
    done
}

# free_ports N: N unused loopback ports, one per line.
free_ports() {
    python3 "$PEERS_HERE/free-ports.py" "$1"
}

# wait_for SECONDS COMMAND...: until COMMAND succeeds.
wait_for() {
    local until=$(( $(date +%s) + $1 )); shift
    until "$@" > /dev/null 2>&1; do
        [ "$(date +%s)" -lt "$until" ] || return 1
        sleep 0.05
    done
}

port_open() { (: < "/dev/tcp/127.0.0.1/$1") 2> /dev/null; }

# --- static servers ---------------------------------------------------------------------------------------------

# nginx_conf SERVICE: from lines `NAME PORT DIRECTORY INFO` a configuration with one server per line. INFO is the server's
# WantMassQuery (0 or 1), or - when DIRECTORY has a nix-cache-info of its own. Requests are logged in log/nginx-NAME.access.log.
# NGINX_KEEPALIVE: requests per connection (default: as good as no limit). NGINX_LIMIT_RATE: bytes per second and connection.
nginx_conf() {
    local name port root info
    cat <<CONF
daemon off;
worker_processes 2;
pid $PEERS_RUN/$1.master;
events { worker_connections 1024; }
http {
    default_type application/octet-stream;
    keepalive_requests ${NGINX_KEEPALIVE:-100000};
    sendfile on;
    tcp_nopush on;
    limit_rate ${NGINX_LIMIT_RATE:-0};
    client_body_temp_path $PEERS_RUN/$1-body;
    proxy_temp_path $PEERS_RUN/$1-proxy;
    fastcgi_temp_path $PEERS_RUN/$1-fastcgi;
    uwsgi_temp_path $PEERS_RUN/$1-uwsgi;
    scgi_temp_path $PEERS_RUN/$1-scgi;
    log_format requests '\$request_method \$request_uri \$status \$body_bytes_sent \$connection';
CONF
    while read -r name port root info; do
        cat <<CONF
    server {
        listen 127.0.0.1:$port;
        root $root;
        access_log $PEERS_LOG/nginx-$name.access.log requests;
        location ~ \\.narinfo\$ { default_type text/x-nix-narinfo; add_header Cache-Control "max-age=86400"; }
CONF
        [ "$info" = - ] || printf '        location = /nix-cache-info { default_type text/x-nix-cache-info; return 200 "StoreDir: /gnu/store\\nWantMassQuery: %s\\nPriority: 40\\n"; }\n' "$info"
        printf '    }\n'
    done
    printf '}\n'
}

# nginx_start SERVICE: start nginx with the servers described on standard input (see nginx_conf), with fresh access logs.
nginx_start() {
    local name=$1 line
    service_stop "$name"
    mkdir -p "$PEERS_RUN" "$PEERS_LOG"
    while read -r line; do
        printf '%s\n' "$line"
        : > "$PEERS_LOG/nginx-${line%% *}.access.log"
    done | nginx_conf "$name" > "$PEERS_RUN/$name.conf"
    service_start "$name" nginx -e "$PEERS_LOG/$name.error.log" -c "$PEERS_RUN/$name.conf"
}

# static_serve NAME DIRECTORY INFO: one more static server, as the service nginx-NAME; prints its URL.
static_serve() {
    local port
    port=$(free_ports 1)
    printf '%s %s %s %s\n' "$1" "$port" "$2" "$3" | nginx_start "nginx-$1"
    wait_for 10 port_open "$port" || return 1
    printf 'http://127.0.0.1:%s\n' "$port"
}

# requests NAME: how many requests the static server NAME has had since its log was emptied; clear_requests NAME empties it.
requests() { wc -l < "$PEERS_LOG/nginx-$1.access.log"; }
clear_requests() { : > "$PEERS_LOG/nginx-$1.access.log"; }

# delay_proxy NAME TARGET_PORT MILLISECONDS: a delaying proxy in front of a local port, as the service NAME; prints its URL.
# Its totals are in log/NAME.totals once it is stopped.
delay_proxy() {
    local port
    port=$(free_ports 1)
    rm -f "$PEERS_LOG/$1.totals"
    service_start "$1" python3 "$PEERS_HERE/delay-proxy.py" "$port" "127.0.0.1:$2" "$3" "$PEERS_LOG/$1.totals"
    wait_for 10 port_open "$port" || return 1
    printf 'http://127.0.0.1:%s\n' "$port"
}

# own_mounts SCRIPT ARGUMENT...: go on in a mount namespace of this script's own, so that what it mounts ends with it.
own_mounts() {
    [ -z "${PEERS_OWN_MOUNTS:-}" ] || return 0
    PEERS_OWN_MOUNTS=1 exec unshare --mount --propagation private -- "$@"
}

# fresh_disk DIRECTORY: mount an empty ext4 file system there, in place of the last one. For measurements: a file system records
# what was deleted from it (ext4 without a journal passes over inodes deleted within five minutes, one by one, for every
# file that it creates), so that the second run would measure the cleaning after the first.
# OWN_DISK=1: an empty directory on the disk as it is instead, to measure just that. DISK_SIZE, MKFS_OPTIONS: for
# another kind of ext4.
fresh_disk() {
    local image=$1.img
    drop_disk "$1"
    mkdir -p "$1"
    [ -z "${OWN_DISK:-}" ] || return 0
    truncate -s "${DISK_SIZE:-16G}" "$image"
    # shellcheck disable=SC2086
    PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q -F ${MKFS_OPTIONS:-} "$image"
    mount -o loop "$image" "$1"
    rmdir "$1/lost+found"
}

# drop_disk DIRECTORY: the end of a fresh_disk.
drop_disk() {
    umount "$1" 2> /dev/null || true
    rm -rf --one-file-system "$1" "$1.img"
}

# now: seconds with a fraction; since T: seconds from T until now.
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f", b - a }'; }

# --- stock clients: a second machine on this one ---------------------------------------------------------------

# client_new DIR: an empty store and state for a stock guix client (DIR/store, DIR/var).
client_new() { mkdir -p "$1/store" "$1/var"; }

# client_enter DIR [--bind ...] [--env ...] COMMAND...: inside, with that store and state.
client_enter() {
    local dir=$1; shift
    enter --bind "$dir/store" /gnu/store --bind "$dir/var" /var/guix --bind "$PEERS_HERE" /subst-peers "$@"
}

# client_realize DIR URLS LISTFILE [--bind SOURCE PLACE]... [--env GUIX=/wrapper]...: a stock guix-daemon on DIR,
# with these substitute URLs, realizes every path of LISTFILE with build-things; then the daemon ends.
# CLIENT_DAEMON_FLAGS adds flags of guix-daemon. Prints nothing; DIR/log has the client's output.
client_realize() {
    local dir=$1 urls=$2 list=$3; shift 3
    cp "$list" "$dir/list"
    client_enter "$dir" --bind "$dir" /subst-client "$@" \
        sh /subst-peers/inside/with-daemon "--substitute-urls=$urls ${CLIENT_DAEMON_FLAGS:-}" \
        guix repl /subst-peers/scheme/realize.scm /subst-client/list > "$dir/log" 2>&1
}

# stock_query URL ACL CACHE REQUEST LISTFILE: send the stock helper (`guix substitute --query`) one REQUEST (have or info) about
# all paths of LISTFILE, with the authorized keys of ACL and its lookup cache in the directory CACHE; prints its answer.
stock_query() {
    mkdir -p "$3"
    enter --bind "$2" /etc/guix/acl --bind "$3" /subst-cache --bind "$5" /subst-list --bind "$PEERS_HERE" /subst-peers \
        --env XDG_CACHE_HOME=/subst-cache --env "_NIX_OPTIONS=substitute-urls=$1" \
        sh /subst-peers/inside/query "$4" /subst-list
}

# --- roots made by subst -----------------------------------------------------------------------------------------

# root_guix ROOT COMMAND...: mount ROOT/gnu/store and ROOT/var/guix in place, start the real guix-daemon on them, run COMMAND.
# The daemon has no substitute server, so that everything that it reports comes from the store.
root_guix() {
    local root=$1; shift
    enter --bind "$root/gnu/store" /gnu/store --bind "$root/var/guix" /var/guix --bind "$PEERS_HERE" /subst-peers \
        sh /subst-peers/inside/with-daemon "--no-substitutes" "$@"
}

# root_nix ROOT COMMAND...: inside the chroot with the host directory ROOT at the same place, for `--store local?root=ROOT`.
root_nix() {
    local root=$1; shift
    enter --bind "$root" "$root" "$@"
}
