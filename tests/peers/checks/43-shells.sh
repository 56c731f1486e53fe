#!/bin/bash
# What is made for people at a shell: manual pages for mandoc and groff, completions in real zsh and fish, JSON for the validator of
# another project.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

ITEM=$(sed -n 's|^\(/[^\t]*-subst-tools-1.0\)\t.*|\1|p' "$FIXTURES/guix/expected-rows.txt")
ROOT=(--root "$WORK/root" --acl "$FIXTURES/guix/acl")
SERVER=file://$FIXTURES/guix
subst query "${ROOT[@]}" --substitute-urls "$SERVER" "$ITEM" > /dev/null
mkdir "$WORK/bin"
ln -s "$SUBST" "$WORK/bin/subst"
export PATH=$WORK/bin:$PATH

manual_pages() {
    local page columns
    subst man "$WORK/pages"
    mandoc -T lint "$WORK"/pages/*
    for page in "$WORK"/pages/*; do
        for columns in 40 80; do
            groff -man -Tutf8 -ww -z -rLL="${columns}n" "$page" 2> "$WORK/faults"
            [ ! -s "$WORK/faults" ] || { cat "$WORK/faults"; return 1; }
        done
    done
    MANPATH=$WORK/man
    mkdir -p "$MANPATH/man1"
    cp "$WORK"/pages/*.1 "$MANPATH/man1"
    man -M "$MANPATH" subst-fetch | grep -q 'keep-going'
}
check manual-pages manual_pages

# fish_offers LINE WORD: fish offers WORD to complete LINE.
fish_offers() {
    HOME=$WORK/home fish --no-config -c "source $WORK/subst.fish; complete -C '$1'" > "$WORK/offered"
    cut -f1 "$WORK/offered" | grep -qxF -- "$2" || { echo "$1: expected $2"; cat "$WORK/offered"; return 1; }
}
fish_completes() {
    subst completions fish > "$WORK/subst.fish"
    fish_offers 'subst auth' authorize
    fish_offers 'subst fetch --keep' --keep-going
    fish_offers 'subst fetch --progress p' plain
    fish_offers "subst query --root $WORK/root /gnu/" "$ITEM"
    fish_offers "subst cache flush --root $WORK/root --server file" "$SERVER"
    fish_offers "subst query --root $WORK/ro" "$WORK/root/"
}
check fish-completes fish_completes

# zsh_offers LINE WORD: zsh offers WORD to complete LINE. In a terminal of its own, because completion needs the line editor.
zsh_offers() {
    python3 - "$WORK" "$1" > "$WORK/offered" <<'PYTHON'
import os, pty, re, select, sys
work, line = sys.argv[1:]
child, terminal = pty.fork()
if child == 0:
    os.environ.update(HOME=work + "/home", TERM="dumb", PS1="ready> ", ZDOTDIR=work + "/zsh", LANG="C.UTF-8")
    os.execvp("zsh", ["zsh", "-i"])
seen = b""
def read_until(pattern):
    global seen
    while not re.search(pattern, seen):
        if not select.select([terminal], [], [], 60)[0]:
            sys.exit(f"nothing more after {seen!r}")
        seen += os.read(terminal, 65536)
read_until(rb"ready> ")
seen = b""
os.write(terminal, line.encode() + b"\t")
read_until(rb"<OFFERED\n?\r?")
print(re.sub(r"\r", "", seen.decode()))
os.write(terminal, b"\x03exit\n")
PYTHON
    grep -qF -- "$2" "$WORK/offered" || { echo "$1: expected $2"; cat "$WORK/offered"; return 1; }
}
zsh_completes() {
    mkdir -p "$WORK/zsh/functions"
    subst completions zsh > "$WORK/zsh/functions/_subst"
    # The words that a completion adds are printed instead of shown as a menu.
    cat > "$WORK/zsh/.zshrc" <<'ZSH'
PROMPT='ready> '
fpath=($ZDOTDIR/functions $fpath)
autoload -Uz compinit && compinit -u -D
compadd() { builtin compadd -O offered "$@"; print -l -- $offered; builtin compadd "$@"; }
finish() { print "<OFFERED"; }
comppostfuncs=(finish)
show-offered() { zle complete-word; print "<OFFERED"; }
zle -N show-offered
bindkey '^I' show-offered
ZSH
    zsh_offers 'subst auth' authorize
    zsh_offers 'subst fetch --keep' --keep-going
    zsh_offers "subst query --root $WORK/root /gnu/" "$ITEM"
    zsh_offers "subst cache flush --root $WORK/root --server file" "$SERVER"
}
check zsh-completes zsh_completes

json_validates() {
    local name
    while read -r name arguments; do
        # shellcheck disable=SC2086
        expect '0 1 2' subst $arguments --json "${ROOT[@]}" --substitute-urls "$SERVER" > "$WORK/$name.json"
        python3 - "$REPOSITORY/docs/schema/$name.json" "$WORK/$name.json" <<'PYTHON'
import json, sys
import jsonschema
schema, value = (json.load(open(path)) for path in sys.argv[1:])
jsonschema.Draft202012Validator.check_schema(schema)
jsonschema.Draft202012Validator(schema).validate(value)
PYTHON
    done <<EOL
query query --closure $ITEM
fetch-dry-run fetch --dry-run $ITEM
servers servers
cache-info cache info
cache-list cache list
config-show config show
config-check config check
EOL
}
check json-validates json_validates
