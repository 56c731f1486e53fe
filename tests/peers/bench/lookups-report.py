#!/usr/bin/env python3
"""lookups-report.py WORK DELAY LIST FEW MANY: print the results of bench/lookups as a table; exit 1 if a target is missed."""

import os
import statistics
import sys

work, delay, list_file, few, many = sys.argv[1], float(sys.argv[2]) / 1000, sys.argv[3], int(sys.argv[4]), int(sys.argv[5])

def results(name):
    rows = [line.split() for line in open(f"{work}/{name}.results")]
    median = lambda column: statistics.median(float(row[column]) for row in rows)
    return median(0), max(int(row[1]) for row in rows) / 1000, median(2), [row[0][:-1] for row in rows]

seconds, memory, processor = {}, {}, {}
print(f"{'':26}{'median s':>9}{'cpu s':>8}{'peak MB':>9}{'of stock':>10}  runs")
for name in ("stock-one", "stock", "many", "one", "default", "stock-delayed", "many-delayed", "one-delayed", "default-delayed",
             "large-many", "large-one"):
    for phase in ("fresh", "cached"):
        key = f"{name}-{phase}"
        if os.path.exists(f"{work}/{key}.results"):
            seconds[key], memory[key], processor[key], runs = results(key)
            stock = seconds.get(f"stock-delayed-{phase}" if "delayed" in name else f"stock-{phase}")
            ratio = f"1/{stock / seconds[key]:.0f}" if stock and name[:5] not in ("stock", "large") else ""
            print(f"{key:26}{seconds[key]:9.3f}{processor[key]:8.2f}{memory[key]:9.0f}{ratio:>10}  {' '.join(runs)}")

stock_items, expected = set(), set(open(list_file).read().split())
for line in open(f"{work}/stock-fresh.out"):
    if line.startswith("/gnu/store/") and not line.strip().endswith(".drv"):
        stock_items.add(line.strip())
ours = {line.split()[-1] for line in open(f"{work}/many-fresh.out") if line.startswith("available")}

failed = False
def bar(what, value, limit):
    global failed
    good = value <= limit
    failed |= not good
    print(f"{'ok  ' if good else 'FAIL'} {what}: {value:.3f}, at most {limit:.3f}")

bar("items that stock or subst miss", len(expected - stock_items) + len(expected - ours), 0)
for name in ("many", "one"):
    bar(f"{name}: nothing cached, of stock", seconds[f"{name}-fresh"] / seconds["stock-fresh"], 1 / 20)
    bar(f"{name}: all cached, of stock", seconds[f"{name}-cached"] / seconds["stock-cached"], 1 / 50)
for name in ("one", "default"):
    trips = (seconds[f"{name}-delayed-fresh"] - seconds[f"{name}-fresh"]) / delay
    bar(f"{name}: round trips at {delay * 1000:.0f} ms", trips, 10)
for name in ("large-many", "large-one"):
    # On a busy machine the processor's time says more than the clock's.
    grown = processor[f"{name}-fresh"] / many / (processor[f"{name[6:]}-fresh"] / few)
    bar(f"{name}: processor time per item, of that with {few}", grown, 1.3)
for name in ("large-many", "large-one"):
    for phase in ("fresh", "cached"):
        bar(f"{name} {phase}: peak MB", memory[f"{name}-{phase}"], 150)
sys.exit(failed)
