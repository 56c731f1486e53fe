#!/usr/bin/env python3
# Wait until `guix publish --cache` has prepared every item of a list; optionally keep its answers as a static server directory.
#
#   prepare-nars.py URL LIST [DIRECTORY]
import http.client
import os
import sys
import time
import urllib.parse

url, list_file = sys.argv[1:3]
directory = sys.argv[3] if len(sys.argv) > 3 else None
with open(list_file, encoding="utf-8") as listing:
    hashes = [os.path.basename(line)[:32] for line in listing.read().split()]

server = urllib.parse.urlsplit(url)
connection = http.client.HTTPConnection(server.hostname, server.port, timeout=120)


def get(path):
    """Status and body; the publisher may close a connection whenever it likes."""
    for attempt in range(5):
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (http.client.HTTPException, OSError):
            connection.close()
            if attempt == 4:
                raise


def store(path, body):
    place = os.path.join(directory, path)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place + ".part", "wb") as out:
        out.write(body)
    os.rename(place + ".part", place)


narinfos, deadline = {}, time.monotonic() + 1800
while len(narinfos) < len(hashes):
    for name in hashes:
        if name in narinfos:
            continue
        status, body = get(f"/{name}.narinfo")
        if status == 200:
            narinfos[name] = body
        elif status != 404:
            sys.exit(f"{name}.narinfo: {status}")
    if time.monotonic() > deadline:
        sys.exit(f"only {len(narinfos)} of {len(hashes)} items were prepared in time")
    if len(narinfos) < len(hashes):
        time.sleep(0.5)

if directory:
    for name, body in narinfos.items():
        for line in body.decode("utf-8").splitlines():
            if line.startswith("URL: "):
                place = line[5:]
                status, nar = get("/" + place)
                if status != 200:
                    sys.exit(f"{place}: {status}")
                store(urllib.parse.unquote(place), nar)
        store(f"{name}.narinfo", body)
