#!/usr/bin/env python3
"""flip-bit.py FILE POSITION: flip one bit of the byte at POSITION, a fraction of the size."""

import sys

data = bytearray(open(sys.argv[1], "rb").read())
data[int(float(sys.argv[2]) * (len(data) - 1))] ^= 1
open(sys.argv[1], "wb").write(data)
