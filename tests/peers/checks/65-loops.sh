#!/bin/bash
# Two loops of `subst fetch`, a real guix-daemon with subst as its substituter helper, and `guix gc` in a loop, all on one system store for
# LOOP_SECONDS (default 20): nothing fails, contents verify, and nothing grows.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work
cp "$SUBST" "$WORK/subst"

LOOP_SECONDS=${LOOP_SECONDS:-20}

inside() {
    client_enter "$WORK/client" --bind "$WORK" /subst-work --bind "$PEERS_GUIX_ACL" /etc/guix/acl \
        --bind "$SUBST" /opt/subst/guix --env GUIX=/opt/subst/guix \
        sh /subst-peers/inside/with-daemon "--substitute-urls=$PEERS_STATIC_URL" "$@"
}

loops() {
    inside sh /subst-peers/inside/loops /subst-work/subst "$PEERS_STATIC_URL" /subst-work/tops $((LOOP_SECONDS / 2))
    inside guix gc --verify=contents
}

# What is there once everything was collected, without what depends on the moment.
state() {
    inside guix gc
    (cd "$WORK/client" && find . -type f ! -path './var/loops/*' ! -name '*.sqlite-*' -printf '%P\n' | sed -E 's/[0-9]{3,}/N/g' | sort)
}

# The first half fills the caches, the second must not add files, nor more than the databases' free pages.
nothing_grows() {
    local before after kilobytes
    before=$(state)
    kilobytes=$(du -sk "$WORK/client" | cut -f 1)
    loops
    after=$(state)
    expect_equal 'files after the second half' "$after" "$before"
    echo "$kilobytes KiB before, $(du -sk "$WORK/client" | cut -f 1) after"
    [ "$(du -sk "$WORK/client" | cut -f 1)" -le $((kilobytes + 2048)) ]
}

client_new "$WORK/client"
cp "$PEERS_TOPS" "$WORK/tops"
check loops loops
check loops-grow-nothing nothing_grows
[ -z "${PEERS_SHOW:-}" ] || cat "$WORK"/output/*
