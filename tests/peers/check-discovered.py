#!/usr/bin/env python3
"""check-discovered.py ANSWER URL: check that discovered servers come first, and that there are at most 50."""

import json
import sys

answer = json.load(open(sys.argv[1]))
urls = [server["url"] for server in answer["servers"]]
assert urls[0] == f"{sys.argv[2]}/good" and urls[-1] == f"{sys.argv[2]}/kept-60" and len(urls) == 51, (len(urls), urls[:2])
assert answer["items"][0]["server"] == urls[0]
