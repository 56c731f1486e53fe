#!/bin/bash
# The lookup cache: many processes, killed at any moment, damaged and unusable files, and the commands that look at it.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work
python3 "$PEERS_HERE/fill-narinfos.py" 5000 "$WORK/fill"
url=$(static_serve lookup-cache "$WORK/fill/www" -)
trap 'service_stop nginx-lookup-cache' EXIT
head -n 300 "$WORK/fill/list" > "$WORK/few.list"

# query ROOT LIST [ARGUMENT]...
query() {
    local root=$1 list=$2; shift 2
    subst query --root "$root" --acl "$WORK/fill/acl" --substitute-urls "$url" - "$@" < "$list"
}

cache_file() { find "$1" -name 'lookups-*.sqlite'; }
sound() { expect_equal integrity "$(sqlite3 "$(cache_file "$1")" 'pragma integrity_check')" ok; }
entries() { sqlite3 "$(cache_file "$1")" 'select count(*) from lookups'; }
all_available() { expect_equal available "$(grep -c '^available' "$1")" "$2"; }

two_at_once() {
    local first
    query "$WORK/two" "$WORK/fill/list" > "$WORK/two.first" 2> "$WORK/two.words" &
    first=$!
    query "$WORK/two" "$WORK/fill/list" > "$WORK/two.second" 2>> "$WORK/two.words"
    wait "$first"
    all_available "$WORK/two.first" 5000
    all_available "$WORK/two.second" 5000
    expect_equal warnings "$(grep -c warning "$WORK/two.words" || true)" 0
    sound "$WORK/two"
    expect_equal entries "$(entries "$WORK/two")" 5000
}

ten_at_once() {
    local pids=() pid
    for n in $(seq 10); do
        query "$WORK/ten" "$WORK/few.list" > "$WORK/ten.$n" 2>> "$WORK/ten.words" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid"; done
    for n in $(seq 10); do all_available "$WORK/ten.$n" 300; done
    sound "$WORK/ten"
}

# Killed 100 times, at random moments of the time that a query takes here, from before its first write to after its last.
killed() {
    local pid began took dead=0 n=0
    began=$(now)
    query "$WORK/killed" "$WORK/fill/list" --refresh > /dev/null
    took=$(since "$began")
    while [ "$dead" -lt 100 ] && [ "$n" -lt 500 ]; do
        n=$((n + 1))
        # Not through the shell function, which would be a process of its own.
        env -i PATH="$PATH" HOME="$WORK/home" "$SUBST" query --root "$WORK/killed" --acl "$WORK/fill/acl" \
            --substitute-urls "$url" --refresh - < "$WORK/fill/list" > /dev/null 2>> "$WORK/killed.words" &
        pid=$!
        sleep "$(awk -v r="$RANDOM" -v t="$took" 'BEGIN { print r / 32768 * t }')"
        kill -KILL "$pid" 2> /dev/null || true
        if wait "$pid" 2> /dev/null; then :; elif [ $? = 137 ]; then dead=$((dead + 1)); fi
        sound "$WORK/killed"
    done
    echo "$dead of $n were killed in time, within $took s; entries: $(entries "$WORK/killed")"
    [ "$dead" = 100 ]
    expect_equal 'rebuilt files' "$(find "$WORK/killed" -name '*.damaged' | wc -l)" 0
    query "$WORK/killed" "$WORK/fill/list" > "$WORK/killed.out"
    all_available "$WORK/killed.out" 5000
    sound "$WORK/killed"
}

# warned_and_works ROOT PATTERN: a query there prints one warning that matches, and finds all items.
warned_and_works() {
    query "$1" "$WORK/few.list" > "$WORK/out" 2> "$WORK/stderr"
    cat "$WORK/stderr"
    all_available "$WORK/out" 300
    expect_equal warnings "$(grep -c warning "$WORK/stderr")" 1
    grep -q "$2" "$WORK/stderr"
}

# damaged DAMAGE...: make a cache, do the damage to the file (its name is the last argument), query; then all is well again.
damaged() {
    local root=$WORK/damaged file
    rm -rf "$root"
    query "$root" "$WORK/few.list" > /dev/null
    file=$(cache_file "$root")
    sqlite3 "$file" 'pragma wal_checkpoint(truncate)' > /dev/null
    "$@" "$file"
    warned_and_works "$root" "$file"
    query "$root" "$WORK/few.list" > "$WORK/out" 2> "$WORK/stderr"
    all_available "$WORK/out" 300
    expect_equal 'words of the next process' "$(grep -c warning "$WORK/stderr" || true)" 0
    sound "$root"
}

