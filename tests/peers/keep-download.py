#!/usr/bin/env python3
"""keep-download.py NARINFO METHOD: remove all downloads from a narinfo but those of one compression method."""

import re
import sys

name, method = sys.argv[1:]
text = open(name).read()
start = text.index("URL: ")
groups = re.findall(r"URL: .*\nCompression: .*\n(?:FileSize: .*\n)?", text[start:])
open(name, "w").write(text[:start] + "".join(g for g in groups if f"Compression: {method}\n" in g))
