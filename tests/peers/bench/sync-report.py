"""Medians of bench/sync: sync-report.py DIRECTORY LIMIT SIDE...; each SIDE.results has lines `seconds user system`.

The ratios are those to the first side in the same round. Exits 1 when one is above LIMIT (`inf`: never).
"""
import statistics
import sys
from pathlib import Path

directory, limit, sides = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
runs = {
    side: [[float(number) for number in line.split()] for line in (directory / f"{side}.results").read_text().splitlines()]
    for side in sides
}
ratios = {}
for side, results in runs.items():
    seconds = statistics.median(run[0] for run in results)
    processor = statistics.median(run[1] + run[2] for run in results)
    ratios[side] = statistics.median(run[0] / base[0] for run, base in zip(results, runs[sides[0]]))
    print(f"{side:6} {seconds:6.2f} s, processor {processor:5.2f} s, {ratios[side]:.3f} of {sides[0]}, runs: {' '.join(f'{run[0]:.2f}' for run in results)}")
sys.exit(max(ratios.values()) > limit)
