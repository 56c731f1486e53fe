#!/bin/bash
# The Debian package: what lintian says of it; then in a new Debian, made by debootstrap, with nothing but the package, the README's
# command; with Guix, guix-daemon through the drop-in; then purge, after which guix works without subst, and only the store is left.
#
# By default, the Debian is the one that the chroot was in the beginning, and the packages of Guix are those that were downloaded for the
# chroot. DEBOOTSTRAP=1 downloads all of it again from the mirror, which takes 2 minutes more.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work
new_root=$WORK/peers/chroot
mkdir -p "$new_root" "$WORK/package"
trap 'rm -rf --one-file-system "$WORK/peers"' EXIT

in_new_root() {
    SUBST_PEERS_DIR=$WORK/peers enter_with_proxies --bind "$PEERS_HERE" /subst-peers --bind "$FIXTURES" /root/fixtures \
        --bind "$WORK/package" /root/package "$@"
}

# The program that the package contains is that of target/release, as for everyone who builds it.
build() {
    cmp "$SUBST" "$REPOSITORY/target/release/subst"
    # Names of directories of this machine would make it another program in another directory.
    ! grep --quiet --fixed-strings registry/src/ "$SUBST" || { echo "$SUBST names directories of crates: build it with packaging/build-release"; return 1; }
    "$REPOSITORY/packaging/build-deb" --no-build --output "$WORK/package/subst.deb"
    expect_equal 'more than 12 MB' "$(find "$SUBST" -size +12000000c)" ''
}

new_debian() {
    if [ -n "${DEBOOTSTRAP-}" ]; then
        debian_bootstrap sid "$new_root"
    else
        tar --extract --numeric-owner --file="$PEERS_DEBIAN" --directory="$new_root"
    fi
    debian_apt "$new_root"
}

# The address of the maintainer is a placeholder, which the owner replaces (docs/development/releasing.md), and no bug report of
# Debian asks for the package.
lint() {
    lintian --allow-root --fail-on error,warning --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs \
        "$WORK/package/subst.deb"
}

installed() {
    in_new_root sh -c 'dpkg --install /root/package/subst.deb && dpkg --listfiles subst > /root/files' < /dev/null
    in_new_root sh -euc 'gzip -dc /usr/share/man/man1/subst-fetch.1.gz | grep -q "^\.TH"; [ -e /usr/share/man/man5/subst.toml.5.gz ]'
    expect_equal version "$(in_new_root subst --version)" "$("$SUBST" --version)"
    # The daemon goes on as before until the administrator enables the drop-in.
    ! in_new_root grep --recursive --files-with-matches lib/subst/guix /etc /usr/lib/systemd
}

# The first command of the README, with the installed program in place of cargo's.
readme() {
    local command
    command=$(awk '/^```sh$/ { inside = 1; next } /^```$/ { exit } inside' "$REPOSITORY/README.md")
    case $command in 'cargo run --locked -- fetch '*) ;; *) echo "another command: $command"; return 1 ;; esac
    in_new_root sh -c "cd /root && subst ${command#cargo run --locked -- }" > "$WORK/roots"
    cmp "$WORK/roots" "$FIXTURES/guix/roots"
}

# with_daemon COMMAND: beside guix-daemon with the environment that its service has now.
with_daemon() {
    in_new_root sh /subst-peers/inside/with-service "--substitute-urls=$PEERS_STATIC_URL" sh -euc "$1"
}

# Guix is installed after subst. What was downloaded for the chroot is not downloaded again.
install_guix() {
    local options=() update='apt-get update'
    if [ -z "${DEBOOTSTRAP-}" ]; then
        update=true
        options=(--bind "$PEERS_ROOT/var/lib/apt/lists" /var/lib/apt/lists --bind "$PEERS_ROOT/var/cache/apt/archives" /var/cache/apt/archives)
    fi
    in_new_root "${options[@]}" sh -euc "$update
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends guix guile-zstd guile-lzlib" < /dev/null
    cp "$PEERS_GUIX_KEY" "$WORK/package/key"
    in_new_root subst authorize /root/package/key
}

daemon() {
    in_new_root sh -euc 'mkdir -p /etc/systemd/system/guix-daemon.service.d
        ln -s /usr/share/subst/guix-daemon.conf /etc/systemd/system/guix-daemon.service.d/subst.conf'
    with_daemon "guix build $(grep -- '-subst-file$' "$PEERS_LIST")"
    # The answers that the helper has cached.
    in_new_root subst cache list > "$WORK/answers"
    head -n 3 "$WORK/answers"
    grep -q '^positive .*-subst-file' "$WORK/answers"
}

purged() {
    in_new_root dpkg --purge subst < /dev/null
    in_new_root sh -euc 'while read -r file; do [ -d "$file" ] || ! [ -e "$file" ] || { echo "$file is left"; exit 1; }; done < /root/files
        for file in /etc/subst /var/guix/subst /usr/lib/subst /usr/share/subst /etc/systemd/system/guix-daemon.service.d; do
            ! [ -e "$file" ] || { echo "$file is left"; exit 1; }
        done'
    # What was fetched is valid, and the stock helper fetches more.
    with_daemon "guix gc --verify=contents
        guix build $(grep -- '-subst-file$' "$PEERS_LIST") $(grep -v -- '-subst-file$' "$PEERS_LIST" | head -n 1)
        guix gc --list-dead > /dev/null"
}

check deb-build build
check deb-lintian lint
check deb-debian new_debian
check deb-installed installed
check deb-readme readme
check deb-guix install_guix
check deb-daemon daemon
check deb-purged purged
