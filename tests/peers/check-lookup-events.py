#!/usr/bin/env python3
"""check-lookup-events.py: check the JSON progress events of a lookup of 200 items, from standard input."""

import json
import sys

events = [json.loads(line) for line in sys.stdin]
looking = [event for event in events if event["event"] == "looking"]
assert len(looking) > 3 and looking[-1]["done"] == looking[-1]["total"] == 200, looking[-1:]
assert looking[-1]["servers"][0]["state"] == "up" and looking[-1]["servers"][0]["answered"] == 200
assert events[-1]["event"] == "summary", events[-1]
