#!/usr/bin/env python3
"""edit-signature.py NARINFO PART: change one part of the decoded signature of a narinfo, and encode it again."""

import base64
import re
import sys

name, what = sys.argv[1:]
text = open(name).read()
line = re.search(r"Signature: (.*);(.*);(.*)\n", text)
sexp = base64.b64decode(line[3]).decode()
if what in ("r", "s", "q", "hash"):
    pattern = r"\(hash sha256 #([0-9A-F]+)#" if what == "hash" else rf"\({what} #([0-9A-F]+)#"
    digits = re.search(pattern, sexp)
    middle = digits.start(1) + len(digits[1]) // 2
    sexp = sexp[:middle] + "%X" % (int(sexp[middle], 16) ^ 1) + sexp[middle + 1:]
elif what == "shape":
    sexp = sexp.replace("sig-val", "sig-vat")
version = "2" if what == "version" else line[1]
encoded = line[3][:40] + "!" + line[3][41:] if what == "base64" else base64.b64encode(sexp.encode()).decode()
open(name, "w").write(text.replace(line[0], f"Signature: {version};{line[2]};{encoded}\n"))
