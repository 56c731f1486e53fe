#!/bin/bash
# `subst mirror` to buckets of a real Ceph with three object servers: the Guix closure and a Nix cache, byte for byte; what a second
# run requests; a proxy that strips the conditions of writes, as object stores without them ignore these; keys that may only read, and
# others that are refused; an object server and the gateway killed in the middle of an upload; runs that are killed (SIGKILL) leave
# no narinfo without its nar or its references, as rclone and a checker say that have no code of the program. KILLS (default
# 5) sets how many runs are killed, SEED the moments.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
# shellcheck source=../ceph.sh
. "$PEERS_HERE/ceph.sh"
fresh_work
trap 'service_stop nginx-ceph-mirror; service_stop nginx-bucket-source; service_stop ceph-mirror' EXIT

KILLS=${KILLS:-5}
RANDOM=${SEED:-1}
{ read -r logged; read -r stripping; } < <(free_ports 2)

cluster() {
    ceph_install
    ceph_start ceph-mirror 3 "$WORK/ceph"
    printf 'CEPH_URL=%s\nCEPH_DIR=%s\n' "$CEPH_URL" "$CEPH_DIR" > "$WORK/cluster"
    object_store mkdir ceph:nix --s3-bucket-acl public-read
}

# servers: two proxies in front of the gateway, one of which strips the conditions of writes, and the source of the Guix closure, all
# with a log of requests.
servers() {
    static_serve bucket-source "$PEERS_STATIC_DIR" 1 > "$WORK/source.url"
    cat > "$PEERS_RUN/nginx-ceph-mirror.conf" <<CONF
daemon off;
user root;
pid $PEERS_RUN/nginx-ceph-mirror.master;
events { worker_connections 1024; }
http {
    client_body_temp_path $WORK/n-body; proxy_temp_path $WORK/n-proxy; fastcgi_temp_path $WORK/n-fastcgi;
    uwsgi_temp_path $WORK/n-uwsgi; scgi_temp_path $WORK/n-scgi;
    log_format requests '\$request_method \$request_uri \$status \$request_length';
    keepalive_requests 100000;
    client_max_body_size 0;
    proxy_http_version 1.1;
    proxy_request_buffering off;
    proxy_set_header Host \$http_host;
    access_log $WORK/access.log requests;
    server { listen 127.0.0.1:$logged; location / { proxy_pass $CEPH_URL; } }
    server {
        listen 127.0.0.1:$stripping;
        proxy_set_header Host \$http_host;
        proxy_set_header If-None-Match "";
        proxy_set_header If-Match "";
        location / { proxy_pass $CEPH_URL; }
    }
}
CONF
    service_start nginx-ceph-mirror nginx -e "$WORK/error.log" -c "$PEERS_RUN/nginx-ceph-mirror.conf"
    wait_for 10 port_open "$logged"
    wait_for 10 port_open "$stripping"
}

with_key() { env -i PATH="$PATH" HOME="$WORK/home" AWS_ACCESS_KEY_ID="$1" AWS_SECRET_ACCESS_KEY="$2" "$SUBST" mirror "${@:3}"; }

# of_guix BUCKET [PORT]: the arguments for a mirror of the Guix closure, through the proxy at PORT (default: that which strips nothing).
of_guix() {
    printf '%s\n' --acl "$PEERS_GUIX_ACL" --substitute-urls "$(cat "$WORK/source.url")" --list "$PEERS_TOPS" --quiet \
        --to "s3://$1?endpoint=http://127.0.0.1:${2:-$logged}"
}

mirror_guix() {
    local arguments
    mapfile -t arguments < <(of_guix "$@")
    with_key writer "$CEPH_WRITER_SECRET" "${arguments[@]}"
}

# pull BUCKET: its objects, as files of WORK/BUCKET; those of the same size are not copied again.
pull() { object_store sync --size-only "ceph:$1" "$WORK/pulled-$1"; }

checked() { python3 "$PEERS_HERE/check-mirror.py" "$WORK/pulled-$1" "${@:2}"; }

