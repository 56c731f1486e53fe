#!/bin/bash
# The comparison of stores finds every kind of damage (otherwise its silence would prove nothing).
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

# Some items of the publisher's own store, as a small store.
grep -E -- '-subst-(twins|names|deep|file)$' "$PEERS_LIST" > "$WORK/list"

# small DIR: a copy of those items and of the .links entries they use, with the database.
small() {
    mkdir -p "$1/store/.links" "$1/var/db"
    # shellcheck disable=SC2046
    (cd "$PEERS_GUIX_STORE" && tar -cf - $(sed 's|.*/||' "$WORK/list") \
        $(find .links -type f -samefile "$(find ./*-subst-twins/100000 -print -quit)")) | tar -xf - -C "$1/store"
    sqlite3 "$PEERS_GUIX_DB" ".backup $1/var/db/db.sqlite"
}

equal_is_equal() { small "$WORK/a"; small "$WORK/b"; compare --list "$WORK/list" "$WORK/a" "$WORK/b"; }

# finds DAMAGE: damage a copy; the comparison must find it.
finds() {
    local store twins
    rm -rf "$WORK/b"
    small "$WORK/b"
    store=$WORK/b/store
    twins=$(find "$store" -maxdepth 1 -name '*-subst-twins')
    damage "$1" "$store" "$twins"
    expect 1 python3 "$PEERS_HERE/compare-stores.py" --list "$WORK/list" "$WORK/a" "$WORK/b"
}

damage() {
    local file=$3/8191
    case $1 in
        byte) chmod u+w "$file"; printf x | dd of="$file" bs=1 seek=100 conv=notrunc status=none; chmod u-w "$file"; touch -d @1 "$file" ;;
        mode) chmod 555 "$file" ;;
        time) touch -d @2 "$file" ;;
        link-time) touch -h -d @2 "$(find "$2" -name dangling)" ;;
        directory-time) touch -d @2 "$3" ;;
        missing) rm "$file"; touch -d @1 "$3" ;;
        extra) : > "$3/extra"; chmod 444 "$3/extra"; touch -d @1 "$3/extra" "$3" ;;
        target) local link; link=$(find "$2" -name dangling); ln -sfn elsewhere "$link"; touch -h -d @1 "$link"; touch -d @1 "$(dirname "$link")" ;;
        type) rm "$file"; ln -s 8192 "$file"; touch -h -d @1 "$file"; touch -d @1 "$3" ;;
        not-linked) cp -p "$3/100000" "$2/copy"; mv -f "$2/copy" "$3/100000"; touch -d @1 "$3" ;;
        hash) sqlite3 "$2/../var/db/db.sqlite" "update ValidPaths set hash = 'sha256:00' where path like '%-subst-twins'" ;;
        size) sqlite3 "$2/../var/db/db.sqlite" "update ValidPaths set narSize = 1 where path like '%-subst-twins'" ;;
        deriver) sqlite3 "$2/../var/db/db.sqlite" "update ValidPaths set deriver = null where path like '%-subst-twins'" ;;
        reference) sqlite3 "$2/../var/db/db.sqlite" "delete from Refs where referrer in (select id from ValidPaths where path like '%-subst-twins')" ;;
    esac
}

check compare-equal equal_is_equal
for what in byte mode time link-time directory-time missing extra target type not-linked hash size deriver reference; do
    check "compare-finds-$what" finds $what
done
