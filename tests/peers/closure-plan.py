#!/usr/bin/env python3
# Plan the test closure: one item per installed Debian package of the chroot, its files as content, its Depends as references.
#
#   closure-plan.py CHROOT OUT
#
# Writes OUT/lists/PACKAGE (its files, NUL-separated, relative to /), OUT/plan.scm (read by inside scheme/closure.scm) and
# OUT/plan.nix (an attribute set of the same derivations for Nix).
import os
import re
import sys

chroot, out = sys.argv[1:3]


def installed():
    """Package name -> (version, [[alternative, ...], ...], [provided, ...])."""
    found = {}
    with open(f"{chroot}/var/lib/dpkg/status", encoding="utf-8") as status:
        for paragraph in status.read().split("\n\n"):
            fields = dict(re.findall(r"^([A-Za-z-]+): ?(.*)$", paragraph, re.M))
            if fields.get("Status", "").endswith(" installed"):
                wanted = ", ".join(filter(None, (fields.get("Pre-Depends"), fields.get("Depends"))))
                needs = [[re.split(r"[\s(:]", choice.strip())[0] for choice in group.split("|")]
                         for group in wanted.split(",") if group.strip()]
                gives = [re.split(r"[\s(:]", name.strip())[0] for name in fields.get("Provides", "").split(",") if name.strip()]
                found[fields["Package"]] = (fields["Version"], needs, gives)
    return found


def files_of(package):
    """The package's files and directories that are really there, parents before children."""
    for name in (f"{package}.list", f"{package}:amd64.list", f"{package}:arm64.list"):
        path = f"{chroot}/var/lib/dpkg/info/{name}"
        if os.path.exists(path):
            break
    else:
        return []
    with open(path, encoding="utf-8", errors="surrogateescape") as listing:
        names = [line.rstrip("\n").lstrip("/") for line in listing]
    names = [name for name in names if name and name != "."]
    # Nothing below a symlink: the tree is copied entry by entry.
    return [name for name in names if os.path.lexists(f"{chroot}/{name}") and not below_link(name)]


def below_link(name):
    parts = name.split("/")
    return any(os.path.islink(f"{chroot}/" + "/".join(parts[:n])) for n in range(1, len(parts)))


def ordered(packages):
    """Packages with their references, dependencies first; a dependency that would close a circle is dropped."""
    provider = {}
    for name, (_, _, gives) in packages.items():
        for virtual in gives:
            provider.setdefault(virtual, name)
    done, active, order = {}, set(), []

    def visit(name):
        active.add(name)
        references = []
        for choices in packages[name][1]:
            real = next((c if c in packages else provider[c] for c in choices if c in packages or c in provider), None)
            if real is None or real == name or real in references:
                continue
            if real not in done and real not in active:
                visit(real)
            if real in done:
                references.append(real)
        active.discard(name)
        done[name] = references
        order.append((name, references))

    for name in sorted(packages):
        if name not in done:
            visit(name)
    return order


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


packages = installed()
os.makedirs(f"{out}/lists", exist_ok=True)
scheme, nix = [], []
for number, (name, references) in enumerate(ordered(packages)):
    files = files_of(name)
    with open(f"{out}/lists/{name}", "wb") as listing:
        listing.write(b"".join(os.fsencode(f) + b"\0" for f in files))
    item = re.sub(r"[^A-Za-z0-9+.=?_-]", "-", f"{name}-{packages[name][0]}")
    itself = number % 5 == 0
    # Every twelfth package also refers to a plain file that was added to the store and has no deriver.
    license = f"/usr/share/doc/{name}/copyright"
    plain = license if number % 12 == 0 and os.path.isfile(chroot + license) else None
    scheme.append(f"({quoted(name)} {quoted(item)} ({' '.join(map(quoted, references))}) {'#t' if itself else '#f'} "
                  f"{quoted(plain) if plain else '#f'})")
    nix.append(f"  {quoted(name)} = item {{ package = {quoted(name)}; name = {quoted(item)}; itself = {'true' if itself else 'false'}; "
               f"plain = {quoted(plain) if plain else 'null'}; "
               f"needs = [ {' '.join('items.' + quoted(r) for r in references)} ]; }};")

with open(f"{out}/plan.scm", "w", encoding="utf-8") as plan:
    plan.write("(\n" + "\n".join(scheme) + "\n)\n")
with open(f"{out}/plan.nix", "w", encoding="utf-8") as plan:
    plan.write("item: let items = {\n" + "\n".join(nix) + "\n}; in items\n")
print(len(scheme))
