#!/usr/bin/env python3
# Make the trees that the speed benchmarks fetch, always the same from the same closure.
#
#   speed-data.py SCALE LIST STORE TREES
#
# LIST and STORE are the test closure's: its larger files, with pseudo-random bytes between them so that all of it compresses to
# about 25 %, are the content of everything here. SCALE 1 is the full size; less makes it smaller. Prints facts as NAME=VALUE.
#
#   big         6 files, 500 MB
#   small       50,000 files of 1 to 8 KiB in 500 directories; no two alike
#   link        1 file of 60 MB that cannot be compressed
#   part-N-1    ten items of 40 MB, files of 8 KiB to 1 MiB
#   part-N-2    the same with the same names; 20 % of the bytes are in files with other content
import math
import os
import random
import sys

scale, list_file, store, trees = float(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
chance = random.Random(2026)


def closure_files():
    with open(list_file, encoding="utf-8") as listing:
        items = sorted(listing.read().split(), key=lambda path: path.split("-", 1)[1])
    for item in items:
        for folder, folders, names in os.walk(os.path.join(store, os.path.basename(item))):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                if not os.path.islink(path) and os.path.getsize(path) >= 64 << 10:
                    yield path


def content():
    """Pieces of 1 MiB of the closure's bytes, pseudo-random ones between them."""
    for path in closure_files():
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                yield piece
                yield chance.randbytes(len(piece) >> 4)


def write(path, data, mode=0o644):
    with open(path, "wb") as out:
        out.write(data)
    os.chmod(path, mode)


def make(name):
    path = os.path.join(trees, name)
    os.makedirs(path)
    return path


big_bytes = int(500e6 * scale)
body = bytearray()
for piece in content():
    body += piece
    if len(body) >= big_bytes:
        break
else:
    sys.exit(f"the closure has only {len(body)} bytes of larger files, {big_bytes} are needed")
body = memoryview(body)[:big_bytes]

big = make("big")
for number in range(6):
    write(os.path.join(big, f"file-{number}"), body[number * big_bytes // 6:(number + 1) * big_bytes // 6])

link = make("link")
write(os.path.join(link, "data"), chance.randbytes(int(60e6 * max(scale, 0.2))))

small, position, count = make("small"), 0, int(50000 * scale)
for number in range(count):
    folder = os.path.join(small, f"directory-{number // 100:03}")
    if number % 100 == 0:
        os.mkdir(folder)
    size = chance.randint(1024, 8191)
    # Its number makes it unlike every other file.
    write(os.path.join(folder, f"file-{number % 100:02}"), b"%08d\n" % number + body[position:position + size - 9],
          0o755 if number % 20 == 0 else 0o644)
    position = (position + size) % (big_bytes - 8192)

position, unchanged, total = 0, 0, 0
changed_position = big_bytes * 8 // 10


def take(start, size):
    return body[start:start + size]


parts = []
for part in range(10):
    sizes, left = [], big_bytes * 8 // 100
    while left > 8192:
        sizes.append(min(left, int(8192 * math.exp(chance.uniform(0, math.log(128))))))
        left -= sizes[-1]
    # Which files change: in random order until 20 % of the bytes are reached.
    order, changed, changed_bytes = list(range(len(sizes))), set(), 0
    chance.shuffle(order)
    for number in order:
        if changed_bytes + sizes[number] <= sum(sizes) // 5:
            changed.add(number)
            changed_bytes += sizes[number]
    folders = [os.path.join(make(f"part-{part}-{version}"), "share") for version in (1, 2)]
    for folder in folders:
        os.mkdir(folder)
    for number, size in enumerate(sizes):
        old, new = (os.path.join(folder, f"file-{number:03}") for folder in folders)
        write(old, take(position, size))
        position += size
        if number in changed:
            write(new, take(changed_position, size))
            changed_position += size
        else:
            os.link(old, new)
            unchanged += size
        total += size

print(f"BIG_BYTES={big_bytes}")
print(f"SMALL_FILES={count}")
print(f"UPGRADE_SAME_PERCENT={100 * unchanged // total}")
