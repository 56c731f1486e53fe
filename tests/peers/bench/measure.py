#!/usr/bin/env python3
"""measure.py RESULTS OUT ERR COMMAND...: run COMMAND; append `seconds kilobytes processor-seconds` to RESULTS."""

import os
import sys
import time

results, out, err, *command = sys.argv[1:]
began = time.perf_counter()
child = os.posix_spawnp(command[0], command, os.environ, file_actions=[
    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
    (os.POSIX_SPAWN_OPEN, 1, out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
    (os.POSIX_SPAWN_OPEN, 2, err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)])
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - began
if status:
    sys.exit(f"status {status}: {open(err).read()[-500:]}")
with open(results, "a") as file:
    print(f"{seconds:.4f} {usage.ru_maxrss} {usage.ru_utime + usage.ru_stime:.4f}", file=file)
