#!/usr/bin/env python3
# A TCP proxy on loopback that is a slow line: a rate, for all connections together or for each, and a round trip.
#
#   line-proxy.py PORT TARGET_PORT BYTES_PER_SECOND [--each] [--round-trip MILLISECONDS] [--totals FILE]
#
# The rate limits what the server sends. With --each every connection has it for itself, as with a far mirror; otherwise the
# connections that have something to send share it equally. nginx's limit_rate counts anew for every request and lets each begin
# with a second's worth of bytes; here the line is limited, whatever is requested on it.
#
# A request reaches the server a whole round trip after it was sent, and the first one of a connection another round trip later
# (the handshake); responses are not delayed besides. So a client waits as long as on a real line, with little to store here.
# Bytes are moved with splice(2), so that the proxy takes little of the processor. A line does not become slower because the machine at its
# end is busy: what the proxy could not send in time, since it had to wait for a core, it sends later (up to BUSY_SECONDS worth of
# bytes, only while responses wait), and it runs before all other processes where it may. On SIGTERM it writes to FILE a line of JSON:
# bytes sent to clients, connections, and the processor time that it took itself.
import argparse
import collections
import fcntl
import heapq
import json
import os
import resource
import select
import signal
import socket
import time

QUANTUM = 1 << 14        # the least that is moved at once
PIPE = 1 << 20
IDLE_SECONDS = 0.002     # how much of the rate can be saved up when there is nothing to send,
BUSY_SECONDS = 0.1       # and when there is
PAUSE = 0.001            # between two rounds of sending, when the allowance is used up
F_SETPIPE_SZ = 1031
NOW = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE


class Allowance:
    """Bytes that may be sent: grows with time, up to a limit."""

    def __init__(self, rate):
        self.rate, self.bytes, self.at = rate, 0.0, time.monotonic()

    def grow(self, now, is_busy):
        """is_busy: whether something was waiting to be sent since the last time."""
        most = max(self.rate * (BUSY_SECONDS if is_busy else IDLE_SECONDS), 2 * QUANTUM)
        self.bytes = min(most, self.bytes + (now - self.at) * self.rate)
        self.at = now


class Connection:
    def __init__(self, client, server, allowance, opened):
        self.client, self.server, self.allowance, self.opened = client, server, allowance, opened
        self.out, self.into = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(self.into, F_SETPIPE_SZ, PIPE)
        self.piped = 0
        self.has_input = self.is_full = self.is_ended = self.is_closed = False


