#!/usr/bin/env python3
# Compare two stores entry by entry: trees, bytes, metadata, deduplication, and the contents of their databases.
#
#   compare-stores.py [--list FILE] [--no-links] [--no-owner] A B
#
# A and B are directories: a root (gnu/store and var/guix below it, or nix/store and nix/var/nix), a stock client
# (store and var), or STORE:DATABASE. --list restricts the comparison to the store paths in FILE; --no-links leaves
# .links and hard links out; --no-owner leaves user and group out. Prints every difference (at most 200) and exits 1 on any.
import argparse
import os
import sqlite3
import stat
import sys

LIMIT = 200
differences = 0


def differ(what, a, b=""):
    global differences
    differences += 1
    if differences <= LIMIT:
        print(f"{what}: {a!r} / {b!r}" if b != "" else f"{what}: {a}")


class Store:
    """One side: where its store and database are, and the inodes of its .links."""

    def __init__(self, place):
        self.directory, self.database = self.find(place)
        self.links = {}
        folder = os.path.join(self.directory, ".links")
        if os.path.isdir(folder):
            with os.scandir(folder) as entries:
                self.links = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
        self.by_inode = {info.st_ino: name for name, info in self.links.items()}

    @staticmethod
    def find(place):
        if ":" in place:
            return tuple(place.split(":", 1))
        for store, database in (("gnu/store", "var/guix/db/db.sqlite"), ("nix/store", "nix/var/nix/db/db.sqlite"),
                                ("store", "var/db/db.sqlite")):
            if os.path.isdir(os.path.join(place, store)):
                return os.path.join(place, store), os.path.join(place, database)
        sys.exit(f"{place}: no store here")

    def names(self):
        return {name for name in os.listdir(self.directory) if name != ".links"}

    def query(self, statement):
        connection = sqlite3.connect(self.database)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()


def kind(info):
    return stat.S_IFMT(info.st_mode)


def same_bytes(a, b):
    with open(a, "rb", buffering=0) as one, open(b, "rb", buffering=0) as two:
        while True:
            left, right = one.read(1 << 20), two.read(1 << 20)
            if left != right:
                return False
            if not left:
                return True


