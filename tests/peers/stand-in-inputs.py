"""Puts stand-ins for the inputs of a Guix package where its builder expects them.

usage: stand-in-inputs.py BUILDER STORE CRATES

BUILDER is the script that guix-daemon would run, STORE the directory of its /gnu/store, and CRATES has the archives of cargo. Each
crate becomes the archive that cargo has, the Rust toolchain a link to /rust, and every other input a directory whose `bin` links to
/tools.
"""
import os
import re
import shutil
import sys

builder, store, crates = sys.argv[1:]
# Guix writes _ as - in the names of packages.
archives = {name.replace("_", "-").lower(): name for name in os.listdir(crates)}

with open(builder, encoding="utf-8") as file:
    text = file.read()
inputs = text[text.index("#:inputs"):text.index("#:search-paths")]
for label, path in re.findall(r'\("([^"]+)" \. "/gnu/store/([^"]+)"\)', inputs):
    place = os.path.join(store, path)
    crate = re.fullmatch(r"rust-(.+)\.tar\.gz", label)
    if os.path.lexists(place):
        continue
    if crate:
        shutil.copyfile(os.path.join(crates, archives[crate[1] + ".crate"]), place)
    elif label in ("cargo", "rustc"):
        os.symlink("/rust", place)
    else:
        os.mkdir(place)
        os.symlink("/tools", os.path.join(place, "bin"))
