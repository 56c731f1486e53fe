#!/bin/bash
# Real guix-daemon with subst as its substituter helper ($GUIX): whole closures, other commands of the daemon, bad luck.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

# The helper behind the name guix, which also writes its process number down.
cat > "$WORK/guix-helper" <<'SH'
#!/bin/sh
echo $$ >> "/subst-client/pids$2"
exec /opt/subst/guix "$@"
SH
chmod +x "$WORK/guix-helper"
HELPER=(--bind "$SUBST" /opt/subst/guix --bind "$WORK/guix-helper" /opt/subst/helper --env GUIX=/opt/subst/helper)

realize() { client_realize "$1" "$2" "$3" "${HELPER[@]}" || { tail -n 20 "$1/log"; return 1; }; }

# in_client DIR FLAGS COMMAND...: COMMAND beside a daemon on DIR that uses our helper and the static server.
in_client() {
    local dir=$1 flags=$2; shift 2
    client_enter "$dir" --bind "$dir" /subst-client "${HELPER[@]}" "${MORE[@]}" \
        sh /subst-peers/inside/with-daemon "--substitute-urls=$PEERS_STATIC_URL $flags" "$@"
}
MORE=()

fresh_client() { rm -rf --one-file-system "$1"; client_new "$1"; }
item() { grep -- "-$1\$" "$PEERS_LIST" | head -n 1; }
big_item() { grep -- '-guix-1' "$PEERS_TOPS" | head -n 1; }
verified() { in_client "$1" '' guix gc --verify=contents; }

# has DIR PATH, lacks DIR PATH: whether the item is valid. (guix build of an item that cannot be had ends with 0.)
has() { [ "$(sqlite3 -cmd '.timeout 10000' "$1/var/db/db.sqlite" "select count(*) from ValidPaths where path = '$2'")" = 1 ] || { echo "$2 is not there"; return 1; }; }
lacks() { ! has "$1" "$2" > /dev/null || { echo "$2 is there"; return 1; }; }

# nothing_stale DIR: whatever is in the store is registered, or belongs to the store itself.
nothing_stale() {
    sqlite3 -cmd '.timeout 10000' "$1/var/db/db.sqlite" 'select path from ValidPaths' | sed 's|.*/||' | sort > "$WORK/registered"
    find "$1/store" -mindepth 1 -maxdepth 1 ! -name .links ! -name '*.lock' -printf '%f\n' | sort > "$WORK/present"
    diff "$WORK/registered" "$WORK/present"
}

# closure_is_fetched NAME URL: by build-things, from that server; the same store, links and rows as with the stock helper.
closure_is_fetched() {
    fresh_client "$WORK/$1"
    realize "$WORK/$1" "$2" "$PEERS_LIST"
    compare "$(stock_store)" "$WORK/$1"
}

by_guix_build() {
    fresh_client "$WORK/build"
    # shellcheck disable=SC2046
    in_client "$WORK/build" '' guix build $(cat "$PEERS_TOPS")
    compare "$(stock_store)" "$WORK/build"
}

four_at_a_time() {
    local url log=$PEERS_LOG/nginx-daemon-jobs.access.log
    fresh_client "$WORK/jobs"
    url=$(static_serve daemon-jobs "$PEERS_STATIC_DIR" 1)
    # shellcheck disable=SC2046
    in_client "$WORK/jobs" --max-jobs=4 guix build --max-jobs=4 "--substitute-urls=$url" $(cat "$PEERS_TOPS")
    service_stop nginx-daemon-jobs
    compare "$(stock_store)" "$WORK/jobs"
    [ "$(wc -l < "$WORK/jobs/pids--substitute")" -gt 1 ]
    expect_equal 'nars fetched' "$(awk '$2 ~ "^/nar/" && $3 < 300' "$log" | wc -l)" "$PEERS_COUNT"
    expect_equal 'nars fetched twice' "$(awk '$2 ~ "^/nar/" { print $2 }' "$log" | sort | uniq -d | wc -l)" 0
}

# Commands that the daemon runs through the same name: the real guix must do them.
dispatch() {
    local top
    top=$(big_item)
    in_client "$WORK/build" '' sh -c "guix gc -D $top; ! test -e $top; guix gc --list-busy > /dev/null; guix gc --list-dead | head -n 1"
    in_client "$WORK/build" '' guix build "$top"
    compare "$(stock_store)" "$WORK/build"
}