# same_objects SERVER BUCKET: all narinfos and nars, and each is that of the server's directory.
same_objects() {
    local file
    rm -rf "$WORK/pulled-$2"
    pull "$2"
    (cd "$1" && find . -type f ! -name nix-cache-info ! -name .complete) | while read -r file; do
        cmp "$1/$file" "$WORK/pulled-$2/$file" || return 1
    done
}

guix_is_copied() {
    object_store mkdir ceph:guix
    : > "$WORK/access.log"
    mirror_guix guix
    same_objects "$PEERS_STATIC_DIR" guix
    expect_equal narinfos "$(checked guix | cut -d' ' -f1)" "$PEERS_COUNT"
}

nix_is_copied() {
    with_key writer "$CEPH_WRITER_SECRET" --store-dir /nix/store --trusted-public-keys "$PEERS_NIX_KEY" \
        --substitute-urls "$PEERS_NIX_ZSTD_URL" --list "$PEERS_NIX_TOPS" --quiet --to "s3://nix?endpoint=http://127.0.0.1:$logged"
    pull nix
    expect_equal narinfos "$(checked nix --deep | cut -d' ' -f1)" "$PEERS_NIX_COUNT"
}

# No nar is transferred, and the bucket is listed once.
second_run() {
    local objects lists
    objects=$(object_store lsf --recursive --files-only ceph:guix | wc -l)
    : > "$WORK/access.log"
    clear_requests bucket-source
    mirror_guix guix
    lists=$(grep -c 'list-type=2' "$WORK/access.log" || true)
    echo "$lists list requests for $objects objects, $(wc -l < "$WORK/access.log") requests in all"
    expect_equal 'nar requests' "$(grep -c ' /nar/' "$PEERS_LOG/nginx-bucket-source.access.log" || true)" 0
    expect_equal 'nars written' "$(grep -cE '^(PUT|POST) /guix/nar/' "$WORK/access.log" || true)" 0
    [ "$lists" -le $((2 + objects / 1000)) ]
}

subst_fetches() {
    env -i PATH="$PATH" HOME="$WORK/home" AWS_ACCESS_KEY_ID=reader AWS_SECRET_ACCESS_KEY="$CEPH_READER_SECRET" "$SUBST" fetch \
        --root "$WORK/root" --acl "$PEERS_GUIX_ACL" --substitute-urls "s3://guix?endpoint=$CEPH_URL" - < "$PEERS_TOPS"
    compare "$(stock_store)" "$WORK/root"
    rm -rf --one-file-system "$WORK/root"
}

# public BUCKET: everyone may read its objects.
public() {
    local policy
    policy="{\"Statement\":[{\"Effect\":\"Allow\",\"Principal\":\"*\",\"Action\":[\"s3:GetObject\"],\"Resource\":[\"arn:aws:s3:::$1/*\"]}]}"
    curl -fsS --aws-sigv4 aws:amz:us-east-1:s3 --user "writer:$CEPH_WRITER_SECRET" -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' \
        -H 'content-type: application/json' -X PUT --data "$policy" "$CEPH_URL/$1?policy="
}

guix_daemon_fetches() {
    public guix
    client_new "$WORK/client"
    client_realize "$WORK/client" "$CEPH_URL/guix" "$PEERS_LIST" || { tail -n 20 "$WORK/client/log"; return 1; }
    compare "$(stock_store)" "$WORK/client"
    rm -rf --one-file-system "$WORK/client"
}

nix_copy_fetches() {
    local store
    store=$(nix_store)
    public nix
    mkdir -p "$WORK/nix-client"
    nix_copy "s3://nix?endpoint=$CEPH_URL&region=us-east-1" "$WORK/nix-client"
    compare --no-links --list "$PEERS_NIX_LIST" "$store" "$WORK/nix-client"
    rm -rf --one-file-system "$WORK/nix-client"
}

# refused CODES MESSAGE ID SECRET BUCKET: nothing is written, the message says why, and does not show the secret.
refused() {
    local arguments
    mapfile -t arguments < <(of_guix "$5")
    expect "$1" with_key "$3" "$4" "${arguments[@]}" > "$WORK/refused.out" 2>&1 || { cat "$WORK/refused.out"; return 1; }
    grep -qF "$2" "$WORK/refused.out" || { echo "expected: $2"; cat "$WORK/refused.out"; return 1; }
    ! grep -qE "$CEPH_WRITER_SECRET|$CEPH_READER_SECRET|Signature=" "$WORK/refused.out"
}

