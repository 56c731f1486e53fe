#!/usr/bin/env python3
# Derive facts about a closure from a store's database: that it is closed, its top items, its total nar size.
#
#   closure-facts.py DATABASE LIST PREFIX
#
# Writes PREFIX.tops (items of LIST that no other item of LIST refers to) and PREFIX.nar-size.
import sqlite3
import sys

database, list_file, prefix = sys.argv[1:4]
with open(list_file, encoding="utf-8") as listing:
    paths = set(listing.read().split())

connection = sqlite3.connect(database)
sizes = dict(connection.execute("select path, narSize from ValidPaths"))
references = connection.execute(
    "select a.path, b.path from Refs join ValidPaths a on a.id = referrer join ValidPaths b on b.id = reference").fetchall()

missing = [path for path in paths if path not in sizes]
outside = [pair for pair in references if pair[0] in paths and pair[1] not in paths]
if missing or outside:
    sys.exit(f"not a closure: {missing[:3]} {outside[:3]}")
referred = {target for source, target in references if source in paths and source != target}
with open(f"{prefix}.nar-size", "w", encoding="utf-8") as out:
    print(sum(sizes[path] for path in paths), file=out)
with open(f"{prefix}.tops", "w", encoding="utf-8") as out:
    for path in sorted(paths - referred):
        print(path, file=out)
