#!/bin/bash
# `subst challenge` finds the same as real `guix challenge`, on three real publishers: one has built another item, one has a key that is
# not authorized. What `subst endorse` writes is used by a stock guix-daemon and by real Nix, with the nars of another server.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

# machine NAME BUILD: a store of its own in WORK/NAME, with a key of its own; `BUILD` decides how the items turn out.
machine() {
    local dir=$WORK/$1
    client_new "$dir"
    mkdir -p "$dir/etc" "$dir/log"
    printf '%s\n' "$2" > "$dir/which"
    on_machine "$1" sh /subst-peers/inside/with-daemon --no-substitutes \
        sh -c 'guix archive --generate-key && guix repl /subst-peers/scheme/two-builds.scm /subst-client/list'
}

# on_machine NAME COMMAND...: with the store, the state, the keys and the build logs of that machine.
on_machine() {
    local dir=$WORK/$1; shift
    client_enter "$dir" --bind "$dir" /subst-client --bind "$dir/etc" /etc/guix --bind "$dir/log" /var/log/guix \
        --bind "$SUBST" /opt/subst/subst --bind "$WORK" /subst-work "$@"
}

# published NAME: starts `guix publish` there; WORK/NAME.url has its address.
published() {
    local port dir=$WORK/$1
    port=$(free_ports 1)
    service_start "publish-$1" "$PEERS_HERE/enter" --bind "$dir/store" /gnu/store --bind "$dir/var" /var/guix \
        --bind "$dir/etc" /etc/guix --bind "$dir/log" /var/log/guix --bind "$PEERS_HERE" /subst-peers \
        sh /subst-peers/inside/with-daemon --no-substitutes guix publish --listen=127.0.0.1 -p "$port" -C gzip --ttl=1d
    wait_for 60 port_open "$port"
    printf 'http://127.0.0.1:%s\n' "$port" > "$dir.url"
}

item() { grep -- "-twice-$1\$" "$WORK/alice/list"; }
urls() { cat "$WORK/alice.url" "$WORK/bob.url" "$WORK/carol.url" | tr '\n' ' '; }

machines() {
    machine alice first
    # One more item, that nobody has built and no other server has.
    on_machine alice sh /subst-peers/inside/with-daemon --no-substitutes \
        sh -c 'echo only > /tmp/only-here && guix download file:///tmp/only-here' > "$WORK/only"
    machine bob second
    machine carol first
    sqlite3 "$WORK/alice/var/db/db.sqlite" "select path from ValidPaths where path not like '%.drv'" > "$WORK/paths"
    echo /gnu/store/00000000000000000000000000000000-nowhere >> "$WORK/paths"
    for name in alice bob carol; do published "$name"; done
}

# results FILE: from the messages of `guix challenge --verbose`, lines RESULT PATH.
guix_results() {
    sed -nE -e 's/^(.*) contents match:$/match \1/p' -e 's/^(.*) contents differ:$/differ \1/p' \
        -e "s/.*could not challenge '([^']*)'.*/inconclusive \1/p" "$1" | sort
}

subst_results() {
    python3 -c 'import json, sys
for item in json.load(open(sys.argv[1]))["items"]: print(item["result"], item["path"])' "$1" | sort
}

same_as_guix() {
    local status=0
    # shellcheck disable=SC2046
    on_machine alice sh /subst-peers/inside/with-daemon --no-substitutes \
        guix challenge --verbose --diff=simple "--substitute-urls=$(urls)" $(cat "$WORK/paths") > "$WORK/guix.out" 2> "$WORK/guix.err" || status=$?
    expect_equal 'exit status of guix challenge' "$status" 2
    # shellcheck disable=SC2046
    expect 3 on_machine alice /opt/subst/subst challenge --json --diff --substitute-urls "$(urls)" $(cat "$WORK/paths") > "$WORK/subst.json"
    guix_results "$WORK/guix.err" > "$WORK/guix.results"
    subst_results "$WORK/subst.json" > "$WORK/subst.results"
    cat "$WORK/guix.results"
    expect_equal 'compared items' "$(wc -l < "$WORK/guix.results")" "$(wc -l < "$WORK/paths")"
    for result in match differ inconclusive; do grep -q "^$result " "$WORK/guix.results"; done
    diff "$WORK/guix.results" "$WORK/subst.results"
}

