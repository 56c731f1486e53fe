#!/bin/bash
# The cache-miss report on a mixed set, in a pipe, in a terminal of 80 columns and as JSON; nars in a proxy's cache; `subst servers`;
# servers discovered in the local network; progress; timeouts of single servers. PEERS_SHOW=1 prints the reports.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work
python3 "$PEERS_HERE/fill-narinfos.py" 200 "$WORK/fill"
faulty_port=$(free_ports 1)
service_start faulty-report python3 "$PEERS_HERE/faulty-server.py" "$faulty_port" "$WORK/fill/www" "$WORK/faulty.log"
trap 'service_stop faulty-report; service_stop nginx-report; service_stop nginx-report-proxy' EXIT
wait_for 10 port_open "$faulty_port"
FAULTY=http://127.0.0.1:$faulty_port
refuses=http://127.0.0.1:$(free_ports 1)

# The first eight narinfos in the order of names: one of each kind that the server `mixed` knows.
find "$WORK/fill/www" -name '*.narinfo' -printf '%f\n' | LC_ALL=C sort | sed -n '1,8s/\.narinfo//p' > "$WORK/hashes"
while read -r hash; do grep "/$hash-" "$WORK/fill/list"; done < "$WORK/hashes" > "$WORK/mixed.list"

# report ROOT URLS [ARGUMENT]...
report() {
    local root=$WORK/roots/$1 urls=$2; shift 2
    subst query --cache-miss-report --root "$root" --acl "$WORK/fill/acl" --substitute-urls "$urls" "$@" - < "$WORK/mixed.list"
}

show() { [ -z "${PEERS_SHOW:-}" ] || cat "$1" >&3; }

# named FILE TEXT...: every text is in the file; no line is wider than a terminal, except for names and commands, which cannot be
# broken.
named() {
    local file=$1 word; shift
    show "$file"
    for word in "$@"; do grep -qF -- "$word" "$file" || { echo "$word is not in $file"; cat "$file"; return 1; }; done
    awk 'length > 80' "$file" | grep -vE '^ *(/gnu/store/)?[0-9a-z]{32}-[^ ]*$|^ *(hint: )?`[^`]*`$' > "$file.wide" || true
    [ ! -s "$file.wide" ] || { echo 'too wide:'; cat "$file.wide"; return 1; }
}

in_a_pipe() {
    expect 4 report pipe "$FAULTY/mixed" > "$WORK/pipe.txt"
    named "$WORK/pipe.txt" 'the signature is invalid: 1' 'answered for another item: 1' 'not signed: 1' 'not authorized here: 1' \
        'MISSING, no server has it: 1' 'PREPARING' 'a server answered with an error: 1' 'had to be asked: 1' \
        'HTTP 404' 'status 500' 'MiB' 'to be built now: 6 items' 'unknown: 1 item' 'asked just now' 'hint: '
    # The answers may be some seconds old.
    grep -qE 'expires in (2 h|1 h 59 min)' "$WORK/pipe.txt"
    grep -qE 'expires in (5|4) min' "$WORK/pipe.txt"
}

# Cached answers: their age, and when they expire.
cached_answers() {
    sleep 1.1
    expect 4 report pipe "$FAULTY/mixed" > "$WORK/again.txt"
    named "$WORK/again.txt" 'MISSING, no server had it when asked last: 1' 'known from the lookup cache: 1' 's ago, expires in' 'asked just now, not cached'
}

server_down() {
    expect 4 report down "$refuses $FAULTY/mixed" > "$WORK/down.txt"
    named "$WORK/down.txt" 'a server that might have it is unreachable: 1' 'no answer: cannot connect: Connection refused' 'not from the first server: 1' 'down: '
    expect 4 report down "$refuses $FAULTY/mixed" > "$WORK/down.txt"
    named "$WORK/down.txt" 'not asked, it was down: cannot connect'
}

second_server_has_it() {
    report second "$FAULTY/mixed $FAULTY/good" > "$WORK/second.txt"
    named "$WORK/second.txt" 'AVAILABLE, but not from the first server: 7' 'has the same content as an authorized server' 'is preparing it'
}

