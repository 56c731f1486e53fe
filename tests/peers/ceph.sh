# Ceph, a real object store with the S3 API, for check scripts and benchmarks: installation, clusters, rclone as a client of it.
# To be sourced by bash, after lib.sh.
# shellcheck shell=bash disable=SC2034

# A Debian of its own: the closure has an item for each Debian package of the peers' chroot.
CEPH_ROOT=$PEERS_DIR/ceph

ceph_enter() { SUBST_PEERS_CHROOT=$CEPH_ROOT enter "$@"; }

# ceph_install: once (2 minutes).
ceph_install() {
    [ -e "$CEPH_ROOT/.installed" ] && return
    say "installing Ceph in $CEPH_ROOT"
    rm -rf --one-file-system "$CEPH_ROOT"
    mkdir -p "$CEPH_ROOT"
    tar --extract --numeric-owner --file="$PEERS_DEBIAN" --directory="$CEPH_ROOT"
    debian_apt "$CEPH_ROOT"
    SUBST_PEERS_CHROOT=$CEPH_ROOT enter_with_proxies sh -c 'apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y \
        --no-install-recommends radosgw ceph-mon ceph-osd ceph-common curl rclone faketime && apt-get clean' > "$PEERS_LOG/ceph-install.log" 2>&1 \
        || { tail -20 "$PEERS_LOG/ceph-install.log" >&2; return 1; }
    touch "$CEPH_ROOT/.installed"
}

# ceph_start NAME OSDS DIRECTORY: a cluster as the service NAME, its files in DIRECTORY (see inside/ceph-cluster); sets CEPH_URL and
# CEPH_DIR. Its access keys are `writer` and `reader`, with the secrets below.
CEPH_WRITER_SECRET=writer-secret-4711
CEPH_READER_SECRET=reader-secret-4711
ceph_start() {
    local monitor gateway
    { read -r monitor; read -r gateway; } < <(free_ports 2)
    CEPH_URL=http://127.0.0.1:$gateway
    CEPH_DIR=$3
    mkdir -p "$CEPH_DIR"
    rm -f "$CEPH_DIR/up"
    SUBST_PEERS_CHROOT=$CEPH_ROOT service_start "$1" "$PEERS_HERE/enter" --bind "$CEPH_DIR" /ceph --bind "$PEERS_HERE" /subst-peers \
        bash /subst-peers/inside/ceph-cluster /ceph "$2" "$monitor" "$gateway"
    wait_for 120 test -e "$CEPH_DIR/up" || { tail -n 5 "$PEERS_LOG/$1.log" "$CEPH_DIR"/log/*.out >&2; return 1; }
}

# ceph_tool COMMAND...: a program of Ceph, in the cluster that ceph_start started last.
ceph_tool() { ceph_enter --bind "$CEPH_DIR" /ceph --env CEPH_CONF=/ceph/ceph.conf "$@"; }

# ceph_pid DAEMON: the process of `gateway` or `osd.N`.
ceph_pid() { cat "$CEPH_DIR/run/$1.pid"; }

# object_store SUBCOMMAND [ARGUMENT]...: rclone, with the cluster as the remote `ceph`, and everything below PEERS_DIR at its place.
object_store() {
    ceph_enter --bind "$PEERS_DIR" "$PEERS_DIR" --env RCLONE_CONFIG=/dev/null --env RCLONE_CONFIG_CEPH_TYPE=s3 --env RCLONE_CONFIG_CEPH_PROVIDER=Ceph \
        --env RCLONE_CONFIG_CEPH_ENDPOINT="$CEPH_URL" --env RCLONE_CONFIG_CEPH_ACCESS_KEY_ID=writer \
        --env RCLONE_CONFIG_CEPH_SECRET_ACCESS_KEY="$CEPH_WRITER_SECRET" rclone --transfers 16 --checkers 16 "$@"
}

# ceph_session_gateway NAME [COMMAND...]: one more gateway, as the service NAME, run by COMMAND if there is one; prints its URL. It accepts
# session tokens too, and says "access denied" whatever is wrong with an access key, as Ceph does then.
ceph_session_gateway() {
    local name=$1 port; shift
    port=$(free_ports 1)
    SUBST_PEERS_CHROOT=$CEPH_ROOT service_start "$name" "$PEERS_HERE/enter" --bind "$CEPH_DIR" /ceph --env CEPH_CONF=/ceph/ceph.conf \
        --env FAKETIME_DONT_FAKE_MONOTONIC=1 "$@" radosgw -n client.admin -f --rgw_s3_auth_use_sts=true \
        "--rgw_frontends=beast endpoint=127.0.0.1:$port"
    wait_for 30 port_open "$port" || return 1
    printf 'http://127.0.0.1:%s\n' "$port"
}

# ceph_session URL DIRECTORY: access keys with a session token, from the token service of the gateway at URL, for the 15 minutes that it gives at least:
# the files id, secret and token there.
ceph_session() {
    local may_assume='{"Statement":[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam:::user/mirror"]},"Action":["sts:AssumeRole"]}]}'
    local may_read='{"Statement":[{"Effect":"Allow","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::*"]}]}'
    local form='Action=AssumeRole&Version=2011-06-15&RoleArn=arn:aws:iam:::role/visitor&RoleSessionName=session&DurationSeconds=900' pair
    mkdir -p "$2"
    ceph_tool radosgw-admin role create --role-name=visitor --assume-role-policy-doc="$may_assume"
    ceph_tool radosgw-admin role-policy put --role-name=visitor --policy-name=read --policy-doc="$may_read"
    # The gateway wants these two fields to be signed, which curl does with fields that it is given.
    curl -fsS --aws-sigv4 aws:amz:us-east-1:sts --user "writer:$CEPH_WRITER_SECRET" --data "$form" "$1/" \
        -H "x-amz-content-sha256: $(printf %s "$form" | sha256sum | cut -d' ' -f1)" -H 'content-type: application/x-www-form-urlencoded' > "$2/answer"
    for pair in id:AccessKeyId secret:SecretAccessKey token:SessionToken; do
        grep -o "<${pair#*:}>[^<]*" "$2/answer" | cut -d'>' -f2 > "$2/${pair%:*}"
    done
}