# The files that `guix challenge` names are those that the local store has and another build has not.
same_files_as_guix() {
    python3 -c 'import json, sys
for item in json.load(open(sys.argv[1]))["items"]:
    for build in item["differences"]:
        assert build["error"] is None, build
        for file in build["files"]:
            if file["kind"] != "only-second": print(file["path"])' "$WORK/subst.json" | sort -u > "$WORK/subst.files"
    sed -nE 's/^    (.*)$/\1/p' "$WORK/guix.out" | sed 's/^$/\//' | sort -u > "$WORK/guix.files"
    cat "$WORK/guix.files"
    [ -s "$WORK/guix.files" ]
    diff "$WORK/guix.files" "$WORK/subst.files"
}

# Carol has built the same as Alice: she signs, and Alice's server sends the nars.
endorsed_for_guix() {
    local url item
    item=$(sqlite3 "$WORK/carol/var/db/db.sqlite" "select path from ValidPaths where path like '%-twice-first'")
    expect 0 on_machine carol /opt/subst/subst endorse --key /etc/guix/signing-key.sec --nars "$(cat "$WORK/alice.url")" \
        --to /subst-work/endorsed "$item"
    expect 3 on_machine carol /opt/subst/subst endorse --key /etc/guix/signing-key.sec --nars "$(cat "$WORK/bob.url")" \
        --to /subst-work/other "$(item other)"
    url=$(static_serve endorsed "$WORK/endorsed" -)

    mkdir -p "$WORK/client/etc"
    subst authorize --acl "$WORK/client/etc/acl" --fingerprint "$(sed -n 's/.*#\(.*\)#.*/\1/p' "$WORK/carol/etc/signing-key.pub")" "$url"
    client_new "$WORK/client"
    echo "$item" > "$WORK/wanted"
    client_realize "$WORK/client" "$url" "$WORK/wanted" --bind "$WORK/client/etc" /etc/guix || { tail "$WORK/client/log"; return 1; }
    diff -r "$WORK/carol/store/$(basename "$item")" "$WORK/client/store/$(basename "$item")"
    [ "$(requests endorsed)" -gt 0 ]
}

endorsed_for_nix() {
    local url top
    top=$(head -n 1 "$PEERS_NIX_TOPS")
    enter --bind "$WORK" /subst-work nix-store --generate-binary-cache-key endorser-1 /subst-work/nix.sec /subst-work/nix.pub
    chmod 600 "$WORK/nix.sec"
    enter nix-store -qR "$top" > "$WORK/nix.list"
    # shellcheck disable=SC2046
    expect 0 enter --bind "$WORK" /subst-work --bind "$SUBST" /opt/subst/subst /opt/subst/subst endorse --store-dir /nix/store \
        --key /subst-work/nix.sec --nars "$PEERS_NIX_ZSTD_URL" --to /subst-work/nix-endorsed --even-substituted $(cat "$WORK/nix.list")
    url=$(static_serve nix-endorsed "$WORK/nix-endorsed" -)
    cmp "$WORK/nix.pub" <(tr -d '\n' < "$WORK/nix-endorsed/public-key")
    mkdir -p "$WORK/nix-root"
    root_nix "$WORK/nix-root" nix copy --from "$url" --to "local?root=$WORK/nix-root" --option trusted-public-keys "$(cat "$WORK/nix.pub")" "$top"
    root_nix "$WORK/nix-root" nix-store --store "local?root=$WORK/nix-root" --verify --check-contents
    [ -e "$WORK/nix-root$top" ]
}

check machines machines
check same-as-guix same_as_guix
check same-files-as-guix same_files_as_guix
check endorsed-for-guix endorsed_for_guix
check endorsed-for-nix endorsed_for_nix
for name in alice bob carol; do service_stop "publish-$name"; done
service_stop nginx-endorsed
service_stop nginx-nix-endorsed
