#!/usr/bin/env python3
# A TCP proxy on loopback that gives every connection a fixed rate, as a far mirror does.
#
#   speed-throttle.py PORT TARGET_PORT BYTES_PER_SECOND
#
# nginx's limit_rate counts anew for every request and lets each begin with a second's worth of bytes, so that requests for
# less than that are not limited at all. Here the connection is limited, whatever is requested on it.
import asyncio
import sys

port, target, rate = (int(word) for word in sys.argv[1:4])
BURST = 1 << 16


async def copy(reader, writer, limited):
    loop = asyncio.get_running_loop()
    due = 0.0
    try:
        while data := await reader.read(BURST):
            if limited:
                # What was not used is lost: an idle connection saves nothing up but one burst.
                due = max(due, loop.time() - BURST / rate) + len(data) / rate
                await asyncio.sleep(due - loop.time())
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def serve(reader, writer):
    try:
        # A small receive buffer: the server must not run ahead of the limit by much.
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target, limit=BURST)
    except OSError:
        writer.close()
        return
    await asyncio.gather(copy(reader, far_writer, False), copy(far_reader, writer, True))


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=256)
    await server.serve_forever()


asyncio.run(main())
