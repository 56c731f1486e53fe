#!/usr/bin/env python3
"""check-book.py DIRECTORY: every link between the pages of a book that mdBook built leads to a page and to an anchor in it."""

import re
import sys
from pathlib import Path

root = Path(sys.argv[1]).resolve()
pages = {page: page.read_text() for page in root.rglob("*.html") if page.name not in ("print.html", "toc.html", "404.html")}
count = 0
for page, text in pages.items():
    for link in re.findall(r'<a[^>]* href="([^"]+)"', text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        count += 1
        if not target.exists():
            sys.exit(f"{page}: {link}: no such file")
        if anchor and target in pages and f'id="{anchor}"' not in pages[target]:
            sys.exit(f"{page}: {link}: no such anchor")
print(f"{count} links")
sys.exit(count < 100)
