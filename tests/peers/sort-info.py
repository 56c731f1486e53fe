#!/usr/bin/env python3
"""sort-info.py: from a reply to `info` on standard input, print path, nar size and sorted references of each item."""

import sys

lines = iter(sys.stdin.read().split("\n"))
for path in lines:
    if not path:
        break
    deriver = next(lines)
    references = [next(lines) for _ in range(int(next(lines)))]
    download, nar = next(lines), next(lines)
    print(path, nar, *sorted(references))
