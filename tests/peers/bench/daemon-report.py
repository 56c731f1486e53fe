#!/usr/bin/env python3
"""daemon-report.py RESULTS: print the results of bench/daemon as a table; exit 1 if a target is missed."""

import sys

failed = False
print(f"{'':22}{'latency':>10}{'subst s':>10}{'stock s':>10}{'ratio':>8}")
for line in open(sys.argv[1]):
    what, delay, ours, stock = line.split()
    ratio = float(ours) / float(stock)
    limit = 0.25 if what.startswith("sub") else 0.1 if int(delay) else None
    verdict = "" if limit is None or ratio <= limit else f"  FAIL: more than {limit}"
    failed |= bool(verdict)
    print(f"{what:22}{delay + ' ms':>10}{float(ours):10.2f}{float(stock):10.2f}{ratio:8.3f}{verdict}")
sys.exit(failed)
