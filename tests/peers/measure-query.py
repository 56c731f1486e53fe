#!/usr/bin/env python3
"""measure-query.py WORK ITEMS COMMAND...: run COMMAND with ITEMS as input; write WORK/answer.json, WORK/stderr (standard error)
and WORK/cost (seconds, peak memory in kB, exit status).
"""

import os
import resource
import sys
import time

work, items, *command = sys.argv[1:]
opened = [(0, items, os.O_RDONLY), (1, f"{work}/answer.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
          (2, f"{work}/stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)]
began = time.perf_counter()
child = os.posix_spawn(command[0] if "/" in command[0] else "/usr/bin/" + command[0], command, os.environ,
                       file_actions=[(os.POSIX_SPAWN_OPEN, fd, name, flags, 0o644) for fd, name, flags in opened])
_, status, usage = os.wait4(child, 0)
with open(f"{work}/cost", "w") as file:
    file.write(f"{time.perf_counter() - began:.3f} {usage.ru_maxrss} {os.waitstatus_to_exitcode(status)}\n")
