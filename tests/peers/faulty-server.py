#!/usr/bin/env python3
# A substitute server with faults, one for each first part of a request's path: URL/KIND is a server of that kind.
#
#   faulty-server.py PORT DIRECTORY [LOG]
#
# It serves the narinfos of DIRECTORY (nothing else, and a nix-cache-info). LOG gets one line per request: KIND NAME CONNECTION.
#
# Kinds: good; close-N (closes after every N answers); silent (accepts, never answers); bytes (chunks of one byte); continue
# (interim answers first); nolength (the end of the connection ends the body); trickle (one answer each 0.3 s); late-MS (every
# answer MS later); hugehead, hugebody (10 GB), endless (a chunk without end), garbage, loop (redirects to itself), away-URL
# (redirects to URL, with %2F for slashes), status-N, busy-N (429 with Retry-After: 1 until N requests were refused), baking-N (404
# with X-Baking and max-age N), accepted-N (202), kept-N (good, max-age N), other (the narinfo of another item), corrupt (its
# signature covers another text), unsigned, unauthorized (another key), half (the connection ends within the body), missing; mixed (the
# n-th narinfo, in the order of names, by the n-th kind of MIXED, again and again).
import base64
import os
import random
import re
import socket
import sys
import threading
import time
import urllib.parse

port, directory = int(sys.argv[1]), sys.argv[2]
log = open(sys.argv[3], "a", buffering=1) if len(sys.argv) > 3 else None
names = sorted(name for name in os.listdir(directory) if name.endswith(".narinfo"))
MIXED = ["kept-7200", "missing", "baking-300", "unauthorized", "corrupt", "other", "status-500", "unsigned"]
refused = {}
lock = threading.Lock()


def head(status, length, *fields):
    lines = [f"HTTP/1.1 {status}", "Content-Type: text/x-nix-narinfo", *fields]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def whole(body, *fields, status="200 OK"):
    return head(status, len(body), *fields) + body


def text_of(name):
    try:
        with open(f"{directory}/{os.path.basename(name)}", "rb") as file:
            return file.read()
    except OSError:
        return None


class Gone(Exception):
    """The server ends the connection."""


def huge(connection, first):
    connection.sendall(first)
    block = b"x" * (1 << 20)
    for _ in range(10 << 10):
        connection.sendall(block)


def answer(kind, argument, name, connection):
    """Bytes to send for one request; raises Gone after what is sent when the connection ends with it."""
    if kind == "mixed" and name in names:
        kind, _, argument = MIXED[names.index(name) % len(MIXED)].partition("-")
    body = text_of(name)
    if name == "nix-cache-info" and kind not in ("silent", "garbage"):
        body = b"StoreDir: /gnu/store\nWantMassQuery: 0\nPriority: 30\n"
        if kind in ("nolength", "half"):
            connection.sendall(head("200 OK", len(body), "Connection: close") + body)
            raise Gone
        return whole(body)
    if body is None or kind == "missing":
        return whole(b"no", "Cache-Control: max-age=90", status="404 Not Found")
    if kind == "silent":
        time.sleep(3600)
    if kind == "trickle":
        time.sleep(0.3)
    if kind == "late":
        time.sleep(int(argument) / 1000)
    if kind == "bytes":
        return head("200 OK", None, "Transfer-Encoding: chunked") + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    if kind == "continue":
        return b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + whole(body)
    if kind == "nolength":
        connection.sendall(head("200 OK", None, "Connection: close") + body)
        raise Gone
    if kind == "half":
        connection.sendall(head("200 OK", len(body)) + body[: len(body) // 2])
        raise Gone
    if kind == "hugehead":
        huge(connection, b"HTTP/1.1 200 OK\r\nX-Huge: ")
        raise Gone
    if kind == "hugebody":
        huge(connection, head("200 OK", 10 << 30))
        raise Gone
    if kind == "endless":
        huge(connection, head("200 OK", None, "Connection: close"))
        raise Gone
    if kind == "garbage":
        return random.randbytes(3000)
    if kind == "loop":
        return whole(b"", f"Location: /{kind}/{name}", status="302 Found")
    if kind == "away":
        return whole(b"", f"Location: {urllib.parse.unquote(argument)}/{name}", status="302 Found")
    if kind == "status":
        return whole(b"sorry", status=f"{argument} Odd")
    if kind == "busy":
        with lock:
            refused[argument] = refused.get(argument, 0) + 1
            if refused[argument] <= int(argument):
                return whole(b"later", "Retry-After: 1", status="429 Too Many Requests")
    if kind == "baking":
        return whole(b"baking", f"Cache-Control: max-age={argument}", "X-Baking: 1", status="404 Not Found")
    if kind == "accepted":
        return whole(b"", f"Cache-Control: max-age={argument}", status="202 Accepted")
    if kind == "kept":
        return whole(body, f"Cache-Control: max-age={argument}")
    if kind == "other":
        return whole(text_of(names[(names.index(name) + 1) % len(names)]))
    if kind == "corrupt":
        return whole(re.sub(rb"NarSize: (\d+)", rb"NarSize: 1\1", body))
    if kind == "unauthorized":
        value = re.search(rb"Signature: 1;[^;]*;(.*)\n", body).group(1)
        signature = re.sub(rb"\(q #[0-9A-F]{4}", b"(q #ABCD", base64.b64decode(value))
        return whole(body.replace(value, base64.b64encode(signature)))
    if kind == "unsigned":
        return whole(re.sub(rb"Signature: .*\n", b"", body))
    return whole(body)


def serve(connection, number):
    pending, count = b"", 0
    try:
        while True:
            while b"\r\n\r\n" not in pending:
                more = connection.recv(1 << 16)
                if not more:
                    return
                pending += more
            request, _, pending = pending.partition(b"\r\n\r\n")
            path = request.split(b" ")[1].decode()
            first, _, name = path.lstrip("/").partition("/")
            kind, _, argument = first.partition("-")
            if log:
                log.write(f"{first} {name} {number}\n")
            connection.sendall(answer(kind, argument, name, connection))
            count += 1
            if kind == "close" and count == int(argument):
                return
    except (Gone, OSError):
        return
    finally:
        connection.close()


listener = socket.create_server(("127.0.0.1", port), backlog=128)
number = 0
while True:
    accepted, _ = listener.accept()
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    number += 1
    threading.Thread(target=serve, args=(accepted, number), daemon=True).start()