failures() {
    object_store mkdir ceph:empty
    refused '1 4' 'lack the right s3:PutObject' reader "$CEPH_READER_SECRET" empty
    refused '1 4' 'the object store refuses the signature' writer wrong empty
    refused '1 4' 'the object store does not know the access key ID' unknown wrong empty
    refused '1 4' 'there is no bucket `nowhere`' writer "$CEPH_WRITER_SECRET" nowhere
    expect_equal objects "$(object_store lsf --recursive ceph:empty)" ''
}

nars_written() { [ "$(grep -cE '^PUT /[a-z]+/nar/' "$WORK/access.log")" -ge "$1" ]; }

# Where conditions are ignored there is one writer at a time all the same, and what it writes is right.
ignored_conditions() {
    local client arguments
    object_store mkdir ceph:stripped
    : > "$WORK/access.log"
    mirror_guix stripped "$stripping" &
    client=$!
    wait_for 100 nars_written 9
    mapfile -t arguments < <(of_guix stripped "$stripping")
    expect 5 with_key writer "$CEPH_WRITER_SECRET" "${arguments[@]}" > "$WORK/second.out" 2>&1
    grep -F 'another process is writing to the mirror' "$WORK/second.out"
    wait "$client"
    same_objects "$PEERS_STATIC_DIR" stripped
    mirror_guix stripped "$stripping"
    expect_equal narinfos "$(checked stripped --no-orphans | cut -d' ' -f1)" "$PEERS_COUNT"
    discard stripped
}

# daemon_killed DAEMON: killed with SIGKILL when a third of the nars were written.
daemon_killed() {
    local client
    object_store mkdir ceph:outage
    : > "$WORK/access.log"
    mirror_guix outage &
    client=$!
    wait_for 100 nars_written $((PEERS_COUNT / 3))
    kill -KILL "$(ceph_pid "$1")"
    wait "$client"
    echo "$(grep -c '^PUT ' "$WORK/access.log") writes, $(grep -c '^PUT .* 50[0-9] ' "$WORK/access.log" || true) failed"
    same_objects "$PEERS_STATIC_DIR" outage
    discard outage
}

# discard BUCKET: removes it. Ceph keeps what was in it for two hours unless it is told otherwise, and gets full.
discard() {
    object_store purge "ceph:$1"
    ceph_tool radosgw-admin gc process --include-all
}

# care ID SECRET COMMAND...: takes care of the bucket guix.
care() {
    with_key "$1" "$2" "$3" --acl "$PEERS_GUIX_ACL" --substitute-urls "$(cat "$WORK/source.url")" --quiet \
        --to "s3://guix?endpoint=http://127.0.0.1:$logged" "${@:4}"
}

# With a key that may only read; then a nar is lost and another one is changed.
damage_is_repaired() {
    local lost changed size
    expect_equal findings "$(care reader "$CEPH_READER_SECRET" verify --deep)" ''
    lost=$(object_store lsf --recursive --files-only ceph:guix/nar | sort | sed -n 7p)
    changed=$(object_store lsf --recursive --files-only ceph:guix/nar | sort | sed -n 9p)
    size=$(stat -c %s "$PEERS_STATIC_DIR/nar/$changed")
    object_store deletefile "ceph:guix/nar/$lost"
    head -c "$size" /dev/urandom | object_store rcat "ceph:guix/nar/$changed"
    expect 3 care reader "$CEPH_READER_SECRET" verify --deep > "$WORK/findings"
    cut -d' ' -f1 "$WORK/findings" | sort | uniq -c
    grep -qF "$lost" "$WORK/findings" && grep -qF "$changed" "$WORK/findings"
    care writer "$CEPH_WRITER_SECRET" verify --deep --repair
    same_objects "$PEERS_STATIC_DIR" guix
}

