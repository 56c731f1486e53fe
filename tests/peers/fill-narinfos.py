#!/usr/bin/env python3
# Make N signed narinfos with references among them: a static substitute server for lookups (there are no nars behind it).
#
#   fill-narinfos.py N OUT [SEED]
#
# Writes OUT/www (nix-cache-info, HASH.narinfo), OUT/list (every path), OUT/tops (items without referrers), OUT/signing-key.pub
# and OUT/acl. The same N and SEED give the same files. The signatures are Guix's: ECDSA on the curve Ed25519 with the
# nonce of RFC 6979, in plain Python integers (about 3,000 a second).
import base64
import hashlib
import hmac
import os
import random
import sys

P = 2**255 - 19
N = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
GY = 4 * pow(5, -1, P) % P
BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"


def x_of(y):
    """The even x of a point with this y."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return P - x if x & 1 else x


def add(a, b):
    """Sum of two points in extended coordinates."""
    x1, y1, z1, t1 = a
    x2, y2, z2, t2 = b
    e1, e2 = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * D * t1 * t2 % P, 2 * z1 * z2 % P
    e, f, g, h = e2 - e1, d - c, d + c, e2 + e1
    return e * f % P, g * h % P, f * g % P, e * h % P


class Base:
    """Multiples of the base point: one table row per byte of the scalar."""

    def __init__(self):
        gx = x_of(GY)
        point, self.rows = (gx, GY, 1, gx * GY % P), []
        for _ in range(32):
            row = [(0, 1, 1, 0)]
            for _ in range(255):
                row.append(add(row[-1], point))
            self.rows.append(row)
            point = add(row[-1], point)

    def times(self, scalar):
        total = (0, 1, 1, 0)
        for row, byte in zip(self.rows, scalar.to_bytes(32, "little")):
            if byte:
                total = add(total, row[byte])
        x, y, z, _ = total
        inverse = pow(z, -1, P)
        return x * inverse % P, y * inverse % P


class Key:
    """A Guix signing key."""

    def __init__(self, base, secret):
        self.base, self.secret = base, secret
        self.d = int.from_bytes(secret, "big")
        x, y = base.times(self.d % N)
        self.q = (y | (x & 1) << 255).to_bytes(32, "little").hex().upper()

    def public(self):
        return f"(public-key \n (ecc \n  (curve Ed25519)\n  (q #{self.q}#)\n  )\n )\n"

    def nonces(self, z):
        """RFC 6979 with HMAC-SHA256; the private key as stored, the hash reduced."""
        seed = self.secret + (z % N).to_bytes(32, "big")
        k, v = bytes(32), b"\1" * 32
        for mark in (b"\0", b"\1"):
            k = hmac.digest(k, v + mark + seed, "sha256")
            v = hmac.digest(k, v, "sha256")
        while True:
            v = hmac.digest(k, v, "sha256")
            nonce = int.from_bytes(v, "big") >> 3
            if 0 < nonce < N:
                yield nonce
            k = hmac.digest(k, v + b"\0", "sha256")
            v = hmac.digest(k, v, "sha256")

    def sign(self, digest):
        z = int.from_bytes(digest, "big") >> 3
        for nonce in self.nonces(z):
            r = self.base.times(nonce)[0] % N
            s = pow(nonce, -1, N) * (z + r * self.d) % N
            if r and s:
                return r, s

    def signature(self, text):
        """The Signature line of a narinfo whose signed part is TEXT."""
        digest = hashlib.sha256(text).digest()
        r, s = self.sign(digest)
        canonical = (f"(signature \n (data \n  (flags rfc6979)\n  (hash sha256 #{digest.hex().upper()}#)\n  )\n"
                     f" (sig-val \n  (ecdsa \n   (r #{short(r)}#)\n   (s #{short(s)}#)\n   )\n  )\n"
                     f" (public-key \n  (ecc \n   (curve Ed25519)\n   (q #{self.q}#)\n   )\n  )\n )\n")
        return f"Signature: 1;subst-peers;{base64.b64encode(canonical.encode()).decode()}\n"


def short(number):
    """Hexadecimal without leading zero bytes, as libgcrypt prints it."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big").hex().upper()


def words(random_source, length):
    return "".join(random_source.choices(BASE32, k=length))


def items(count, source):
    """(basename, nar size, references) of each item; references point to earlier ones, sometimes to the item itself."""
    made = []
    for number in range(count):
        # The first character of 52 has one significant bit only; that of a 32-character hash all five.
        name = f"{words(source, 32)}-{source.choice(['lib', 'guile-', 'python-', 'rust-', 'emacs-', ''])}sample-{number}-1.{source.randrange(40)}"
        references = sorted(source.sample(range(number), min(number, int(source.expovariate(0.18)))))
        references = [made[other][0] for other in references]
        if source.random() < 0.3:
            references.append(name)
        made.append((name, source.randrange(500, 5_000_000) * 8, sorted(references)))
    return made


def narinfo(key, item, source):
    name, size, references = item
    nar_hash = source.choice("01") + words(source, 51)
    text = (f"StorePath: /gnu/store/{name}\nNarHash: sha256:{nar_hash}\nNarSize: {size}\n"
            f"References: {' '.join(references)}\n")
    if source.random() < 0.9:
        text += f"Deriver: {words(source, 32)}-{name[33:]}.drv\n"
    text += key.signature(text.encode())
    for method, share in (("zstd", 0.30), ("lzip", 0.25)):
        text += f"URL: nar/{method}/{name}\nCompression: {method}\nFileSize: {int(size * share)}\n"
    return text


def main():
    count, out = int(sys.argv[1]), sys.argv[2]
    source = random.Random(sys.argv[3] if len(sys.argv) > 3 else "subst")
    key = Key(Base(), bytes([0x40 | source.randrange(64)]) + source.randbytes(30) + bytes([source.randrange(32) * 8]))
    os.makedirs(f"{out}/www", exist_ok=True)
    made = items(count, source)
    for item in made:
        with open(f"{out}/www/{item[0][:32]}.narinfo", "w", encoding="utf-8") as file:
            file.write(narinfo(key, item, source))
    referred = {reference for name, _, references in made for reference in references if reference != name}
    contents = {
        "www/nix-cache-info": "StoreDir: /gnu/store\nWantMassQuery: 1\nPriority: 40\n",
        "signing-key.pub": key.public(),
        "acl": f"(acl\n (entry\n  {key.public()} (tag (guix import))))\n",
        "list": "".join(f"/gnu/store/{name}\n" for name, _, _ in made),
        "tops": "".join(f"/gnu/store/{name}\n" for name, _, _ in made if name not in referred),
    }
    for name, text in contents.items():
        with open(f"{out}/{name}", "w", encoding="utf-8") as file:
            file.write(text)


main()
