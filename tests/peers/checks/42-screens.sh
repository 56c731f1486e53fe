#!/bin/bash
# What somebody at a terminal sees of guix-daemon's downloads: with our helper the same as with the stock one.
# Screens of a tmux of 80 columns, of a client that draws bars itself from the helper's trace lines (guix build), and of one for
# which the helper draws them (no build trace). They stay in WORK/output; PEERS_SHOW=1 prints the last ones.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work
export LC_ALL=C.UTF-8

OUTPUT=$WORK/output
OURS=(--bind "$SUBST" /opt/subst/guix --env GUIX=/opt/subst/guix)

# From 100 bytes to 2 MB, and one with a name that leaves no room for its bar.
grep -E -- '-(tzdata-.*|subst-names)$' "$PEERS_TOPS" > "$WORK/list"

# A line so slow that there is something to be seen. One for all, because its address is on the screens.
BYTES_PER_SECOND=500000
line=$(free_ports 1)
# The socket of tmux is in WORK.
export TMUX_TMPDIR=$WORK
terminal() { tmux -L screens -f "$WORK/tmux.conf" -u "$@"; }
trap 'terminal kill-server 2> /dev/null || :; service_stop screens-line' EXIT
service_start screens-line python3 "$PEERS_HERE/bench/line-proxy.py" "$line" "$PEERS_STATIC_PORT" $BYTES_PER_SECOND --each
wait_for 10 port_open "$line"
printf 'set -g remain-on-exit on\nset -g remain-on-exit-format ""\nset -g status off\n' > "$WORK/tmux.conf"
terminal new-session -d -s first

# screen NAME [-J]: all that is on the terminal, and what has left it at the top; -J: lines that were too long in one piece.
# Without blanks at the ends of lines, and without the empty lines below.
screen() { terminal capture-pane -p -S - -t "$@" | sed 's/ *$//' | sed -e :more -e '/^\n*$/{$d;N;b more' -e '}'; }

# a_bar_moves FILE: on that screen is a bar between its beginning and its end.
a_bar_moves() { grep -qE '▕█.* ▏ +[0-9]+\.[0-9]%$' "$1"; }

# record NAME [--bind ...] [--env ...] COMMAND...: the command in a terminal, with an empty store. In OUTPUT: NAME.moving, the
# latest screen on which a download was under way; NAME.last and NAME.joined, the last one; NAME.raw, every byte sent.
record() {
    local name=$1 until; shift
    client_new "$WORK/$name"
    {
        # Not before its bytes are written down.
        printf 'tmux -L screens wait-for %q\n' "$name"
        printf '%q ' bash "$PEERS_HERE/enter" --bind "$WORK/$name/store" /gnu/store --bind "$WORK/$name/var" /var/guix \
            --bind "$PEERS_HERE" /subst-peers --bind "$WORK/list" /subst-list --env TERM=screen "$@"
        printf '\necho $? > %q\n' "$WORK/$name.status"
    } > "$WORK/$name.sh"
    terminal new-session -d -s "$name" -x 80 -y 100 "exec bash '$WORK/$name.sh'"
    terminal pipe-pane -t "$name" "cat > '$OUTPUT/$name.raw'"
    terminal wait-for -S "$name"
    until=$(( $(date +%s) + 300 ))
    # Dead: the end of what is written to the terminal has been read.
    until [ "$(terminal display-message -p -t "$name" '#{pane_dead}')" = 1 ]; do
        screen "$name" > "$WORK/now"
        if a_bar_moves "$WORK/now"; then cp "$WORK/now" "$OUTPUT/$name.moving"; fi
        [ "$(date +%s)" -lt "$until" ] || { cat "$WORK/now"; echo 'it does not end'; return 1; }
        sleep 0.1
    done
    screen "$name" > "$OUTPUT/$name.last"
    screen "$name" -J > "$OUTPUT/$name.joined"
    terminal kill-session -t "$name"
    expect_equal 'exit status' "$(cat "$WORK/$name.status")" 0
}

