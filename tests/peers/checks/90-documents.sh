#!/bin/bash
# The commands of the documents that need real Guix, real Nix, root, namespaces or a server with a certificate: the `console`
# blocks with such a mark. Those without a mark are run by tests/it/docs. And the book is built by real mdBook.
#
#   90-documents.sh FUNCTION ARGUMENT...     one of the functions below: run-documented.py starts a shell so
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
item() { grep -- "-$1\$" "$PEERS_LIST" | head -n 1; }
# An item of the fixtures that is a program. It needs the shell of the machine, and three other items.
PROGRAM=$(sed -n 's/^\([^\t]*-subst-program-1.0\)\t.*/\1/p' "$FIXTURES/guix/expected-rows.txt" | head -n 1)
# A user and group that own nothing.
USER_ID=54399

# clone DIRECTORY: what the commands use of a clone of the repository.
clone() {
    mkdir -p "$1/target/release"
    cp -r "$REPOSITORY/packaging" "$FIXTURES" "$1"
    cp "$SUBST" "$1/target/release/subst"
    cp "$PEERS_GUIX_KEY" "$1/signing-key.pub"
}

# documented PAGE KIND ITEM SHELL...: the blocks of that kind; example servers are those of the peers. ITEM is not in the
# environment, because the collector looks for names there.
documented() {
    local page=$1 kind=$2 item=$3; shift 3
    python3 "$PEERS_HERE/run-documented.py" "$REPOSITORY/$page" "$kind" "\$item=$item" \
        "https://substitutes.example.org=$PEERS_STATIC_URL" "cache.example.org:443=localhost:${TLS_PORT:-443}" -- "$@"
}

# guix_shell DIRECTORY ARGUMENT...: a shell in the chroot, with an empty store beside a daemon, in a clone.
guix_shell() {
    local dir=$1; shift
    client_new "$dir"
    clone "$dir/clone"
    mkdir -p "$dir/local/bin" "$dir/local/lib" "$dir/systemd"
    cp "$SUBST" "$dir/local/bin/subst"
    cp -r "$PEERS_ROOT/etc/guix" "$dir/guix"
    client_enter "$dir" --bind "$dir/clone" /root/clone --bind "$dir/local" /usr/local --bind "$dir/systemd" /etc/systemd/system \
        --bind "$dir/guix" /etc/guix --env "SUBST_SUBSTITUTE_URLS=$PEERS_STATIC_URL" \
        sh -c 'cd /root/clone && exec sh /subst-peers/inside/document-shell "$@"' sh "--substitute-urls=$PEERS_STATIC_URL" "$@"
}

with_guix() { documented "$1" guix "$(item subst-file)" bash "$0" guix_shell "$WORK/$2"; }

# nix_shell DIRECTORY ARGUMENT...: a shell in the chroot, with Nix, and a flake nixpkgs that has one package.
nix_shell() {
    local dir=$1; shift
    mkdir -p "$dir/home/.config/nix" "$dir/flake" "$dir/local/bin"
    cp "$SUBST" "$dir/local/bin/subst"
    cat > "$dir/flake/flake.nix" <<'NIX'
{ outputs = _: { legacyPackages.x86_64-linux.hello = derivation { name = "hello-2.12.2"; system = "x86_64-linux"; builder = "/bin/sh"; }; }; }
NIX
    printf '{"version": 2, "flakes": [{"from": {"type": "indirect", "id": "nixpkgs"}, "to": {"type": "path", "path": "/flake"}}]}' \
        > "$dir/home/.config/nix/registry.json"
    enter --bind "$dir/home" /home/me --bind "$dir/local" /usr/local --bind "$dir/flake" /flake --env HOME=/home/me \
        --env PATH=/usr/local/bin:/usr/bin:/bin --env "SUBST_SUBSTITUTE_URLS=$PEERS_NIX_ZSTD_URL" \
        --env "SUBST_TRUSTED_PUBLIC_KEYS=$PEERS_NIX_KEY" --env "NIX_CONFIG=extra-experimental-features = nix-command flakes
flake-registry =" sh "$@"
}

with_nix() { documented "$1" nix "$(head -n 1 "$PEERS_NIX_TOPS")" bash "$0" nix_shell "$WORK/$2"; }

# fixture_environment HOME: the variables of a shell that fetches from the fixtures.
fixture_environment() {
    printf '%s\n' HOME="$1" PATH="$1/bin:/usr/bin:/bin" \
        SUBST_SUBSTITUTE_URLS="file://$1/clone/fixtures/guix" SUBST_ACL="$1/clone/fixtures/guix/acl"
}

# stage: a home with a clone that every user can read; prints it.
stage() {
    local home
    home=$(mktemp -d)
    clone "$home/clone"
    mkdir "$home/bin"
    cp "$SUBST" "$home/bin/subst"
    chmod 755 "$home"
    chown -R "$1:$1" "$home"
    printf '%s\n' "$home"
}

unstage() { chmod -R u+w "$1"; rm -r "$1"; }

as_user() { setpriv --reuid=$USER_ID --regid=$USER_ID --clear-groups "$@"; }

