#!/usr/bin/env python3
"""check-cache-list.py LIST URL ITEM: check the JSON output of `subst cache list` after 300 positive answers from URL."""

import json
import sys

rows = json.load(open(sys.argv[1]))
assert len(rows) == 300 and all(row["server"] == sys.argv[2] for row in rows)
row = next(row for row in rows if row["item"] == sys.argv[3])
assert row["answer"] == "positive" and row["age"] < 60 and 86000 < row["expires_in"] <= 86400, row
