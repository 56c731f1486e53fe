#!/bin/bash
# Two publishers built and signed different outputs of the same derivations, both keys are authorized, and the nars of the first are
# gone, cut or corrupt: `subst fetch` and guix-daemon with our helper install what the second has, with its references.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

item() { grep -- "-twice-$1\$" "$WORK/second/list"; }

# damaged KIND: the first publisher's answers in WORK/damaged, with the nars of the two items gone, cut, or corrupt.
damaged() {
    local name
    rm -rf "$WORK/damaged"; cp -r "$WORK/first-www" "$WORK/damaged"
    for name in "$(basename "$(item same)")" "$(basename "$(item other)")"; do
        case $1 in
            gone) rm "$WORK/damaged/nar/gzip/$name" ;;
            cut) truncate -s 100000 "$WORK/damaged/nar/gzip/$name" ;;
            corrupt) printf 'damage' | dd of="$WORK/damaged/nar/gzip/$name" bs=1 seek=200000 conv=notrunc status=none ;;
        esac
    done
}

# references STATE PATH: what it refers to, by the database of that state directory.
references() { sqlite3 "$1/db/db.sqlite" "select b.path from Refs join ValidPaths a on referrer = a.id join ValidPaths b on reference = b.id where a.path = '$2' order by 1"; }

# is_of_second STORE STATE ITEM: what was installed is the second publisher's build, references included.
is_of_second() {
    diff -r "$WORK/second/store/$(basename "$3")" "$1/$(basename "$3")"
    diff <(references "$WORK/second/var" "$3") <(references "$2" "$3")
}

fetched() {
    local root=$WORK/root-$1 name
    damaged "$1"
    expect 0 subst fetch --root "$root" --acl "$WORK/acl" --substitute-urls "$DAMAGED_URL $SECOND_URL" "$(item same)" "$(item other)"
    for name in same other; do is_of_second "$root/gnu/store" "$root/var/guix" "$(item "$name")"; done
    root_guix "$root" guix gc --verify=contents
}

to_output() {
    damaged "$1"
    expect 0 subst fetch --root "$WORK/empty-root" --acl "$WORK/acl" --substitute-urls "$DAMAGED_URL $SECOND_URL" --output "$WORK/out-$1" "$(item other)"
    diff -r "$WORK/second/store/$(basename "$(item other)")" "$WORK/out-$1"
}

# realize DIR ITEM: by guix-daemon with our helper, from the damaged first and the good second publisher.
realize() {
    client_new "$1"
    item "$2" > "$1.list"
    client_realize "$1" "$DAMAGED_URL $SECOND_URL" "$1.list" --bind "$SUBST" /opt/subst/guix --env GUIX=/opt/subst/guix \
        --bind "$WORK/acl" /etc/guix/acl
}

# The references are equal: the daemon gets the second publisher's build.
substituted() {
    local dir=$WORK/daemon-$1
    damaged "$1"
    realize "$dir" same || { tail -n 20 "$dir/log"; return 1; }
    is_of_second "$dir/store" "$dir/var" "$(item same)"
}

# The references differ from those of the reply to the daemon: it must not get that build.
not_substituted() {
    local dir=$WORK/daemon-other-$1
    damaged "$1"
    ! realize "$dir" other || { echo 'installed, with the references of another build'; return 1; }
    [ ! -e "$dir/store/$(basename "$(item other)")" ]
}

trap 'service_stop publish-first; service_stop publish-second; service_stop nginx-damaged' EXIT
for name in first second; do check "second-server-publisher-$name" publisher "$name"; done
SECOND_URL=$(cat "$WORK/second.url")
DAMAGED_URL=$(static_serve damaged "$WORK/damaged" 1)
{
    echo '(acl'
    for name in first second; do printf '(entry %s (tag (guix import)))\n' "$(cat "$WORK/$name/etc/signing-key.pub")"; done
    echo ')'
} > "$WORK/acl"
for kind in gone cut corrupt; do
    check "second-server-fetch-$kind" fetched "$kind"
    check "second-server-output-$kind" to_output "$kind"
    check "second-server-daemon-$kind" substituted "$kind"
    check "second-server-daemon-other-references-$kind" not_substituted "$kind"
done
