# What the check scripts share: reporting, running subst in a clean environment, stock stores to compare with.
# To be sourced by checks/*.sh after the peers are up. A check is a function; its output is shown only when it fails.
# shellcheck shell=bash disable=SC2034

# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_root
# shellcheck disable=SC1090
. "$PEERS_STATE"

REPOSITORY=$(cd "$PEERS_HERE/../.." && pwd)
FIXTURES=$REPOSITORY/fixtures
SUBST=$(realpath -m "${SUBST:-$REPOSITORY/target/release/subst}")
WORK=$PEERS_DIR/work/$(basename "$0" .sh)

# fresh_work: an empty directory WORK for this script. Store items are read-only, but root does not mind.
fresh_work() {
    rm -rf --one-file-system "$WORK"
    mkdir -p "$WORK/home" "$WORK/output"
}

# check NAME FUNCTION [ARGUMENT]...: run it with `set -e` in a subshell; report `ok NAME`, or `FAIL NAME` with the end of its output.
check() {
    local name=$1 status began; shift
    began=$(now)
    set +e
    ( set -e; "$@" ) > "$WORK/output/$name" 2>&1
    status=$?
    set -e
    if [ $status = 0 ]; then
        printf 'ok %s (%s s)\n' "$name" "$(since "$began")"
    else
        printf 'FAIL %s: status %s: %s\n' "$name" "$status" "$(tail -n 3 "$WORK/output/$name" | tr '\n' ' ' | cut -c1-400)"
        sed 's/^/    | /' "$WORK/output/$name" | tail -n 30 >&2
    fi
}

# subst ARGUMENT...: the program under test, with nothing of the caller's environment.
subst() { env -i PATH="$PATH" HOME="$WORK/home" "$SUBST" "$@"; }

# expect CODES COMMAND...: run it; its exit status must be one of CODES (blank-separated).
expect() {
    local codes=$1 status=0; shift
    "$@" || status=$?
    case " $codes " in
        *" $status "*) ;;
        *) printf 'exit status %s, expected %s\n' "$status" "$codes"; return 1 ;;
    esac
}

# expect_equal WHAT A B
expect_equal() { [ "$2" = "$3" ] || { printf '%s: %s, expected %s\n' "$1" "$2" "$3"; return 1; }; }

# publisher NAME: a store of its own with a build of its own, a key of its own, and real `guix publish` on it. Its answers are
# copied to WORK/NAME-www; WORK/NAME.url has its address.
publisher() {
    local dir=$WORK/$1 port path
    client_new "$dir"
    mkdir -p "$dir/etc" "$dir-www/nar/gzip"
    printf '%s\n' "$1" > "$dir/which"
    client_enter "$dir" --bind "$dir" /subst-client --bind "$dir/etc" /etc/guix sh /subst-peers/inside/with-daemon --no-substitutes \
        sh -c 'guix archive --generate-key && guix repl /subst-peers/scheme/two-builds.scm /subst-client/list'
    port=$(free_ports 1)
    service_start "publish-$1" "$PEERS_HERE/enter" --bind "$dir/store" /gnu/store --bind "$dir/var" /var/guix \
        --bind "$dir/etc" /etc/guix --bind "$PEERS_HERE" /subst-peers \
        sh /subst-peers/inside/with-daemon --no-substitutes guix publish --listen=127.0.0.1 -p "$port" -C gzip --ttl=1d
    wait_for 30 port_open "$port"
    printf 'http://127.0.0.1:%s\n' "$port" > "$dir.url"
    sqlite3 "$dir/var/db/db.sqlite" 'select path from ValidPaths' | grep -v '\.drv$' > "$dir.paths"
    while read -r path; do
        path=$(basename "$path")
        curl -fsS -o "$dir-www/${path%%-*}.narinfo" "http://127.0.0.1:$port/${path%%-*}.narinfo"
        curl -fsS -o "$dir-www/nar/gzip/$path" "http://127.0.0.1:$port/nar/gzip/$path"
    done < "$dir.paths"
}

# compare ARGUMENT...: compare-stores.py, with the end of its output only.
compare() { python3 "$PEERS_HERE/compare-stores.py" "$@" | tail -n 40; }

# stock_store: a store that stock guix-daemon filled from the cached publisher with the whole closure; prints its directory.
# Made once per closure and kept.
stock_store() {
    local dir=$PEERS_DIR/stock
    if ! { [ -e "$dir/.complete" ] && cmp -s "$dir/list" "$PEERS_LIST"; }; then
        rm -rf --one-file-system "$dir"
        client_new "$dir"
        client_realize "$dir" "$PEERS_GUIX_CACHED_URL" "$PEERS_LIST" || { tail -n 5 "$dir/log" >&2; return 1; }
        touch "$dir/.complete"
    fi
    printf '%s\n' "$dir"
}

# nix_store: the same for Nix, filled by nix copy from the zstd cache; prints the root.
nix_store() {
    local dir=$PEERS_DIR/stock-nix
    if ! { [ -e "$dir/.complete" ] && cmp -s "$dir/list" "$PEERS_NIX_LIST"; }; then
        rm -rf --one-file-system "$dir"
        mkdir -p "$dir"
        nix_copy "$PEERS_NIX_ZSTD_URL" "$dir" > "$dir.log" 2>&1 || { tail -n 5 "$dir.log" >&2; return 1; }
        cp "$PEERS_NIX_LIST" "$dir/list"
        touch "$dir/.complete"
    fi
    printf '%s\n' "$dir"
}

# nix_copy URL ROOT: stock nix copies the whole Nix closure into an embedded store.
nix_copy() {
    root_nix "$2" sh -c "xargs nix copy --from '$1' --to 'local?root=$2' --option trusted-public-keys '$PEERS_NIX_KEY'" \
        < "$PEERS_NIX_LIST"
}

# listing DIRECTORY: everything below it that a failed fetch must not change: names, types, modes, sizes, times, link counts.
# Everything in the store. Its own time is left out: making and removing a temporary name moves it.
listing() { (cd "$1" && find . -mindepth 1 -printf '%P %y %m %s %T@ %n %l\n' | LC_ALL=C sort); }
