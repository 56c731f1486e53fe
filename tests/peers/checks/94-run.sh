#!/bin/bash
# `subst run`: real programs of the closure run from a store below --root, on a machine without /gnu, as an ordinary user and as root.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

# A user and group that own nothing, and a home for them. The program is a copy, which they can read.
USER_ID=54399
HERE=$(mktemp -d)
trap 'chmod -R u+w "$HERE"; rm -rf --one-file-system "$HERE"' EXIT
chmod 755 "$HERE"
install -m 755 "$SUBST" "$HERE/subst"
install -m 644 "$PEERS_GUIX_ACL" "$HERE/acl"
mkdir "$HERE/home"
chown $USER_ID:$USER_ID "$HERE/home"
ROOT=$HERE/home/root

item() { grep -- "-$1-[0-9][^-]*-[^-]*\$" "$PEERS_LIST" | head -n 1; }
BASH_ITEM=$(item bash-static) LIBC_ITEM=$(item libc6) SED_ITEM=$(item sed)

# With SHELL, the static bash does not ask the C library about the user, which would load libraries of the machine.
ENVIRONMENT=(PATH=/usr/bin:/bin HOME="$HERE/home" SHELL=/bin/sh)
as_user() { (cd "$HERE/home" && setpriv --reuid=$USER_ID --regid=$USER_ID --clear-groups env -i "${ENVIRONMENT[@]}" "$@"); }
as_root() { (cd "$HERE/home" && env -i "${ENVIRONMENT[@]}" "$@"); }
# running USER ARGUMENT...: subst run on the root.
running() { local user=$1; shift; "as_$user" "$HERE/subst" run --root "$ROOT" "$@"; }

if ! as_user unshare --user true 2> /dev/null; then
    echo 'skipped: user namespaces are not allowed here' >&2
    echo 'ok run-skipped (0 s)'
    exit
fi

fetched() {
    as_user "$HERE/subst" fetch --root "$ROOT" --acl "$HERE/acl" --substitute-urls "$PEERS_STATIC_URL" "$BASH_ITEM" "$LIBC_ITEM" "$SED_ITEM"
    [ ! -e /gnu ] || { echo "this machine has /gnu: not tested is that it is not needed"; }
}

# real_programs USER: one program that needs nothing, and one that finds its libraries in other items only.
real_programs() {
    local libraries
    expect_equal version "$(running "$1" "$BASH_ITEM/usr/bin/bash-static" -- -c 'echo "$BASH_VERSINFO"')" 5
    libraries=$(sed -n 's|$|/usr/lib/x86_64-linux-gnu|p' "$PEERS_LIST" | paste -sd:)
    expect_equal sed "$(echo abc | running "$1" "$LIBC_ITEM" usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 -- \
        --inhibit-cache --library-path "$libraries" "$SED_ITEM/usr/bin/sed" 's/b/&&/')" abbc
    running "$1" "$LIBC_ITEM" usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 -- \
        --inhibit-cache --library-path "$libraries" --list "$SED_ITEM/usr/bin/sed" > "$WORK/libraries"
    grep "libc.so.6 => $LIBC_ITEM/" "$WORK/libraries"
}

# What a program sees of its surroundings, without what a user namespace must change, and without the descriptor that keeps its
# item from the collector.
SURROUNDINGS='
    printf "<%q>" "$@"; echo; pwd; umask; ulimit -a; set -o | grep -c on; env | sort; id -u; id -g; echo $$
    grep -E "^(Sig[BICP]|NoNewPrivs|Seccomp|Threads|Cap(Inh|Prm|Eff|Amb)|Groups)" /proc/self/status | sed "s/^Groups:.*//"
    tty; stty -a 2>&1; for fd in /proc/self/fd/*; do case $(readlink "$fd") in */temproots/*) ;; *) echo "${fd##*/}" ;; esac; done
    kill -USR1 $$; sleep 1'

