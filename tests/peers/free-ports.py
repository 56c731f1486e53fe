#!/usr/bin/env python3
"""free-ports.py N: print N loopback ports that no process listens on, one per line."""

import socket
import sys

held = []
for _ in range(int(sys.argv[1])):
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    held.append(s)
print("\n".join(str(s.getsockname()[1]) for s in held))
