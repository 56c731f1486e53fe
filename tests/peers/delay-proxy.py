#!/usr/bin/env python3
# A delaying TCP proxy on loopback, for measurements of latency where the kernel has no netem.
#
#   delay-proxy.py PORT TARGET_HOST:PORT DELAY_MS [LOG]
#
# Every byte closure_is_fetched DELAY_MS/2 later than it was sent, in each direction, whatever the amount: bandwidth is not limited.
# A new connection costs the client what a handshake over such a line costs: its first bytes reach the server 1.5 DELAY_MS
# after connect() at the earliest (one round trip for the handshake, half for the bytes), and its own connect() returns at once.
# On SIGTERM writes one JSON line with totals to LOG (default: standard output) and exits 0.
import asyncio
import collections
import json
import signal
import socket
import sys

CHUNK = 1 << 18
WINDOW = 1 << 26   # bytes under way per direction before the sender has to wait


class Totals:
    connections = 0
    open = 0
    most_open = 0
    to_server = 0
    to_client = 0


class Lane:
    """One direction of one connection: chunks with the time at which each may leave."""

    def __init__(self, loop, delay, not_before):
        self.loop, self.delay, self.not_before = loop, delay, not_before
        self.queue = collections.deque()
        self.size = 0
        self.source = self.sink = None
        self.paused = self.blocked = False
        self.timer = None

    def push(self, data):
        """DATA arrived from the source now; None is its end."""
        due = max(self.loop.time() + self.delay, self.not_before)
        self.queue.append((due, data))
        self.size += len(data or b"")
        if self.size > WINDOW and not self.paused and self.source is not None:
            self.paused = True
            self.source.pause_reading()
        self.schedule()

    def schedule(self):
        if self.timer is None and self.queue and self.sink is not None and not self.blocked:
            self.timer = self.loop.call_at(self.queue[0][0], self.deliver)

    def deliver(self):
        self.timer = None
        now = self.loop.time() + 0.0005
        while self.queue and self.queue[0][0] <= now and not self.blocked:
            _, data = self.queue.popleft()
            if self.sink.is_closing():
                self.queue.clear()
                return
            if data is None:
                if self.sink.can_write_eof():
                    self.sink.write_eof()
                continue
            self.size -= len(data)
            self.sink.write(data)
        if self.paused and self.size < WINDOW // 2 and not self.source.is_closing():
            self.paused = False
            self.source.resume_reading()
        self.schedule()


class End(asyncio.BufferedProtocol):
    """One socket: what it receives goes into the lane `out`; the lane `into` writes to it."""

    def __init__(self, pair, out, into, counter):
        self.pair, self.out, self.into, self.counter = pair, out, into, counter
        self.buffer = bytearray(CHUNK)

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=1 << 22)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.out.source = transport
        self.into.sink = transport
        self.into.schedule()
        self.pair.made(self)

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, count):
        setattr(Totals, self.counter, getattr(Totals, self.counter) + count)
        self.out.push(bytes(memoryview(self.buffer)[:count]))

    def eof_received(self):
        self.out.push(None)
        return True

    def pause_writing(self):
        self.into.blocked = True

    def resume_writing(self):
        self.into.blocked = False
        self.into.schedule()

    def connection_lost(self, error):
        self.pair.lost(self)


class Pair:
    """A client's connection and ours to the server."""

    def __init__(self, loop, target, delay):
        now = loop.time()
        self.loop, self.target, self.delay = loop, target, delay
        self.up = Lane(loop, delay, now + 3 * delay)
        self.down = Lane(loop, delay, 0)
        self.client = End(self, self.up, self.down, "to_server")
        self.server = End(self, self.down, self.up, "to_client")
        self.ends = 0

    def made(self, end):
        self.ends += 1
        if end is self.client:
            Totals.connections += 1
            Totals.open += 1
            Totals.most_open = max(Totals.most_open, Totals.open)
            self.task = self.loop.create_task(self.connect())

    async def connect(self):
        try:
            await self.loop.create_connection(lambda: self.server, *self.target)
        except OSError:
            self.client.transport.abort()

    def lost(self, end):
        """One side is gone for good: let what is under way arrive, then close the other."""
        if end is self.client:
            Totals.open -= 1
        other = self.server if end is self.client else self.client
        lane = end.out
        if hasattr(other, "transport") and not other.transport.is_closing():
            due = max(self.loop.time() + self.delay, lane.not_before) + 0.001
            self.loop.call_at(due, self.finish, lane, other)

    def finish(self, lane, other):
        if lane.queue and not other.transport.is_closing():
            self.loop.call_later(0.01, self.finish, lane, other)
        else:
            other.transport.close()


async def main(port, target, delay, log):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Pair(loop, target, delay).client, "127.0.0.1", port, backlog=1024)
    done = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    await done.wait()
    server.close()
    line = json.dumps({"connections": Totals.connections, "most_open": Totals.most_open,
                       "bytes_to_server": Totals.to_server, "bytes_to_client": Totals.to_client})
    if log:
        with open(log, "a", encoding="utf-8") as out:
            print(line, file=out)
    else:
        print(line, flush=True)


if __name__ == "__main__":
    host, _, target_port = sys.argv[2].rpartition(":")
    asyncio.run(main(int(sys.argv[1]), (host, int(target_port)), float(sys.argv[3]) / 2000,
                     sys.argv[4] if len(sys.argv) > 4 else None))
