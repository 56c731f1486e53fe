#!/usr/bin/env python3
"""line-report.py WORK SIDE MEGABYTES_PER_SECOND NARINFOS: one line about a run of bench/line; exit 1 if it misses its target.

The lower bound is that of the best choice of compressions: items change from their smallest file to one that is decoded faster, those first
that save most processor time for a byte, as long as the processor takes longer than the line. DECODERS and UNPACKING are bytes of nar
per second and core on the machine of docs/explanation/benchmarks.md. This machine, with what else runs on it now, may be slower: the
bound takes the processor time that the choice of this run would take there times the ratio of what it took here. What the proxy and the server
took is added, because they run on the same cores. Round trips, of which at least four come before the first byte of a nar, are not counted.
"""

import json
import os
import re
import sys

work, side, rate, narinfos = sys.argv[1:]
line = float(rate) * 1e6
cores = os.cpu_count()
DECODERS = {"zstd": 800e6, "lzip": 85e6, "gzip": 360e6, "none": 5e9}
UNPACKING = 410e6


def items():
    """For each item: its size, and the sizes of its files by method."""
    found = {}
    for name in os.listdir(narinfos):
        if name.endswith(".narinfo"):
            methods, method, size, path = {}, None, 0, ""
            with open(f"{narinfos}/{name}", encoding="utf-8", errors="replace") as text:
                for row in text:
                    key, _, value = row.strip().partition(": ")
                    if key == "StorePath":
                        path = os.path.basename(value)
                    elif key == "NarSize":
                        size = int(value)
                    elif key == "Compression":
                        method = value
                    elif key == "FileSize":
                        methods[method] = int(value)
            found[path] = size, methods
    return found


def processor(size, method):
    return size / DECODERS[method] + size / UNPACKING


def bound(chosen, slowness=1, others=0):
    """Seconds: each item's smallest file, or what makes the line and the processor end together.

    Processor times are `slowness` times as long as on the machine of the documentation; `others` use that many seconds of the cores.
    """
    sent, used = 0, others
    steps = []
    for size, methods in chosen:
        smallest = min(methods, key=lambda method: (methods[method], processor(size, method)))
        sent += methods[smallest]
        used += processor(size, smallest) * slowness
        for method, file_size in methods.items():
            saved = (processor(size, smallest) - processor(size, method)) * slowness
            added = file_size - methods[smallest]
            if saved > 0:
                steps.append((saved / max(added, 1), saved, added))
    for _, saved, added in sorted(steps, reverse=True):
        part = min(1, max(0, (used / cores - sent / line) / (saved / cores + added / line)))
        sent, used = sent + part * added, used - part * saved
    return max(sent / line, used / cores)


with open(f"{work}/times", encoding="utf-8") as times:
    seconds, memory, used = (float(word) for word in times.readline().split())
with open(f"{work}/totals", encoding="utf-8") as totals:
    proxy = json.load(totals)

with open(f"{work}/server", encoding="utf-8") as ticks:
    used_ticks, ticks_per_second = ticks.readline().split()
server = int(used_ticks) / int(ticks_per_second)

text = f"{float(rate):6.1f} MB/s {side:6} {seconds:7.2f} s"
limit = float(os.environ.get("LIMIT") or (1.10 if line >= 100e6 else 1.05))
missed = False
if side == "subst":
    known, by_method, fetched, expected = items(), {}, [], 0
    with open(f"{work}/output/err", encoding="utf-8") as log:
        for path, method in re.findall(r"^subst: (\S+) from \S+/nar/(\w+)/", log.read(), re.MULTILINE):
            path = os.path.basename(path)
            by_method[method] = by_method.get(method, 0) + known[path][1][method]
            fetched.append(known[path])
            expected += processor(known[path][0], method)
    best = bound(fetched, used / expected, proxy["processor"] + server)
    missed = seconds > limit * best
    methods = ", ".join(f"{method} {size / 1e6:.1f} MB" for method, size in sorted(by_method.items()))
    text += (f"  {seconds / best:.3f} of {best:.2f} s ({bound(fetched):.2f} s)  {methods}"
             f"  processor {used:.2f} s ({expected:.2f} s), {memory * 1024 / 1e6:.0f} MB")
print(f"{text}  line: {proxy['bytes'] / 1e6:.1f} MB, {proxy['connections']} connections, proxy {proxy['processor']:.2f} s, server {server:.2f} s"
      + ("  MISS" if missed else ""))
sys.exit(missed)
