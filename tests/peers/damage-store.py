#!/usr/bin/env python3
"""damage-store.py STORE FLIPS DELETIONS SEED: flips single bits in random files of the items in STORE, and deletes random files.

Modes and times stay as they were, so that only contents tell. Prints the name of each damaged item: all that have the file, for a file
with several names; then an empty line, and the names in .links of damaged files.
"""
import os
import random
import stat
import sys


def files_of(item):
    """All that is not a directory in the tree of an item, or the item itself."""
    if os.path.islink(item) or not os.path.isdir(item):
        yield item
    for directory, directories, files in os.walk(item):
        directories.sort()
        for file in sorted(files):
            yield os.path.join(directory, file)


store, flips, deletions, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
random.seed(seed)

names = {}  # inode -> paths of a regular file with contents
deletable = []
for item in sorted(os.listdir(store)):
    if item.startswith("."):
        continue
    for path in files_of(os.path.join(store, item)):
        status = os.lstat(path)
        deletable.append(path)
        if stat.S_ISREG(status.st_mode) and status.st_size > 0:
            names.setdefault(status.st_ino, []).append(path)

damaged, entries = set(), set()
links = {}
for name in os.listdir(os.path.join(store, ".links")):
    links[os.lstat(os.path.join(store, ".links", name)).st_ino] = name


def item_of(path):
    return os.path.relpath(path, store).split(os.sep)[0]


chosen = set()
inodes = list(names)  # in the order of the paths: SEED chooses the same files in every store
while len(chosen) < flips:
    inode = random.choice(inodes)
    path = names[inode][0]
    status = os.lstat(path)
    place = (inode, random.randrange(8 * status.st_size))
    if place in chosen:
        continue
    chosen.add(place)
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.seek(place[1] // 8)
        byte = file.read(1)[0]
        file.seek(place[1] // 8)
        file.write(bytes([byte ^ 1 << place[1] % 8]))
    os.chmod(path, stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    damaged.update(map(item_of, names[inode]))
    if inode in links:
        entries.add(links[inode])

for path in random.sample(deletable, deletions):
    directory = os.path.dirname(path)
    status = os.lstat(directory)
    os.unlink(path)
    os.utime(directory, ns=(status.st_atime_ns, status.st_mtime_ns))
    damaged.add(item_of(path))

print(*sorted(damaged), sep="\n")
print()
print(*sorted(entries), sep="\n")
