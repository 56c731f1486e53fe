#!/usr/bin/env python3
"""sort-replies.py REQUEST: sort the items of a helper's reply to `have` or `info`, from standard input."""

import sys

lines = sys.stdin.read().split("\n")
blocks = []
if sys.argv[1] == "have":
    blocks = [[line] for line in lines if line]
else:
    while lines and lines[0]:
        size = 3 + int(lines[2]) + 2
        blocks.append(lines[:3] + sorted(lines[3:size - 2]) + lines[size - 2:size])
        lines = lines[size:]
for block in sorted(blocks):
    print("\n".join(block))
