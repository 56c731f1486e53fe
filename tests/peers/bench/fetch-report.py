#!/usr/bin/env python3
"""fetch-report.py WORK LIMIT MEMORY: print the results of bench/fetch as a table; exit 1 if a target is missed."""

import os
import statistics
import sys

work, limit, memory = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
sides = {}
print(f"{'':12}{'median s':>10}{'runs':>30}{'peak MB':>10}")
for name in ("subst", "subst-nix", "nix", "tar"):
    if os.path.exists(f"{work}/{name}.results"):
        rows = [line.split() for line in open(f"{work}/{name}.results")]
        times, peak = [float(row[0]) for row in rows], max(int(row[1]) for row in rows) / 1000
        sides[name] = statistics.median(times), peak
        print(f"{name:12}{sides[name][0]:10.2f}{' '.join(f'{t:.2f}' for t in times):>30}{peak:10.0f}")
failed = False
for other in ("nix", "tar"):
    if "subst" in sides and other in sides:
        print(f"subst / {other}: {sides['subst'][0] / sides[other][0]:.2f}")
if "subst" in sides and "nix" in sides and sides["subst"][0] > limit * sides["nix"][0]:
    print(f"FAIL: slower than {limit} of nix copy")
    failed = True
for name in ("subst", "subst-nix"):
    if name in sides and sides[name][1] > memory:
        print(f"FAIL: {name} used {sides[name][1]:.0f} MB, more than {memory:.0f}")
        failed = True
sys.exit(failed)
