#!/bin/bash
# `s3://` servers at a real Ceph with three object servers: the Guix closure from a private bucket, with access keys from each place,
# and from a public one without; stock guix-daemon and `nix copy` at the public ones; what is refused, each with its own message;
# a store that is too busy; an object server and the gateway killed in the middle of a fetch.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
# shellcheck source=../ceph.sh
. "$PEERS_HERE/ceph.sh"
fresh_work
trap 'service_stop nginx-ceph; service_stop ceph-late; service_stop ceph-sessions; service_stop ceph' EXIT

{ read -r logged; read -r slow; read -r busy; read -r overloaded; } < <(free_ports 4)
MISSING=/gnu/store/00000000000000000000000000000000-nothing
mapfile -t SOME < <(head -n 3 "$PEERS_TOPS")

cluster() {
    ceph_install
    ceph_start ceph 3 "$WORK/ceph"
    printf 'CEPH_URL=%s\nCEPH_DIR=%s\n' "$CEPH_URL" "$CEPH_DIR" > "$WORK/cluster"
}

# The objects of `public` may be read by everyone, but not listed; those of `nix` may be listed too.
fill() {
    printf 'StoreDir: /gnu/store\nWantMassQuery: 1\nPriority: 40\n' > "$WORK/nix-cache-info"
    object_store copy "$PEERS_STATIC_DIR" ceph:private
    object_store copyto "$WORK/nix-cache-info" ceph:private/nix-cache-info
    object_store copy --s3-bucket-acl private --s3-acl public-read "$PEERS_STATIC_DIR" ceph:public
    object_store copyto --s3-bucket-acl private --s3-acl public-read "$WORK/nix-cache-info" ceph:public/nix-cache-info
    object_store copy --s3-acl public-read "$PEERS_NIX_ZSTD_DIR" ceph:nix
    object_store size ceph:public
}

# proxies: in front of the gateway: one with a log of requests, a slow one, one that allows 100 requests a second, one that allows none.
proxies() {
    local slow_down="<?xml version=\"1.0\"?><Error><Code>SlowDown</Code></Error>"
    cat > "$PEERS_RUN/nginx-ceph.conf" <<CONF
daemon off;
user root;
pid $PEERS_RUN/nginx-ceph.master;
events { worker_connections 1024; }
http {
    client_body_temp_path $WORK/n-body; proxy_temp_path $WORK/n-proxy; fastcgi_temp_path $WORK/n-fastcgi;
    uwsgi_temp_path $WORK/n-uwsgi; scgi_temp_path $WORK/n-scgi;
    log_format requests '\$server_port \$request_method \$request_uri \$status \$body_bytes_sent';
    access_log $WORK/access.log requests;
    keepalive_requests 100000;
    client_max_body_size 0;
    proxy_http_version 1.1;
    proxy_set_header Host \$http_host;
    limit_req_zone \$server_port zone=all:1m rate=100r/s;
    limit_req_status 503;
    error_page 503 = @slow_down;
    server { listen 127.0.0.1:$logged; location / { proxy_pass $CEPH_URL; } }
    server { listen 127.0.0.1:$slow; location / { proxy_pass $CEPH_URL; limit_rate 2m; } }
    server {
        listen 127.0.0.1:$busy;
        location / { limit_req zone=all burst=20 nodelay; proxy_pass $CEPH_URL; }
        location @slow_down { return 503 '$slow_down'; }
    }
    server { listen 127.0.0.1:$overloaded; location / { return 503 '$slow_down'; } }
}
CONF
    service_start nginx-ceph nginx -e "$WORK/error.log" -c "$PEERS_RUN/nginx-ceph.conf"
    for port in "$logged" "$slow" "$busy" "$overloaded"; do wait_for 10 port_open "$port"; done
}

# with VARIABLE=VALUE... -- SUBCOMMAND [ARGUMENT]...: the program with these variables, for the Guix closure.
with() {
    local variables=()
    while [ "$1" != -- ]; do variables+=("$1"); shift; done
    env -i PATH="$PATH" HOME="$WORK/home" "${variables[@]}" "$SUBST" "$2" --acl "$PEERS_GUIX_ACL" "${@:3}"
}