class Proxy:
    def __init__(self, options):
        self.options = options
        self.shared = None if options.each else Allowance(options.rate)
        self.delay = options.round_trip / 1000
        self.epoll = select.epoll()
        self.by_fd = {}
        self.sending = collections.deque()    # connections with something to send, next first
        self.requests = []                    # heap of (time, number, connection, bytes or None at the end)
        self.count = self.sent = self.number = 0
        self.listener = socket.create_server(("127.0.0.1", options.port), backlog=1024)
        self.listener.setblocking(False)
        self.epoll.register(self.listener, select.EPOLLIN)
        self.stopped = False

    def accept(self):
        client, _ = self.listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self.options.target))
        except OSError:
            client.close()
            return
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened = time.monotonic() + 2 * self.delay
        connection = Connection(client, server, self.shared or Allowance(self.options.rate), opened)
        self.count += 1
        self.by_fd[client.fileno()] = self.by_fd[server.fileno()] = connection
        self.epoll.register(client, select.EPOLLIN)
        self.epoll.register(server, select.EPOLLIN)

    def close(self, connection):
        if connection.is_closed:
            return
        connection.is_closed = True
        for end in (connection.client, connection.server):
            del self.by_fd[end.fileno()]
            self.epoll.unregister(end)
            end.close()
        os.close(connection.out)
        os.close(connection.into)

    def watch_client(self, connection):
        events = 0 if connection.is_ended else select.EPOLLIN
        self.epoll.modify(connection.client, events | (select.EPOLLOUT if connection.is_full else 0))

    def request_came(self, connection, now):
        try:
            data = connection.client.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            self.close(connection)
            return
        if not data:
            connection.is_ended = True
            self.watch_client(connection)
        self.number += 1
        heapq.heappush(self.requests, (max(now + self.delay, connection.opened), self.number, connection, data))

    def deliver_requests(self, now):
        while self.requests and self.requests[0][0] <= now:
            connection, data = heapq.heappop(self.requests)[2:]
            if connection.is_closed:
                continue
            try:
                if data:
                    connection.server.sendall(data)   # requests are small: they always fit
                else:
                    connection.server.shutdown(socket.SHUT_WR)
            except OSError:
                self.close(connection)

    def has_something(self, connection):
        if not connection.has_input:
            self.epoll.modify(connection.server, 0)
            self.begin_sending(connection)

    def begin_sending(self, connection):
        is_busy = connection.allowance is self.shared and bool(self.sending)
        connection.allowance.grow(time.monotonic(), is_busy)
        connection.has_input = True
        self.sending.append(connection)

    def send_all(self):
        """Sends what is allowed now."""
        before = None
        while self.sending and self.sent != before:
            before = self.sent
            self.send_some(time.monotonic())

    def send_some(self, now):
        """Each connection that can send gets an equal share of the allowance, in turn, also if it is enough for one of them only."""
        for _ in range(len(self.sending)):
            connection = self.sending.popleft()
            if connection.is_closed:
                continue
            allowance = connection.allowance
            allowance.grow(now, is_busy=True)
            others = len(self.sending) + 1 if self.shared else 1
            share = int(max(QUANTUM, allowance.bytes / others))
            if allowance.bytes < QUANTUM and self.shared:
                self.sending.appendleft(connection)
                return
            if allowance.bytes < QUANTUM:
                self.sending.append(connection)
            elif self.move(connection, min(share, PIPE)):
                self.sending.append(connection)

    def move(self, connection, share):
        """Whether there may be more to send at once."""
        try:
            if connection.piped == 0:
                got = os.splice(connection.server.fileno(), connection.into, share, flags=NOW)
                if got == 0:
                    self.close(connection)
                    return False
                connection.piped = got
            count = os.splice(connection.out, connection.client.fileno(), connection.piped, flags=NOW)
            connection.piped -= count
            connection.allowance.bytes -= count
            self.sent += count
            return True
        except BlockingIOError:
            connection.has_input = False
            if connection.piped:
                connection.is_full = True
                self.watch_client(connection)
            else:
                self.epoll.modify(connection.server, select.EPOLLIN)
        except OSError:
            self.close(connection)
        return False

    def timeout(self, now):
        due = self.requests[0][0] - now if self.requests else 0.2
        return max(0, min(due, PAUSE if self.sending else 0.2))

    def run(self):
        while not self.stopped:
            now = time.monotonic()
            self.deliver_requests(now)
            self.send_all()
            for fd, events in self.epoll.poll(self.timeout(time.monotonic()), 256):
                if fd == self.listener.fileno():
                    self.accept()
                    continue
                connection = self.by_fd.get(fd)
                if connection is None:
                    continue
                if fd == connection.server.fileno():
                    self.has_something(connection)
                elif events & select.EPOLLOUT and connection.is_full:
                    connection.is_full = False
                    self.watch_client(connection)
                    self.begin_sending(connection)
                elif events & select.EPOLLIN:
                    self.request_came(connection, time.monotonic())
                elif events & (select.EPOLLHUP | select.EPOLLERR):
                    self.close(connection)

    def totals(self):
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {"bytes": self.sent, "connections": self.count, "processor": round(used.ru_utime + used.ru_stime, 3)}


def run_first():
    """Goes before all other processes, as far as it is allowed to."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("target", type=int)
    parser.add_argument("rate", type=float)
    parser.add_argument("--each", action="store_true")
    parser.add_argument("--round-trip", type=float, default=0)
    parser.add_argument("--totals")
    options = parser.parse_args()
    proxy = Proxy(options)

    def stop(*_):
        proxy.stopped = True
    signal.signal(signal.SIGTERM, stop)
    run_first()
    proxy.run()
    if options.totals:
        with open(options.totals, "w", encoding="utf-8") as out:
            json.dump(proxy.totals(), out)


main()
