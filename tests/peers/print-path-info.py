#!/usr/bin/env python3
"""print-path-info.py: from the JSON of `nix path-info` on standard input, print each item on a line, without its time."""

import json
import sys

items = json.load(sys.stdin)
for path in sorted(items):
    item = items[path]
    print(path, *(f"{key}={sorted(item[key]) if isinstance(item[key], list) else item[key]}"
                  for key in ("narHash", "narSize", "references", "signatures", "deriver", "ca")))
