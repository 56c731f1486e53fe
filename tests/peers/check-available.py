#!/usr/bin/env python3
"""check-available.py ANSWER LIST: exit 1 unless the items available in a JSON answer of `subst query` are those of LIST."""

import json
import sys

answer = json.load(open(sys.argv[1]))
wanted = set(open(sys.argv[2]).read().split())
got = {item["path"] for item in answer["items"] if item["status"] == "available"}
if got != wanted:
    sys.exit(f"{len(got)} available, expected {len(wanted)}: {sorted(wanted - got)[:3]}")