WRITER=(AWS_ACCESS_KEY_ID=writer "AWS_SECRET_ACCESS_KEY=$CEPH_WRITER_SECRET")
READER=(AWS_ACCESS_KEY_ID=reader "AWS_SECRET_ACCESS_KEY=$CEPH_READER_SECRET")

# fetches NAME URL [VARIABLE=VALUE]...: the whole closure into a root of its own, which then is the stock client's store.
fetches() {
    local root=$WORK/root-$1 url=$2; shift 2
    with "$@" -- fetch --root "$root" --substitute-urls "$url" - < "$PEERS_TOPS"
    compare "$(stock_store)" "$root"
    rm -rf --one-file-system "$root"
}

# fetches_some URL [VARIABLE=VALUE]...: three items with their closures.
fetches_some() {
    local url=$1; shift
    rm -rf --one-file-system "$WORK/root-some"
    with "$@" -- fetch --root "$WORK/root-some" --substitute-urls "$url" "${SOME[@]}"
}

private() { fetches private "s3://private?endpoint=$CEPH_URL" "${READER[@]}"; }

key_places() {
    local url="s3://private?endpoint=$CEPH_URL" session=$WORK/session sessions
    mkdir -p "$WORK/home/.aws"
    printf '[default]\nregion = us-east-1\n[reading]\naws_access_key_id = reader\naws_secret_access_key = %s\n' "$CEPH_READER_SECRET" > "$WORK/home/.aws/credentials"
    expect 4 fetches_some "$url"
    fetches_some "$url" AWS_PROFILE=reading
    fetches_some "$url&profile=reading"
    cp "$WORK/home/.aws/credentials" "$WORK/keys-file"
    rm -r "$WORK/home/.aws"
    fetches_some "$url" AWS_PROFILE=reading AWS_SHARED_CREDENTIALS_FILE="$WORK/keys-file"
    sessions=$(ceph_session_gateway ceph-sessions)
    printf '%s\n' "$sessions" > "$WORK/sessions.url"
    ceph_session "$sessions" "$session"
    fetches_some "s3://private?endpoint=$sessions" "AWS_ACCESS_KEY_ID=$(cat "$session/id")" "AWS_SECRET_ACCESS_KEY=$(cat "$session/secret")" \
        "AWS_SESSION_TOKEN=$(cat "$session/token")"
}

# Ceph accepts every region.
public() {
    fetches public "s3://public?endpoint=$CEPH_URL&region=eu-central-1"
}

daemon_fetches() {
    client_new "$WORK/client"
    client_realize "$WORK/client" "$CEPH_URL/public" "$PEERS_LIST" || { tail -n 20 "$WORK/client/log"; return 1; }
    compare "$(stock_store)" "$WORK/client"
    rm -rf --one-file-system "$WORK/client"
}

nix_fetches() {
    local store
    store=$(nix_store)
    mkdir -p "$WORK/nix-client"
    nix_copy "s3://nix?endpoint=$CEPH_URL&region=us-east-1" "$WORK/nix-client"
    compare --no-links --list "$PEERS_NIX_LIST" "$store" "$WORK/nix-client"
    rm -rf --one-file-system "$WORK/nix-client"
}

# Missing is an answer, also where the bucket may not be listed, and the object store says 403.
missing() {
    local bucket
    for bucket in private public; do
        expect 1 with "${READER[@]}" -- query --json --refresh --root "$WORK/missing" --substitute-urls "s3://$bucket?endpoint=$CEPH_URL" "$MISSING" > "$WORK/$bucket.json"
        grep -q '"status": "missing"' "$WORK/$bucket.json"
    done
    expect 1 with -- query --json --refresh --root "$WORK/missing" --substitute-urls "s3://public?endpoint=$CEPH_URL" "$MISSING" > "$WORK/unsigned.json"
    grep -q '"status": "missing"' "$WORK/unsigned.json"
}

