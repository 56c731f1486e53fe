#!/usr/bin/env python3
"""lzip-narinfos.py SOURCE TARGET: copy the narinfos of SOURCE without their zstd downloads (unsigned lines)."""

import os
import re
import sys

source, target = sys.argv[1:]
for name in os.listdir(source):
    if name.endswith(".narinfo"):
        with open(f"{source}/{name}") as file:
            text = file.read()
        with open(f"{target}/{name}", "w") as file:
            file.write(re.sub(r"URL: nar/zstd/.*\nCompression: zstd\n(FileSize: .*\n)?", "", text))
