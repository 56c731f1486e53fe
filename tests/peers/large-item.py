#!/usr/bin/env python3
# A Nix cache with one large item, which needs no signature because its name proves its content (fixed:sha256). Prints its name.
#
#   large-item.py DIRECTORY MEGABYTES
import hashlib
import os
import random
import struct
import sys

PIECE = 1 << 20
DIGITS = "0123456789abcdfghijklmnpqrsvwxyz"


def base32(digest):
    bits = int.from_bytes(digest, "little")
    length = (len(digest) * 8 + 4) // 5
    return "".join(DIGITS[(bits >> (5 * place)) & 31] for place in reversed(range(length)))


def text(word):
    return struct.pack("<Q", len(word)) + word + b"\0" * (-len(word) % 8)


def pieces(size):
    source = random.Random(1)
    for start in range(0, size, PIECE):
        yield source.randbytes(min(PIECE, size - start))


def main():
    directory, size = sys.argv[1], int(sys.argv[2]) * 1000000
    os.makedirs(directory, exist_ok=True)
    head = b"".join(text(word) for word in (b"nix-archive-1", b"(", b"type", b"regular", b"contents")) + struct.pack("<Q", size)
    tail = b"\0" * (-size % 8) + text(b")")

    contents, nar = hashlib.sha256(), hashlib.sha256(head)
    with open(os.path.join(directory, "large.nar"), "wb") as out:
        out.write(head)
        for piece in pieces(size):
            out.write(piece)
            contents.update(piece)
            nar.update(piece)
        out.write(tail)
        nar.update(tail)

    inner = hashlib.sha256(f"fixed:out:sha256:{contents.hexdigest()}:".encode()).hexdigest()
    digest = hashlib.sha256(f"output:out:sha256:{inner}:/nix/store:large".encode()).digest()
    folded = bytearray(20)
    for place, byte in enumerate(digest):
        folded[place % 20] ^= byte
    part = base32(bytes(folded))
    nar_size = len(head) + size + len(tail)
    with open(os.path.join(directory, f"{part}.narinfo"), "w", encoding="utf-8") as out:
        out.write(f"StorePath: /nix/store/{part}-large\nURL: large.nar\nCompression: none\nFileSize: {nar_size}\n"
                  f"NarHash: sha256:{base32(nar.digest())}\nNarSize: {nar_size}\nReferences: \n"
                  f"CA: fixed:sha256:{base32(contents.digest())}\n")
    with open(os.path.join(directory, "nix-cache-info"), "w", encoding="utf-8") as out:
        out.write("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n")
    print(f"/nix/store/{part}-large")


main()