# Damage shows in .links as well, where it has to go too: the repaired file is the one that further items link to.
repair() {
    local name file entry
    name=$(basename "$(big_item)")
    file=$(find "$WORK/build/store/$name" -type f -size +20k -links +1 -print -quit)
    entry=$(find "$WORK/build/store/.links" -samefile "$file")
    chmod u+w "$file"; printf 'damage' | dd of="$file" conv=notrunc status=none; chmod u-w "$file"
    in_client "$WORK/build" '' guix gc --verify=contents && return 1
    in_client "$WORK/build" '' guix gc --verify=contents,repair
    verified "$WORK/build"
    nothing_stale "$WORK/build"
    cmp "$file" "$(stock_store)/store/${file#"$WORK/build/store/"}"
    expect_equal inode "$(stat -c %i "$entry")" "$(stat -c %i "$file")"
    compare "$(stock_store)" "$WORK/build"
}

no_substitutes() {
    fresh_client "$WORK/none"
    in_client "$WORK/none" '' guix build --no-substitutes "$(item subst-file)" || :
    lacks "$WORK/none" "$(item subst-file)"
    [ ! -e "$WORK/none/pids--query" ]
}

# The daemon has no server that works; the client names one.
clients_own_servers() {
    fresh_client "$WORK/own"
    client_enter "$WORK/own" --bind "$WORK/own" /subst-client "${HELPER[@]}" sh /subst-peers/inside/with-daemon \
        "--substitute-urls=http://127.0.0.1:1" guix build "--substitute-urls=nonsense $PEERS_STATIC_URL" "$(item subst-file)"
    has "$WORK/own" "$(item subst-file)"
}

unauthenticated() {
    fresh_client "$WORK/open"
    printf '(acl)\n' > "$WORK/empty-acl"
    MORE=(--bind "$WORK/empty-acl" /etc/guix/acl)
    in_client "$WORK/open" '' guix build "$(item subst-file)" || :
    lacks "$WORK/open" "$(item subst-file)"
    MORE+=(--env GUIX_ALLOW_UNAUTHENTICATED_SUBSTITUTES=yes)
    in_client "$WORK/open" '' guix build "$(item subst-file)" 2> "$WORK/open.err"
    has "$WORK/open" "$(item subst-file)"
    grep 'signatures are not verified' "$WORK/open.err"
}

# kill -9 of the helper while an item is on its way: a failure, nothing stale, and the next run succeeds.
killed() {
    local dir=$WORK/killed top helper
    top=$(big_item)
    fresh_client "$dir"
    in_client "$dir" '' guix build "$top" > "$WORK/killed.out" 2>&1 &
    local client=$!
    wait_for 60 test -e "$dir/store/$(basename "$top")"
    helper=$(tail -n 1 "$dir/pids--substitute")
    kill -KILL "$helper"
    wait "$client" || :
    tail -n 3 "$WORK/killed.out"
    lacks "$dir" "$top"
    in_client "$dir" '' guix build "$top"
    has "$dir" "$top"
    verified "$dir"
    nothing_stale "$dir"
}

# As an unprivileged user with nothing that can be written but the destination, and no home.
unprivileged() {
    local dir=$WORK/nobody url
    url=file://$FIXTURES/guix
    mkdir -p "$dir/out"; chown nobody "$dir/out"; chmod -R go+rX "$WORK"
    cp "$SUBST" "$dir/subst"
    sed -n 's|^\(/[^\t]*\)\t.*|\1|p' "$FIXTURES/guix/expected-rows.txt" | while read -r path; do
        printf 'substitute %s %s\n' "$path" "$dir/out/$(basename "$path")"
    done > "$dir/requests"
    setpriv --reuid=nobody --regid=nogroup --clear-groups env -i PATH="$PATH" GUIX_STATE_DIRECTORY="$dir/state" \
        "_NIX_OPTIONS=substitute-urls=$url" "$dir/subst" substitute --substitute --acl "$FIXTURES/guix/acl" \
        < "$dir/requests" 4> "$dir/replies"
    expect_equal successes "$(grep -c '^success ' "$dir/replies")" "$(wc -l < "$dir/requests")"
}

check stock-store stock_store
check daemon-build-things-static closure_is_fetched static "$PEERS_STATIC_URL"
check daemon-build-things-publish closure_is_fetched cached "$PEERS_GUIX_CACHED_URL"
check daemon-build-things-gzip closure_is_fetched gzip "$PEERS_GUIX_GZIP_URL"
check daemon-guix-build by_guix_build
check daemon-gc-verify verified "$WORK/static"
check daemon-max-jobs four_at_a_time
check daemon-dispatch dispatch
check daemon-repair repair
check daemon-no-substitutes no_substitutes
check daemon-client-urls clients_own_servers
check daemon-unauthenticated unauthenticated
check daemon-killed-helper killed
check daemon-unprivileged unprivileged
