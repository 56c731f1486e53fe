#!/bin/bash
# The Debian package: what lintian says of it; then in a copy of the chroot, with nothing of subst but the package, the README's
# command and guix-daemon through the drop-in; then purge, after which guix works without subst, and only the store is left.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
own_mounts "${BASH_SOURCE[0]}" "$@"
fresh_work

# The copy of the chroot: changes go to a directory of this check.
mkdir -p "$WORK/upper" "$WORK/scratch" "$WORK/peers/chroot"
mount -t overlay -o "lowerdir=$PEERS_ROOT,upperdir=$WORK/upper,workdir=$WORK/scratch" overlay "$WORK/peers/chroot"
trap 'umount "$WORK/peers/chroot"' EXIT
client_new "$WORK/client"
mkdir -p "$WORK/package"

in_copy() {
    SUBST_PEERS_DIR=$WORK/peers "$PEERS_HERE/enter" --bind "$PEERS_HERE" /subst-peers --bind "$FIXTURES" /root/fixtures \
        --bind "$WORK/package" /root/package --bind "$WORK/client/store" /gnu/store --bind "$WORK/client/var" /var/guix "$@"
}

# The program that the package contains is that of target/release, as for everyone who builds it.
build() {
    cmp "$SUBST" "$REPOSITORY/target/release/subst"
    "$REPOSITORY/packaging/build-deb" --no-build --output "$WORK/package/subst.deb"
    expect_equal 'more than 12 MB' "$(find "$SUBST" -size +12000000c)" ''
}

# The address of the maintainer is a placeholder, which the owner replaces (docs/development/releasing.md), and no bug report of
# Debian asks for the package.
lint() {
    lintian --allow-root --fail-on error,warning --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs \
        "$WORK/package/subst.deb"
}

installed() {
    in_copy sh -c 'dpkg --install /root/package/subst.deb && dpkg --listfiles subst > /root/files' < /dev/null
    in_copy sh -euc 'gzip -dc /usr/share/man/man1/subst-fetch.1.gz | grep -q "^\.TH"; [ -e /usr/share/man/man5/subst.toml.5.gz ]'
    expect_equal version "$(in_copy subst --version)" "$("$SUBST" --version)"
    # The daemon goes on as before until the administrator enables the drop-in.
    ! in_copy grep --recursive --files-with-matches lib/subst/guix /etc /usr/lib/systemd
}

# The first command of the README, with the installed program in place of cargo's.
readme() {
    local command
    command=$(awk '/^```sh$/ { inside = 1; next } /^```$/ { exit } inside' "$REPOSITORY/README.md")
    case $command in 'cargo run --locked -- fetch '*) ;; *) echo "another command: $command"; return 1 ;; esac
    in_copy sh -c "cd /root && subst ${command#cargo run --locked -- }" > "$WORK/roots"
    cmp "$WORK/roots" "$FIXTURES/guix/roots"
}

# with_daemon COMMAND: beside guix-daemon with the environment that its service has now.
with_daemon() {
    in_copy sh /subst-peers/inside/with-service "--substitute-urls=$PEERS_STATIC_URL" sh -euc "$1"
}

daemon() {
    in_copy sh -euc 'mkdir -p /etc/systemd/system/guix-daemon.service.d
        ln -s /usr/share/subst/guix-daemon.conf /etc/systemd/system/guix-daemon.service.d/subst.conf'
    with_daemon "guix build $(grep -- '-subst-file$' "$PEERS_LIST")"
    # The answers that the helper has cached.
    in_copy subst cache list > "$WORK/answers"
    head -n 3 "$WORK/answers"
    grep -q '^positive .*-subst-file' "$WORK/answers"
}

purged() {
    in_copy dpkg --purge subst < /dev/null
    in_copy sh -euc 'while read -r file; do [ -d "$file" ] || ! [ -e "$file" ] || { echo "$file is left"; exit 1; }; done < /root/files
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
check deb-installed installed
check deb-readme readme
check deb-daemon daemon
check deb-purged purged
