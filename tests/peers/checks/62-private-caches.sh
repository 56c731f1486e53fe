#!/bin/bash
# `subst` against private servers of a real nginx: passwords, tokens and header fields over HTTP/1.1 and HTTP/2, client certificates,
# redirects within a server and to presigned URLs of another one, which must get nothing of them.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

SECRET=Sesame-4711
{ read -r basic; read -r token; read -r field; read -r store; read -r certified; } < <(free_ports 5)
TOOLS=$(cut -f 1 "$FIXTURES/guix/expected-rows.txt" | grep -e '-subst-tools-1.0$')

# certificates: an authority, a server and a client that it signed, and a server that signed itself, as `openssl req -x509` makes it.
certificates() {
    local name
    cd "$WORK"
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout authority.key -out authority.pem
    for name in server client; do
        openssl req -newkey rsa:2048 -nodes -subj "/CN=$name" -keyout "$name.key" -out "$name.csr"
        openssl x509 -req -days 2 -in "$name.csr" -CA authority.pem -CAkey authority.key -CAcreateserial -out "$name.pem" \
            -extfile <(printf 'subjectAltName=IP:127.0.0.1\n')
    done
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=self -addext subjectAltName=IP:127.0.0.1 -keyout self.key -out self.pem
    openssl x509 -in self.pem -noout -text | grep -q CA:TRUE
}

servers() {
    printf 'me:%s\n' "$(openssl passwd -apr1 "$SECRET")" > "$WORK/htpasswd"
    cat > "$PEERS_RUN/nginx-private.conf" <<CONF
daemon off;
user root;
pid $PEERS_RUN/nginx-private.master;
events { }
http {
    client_body_temp_path $WORK/n-body; proxy_temp_path $WORK/n-proxy; fastcgi_temp_path $WORK/n-fastcgi;
    uwsgi_temp_path $WORK/n-uwsgi; scgi_temp_path $WORK/n-scgi;
    log_format fields '\$server_port \$server_protocol \$request_uri \$status "\$http_authorization" "\$http_deploy_token"';
    access_log $WORK/access.log fields;
    root $FIXTURES/guix;
    server {    # a password
        listen 127.0.0.1:$basic;
        auth_basic private; auth_basic_user_file $WORK/htpasswd;
    }
    server {    # a token, over HTTP/2 for lookups; nars are elsewhere on the same server
        listen 127.0.0.1:$token ssl http2;
        ssl_certificate $WORK/self.pem; ssl_certificate_key $WORK/self.key;
        if (\$http_authorization != "Bearer $SECRET") { return 401; }
        location /cache/ { alias $FIXTURES/guix/; }
        location /cache/nar/ { return 302 /files\$request_uri; }
        location /files/cache/ { alias $FIXTURES/guix/; }
    }
    server {    # a field of its own, as GitLab has it; nars are at presigned URLs
        listen 127.0.0.1:$field;
        if (\$http_deploy_token != "$SECRET") { return 403; }
        location /nar/ { return 307 http://127.0.0.1:$store\$request_uri?Signature=Papaya; }
    }
    server {    # an object store, which refuses two kinds of authentication in one request
        listen 127.0.0.1:$store;
        if (\$arg_signature != Papaya) { return 403; }
        if (\$http_authorization\$http_deploy_token) { return 400; }
    }
    server {    # a client certificate
        listen 127.0.0.1:$certified ssl;
        ssl_certificate $WORK/server.pem; ssl_certificate_key $WORK/server.key;
        ssl_client_certificate $WORK/authority.pem; ssl_verify_client on;
    }
}
CONF
    service_start nginx-private nginx -e "$WORK/error.log" -c "$PEERS_RUN/nginx-private.conf"
    for port in "$basic" "$token" "$field" "$store" "$certified"; do wait_for 10 port_open "$port"; done
}

# fetch CODES NAME URL [ARGUMENT]...: into a root of its own, with all diagnostics; nothing secret may be in what is written.
fetch() {
    local codes=$1 name=$2 url=$3 status; shift 3
    : > "$WORK/access.log"
    rm -rf --one-file-system "$WORK/root-$name"
    status=0
    expect "$codes" env -i PATH="$PATH" HOME="$WORK/home" SUBST_LOG=trace SSL_CERT_FILE="${AUTHORITY:-}" "$SUBST" fetch --root "$WORK/root-$name" --acl "$FIXTURES/guix/acl" \
        --substitute-urls "$url" "$TOOLS" "$@" > "$WORK/$name.out" 2>&1 || status=$?
    grep -v ' TRACE \| DEBUG ' "$WORK/$name.out" || true
    [ $status = 0 ]
    expect_equal secrets "$(grep -rlE "$SECRET|$(printf 'me:%s' "$SECRET" | base64)|Papaya" "$WORK/$name.out" "$WORK/root-$name" | wc -l)" 0
}

# settings LINE...: a [[server]] table for URL with these lines.
settings() {
    { printf '[[server]]\nurl = "%s"\n' "$URL"; printf '%s\n' "$@"; } > "$WORK/config.toml"
}

password() {
    URL=http://127.0.0.1:$basic
    fetch 4 password-none "$URL"
    grep -q 'status 401: it requires a password or token' "$WORK/password-none.out"
    fetch 0 password-url "http://me:$SECRET@127.0.0.1:$basic"
    printf 'machine 127.0.0.1\nlogin me\npassword %s\n' "$SECRET" > "$WORK/home/.netrc"
    fetch 0 password-home "$URL"
    rm "$WORK/home/.netrc"
    printf 'machine 127.0.0.1 login me password wrong\n' > "$WORK/netrc"
    fetch 4 password-wrong "$URL" --netrc-file "$WORK/netrc"
    printf 'default login me password %s\n' "$SECRET" > "$WORK/netrc"
    fetch 0 password-file "$URL" --netrc-file "$WORK/netrc"
}

token() {
    URL=https://127.0.0.1:$token/cache
    printf '%s\n' "$SECRET" > "$WORK/token"
    settings 'token-file = "token"'
    fetch 4 token-unknown "$URL" --config "$WORK/config.toml"
    AUTHORITY=$WORK/self.pem
    fetch 0 token "$URL" --config "$WORK/config.toml"
    grep -q 'HTTP/2.0 /cache/.*narinfo 200' "$WORK/access.log"
    grep -q 'HTTP/1.1 /files/cache/nar/.* 200' "$WORK/access.log"
    expect_equal refused "$(grep -c ' 401 ' "$WORK/access.log" || true)" 0
    settings
    fetch 4 token-none "$URL" --config "$WORK/config.toml"
}

presigned() {
    URL=http://127.0.0.1:$field
    printf 'Deploy-Token: %s\n' "$SECRET" > "$WORK/headers"
    settings 'header-file = "headers"'
    fetch 0 presigned "$URL" --config "$WORK/config.toml"
    grep -q "^$store .* 200 " "$WORK/access.log"
    expect_equal 'secrets elsewhere' "$(grep "^$store " "$WORK/access.log" | grep -cv '"-" "-"$' || true)" 0
}

client_certificate() {
    URL=https://127.0.0.1:$certified
    AUTHORITY=$WORK/authority.pem
    settings
    fetch 4 certified-none "$URL" --config "$WORK/config.toml"
    settings 'client-cert-file = "client.pem"' 'client-key-file = "client.key"'
    fetch 0 certified "$URL" --config "$WORK/config.toml"
}

trap 'service_stop nginx-private' EXIT
check private-certificates certificates
check private-servers servers
check private-password password
check private-token token
check private-presigned-redirects presigned
check private-client-certificate client_certificate