# client KIND WHOSE [--bind ...] [--env ...]: a client of that kind, with the helper that the options lead to.
client() {
    local kind=$1 name=$1-$2 command; shift 2
    case $kind in
        bars) mapfile -t command < "$WORK/list"; command=(guix build "${command[@]}") ;;
        words) command=(guix repl /subst-peers/scheme/realize.scm /subst-list) ;;
    esac
    record "$name" "$@" sh /subst-peers/inside/with-daemon "--substitute-urls=http://127.0.0.1:$line" "${command[@]}"
}

# full NAME: the items whose bar is full, in the order in which they are on the last screen.
full() { sed -nE 's/^ ([^ ]+)  .*▕█{18}▏ 100\.0%$/\1/p' "$OUTPUT/$1.joined"; }

# arrived NAME: the items in the store.
arrived() { find "$WORK/$1/store" -mindepth 1 -maxdepth 1 -name '*-*' ! -name '*.lock' -printf '%f\n' | cut -c34- | sort; }

same_bars() {
    expect_equal 'items with a full bar' "$(full "$1-ours" | tr '\n' ' ')" "$(full "$1-stock" | tr '\n' ' ')"
    expect_equal 'items with a full bar' "$(full "$1-ours" | sort | tr '\n' ' ')" "$(arrived "$1-ours" | tr '\n' ' ')"
    [ "$(full "$1-ours" | wc -l)" -gt 5 ]
}

# plain NAME: the last screen without what may differ, which is
# - sizes, rates, times, and the choice among an item's compressions: the stock helper goes by size, ours by time;
# - how often a lookup is reported: the stock helper gets many requests, ours looks up the closure at the first
#   request. Whether the daemon's `substitute:` stays in front depends on how the bytes reach it;
# - the traces of a bar that was too long for the line: the next one does not erase them (80 characters, no end).
plain() {
    sed -E -e 's/^substitute: looking/looking/' -e 's|/nar/[a-z]+/|/nar/|' -e '/^ [^ ]+  .*▕/{/^.{80}$/{/%$/!d}}' \
        -e 's/^( [^ ]+)  .*(▕.*)$/\1 \2/' "$OUTPUT/$1.joined" | awk '!(/^looking for/ && told++)'
}

same_screen() {
    plain "$1-ours" | grep -c .
    diff <(plain "$1-stock") <(plain "$1-ours")
}

# Halfway through a download there is half a bar, and above it stand full ones only.
moves() {
    local above
    tail -n 3 "$OUTPUT/$1-ours.moving"
    above=$(grep -E '▕.*%$' "$OUTPUT/$1-ours.moving" | sed '$d')
    expect 1 grep -v '▕█\{18\}▏ 100\.0%$' <<< "$above"
}

# escapes NAME: the kinds of escape sequences and other control characters that were sent to the terminal.
escapes() { grep -aoP '\x1b(\[[0-9;?]*[ -/]*[@-~]|[^\[])|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]' "$OUTPUT/$1.raw" | sort -u | cat -v; }

# No line of the trace is seen, nothing is sent that the stock helper's users do not get, and no bar breaks that did not there.
clean() {
    expect 1 grep -a '@ download-' "$OUTPUT/$1-ours.raw"
    [ -n "$(escapes "$1-stock")" ]
    [ -z "$(comm -13 <(escapes "$1-stock") <(escapes "$1-ours"))" ]
    diff <(broken "$1-stock") <(broken "$1-ours")
}

# broken NAME: the items whose bars did not fit into 80 columns.
broken() { sed -nE '/^.{81,}$/s/^ ([^ ]+)  .*▕.*/\1/p' "$OUTPUT/$1.joined" | sort -u; }

for kind in bars words; do
    check screens-$kind-stock client $kind stock
    check screens-$kind-ours client $kind ours "${OURS[@]}"
    check screens-$kind-items same_bars $kind
    check screens-$kind-same same_screen $kind
    check screens-$kind-moving moves $kind
    check screens-$kind-clean clean $kind
    [ -z "${PEERS_SHOW:-}" ] || head -v -n -0 "$OUTPUT/$kind"-{stock,ours}.last "$OUTPUT/$kind-ours.moving" >&2 || :
done
