#!/usr/bin/env python3
"""check-answer.py ANSWER EXPRESSION: exit 1 unless a Python expression holds for a JSON answer of `subst query`.

Names in the expression: `items`, `servers`, `summary`, `by` (items per status), `said` (answers per kind).
"""

import collections
import json
import sys

answer = json.load(open(sys.argv[1]))
items, servers, summary = answer["items"], answer["servers"], answer["summary"]
by = collections.Counter(item["status"] for item in items)
said = collections.Counter(row["answer"] for item in items for row in item["answers"])
if not eval(sys.argv[2]):
    sys.exit(f"not so: {sys.argv[2]}\n{dict(by)} {dict(said)} {summary} {servers}\n{items[0]['answers'] if items else ''}")
