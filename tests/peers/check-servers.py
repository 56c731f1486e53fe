#!/usr/bin/env python3
"""check-servers.py SERVERS: check the JSON output of `subst servers` for a good server and one that refuses connections."""

import json
import sys

good, bad = json.load(open(sys.argv[1]))
assert good["state"] == "up" and good["store_dir"] == "/gnu/store" and good["want_mass_query"] is False and good["priority"] == 30
assert 0 < good["latency"] < 5 and good["protocol"] == "http/1.1", good
assert bad["state"] == "down" and "refused" in bad["reason"], bad
