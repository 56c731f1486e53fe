#!/usr/bin/env python3
"""check-report.py ANSWER: check the JSON report of `subst query --cache-miss-report` about the servers `mixed` and `missing`."""

import json
import sys

answer = json.load(open(sys.argv[1]))
items = answer["report"]["items"]
groups = sorted(item["group"] for item in items)
assert groups == sorted(["not-in-lookup-cache", "missing", "preparing", "unauthorized-key", "bad-signature", "wrong-item",
                         "server-error", "unsigned"]), groups
assert answer["report"]["to_build"] == 6
assert answer["report"]["unknown"] == 1
for item in items:
    assert [row["server"].rsplit("/", 1)[1] for row in item["answers"]] == ["mixed", "missing"], item
    assert all({"answer", "reason", "detail", "from_cache", "age", "expires_in"} <= set(row) for row in item["answers"])
totals = answer["report"]["servers"]
assert [row["asked"] for row in totals] == [8, 7] or [row["asked"] for row in totals] == [8, 8], totals
