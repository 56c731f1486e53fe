#!/bin/bash
# The answers of our helper and of the stock one to the same questions about the same servers, good and bad.
# Where the stock helper dies, ours has to answer and to live on.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

ACL=$FIXTURES/guix/acl
DEAD=http://127.0.0.1:1
UNKNOWN=/gnu/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-unknown
sed -n 's|^\(/[^\t]*\)\t.*|\1|p' "$FIXTURES/guix/expected-rows.txt" > "$WORK/list"
printf '%s\n' "$UNKNOWN" >> "$WORK/list"

# server NAME SED-EXPRESSION: the fixtures with every narinfo edited.
server() {
    mkdir -p "$WORK/$1"
    cp -r "$FIXTURES/guix/." "$WORK/$1/"
    [ -z "$2" ] || sed -i -E "$2" "$WORK/$1"/*.narinfo
}
server good ''
server unsigned '/^Signature:/d'
server corrupted 's/^NarHash: sha256:(.)(.)/NarHash: sha256:\2\1/'
server liar 's/^NarSize: (.*)/NarSize: 1\1/; s/^References: .*/References: /'
server garbage 's/^/%%%/'
while read -r name; do printf '%s 0 %s -\n' "answers-$name" "$WORK/$name"; done > "$WORK/servers" <<'EOL'
good
unsigned
corrupted
liar
garbage
EOL
mapfile -t ports < <(free_ports 5)
n=0
while read -r name _ dir info; do
    printf '%s %s %s %s\n' "$name" "${ports[n]}" "$dir" "$info"
    declare "${name#answers-}=http://127.0.0.1:${ports[n]}"
    n=$((n + 1))
done < "$WORK/servers" > "$WORK/servers.conf"
nginx_start nginx-answers < "$WORK/servers.conf"
wait_for 10 port_open "${ports[4]}"
trap 'service_stop nginx-answers' EXIT

# sorted: the reply to have or info, with the items in the order of their names.
sorted() {
    python3 "$PEERS_HERE/sort-replies.py" "$1"
}

our_query() {
    { printf '%s ' "$4"; tr '\n' ' ' < "$5"; printf '\n'; } > "$WORK/question"
    env -i PATH="$PATH" XDG_CACHE_HOME="$3" GUIX_STATE_DIRECTORY="$3/state" "_NIX_OPTIONS=substitute-urls=$1" \
        "$SUBST" substitute --query --acl "$2" 4>&1 1>&2 < "$WORK/question"
}

# same URLS [ACL]: both helpers answer have and info alike.
same() {
    local question acl=${2:-$ACL}
    for question in have info; do
        rm -rf "$WORK/cache"; mkdir -p "$WORK/cache/stock" "$WORK/cache/ours"
        stock_query "$1" "$acl" "$WORK/cache/stock" $question "$WORK/list" > "$WORK/stock.$question"
        our_query "$1" "$acl" "$WORK/cache/ours" $question "$WORK/list" > "$WORK/ours.$question"
        diff <(sorted $question < "$WORK/stock.$question") <(sorted $question < "$WORK/ours.$question")
    done
    printf '%s lines\n' "$(wc -l < "$WORK/ours.info")"
}

# answers COUNT URLS: ours alone, where the stock helper dies.
answers() {
    rm -rf "$WORK/cache"; mkdir -p "$WORK/cache/ours"
    our_query "$2" "$ACL" "$WORK/cache/ours" have "$WORK/list" > "$WORK/ours.have"
    expect_equal items "$(grep -c . "$WORK/ours.have")" "$1"
}

# same_bytes: both helpers write the same trees and send the same replies.
same_bytes() {
    local side
    for side in stock ours; do mkdir -p "$WORK/trees/$side"; done
    grep -v "$UNKNOWN" "$WORK/list" | while read -r path; do printf 'substitute %s /trees/%s\n' "$path" "$(basename "$path")"; done > "$WORK/requests"
    for side in stock ours; do
        local program=guix
        [ $side = stock ] || program=/opt/subst/guix
        mkdir -p "$WORK/cache/$side"
        python3 "$PEERS_HERE/helper-client.py" lines "$WORK/requests" "$WORK/replies-$side" "$PEERS_HERE/enter" \
            --bind "$WORK/trees/$side" /trees --bind "$ACL" /etc/guix/acl --bind "$WORK/cache/$side" /subst-cache \
            --bind "$SUBST" /opt/subst/guix --env XDG_CACHE_HOME=/subst-cache \
            --env "_NIX_OPTIONS=substitute-urls=$good" "$program" substitute --substitute
    done
    diff "$WORK/replies-stock" "$WORK/replies-ours"
    diff <(listing "$WORK/trees/stock" | sed -E 's/ [0-9]+ ([^ ]+) [0-9]+ / \1 /') \
        <(listing "$WORK/trees/ours" | sed -E 's/ [0-9]+ ([^ ]+) [0-9]+ / \1 /')
    diff -r --no-dereference "$WORK/trees/stock" "$WORK/trees/ours"
}

# shellcheck disable=SC2154
{
    check answers-known same "$good"
    check answers-unsigned same "$unsigned"
    check answers-wrong-key same "$good" "$PEERS_GUIX_ACL"
    check answers-corrupted same "$corrupted"
    check answers-mirror-first same "$unsigned $good"
    check answers-liar-first same "$liar $good"
    check answers-corrupted-first same "$corrupted $good"
    check answers-dead-first same "$DEAD $good"
    check answers-dead-last same "$good $DEAD"
    check answers-garbage answers 0 "$garbage"
    check answers-garbage-first answers 7 "$garbage $good"
    check answers-no-server answers 0 ''
    check answers-same-bytes same_bytes
}