random_bytes() { head -c 200000 /dev/urandom > "$1"; }
cut_short() { truncate -s 5000 "$1"; }
one_page_lost() { dd if=/dev/zero of="$1" bs=4096 seek=3 count=20 conv=notrunc status=none; }
other_program() { rm -f "$1"; sqlite3 "$1" 'create table t (x); pragma application_id = 12345'; }
other_tables() { sqlite3 "$1" 'alter table lookups rename column text to words'; }

# A file of a future version has another name: both stay, without a warning.
future_version() {
    local root=$WORK/future file
    query "$root" "$WORK/few.list" > /dev/null
    file=$(cache_file "$root")
    head -c 1000 /dev/urandom > "$(dirname "$file")/lookups-v999.sqlite"
    query "$root" "$WORK/few.list" > "$WORK/out" 2> "$WORK/stderr"
    all_available "$WORK/out" 300
    expect_equal warnings "$(grep -c warning "$WORK/stderr" || true)" 0
    expect_equal 'size of the other one' "$(stat -c %s "$(dirname "$file")/lookups-v999.sqlite")" 1000
}

# with_tmpfs OPTIONS COMMAND...: on a file system of its own at WORK/tmpfs, not visible to other processes.
with_tmpfs() {
    local options=$1; shift
    mkdir -p "$WORK/tmpfs"
    unshare -m bash -c '
        set -euo pipefail
        mount -t tmpfs -o "$1" tmpfs "$2"; shift
        place=$1; shift
        "$@" "$place"
    ' bash "$options" "$WORK/tmpfs" "$@"
}
export -f query subst warned_and_works all_available expect_equal full read_only 2> /dev/null || true

full() {
    mkdir "$1/root"
    head -c 100M /dev/zero > "$1/filler" 2> /dev/null || true
    warned_and_works "$1/root" root
}

nearly_full() {
    mkdir "$1/root"
    head -c 900K /dev/zero > "$1/filler"
    query "$1/root" "$WORK/fill/list" > "$WORK/out" 2> "$WORK/stderr"
    cat "$WORK/stderr"
    all_available "$WORK/out" 5000
    expect_equal warnings "$(grep -c warning "$WORK/stderr")" 1
}

read_only() {
    mkdir "$1/root"
    mount -o remount,ro "$1"
    warned_and_works "$1/root" root
}

read_only_with_entries() {
    mkdir "$1/root"
    query "$1/root" "$WORK/few.list" > /dev/null
    mount -o remount,ro "$1"
    warned_and_works "$1/root" root
}
export -f full nearly_full read_only read_only_with_entries
export WORK SUBST url

commands() {
    local root=$WORK/commands item
    query "$root" "$WORK/few.list" > /dev/null
    item=$(head -n 1 "$WORK/few.list")
    subst cache info --root "$root" --json > "$WORK/info"
    python3 -c 'import json, sys; info = json.load(open(sys.argv[1])); assert info["positive"] == 300 and info["sound"] and info["servers"] == 1, info' "$WORK/info"
    subst cache info --root "$root"
    subst cache list --root "$root" --json > "$WORK/list"
    python3 "$PEERS_HERE/check-cache-list.py" "$WORK/list" "$url" "$item"
    expect_equal lines "$(subst cache list --root "$root" | grep -c "$url")" 300
    subst cache flush --root "$root" "$item"
    expect_equal 'after flushing one item' "$(entries "$root")" 299
    expect 2 subst cache flush --root "$root" --server http://other.example
    expect_equal 'after flushing another server' "$(entries "$root")" 299
    sqlite3 "$(cache_file "$root")" "update lookups set expires_at = asked_at where item < '8'"
    subst cache prune --root "$root"
    expect_equal 'after pruning' "$(entries "$root")" "$(sqlite3 "$(cache_file "$root")" "select count(*) from lookups where item >= '8'")"
    subst cache flush --root "$root" --server "$url"
    expect_equal 'after flushing the server' "$(entries "$root")" 0
    subst cache list --root "$root"
    subst cache info --root "$root"
}

check cache-two-at-once two_at_once
check cache-ten-at-once ten_at_once
check cache-killed killed
check cache-random-bytes damaged random_bytes
check cache-cut-short damaged cut_short
check cache-pages-lost damaged one_page_lost
check cache-other-program damaged other_program
check cache-other-tables damaged other_tables
check cache-future-version future_version
check cache-full with_tmpfs size=1M full
check cache-nearly-full with_tmpfs size=1M nearly_full
check cache-read-only with_tmpfs size=10M read_only
check cache-read-only-with-entries with_tmpfs size=10M read_only_with_entries
check cache-commands commands