in_a_terminal() {
    local run="env -i TERM=xterm PATH=$PATH HOME=$WORK/home $SUBST query --cache-miss-report --root $WORK/roots/terminal --acl $WORK/fill/acl --substitute-urls '$FAULTY/mixed' - < $WORK/mixed.list"
    tmux -L "subst-peers-$$" -f /dev/null new-session -d -x 80 -y 100 "sh -c \"$run; echo done\"; sleep 30"
    wait_for 10 sh -c "tmux -L subst-peers-$$ capture-pane -p | grep -q '^done'"
    # -J joins the lines that the terminal broke.
    tmux -L "subst-peers-$$" capture-pane -p -J > "$WORK/terminal.txt"
    tmux -L "subst-peers-$$" kill-server
    named "$WORK/terminal.txt" 'the signature is invalid: 1' 'to be built now: 6 items' 'SERVER '
    expect 4 report terminal2 "$FAULTY/mixed" > "$WORK/terminal-pipe.txt"
    expect_equal 'lines that the terminal broke' "$(grep -cv '^done\|^$\|requests' "$WORK/terminal.txt")" "$(grep -cv '^$\|requests' "$WORK/terminal-pipe.txt")"
}

as_json() {
    expect 4 report json "$FAULTY/mixed $FAULTY/missing" --json > "$WORK/report.json"
    python3 "$PEERS_HERE/check-report.py" "$WORK/report.json"
}

# --- proxies ------------------------------------------------------------------------------------------------------------

# A static server whose nars are behind a caching nginx, as large installations have it.
proxy() {
    local origin=$1 port
    port=$(free_ports 1)
    cat > "$PEERS_RUN/nginx-report-proxy.conf" <<CONF
daemon off;
pid $PEERS_RUN/nginx-report-proxy.master;
events { }
http {
    access_log off;
    client_body_temp_path $WORK/proxy-body; proxy_temp_path $WORK/proxy-temp; fastcgi_temp_path $WORK/proxy-fastcgi;
    uwsgi_temp_path $WORK/proxy-uwsgi; scgi_temp_path $WORK/proxy-scgi;
    proxy_cache_path $WORK/proxy-cache keys_zone=nars:1m;
    server {
        listen 127.0.0.1:$port;
        location / { proxy_pass $origin; }
        location /nar/ { proxy_pass $origin; proxy_cache nars; proxy_cache_valid 200 1h; add_header X-Cache-Status \$upstream_cache_status; }
    }
}
CONF
    service_start nginx-report-proxy nginx -e "$WORK/proxy.error.log" -c "$PEERS_RUN/nginx-report-proxy.conf"
    wait_for 10 port_open "$port"
    printf 'http://127.0.0.1:%s\n' "$port"
}

# Three items of the real closure, one of which somebody has fetched through the proxy before.
proxy_hits() {
    local url items item
    url=$(proxy "$PEERS_STATIC_URL")
    items=$(head -n 3 "$PEERS_LIST")
    item=$(head -n 1 "$PEERS_LIST" | sed 's|.*/||')
    for nar in $(curl -sf "$url/$(printf %.32s "$item").narinfo" | sed -n 's/^URL: //p'); do curl -sf -o /dev/null "$url/$nar"; done
    subst query --cache-miss-report --probe-nars --root "$WORK/roots/proxy" --acl "$PEERS_GUIX_ACL" --substitute-urls "$url $PEERS_POLITE_URL" $items > "$WORK/proxy.txt"
    named "$WORK/proxy.txt" 'nar: proxy cache HIT' 'nar: proxy cache MISS' "nars in its proxy's cache: 1 hits, 2 misses"
}

# guix publish answers 404 to every HEAD.
probe_publish() {
    subst query --cache-miss-report --probe-nars --root "$WORK/roots/publish" --acl "$PEERS_GUIX_ACL" --substitute-urls "$PEERS_GUIX_CACHED_URL" \
        "$(head -n 1 "$PEERS_LIST")" > "$WORK/publish.txt"
    named "$WORK/publish.txt" 'nar: available; no proxy-cache header'
}

# --- servers --------------------------------------------------------------------------------------------------------------