# as_ordinary_user: without privileges. Where namespaces are forbidden to users, the pages say so, and nothing can be run. What the
# page on CI fetches is what README.md runs.
as_ordinary_user() {
    local home shell status=0
    as_user unshare --user true 2> /dev/null || { echo 'skipped: user namespaces are not allowed here'; return 0; }
    home=$(stage $USER_ID)
    mapfile -t environment < <(fixture_environment "$home")
    shell=(setpriv --reuid=$USER_ID --regid=$USER_ID --clear-groups env -i "${environment[@]}" sh)
    (cd "$home/clone" && documented docs/guides/ci.md user "$PROGRAM" "${shell[@]}" &&
        documented README.md user "$PROGRAM" "${shell[@]}") || status=$?
    unstage "$home"
    return $status
}

# ci_as_root: as root, in a root directory in memory with the directories of this machine.
ci_as_root() {
    local home status=0 directory binds=()
    home=$(stage 0)
    mapfile -t environment < <(fixture_environment "$home")
    for directory in /*; do
        [ "$directory" = /gnu ] || binds+=(--dev-bind "$directory" "$directory")
    done
    (cd "$home/clone" && documented docs/guides/ci.md root "$PROGRAM" bwrap "${binds[@]}" env -i "${environment[@]}" sh) || status=$?
    unstage "$home"
    return $status
}

# certificate: from a server with a self-signed certificate.
certificate() {
    local home status=0
    home=$(stage 0)
    TLS_PORT=$(free_ports 1)
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
        -keyout "$WORK/tls.key" -out "$WORK/tls.pem" 2> /dev/null
    printf '%s\n' tls "$TLS_PORT" "$FIXTURES/guix" - | paste -sd' ' | nginx_conf documents-tls |
        sed "s|listen .*;|listen 127.0.0.1:$TLS_PORT ssl; ssl_certificate $WORK/tls.pem; ssl_certificate_key $WORK/tls.key;|" > "$WORK/tls.conf"
    : > "$PEERS_LOG/nginx-tls.access.log"
    service_start documents-tls nginx -e "$PEERS_LOG/documents-tls.error.log" -c "$WORK/tls.conf"
    wait_for 10 port_open "$TLS_PORT"
    mapfile -t environment < <(fixture_environment "$home")
    (cd "$home/clone" && documented docs/configuration.md tls "$PROGRAM" env -i "${environment[@]}" sh) || status=$?
    service_stop documents-tls
    unstage "$home"
    return $status
}

# set_up_and_removed: the page on guix-daemon, which leaves none of the files and directories that it has made.
set_up_and_removed() {
    local left
    with_guix docs/guides/guix-daemon.md daemon
    left=$(cd "$WORK/daemon" && find systemd/* local/bin/* local/lib/* 2> /dev/null) || :
    [ -z "$left" ] || { echo "left: $left"; return 1; }
}

# removed_program: the daemon uses subst; subst is removed, and everything works on.
removed_program() {
    guix_shell "$WORK/removed" -c '
        set -eux
        item=$1
        install -D -m 755 packaging/guix-daemon/guix /usr/local/lib/subst/guix
        install -D -m 644 packaging/guix-daemon/systemd.conf /etc/systemd/system/guix-daemon.service.d/subst.conf
        systemctl restart guix-daemon
        rm /usr/local/bin/subst
        guix gc --list-live > /dev/null
        guix build "$item"
        test -e "$item"
        ! test -e /var/guix/subst' sh "$(item subst-file)"
}

# guix_system: the declaration of the page, evaluated by real Guix.
guix_system() {
    {
        echo '(use-modules (gnu) (gnu services base) (gnu services desktop))'
        echo '(define services'
        sed -n '/^```scheme$/,/^```$/p' "$REPOSITORY/docs/guides/guix-daemon.md" | grep -v '^```'
        cat <<'SCHEME'
)
(for-each (lambda (service)
            (when (eq? (service-kind service) guix-service-type)
              (display (guix-configuration-environment (service-value service)))
              (newline)))
          services)
SCHEME
    } > "$WORK/system.scm"
    enter --bind "$WORK/system.scm" /subst-system.scm guix repl -- /subst-system.scm > "$WORK/system.out"
    grep -x '(GUIX=/usr/local/lib/subst/guix)' "$WORK/system.out"
}

# book: mdBook builds it without a warning, and its links lead somewhere.
book() {
    [ -x "$PEERS_ROOT/usr/bin/mdbook" ] || { echo 'skipped: mdbook is not installed'; return 0; }
    cp -r "$REPOSITORY/docs" "$WORK/docs"
    mkdir -p "$WORK/book"
    enter --bind "$WORK/docs" /subst-docs --bind "$WORK/book" /subst-book mdbook build /subst-docs --dest-dir /subst-book > "$WORK/book.log" 2>&1
    cat "$WORK/book.log"
    ! grep -E 'WARN|ERROR' "$WORK/book.log"
    python3 "$PEERS_HERE/check-book.py" "$WORK/book"
}

if [ $# -gt 0 ]; then
    "$@"
    exit
fi
fresh_work
check documents-readme-guix with_guix README.md readme
check documents-guix-daemon set_up_and_removed
check documents-gc-roots with_guix docs/guides/gc-roots.md roots
check documents-item-names-guix with_guix docs/guides/item-names.md names
check documents-guix-system guix_system
check documents-removed-program removed_program
check documents-readme-nix with_nix README.md readme-nix
check documents-item-names-nix with_nix docs/guides/item-names.md names-nix
check documents-user as_ordinary_user
check documents-ci-root ci_as_root
check documents-certificate certificate
check documents-book book