# First with the usual grace, then without one: no narinfo without its nar and references, and no orphan.
garbage_is_collected() {
    local before after
    before=$(object_store lsf --recursive --files-only ceph:guix/nar | wc -l)
    head -n 3 "$PEERS_TOPS" > "$WORK/keep"
    care writer "$CEPH_WRITER_SECRET" gc --keep-list "$WORK/keep" > "$WORK/removed"
    expect_equal 'nars within their grace' "$(object_store lsf --recursive --files-only ceph:guix/nar | wc -l)" "$before"
    pull guix
    checked guix
    care writer "$CEPH_WRITER_SECRET" gc --keep-list "$WORK/keep" --grace 0
    pull guix
    after=$(checked guix --no-orphans)
    echo "$(wc -l < "$WORK/removed") items removed; narinfos and nars left: $after"
    expect_equal 'items' "$((${after% *} + $(wc -l < "$WORK/removed")))" "$PEERS_COUNT"
}

# kill_mirror MILLISECONDS: starts a run and kills it after that time; fails if it had ended by then.
kill_mirror() {
    local client arguments
    mapfile -t arguments < <(of_guix killed)
    (exec env -i PATH="$PATH" HOME="$WORK/home" AWS_ACCESS_KEY_ID=writer AWS_SECRET_ACCESS_KEY="$CEPH_WRITER_SECRET" "$SUBST" mirror \
        "${arguments[@]}") > "$WORK/killed.out" 2>> "$WORK/killed.err" &
    client=$!
    sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"
    kill -KILL "$client" 2> /dev/null || { wait "$client"; return 1; }
    wait "$client" || [ $? = 137 ]
}

# complete: what the last run has to do it does, and the bucket is the server.
complete() {
    mirror_guix killed
    same_objects "$PEERS_STATIC_DIR" killed
    discard killed
    object_store mkdir ceph:killed
}

# With those of requests that were cut off.
written() { awk '/^PUT \/killed\/nar\// { sum += $4 } END { printf "%.0f\n", sum }' "$WORK/access.log"; }

# The time of a whole run decides when runs are killed, so that kills fall into all of it.
killed_runs_leave_no_hole() {
    local began longest whole again found rounds=1 kills=0 with_narinfos=0
    object_store mkdir ceph:killed
    began=$(date +%s%3N)
    mirror_guix killed
    longest=$(($(date +%s%3N) - began))
    discard killed
    object_store mkdir ceph:killed
    : > "$WORK/access.log"
    while [ $kills -lt "$KILLS" ]; do
        if ! kill_mirror $((RANDOM % longest)); then
            complete
            rounds=$((rounds + 1))
            continue
        fi
        kills=$((kills + 1))
        pull killed
        found=$(checked killed)
        [ "${found% *}" = 0 ] || [ "${found% *}" = "$PEERS_COUNT" ] || with_narinfos=$((with_narinfos + 1))
    done
    complete
    whole=$(find "$PEERS_STATIC_DIR/nar" -type f -printf '%s\n' | awk '{ sum += $1 } END { printf "%.0f\n", sum }')
    again=$(($(written) - rounds * whole))
    echo "$KILLS kills within $longest ms, $with_narinfos of them among the narinfos; $again bytes were written again of $rounds times $whole"
    [ $again -le $((rounds * whole / 20 + KILLS * 8388608)) ]
}

check mirror-bucket-cluster cluster
# shellcheck disable=SC1091
. "$WORK/cluster"
check mirror-bucket-servers servers
check mirror-bucket-guix guix_is_copied
check mirror-bucket-second-run second_run
check mirror-bucket-nix nix_is_copied
check mirror-bucket-stock-store stock_store
check mirror-bucket-subst-fetches subst_fetches
check mirror-bucket-guix-daemon-fetches guix_daemon_fetches
check mirror-bucket-nix-copy-fetches nix_copy_fetches
check mirror-bucket-repair damage_is_repaired
check mirror-bucket-gc garbage_is_collected
check mirror-bucket-failures failures
check mirror-bucket-ignored-conditions ignored_conditions
check mirror-bucket-killed-runs killed_runs_leave_no_hole
check mirror-bucket-gateway-killed daemon_killed gateway
check mirror-bucket-object-server-killed daemon_killed osd.2
