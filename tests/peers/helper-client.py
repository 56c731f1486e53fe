#!/usr/bin/env python3
"""Speaks with a substituter helper as guix-daemon does: requests on descriptor 0, replies on descriptor 4.

    helper-client.py walk LIST REPLIES COMMAND...     info about each path of LIST, then about each reference, one by one
    helper-client.py lines REQUESTS REPLIES COMMAND...  each line of REQUESTS, waiting for the reply before the next one

COMMAND is a helper with `--query` or `--substitute` as its last argument. The replies go to the file REPLIES; printed are
the number of requests and the seconds from the start of the helper to the last reply. A helper that ends early is an error.
"""
import os
import subprocess
import sys
import time


class Helper:
    def __init__(self, command):
        self.is_query = command[-1] == "--query"
        request_end, self.requests = os.pipe()
        self.replies, reply_end = os.pipe()
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec 4>&{reply_end}; exec "$@"', "sh", *command],
            stdin=request_end, stdout=sys.stderr, pass_fds=[reply_end])
        os.close(request_end)
        os.close(reply_end)
        self.file = os.fdopen(self.replies, "rb")

    def ask(self, request):
        os.write(self.requests, request.encode() + b"\n")
        lines = []
        blank = not self.is_query
        while True:
            line = self.file.readline()
            if not line.endswith(b"\n"):
                sys.exit(f"the helper ended at `{request[:200]}`, status {self.process.wait()}")
            if line == b"\n" and self.is_query:
                # An empty line ends the reply, except where a deriver is missing.
                if not (request.startswith("info") and len(lines) and self.wants_deriver(lines)):
                    return lines
            lines.append(line.decode())
            if blank:
                return lines

    @staticmethod
    def wants_deriver(lines):
        position = 0
        while position < len(lines):
            if position + 1 == len(lines):
                return True
            count = int(lines[position + 2]) if position + 2 < len(lines) else 0
            position += 3 + count + 2
        return False

    def end(self):
        os.close(self.requests)
        return self.process.wait()


def walk(helper, paths, replies):
    asked, queue = set(), list(paths)
    while queue:
        path = queue.pop(0)
        if path in asked:
            continue
        asked.add(path)
        lines = helper.ask(f"info {path} ")
        replies.writelines(lines)
        if lines:
            queue.extend(line.strip() for line in lines[3:3 + int(lines[2])])
    return len(asked)


def main():
    mode, words, out, *command = sys.argv[1:]
    with open(words) as file:
        lines = file.read().splitlines()
    began = time.monotonic()
    helper = Helper(command)
    with open(out, "w") as replies:
        if mode == "walk":
            count = walk(helper, lines, replies)
        else:
            for line in lines:
                replies.writelines(helper.ask(line))
            count = len(lines)
    seconds = time.monotonic() - began
    status = helper.end()
    print(f"{count} {seconds:.3f}")
    sys.exit(status)


main()