servers() {
    expect 4 subst servers --root "$WORK/roots/servers" --substitute-urls "$FAULTY/good $PEERS_GUIX_CACHED_URL $refuses $PEERS_NIX_ZSTD_URL" > "$WORK/servers.txt"
    named "$WORK/servers.txt" "$FAULTY/good" 'up, answered in' 'http/1.1' 'priority 30' 'down: ' 'its items are for /nix/store'
    expect 4 subst servers --root "$WORK/roots/servers" --json --substitute-urls "$FAULTY/good $refuses" > "$WORK/servers.json"
    python3 "$PEERS_HERE/check-servers.py" "$WORK/servers.json"
}

# guix-daemon writes the servers it discovers to STATE/discover/publish: they come first, and 50 at most.
discovered() {
    local root=$WORK/roots/discover n
    mkdir -p "$root/var/guix/discover"
    { echo "$FAULTY/good"; for n in $(seq 100); do echo "http://127.0.0.1:9/$n"; done; } > "$root/var/guix/discover/publish"
    subst query --discover --json --root "$root" --acl "$WORK/fill/acl" --substitute-urls "$FAULTY/kept-60" "$(head -n 1 "$WORK/fill/list")" > "$WORK/discovered.json"
    python3 "$PEERS_HERE/check-discovered.py" "$WORK/discovered.json" "$FAULTY"
    subst query --json --root "$root" --acl "$WORK/fill/acl" --substitute-urls "$FAULTY/kept-60" "$(head -n 1 "$WORK/fill/list")" > "$WORK/discovered.json"
    expect_equal 'servers without --discover' "$(python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1]))["servers"]))' "$WORK/discovered.json")" 1
}

# The file gives one server a second, the other one the usual time.
server_timeouts() {
    printf '[[server]]\nurl = "%s/silent"\nstall-timeout = 1\n' "$FAULTY" > "$WORK/config.toml"
    local began
    began=$(now)
    head -n 1 "$WORK/fill/list" > "$WORK/one.list"
    expect 4 subst query --config "$WORK/config.toml" --root "$WORK/roots/server-timeouts" --acl "$WORK/fill/acl" \
        --substitute-urls "$FAULTY/silent $FAULTY/missing" - < "$WORK/one.list"
    awk -v s="$(since "$began")" 'BEGIN { exit !(s < 6) }'
}

# 200 answers of 40 ms, one after another, on one connection: a plain line after five seconds.
progress() {
    subst query --progress plain --root "$WORK/roots/plain" --acl "$WORK/fill/acl" --substitute-urls "$FAULTY/late-40" - < "$WORK/fill/list" > /dev/null 2> "$WORK/plain"
    grep -q 'looked up [0-9]*/200 items (127.0.0.1:' "$WORK/plain" || { cat "$WORK/plain"; return 1; }
    [ "$(grep -c 'looked up' "$WORK/plain")" -le 3 ]
    subst query --progress json --root "$WORK/roots/json" --acl "$WORK/fill/acl" --substitute-urls "$FAULTY/late-20" - < "$WORK/fill/list" > /dev/null 2> "$WORK/events"
    python3 "$PEERS_HERE/check-lookup-events.py" < "$WORK/events"
    tmux -L "subst-peers-$$" -f /dev/null new-session -d -x 80 -y 24 \
        "env -i TERM=xterm PATH=$PATH HOME=$WORK/home $SUBST query --root $WORK/roots/bar --acl $WORK/fill/acl --substitute-urls '$FAULTY/late-20' - < $WORK/fill/list > /dev/null; sleep 30"
    wait_for 10 sh -c "tmux -L subst-peers-$$ capture-pane -p | grep 'looked up' > $WORK/bar"
    tmux -L "subst-peers-$$" kill-server
    cat "$WORK/bar"
    grep -q '/200 items (127.0.0.1' "$WORK/bar"
}

exec 3>&1
check report-pipe in_a_pipe
check report-cached cached_answers
check report-server-down server_down
check report-second-server second_server_has_it
check report-terminal in_a_terminal
check report-json as_json
check report-proxy-hits proxy_hits
check report-probe-publish probe_publish
check servers servers
check servers-discovered discovered
check server-timeouts server_timeouts
check lookups-progress progress
