#!/usr/bin/env python3
# Tables, ratios and bars from what bench/speed measured.
#
#   speed-report.py [--markdown] [--strict] RESULTS CASE...
#
# RESULTS/CASE/SIDE has lines `seconds kilobytes`, RESULTS/CASE/.calls what strace counted (`calls name`), RESULTS/facts NAME=VALUE.
# Exits 1 with --strict when a bar is missed.
import argparse
import os
import statistics
import sys

MEMORY_MAX = 100e6
SUBST = "subst", "subst-nix"
NAMES = {
    "subst": "subst", "subst-nix": "subst, /nix/store", "nix": "nix copy", "guix": "stock guix-daemon", "tar": "zstd -dc \\| tar x",
    "nginx-1": "subst, 1 connection, limit_rate", "nginx-4": "subst, 4 connections, limit_rate",
    "line-1": "subst, 1 connection, slow line", "line-4": "subst, 4 connections, slow line",
}
TITLES = {
    "a": "(a) the whole closure", "b": "(b) one item with a few large files", "c": "(c) one item with many small files",
    "d": "(d) an upgrade, 80 % of the bytes are there already", "e": "(e) a rate-limited link",
    "ten": "(ten) ten large items in flight", "syscalls": "(syscalls) system calls for (c)",
}
# Case: who, against whom, at most (or at least) what ratio.
AT_MOST = {"a": [("subst", "nix", 0.35), ("subst", "tar", 0.9), ("subst", "guix", 0.12)], "b": [("subst", "tar", 1.1)],
           "c": [("subst", "tar", 0.8)], "d": [("subst", "tar", 0.5)]}
AT_LEAST = {"e": [("nginx-1", "nginx-4", 3.0), ("line-1", "line-4", 3.0)]}
CALLS_MAX = 5.0


def read(folder):
    sides = {}
    for side in NAMES:
        path = os.path.join(folder, side)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as lines:
                rows = [line.split() for line in lines]
            sides[side] = [float(row[0]) for row in rows], max(int(row[1]) for row in rows) * 1024
    return sides


def table(rows, markdown):
    if markdown:
        rows = [rows[0], ["---"] + ["---:"] * (len(rows[0]) - 1)] + rows[1:]
        for row in rows:
            print("| " + " | ".join(row) + " |")
    else:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
            print("  ".join(cells).replace("\\|", " |").rstrip())
    print()


def times(sides):
    rows = [["", "median s", "runs s", "subst / it", "peak MB"]]
    median = {side: statistics.median(seconds) for side, (seconds, _) in sides.items()}
    for side, (seconds, peak) in sides.items():
        ours = "subst-nix" if side == "nix" and "subst" not in median else "subst"
        ratio = f"{median[ours] / median[side]:.2f}" if ours in median and side not in SUBST else ""
        shown = f"{peak / 1e6:.0f}" if side != "guix" else ""
        rows.append([NAMES[side], f"{median[side]:.2f}", " ".join(f"{second:.2f}" for second in seconds), ratio, shown])
    return rows, median


def bars(case, sides, median):
    for who, whom, limit in AT_MOST.get(case, []):
        if who in median and whom in median:
            ratio = median[who] / median[whom]
            yield f"{NAMES[who]} / {NAMES[whom]}", f"{ratio:.3f}", f"<= {limit}", ratio <= limit
    for slow, fast, limit in AT_LEAST.get(case, []):
        if slow in median and fast in median:
            ratio = median[slow] / median[fast]
            yield f"{NAMES[slow]} / {NAMES[fast]}", f"{ratio:.2f}", f">= {limit}", ratio >= limit
    if case != "syscalls":
        for side, (_, peak) in sides.items():
            if side in SUBST or case == "e":
                yield f"peak memory of {NAMES[side]}", f"{peak / 1e6:.0f} MB", f"< {MEMORY_MAX / 1e6:.0f} MB", peak < MEMORY_MAX


def calls(folder, files):
    path = os.path.join(folder, ".calls")
    if not os.path.exists(path):
        return [], None
    with open(path, encoding="utf-8") as lines:
        counts = sorted(((int(line.split()[0]), line.split()[1]) for line in lines), reverse=True)
    total = sum(count for count, _ in counts)
    rows = [["call", "number", "per file"]]
    rows += [[name, str(count), f"{count / files:.2f}"] for count, name in counts[:12]]
    rows.append(["all", str(total), f"{total / files:.2f}"])
    return rows, total / files


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("results")
    parser.add_argument("cases", nargs="+")
    options = parser.parse_args()
    with open(os.path.join(options.results, "facts"), encoding="utf-8") as lines:
        facts = dict(line.rstrip("\n").split("=", 1) for line in lines)
    missed = 0
    for case in options.cases:
        folder = os.path.join(options.results, case)
        print(("### " if options.markdown else "") + TITLES[case] + "\n")
        if "FACT_" + case in facts:
            print(facts["FACT_" + case] + "\n")
        sides = read(folder)
        verdicts = []
        if case == "syscalls":
            rows, each = calls(folder, int(facts["SMALL_FILES"]))
            if rows:
                table(rows, options.markdown)
                verdicts.append(("system calls per file", f"{each:.2f}", f"<= {CALLS_MAX:.0f}", each <= CALLS_MAX))
        elif sides:
            rows, median = times(sides)
            table(rows, options.markdown)
            verdicts.extend(bars(case, sides, median))
        if verdicts:
            shown = [[what, value, limit, "PASS" if good else "MISS"] for what, value, limit, good in verdicts]
            table([["bar", "measured", "wanted", ""]] + shown, options.markdown)
            missed += sum(not good for *_, good in verdicts)
    print(f"{missed} bar{'' if missed == 1 else 's'} missed" if missed else "no bar missed")
    sys.exit(1 if missed and options.strict else 0)


main()
