"""The store below a root after a power cut: check-cut-store.py ROOT [REPORTED].

The database has to be sound, and each valid item to have the bytes that its row says: the hash of its nar is computed. Of the names in the
file REPORTED, each has to be valid. Prints how many items are valid; no store at all is a store without items.
"""
import hashlib
import os
import sqlite3
import stat
import struct
import sys
from pathlib import Path


def add(digest, data):
    digest.update(struct.pack("<Q", len(data)) + data + bytes(-len(data) % 8))


def add_file(digest, path, size):
    digest.update(struct.pack("<Q", size))
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size -= len(chunk)
    if size != 0:
        raise ValueError(f"{path} changed while it was read")
    digest.update(bytes(-os.path.getsize(path) % 8))


def add_node(digest, path):
    status = os.lstat(path)
    add(digest, b"(")
    add(digest, b"type")
    if stat.S_ISLNK(status.st_mode):
        for word in (b"symlink", b"target", os.readlink(path)):
            add(digest, word)
    elif stat.S_ISREG(status.st_mode):
        add(digest, b"regular")
        if status.st_mode & 0o100:
            add(digest, b"executable")
            add(digest, b"")
        add(digest, b"contents")
        add_file(digest, path, status.st_size)
    else:
        add(digest, b"directory")
        for name in sorted(os.listdir(path)):
            for word in (b"entry", b"(", b"name", name, b"node"):
                add(digest, word)
            add_node(digest, path + b"/" + name)
            add(digest, b")")
    add(digest, b")")


def nar_hash(path):
    digest = hashlib.sha256()
    add(digest, b"nix-archive-1")
    add_node(digest, os.fsencode(path))
    return "sha256:" + digest.hexdigest()


def wrong_items(root):
    """The valid items, and what is wrong with some."""
    database = root / "var/guix/db"
    if not (database / "schema").exists():
        return {}, []
    connection = sqlite3.connect(database / "db.sqlite")
    check = connection.execute("PRAGMA integrity_check").fetchone()[0]
    wrong = [] if check == "ok" else [f"the database: {check}"]
    valid = dict(connection.execute("SELECT path, hash FROM ValidPaths"))
    for name, expected in valid.items():
        try:
            found = nar_hash(root / name.lstrip("/"))
        except (OSError, ValueError) as error:
            found = str(error)
        if found != expected:
            wrong.append(f"{name}: {found}")
    return valid, wrong


def main():
    valid, wrong = wrong_items(Path(sys.argv[1]))
    reported = Path(sys.argv[2]).read_text().split() if len(sys.argv) > 2 else []
    wrong += [f"{name} was reported as fetched" for name in reported if name.startswith("/") and name not in valid]
    print(f"{len(valid)} valid, {len(wrong)} wrong", *wrong[:5], sep="\n  ")
    sys.exit(bool(wrong))


main()