# refused URL MESSAGE [VARIABLE=VALUE]...: nothing is fetched, the message says why, and nothing secret is shown.
refused() {
    local url=$1 message=$2; shift 2
    rm -rf --one-file-system "$WORK/refused"
    expect 4 with "$@" -- fetch --root "$WORK/refused" --substitute-urls "$url" "${SOME[@]}" > "$WORK/refused.out" 2>&1 || { cat "$WORK/refused.out"; return 1; }
    grep -qF "$message" "$WORK/refused.out" || { echo "expected: $message"; cat "$WORK/refused.out"; return 1; }
    ! grep -qE "$CEPH_WRITER_SECRET|$CEPH_READER_SECRET|Signature=|$(cut -c1-40 "$WORK/session/token" | sed 's/[+]/[+]/g')" "$WORK/refused.out"
}

failures() {
    local private="s3://private?endpoint=$CEPH_URL" sessions late token
    sessions="s3://private?endpoint=$(cat "$WORK/sessions.url")"
    token=("AWS_ACCESS_KEY_ID=$(cat "$WORK/session/id")" "AWS_SECRET_ACCESS_KEY=$(cat "$WORK/session/secret")" "AWS_SESSION_TOKEN=$(cat "$WORK/session/token")")
    refused "$private" 'the object store refuses the signature' AWS_ACCESS_KEY_ID=reader AWS_SECRET_ACCESS_KEY=wrong
    refused "$private" 'the object store does not know the access key ID' AWS_ACCESS_KEY_ID=unknown AWS_SECRET_ACCESS_KEY=wrong
    refused "$private" 'access to the bucket is denied without credentials'
    refused "s3://nowhere?endpoint=$CEPH_URL" 'there is no bucket `nowhere`' "${READER[@]}"
    refused "s3://private?endpoint=http://127.0.0.1:$overloaded" 'status 503' "${READER[@]}"
    late=$(ceph_session_gateway ceph-late faketime -f +20m)
    refused "s3://private?endpoint=$late" 'the session token of the access key may have expired' "${token[@]}"
    refused "$sessions" 'access to the bucket is denied: its credentials are wrong' AWS_ACCESS_KEY_ID=reader AWS_SECRET_ACCESS_KEY=wrong
    # A wrong clock is corrected.
    fetches_some "s3://private?endpoint=$late" "${READER[@]}"
    service_stop ceph-late
}

# A store that refuses requests for being too many gets fewer of them: all are answered in the end.
busy() {
    : > "$WORK/access.log"
    fetches busy "s3://private?endpoint=http://127.0.0.1:$busy" "${READER[@]}"
    echo "$(grep -c ' 503 ' "$WORK/access.log" || true) of $(wc -l < "$WORK/access.log") requests were refused"
    grep -q ' 503 ' "$WORK/access.log"
}

nars_begun() { [ "$(grep -c " /private/nar/" "$WORK/access.log")" -ge "$1" ]; }

# killed_in_fetch DAEMON: killed with SIGKILL when a third of the nars were sent.
killed_in_fetch() {
    local client pid
    : > "$WORK/access.log"
    fetches "killed-$1" "s3://private?endpoint=http://127.0.0.1:$slow" "${READER[@]}" &
    client=$!
    wait_for 60 nars_begun $((PEERS_COUNT / 3))
    pid=$(ceph_pid "$1")
    kill -KILL "$pid"
    wait "$client"
    echo "$(grep -c '/private/nar/' "$WORK/access.log") requests for $PEERS_COUNT nars, $(grep -c ' 50[0-9] ' "$WORK/access.log" || true) failed"
}

check s3-cluster cluster
# shellcheck disable=SC1091
. "$WORK/cluster"
check s3-buckets fill
check s3-proxies proxies
check s3-stock-store stock_store
check s3-private private
check s3-key-places key_places
check s3-public public
check s3-guix-daemon daemon_fetches
check s3-nix-copy nix_fetches
check s3-missing missing
check s3-failures failures
check s3-too-busy busy
check s3-gateway-killed killed_in_fetch gateway
check s3-object-server-killed killed_in_fetch osd.2
