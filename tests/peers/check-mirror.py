#!/usr/bin/env python3
"""Checks a mirror in a directory without any code of the program: check-mirror.py DIRECTORY [--deep | --same-as URL] [--no-orphans]

No narinfo may be without its nars and the narinfos of its references, and no file may have another size than a narinfo
says. With --no-orphans, no file in nar/ may be without a narinfo. With --deep, every nar is hashed: the file, and decompressed (zstd, xz, lzip, gzip, bzip2, none). With --same-as, every
narinfo and nar is compared with what that server answers. Prints the numbers of narinfos and nars; exits with 1 after naming what is wrong.
"""
import hashlib
import os
import subprocess
import sys
import urllib.request
from urllib.parse import unquote

NIX_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"
TOOLS = {"zstd": ["zstd", "-dc"], "xz": ["xz", "-dc"], "lzip": ["lzip", "-dc"], "gzip": ["gzip", "-dc"],
         "bzip2": ["bzip2", "-dc"], "none": ["cat"]}


def base32(digest):
    number = int.from_bytes(digest, "little")
    return "".join(NIX_BASE32[(number >> (5 * place)) & 31] for place in reversed(range(52)))


def hash_of(text):
    """The digest of `sha256:...` in base 32 or 16, or None."""
    algorithm, _, digits = text.partition(":")
    if algorithm != "sha256":
        return None
    return digits if len(digits) == 52 else base32(bytes.fromhex(digits))


def parse(text):
    info, downloads = {}, []
    for line in text.splitlines():
        key, _, value = line.partition(":")
        value = value.strip()
        if key == "URL":
            downloads.append({"URL": value})
        elif key in ("Compression", "FileHash", "FileSize") and downloads:
            downloads[-1][key] = value
        else:
            info.setdefault(key, value)
    return info, downloads


def digest(stream):
    sha, size = hashlib.sha256(), 0
    while chunk := stream.read(1 << 20):
        sha.update(chunk)
        size += len(chunk)
    return base32(sha.digest()), size


def check_deep(path, info, download):
    with open(path, "rb") as file:
        file_hash, _ = digest(file)
    if "FileHash" in download and hash_of(download["FileHash"]) != file_hash:
        yield "another FileHash"
    with open(path, "rb") as file:
        tool = subprocess.Popen(TOOLS[download["Compression"]], stdin=file, stdout=subprocess.PIPE)
        nar_hash, size = digest(tool.stdout)
    if tool.wait() != 0 or nar_hash != hash_of(info["NarHash"]) or size != int(info["NarSize"]):
        yield "another nar"


def answer(server, name):
    with urllib.request.urlopen(f"{server}/{name}") as response:
        return response.read()


def differences(directory, name, server):
    """The narinfo `name` and its nars, as far as they are not those of the server."""
    with open(os.path.join(directory, name), "rb") as file:
        text = file.read()
    if text != answer(server, name):
        yield "another narinfo than that of the server"
    for download in parse(text.decode())[1]:
        with open(os.path.join(directory, unquote(download["URL"])), "rb") as file:
            if file.read() != answer(server, download["URL"]):
                yield "another file than that of the server: " + download["URL"]


def faults(directory, name, deep):
    with open(os.path.join(directory, name), newline="") as file:
        info, downloads = parse(file.read())
    hash_part = os.path.basename(info["StorePath"])[:32]
    if name != hash_part + ".narinfo":
        yield "it describes " + info["StorePath"]
    for reference in info.get("References", "").split():
        if not os.path.isfile(os.path.join(directory, reference[:32] + ".narinfo")):
            yield "no narinfo of its reference " + reference
    if not downloads:
        yield "no nar"
    for download in downloads:
        path = os.path.join(directory, unquote(download["URL"]))
        if not os.path.isfile(path):
            yield "no file " + download["URL"]
        elif "FileSize" in download and os.path.getsize(path) != int(download["FileSize"]):
            yield "another size of " + download["URL"]
        elif deep:
            for fault in check_deep(path, info, download):
                yield f"{fault}: {download['URL']}"


def orphans(directory, names):
    """The files in nar/ that no narinfo names."""
    named = set()
    for name in names:
        with open(os.path.join(directory, name), newline="") as file:
            named.update(unquote(download["URL"]) for download in parse(file.read())[1])
    for place, _, files in os.walk(os.path.join(directory, "nar")):
        for file in files:
            path = os.path.relpath(os.path.join(place, file), directory)
            if path not in named:
                yield "no narinfo names " + path


def main():
    directory, deep = sys.argv[1], "--deep" in sys.argv[2:]
    names = sorted(name for name in os.listdir(directory) if name.endswith(".narinfo"))
    if names and not os.path.isfile(os.path.join(directory, "nix-cache-info")):
        sys.exit("no nix-cache-info")
    found = [f"{name}: {fault}" for name in names for fault in faults(directory, name, deep)]
    if sys.argv[2:3] == ["--same-as"]:
        found += [f"{name}: {fault}" for name in names for fault in differences(directory, name, sys.argv[3])]
    if "--no-orphans" in sys.argv[2:]:
        found += orphans(directory, names)
    nars = sum(len(files) for place, _, files in os.walk(os.path.join(directory, "nar")))
    print(len(names), nars)
    if found:
        sys.exit("\n".join(found))


main()