class Comparison:
    def __init__(self, a, b, options):
        self.a, self.b, self.options = a, b, options
        self.equal_inodes = set()
        self.used = ({}, {})   # inode -> number of names seen, per side
        self.entries = 0
        self.bytes = 0

    def entry(self, name):
        self.entries += 1
        paths = (os.path.join(self.a.directory, name), os.path.join(self.b.directory, name))
        infos = tuple(os.lstat(path) for path in paths)
        shown = os.fsencode(name).decode("utf-8", "replace")
        if kind(infos[0]) != kind(infos[1]):
            differ(f"{shown}: type", oct(kind(infos[0])), oct(kind(infos[1])))
            return
        if infos[0].st_mode != infos[1].st_mode:
            differ(f"{shown}: mode", oct(infos[0].st_mode), oct(infos[1].st_mode))
        for side, info in zip("AB", infos):
            if info.st_mtime_ns != 1_000_000_000:
                differ(f"{shown}: mtime of {side} is not 1", f"{info.st_mtime_ns} ns")
        if not self.options.no_owner and (infos[0].st_uid, infos[0].st_gid) != (infos[1].st_uid, infos[1].st_gid):
            differ(f"{shown}: owner", (infos[0].st_uid, infos[0].st_gid), (infos[1].st_uid, infos[1].st_gid))
        attributes = tuple(os.listxattr(path, follow_symlinks=False) for path in paths)
        if attributes[0] or attributes[1]:
            differ(f"{shown}: extended attributes", attributes[0], attributes[1])
        if stat.S_ISLNK(infos[0].st_mode):
            targets = tuple(os.readlink(path) for path in paths)
            if targets[0] != targets[1]:
                differ(f"{shown}: target", *targets)
        elif stat.S_ISREG(infos[0].st_mode):
            self.file(shown, paths, infos)
        elif stat.S_ISDIR(infos[0].st_mode):
            self.directory(name, shown, paths)
        else:
            differ(f"{shown}: unexpected type", oct(kind(infos[0])))

    def file(self, shown, paths, infos):
        for used, info in zip(self.used, infos):
            used.setdefault(info.st_ino, [0, info.st_nlink, shown])[0] += 1
        if not self.options.no_links:
            names = (self.a.by_inode.get(infos[0].st_ino), self.b.by_inode.get(infos[1].st_ino))
            if names[0] != names[1]:
                differ(f"{shown}: deduplicated as", *names)
        if infos[0].st_size != infos[1].st_size:
            differ(f"{shown}: size", infos[0].st_size, infos[1].st_size)
            return
        inodes = (infos[0].st_ino, infos[1].st_ino)
        if inodes in self.equal_inodes:
            return
        self.bytes += infos[0].st_size
        if same_bytes(*paths):
            self.equal_inodes.add(inodes)
        else:
            differ(f"{shown}: content differs", f"{infos[0].st_size} bytes")

    def directory(self, name, shown, paths):
        listings = tuple(set(os.listdir(path)) for path in paths)
        for extra in sorted(listings[0] - listings[1]):
            differ(f"{shown}: only in A", extra)
        for extra in sorted(listings[1] - listings[0]):
            differ(f"{shown}: only in B", extra)
        for child in sorted(listings[0] & listings[1]):
            self.entry(os.path.join(name, child))

    def trees(self, wanted):
        names = (self.a.names(), self.b.names())
        if wanted is not None:
            base = {os.path.basename(path) for path in wanted}
            for side, here in zip("AB", names):
                for missing in sorted(base - here):
                    differ(f"not in the store {side}", missing)
            names = tuple(here & base for here in names)
        for extra in sorted(names[0] - names[1]):
            differ("only in the store A", extra)
        for extra in sorted(names[1] - names[0]):
            differ("only in the store B", extra)
        for name in sorted(names[0] & names[1]):
            self.entry(name)

    def link_names(self, restricted):
        if self.options.no_links:
            return
        if restricted:
            sets = tuple({store.by_inode[inode] for inode in used if inode in store.by_inode}
                         for store, used in zip((self.a, self.b), self.used))
        else:
            sets = tuple(set(store.links) for store in (self.a, self.b))
        for extra in sorted(sets[0] - sets[1]):
            differ(".links: only in A", extra)
        for extra in sorted(sets[1] - sets[0]):
            differ(".links: only in B", extra)
        if not restricted:
            for side, store, used in zip("AB", (self.a, self.b), self.used):
                for inode, (seen, links, shown) in used.items():
                    expected = seen + (1 if inode in store.by_inode else 0)
                    if links != expected:
                        differ(f"{shown}: link count in {side}", links, expected)

    def databases(self, wanted):
        rows = [{row[0]: row for row in store.query("select path, hash, narSize, deriver from ValidPaths")}
                for store in (self.a, self.b)]
        pairs = [set(store.query("select a.path, b.path from Refs join ValidPaths a on a.id = referrer "
                                 "join ValidPaths b on b.id = reference")) for store in (self.a, self.b)]
        if wanted is not None:
            for side, table in zip("AB", rows):
                for path in sorted(wanted - set(table)):
                    differ(f"not valid in {side}", path)
            rows = [{path: row for path, row in table.items() if path in wanted} for table in rows]
            pairs = [{pair for pair in table if pair[0] in wanted} for table in pairs]
        for path in sorted(set(rows[0]) | set(rows[1])):
            if rows[0].get(path) != rows[1].get(path):
                differ(f"ValidPaths {path}", rows[0].get(path), rows[1].get(path))
        for pair in sorted(pairs[0] - pairs[1]):
            differ("Refs: only in A", " -> ".join(pair))
        for pair in sorted(pairs[1] - pairs[0]):
            differ("Refs: only in B", " -> ".join(pair))
        return len(rows[0]), len(pairs[0])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--list")
    parser.add_argument("--no-links", action="store_true")
    parser.add_argument("--no-owner", action="store_true")
    parser.add_argument("a")
    parser.add_argument("b")
    options = parser.parse_args()
    wanted = None
    if options.list:
        with open(options.list, encoding="utf-8") as listing:
            wanted = set(listing.read().split())
    sys.setrecursionlimit(10000)
    comparison = Comparison(Store(options.a), Store(options.b), options)
    comparison.trees(wanted)
    comparison.link_names(wanted is not None)
    items, pairs = comparison.databases(wanted)
    print(f"{items} items, {comparison.entries} entries, {comparison.bytes} bytes read, {pairs} references: "
          f"{differences or 'no'} difference{'' if differences == 1 else 's'}")
    sys.exit(1 if differences else 0)


main()