# as_directly USER: arguments, environment, terminal, process ID, limits, the end by a signal: the same as without subst, in a
# terminal of its own. bash-static is copied out of the store to start it directly.
as_directly() {
    local bash=$HERE/home/bash-static
    cp --no-preserve=mode "$ROOT$BASH_ITEM/usr/bin/bash-static" "$bash"
    chmod 755 "$bash"
    cat > "$WORK/in-terminal.py" <<'PYTHON'
import fcntl, os, signal, struct, sys, termios
command = sys.argv[1:]
terminal, end = os.openpty()
tty = os.fsencode(os.ttyname(end))
child = os.fork()
if child == 0:
    os.setsid()
    fcntl.ioctl(end, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(end, number)
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    os.umask(0o027)
    # Python ignores it, and subst gives it back its default effect.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.environ["ODD"] = " a\nb "
    arguments = [os.fsencode(word) for word in command] + [b"", b" ", b"a b", b"--", b"-x", b"\xff\xfe"]
    os.execv(arguments[0], arguments)
os.close(end)
seen = b""
try:
    while data := os.read(terminal, 65536):
        seen += data
except OSError:
    pass
status = os.waitpid(child, 0)[1]
text = seen.replace(tty, b"TERMINAL").replace(str(child).encode(), b"PROCESS")
sys.stdout.buffer.write(text + b"status %d\n" % status)
PYTHON
    "as_$1" python3 "$WORK/in-terminal.py" "$bash" -c "$SURROUNDINGS" bash > "$WORK/direct"
    "as_$1" python3 "$WORK/in-terminal.py" "$HERE/subst" run --root "$ROOT" "$BASH_ITEM" usr/bin/bash-static -- \
        -c "$SURROUNDINGS" bash > "$WORK/run"
    grep -q PROCESS "$WORK/direct" && grep -q TERMINAL "$WORK/direct" && grep -q 'status 10$' "$WORK/direct"
    diff "$WORK/direct" "$WORK/run"
}

# set_user_id: for root, programs with a set-user-ID bit work inside.
set_user_id() {
    install -m 4755 /usr/bin/id "$HERE/id"
    expect_equal user "$(running root "$BASH_ITEM" /usr/bin/setpriv -- --reuid=$USER_ID --regid=$USER_ID --clear-groups "$HERE/id" -u)" 0
}

# namespaces_inside USER: a program can make namespaces itself, and bind the root directory.
namespaces_inside() { expect 7 running "$1" "$BASH_ITEM" /usr/bin/bwrap -- --bind / / --dev-bind /dev /dev "$BASH_ITEM/usr/bin/bash-static" -c 'exit 7'; }

# binding: root may mount inside, also the root directory itself, and nothing of it is seen outside.
binding() {
    running root "$BASH_ITEM" /bin/sh -- -c "mount --bind / /mnt && test -d /mnt/gnu/store"
    ! test -e /mnt/gnu
}

# hint WORD: the command of a message that begins so.
hint() { sed 's/\(`[^`]*`\)/\n\1\n/g' "$WORK/message" | sed -n "s/^\`\($1 .*\)\`\$/\1/p"; }

# ways_out: where no namespaces are allowed, the message names what forbids them, and commands that work as they stand.
ways_out() {
    unshare --user --map-root-user --mount sh -euc 'echo 0 > /proc/sys/user/max_user_namespaces
        exec setpriv --bounding-set=-all --inh-caps=-all "$@"' sh \
        "$HERE/subst" run --root "$ROOT" "$BASH_ITEM" usr/bin/bash-static -- -c 'exit 7' 2> "$WORK/message" && return 1
    cat "$WORK/message"
    grep -F 'user.max_user_namespaces is 0' "$WORK/message"
    expect 7 as_user sh -c "$(hint bwrap) -c 'exit 7'"
    [ -z "$(command -v proot)" ] || expect 7 as_user sh -c "$(hint proot) -c 'exit 7'"
    # In a root directory of its own, where the link is made.
    local directory binds=()
    for directory in /*; do
        [ "$directory" = /gnu ] || binds+=(--dev-bind "$directory" "$directory")
    done
    expect 7 bwrap "${binds[@]}" sh -euc "$(hint mkdir)"'
        exec setpriv --bounding-set=-all --inh-caps=-all "$@"' sh \
        "$HERE/subst" run --root "$ROOT" "$BASH_ITEM" usr/bin/bash-static -- -c 'exit 7'
}

# in_chroot: below a changed root directory the kernel allows no mounts of one's own.
in_chroot() {
    expect 5 enter --bind "$HERE" /subst-run /subst-run/subst run --root /subst-run/home/root "$BASH_ITEM" usr/bin/bash-static 2> "$WORK/message"
    cat "$WORK/message"
    grep -F 'a process in a chroot' "$WORK/message"
}

check run-fetched fetched
for user in user root; do
    check "run-$user-real-programs" real_programs "$user"
    check "run-$user-as-directly" as_directly "$user"
    check "run-$user-namespaces-inside" namespaces_inside "$user"
done
check run-binding binding
check run-set-user-id set_user_id
check run-ways-out ways_out
check run-in-chroot in_chroot
