#!/usr/bin/env python3
"""print-available.py ANSWER: print path, nar size and sorted references of each available item of a JSON answer."""

import json
import sys

for item in json.load(open(sys.argv[1]))["items"]:
    if item["status"] == "available":
        print(item["path"], item["nar_size"], *sorted(item["references"]))
