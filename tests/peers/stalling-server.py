#!/usr/bin/env python3
"""A substitute server that falls silent.

    stalling-server.py PORT DIRECTORY WHERE [RATE]

It serves the files of DIRECTORY (Range requests are answered with the whole). WHERE is the place of the silence: `accept`
(connections are accepted, nothing is ever answered), `head` (a nar request gets no answer), `headers` (nothing follows the
headers of a nar), `body` (half of each nar is sent), or `trickle` (each nar is sent at RATE bytes per second, 2000 by default).
Everything but nars is answered, except with `accept`.
"""
import http.server
import os
import sys
import time
import urllib.parse

port, directory, where = int(sys.argv[1]), sys.argv[2], sys.argv[3]
rate = int(sys.argv[4]) if len(sys.argv) > 4 else 2000
FOREVER = 3600


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if where == "accept":
            time.sleep(FOREVER)
        path = os.path.join(directory, urllib.parse.unquote(self.path).lstrip("/"))
        if self.path == "/nix-cache-info":
            return self.reply(b"StoreDir: /gnu/store\nWantMassQuery: 1\nPriority: 30\n")
        if not os.path.isfile(path):
            return self.send_reply(404, b"")
        with open(path, "rb") as file:
            body = file.read()
        if not self.path.startswith("/nar/"):
            return self.reply(body)
        if where == "head":
            time.sleep(FOREVER)
        self.send_headers(200, len(body))
        if where == "trickle":
            return self.trickle(body)
        if where == "body":
            self.wfile.write(body[:len(body) // 2])
        self.wfile.flush()
        time.sleep(FOREVER)

    def trickle(self, body):
        for start in range(0, len(body), max(rate // 10, 1)):
            self.wfile.write(body[start:start + max(rate // 10, 1)])
            time.sleep(0.1)

    def reply(self, body):
        self.send_reply(200, body)

    def send_reply(self, status, body):
        self.send_headers(status, len(body))
        self.wfile.write(body)

    def send_headers(self, status, length):
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


Server(("127.0.0.1", port), Handler).serve_forever()
