"""A file for a loop device that logs every write and flush: block-log.py MOUNTPOINT SIZE LOG.

Mounts a FUSE file system at MOUNTPOINT with two files. `disk` has SIZE bytes, kept in memory; each write to it and each flush is
appended to LOG, in the order in which they arrive. What is written to `mark` is appended as well: it tells what had been reported at that
moment. replay-cuts.py reads LOG. Ends when the file system is unmounted. Needs root, and only the kernel's FUSE.

A record of LOG is `kind offset length` (a byte, and two little-endian numbers of 8 bytes), followed by `length` bytes. The kinds are
`w` (write), `f` (flush: all writes before it are on the disk) and `m` (mark).
"""
import ctypes
import errno
import mmap
import os
import stat
import struct
import sys

IN_HEADER = struct.Struct("<IIQQIIII")
OUT_HEADER = struct.Struct("<IiQ")
RECORD = struct.Struct("<cQQ")
MAX_WRITE = 1 << 20
REQUEST_MAX = MAX_WRITE + 4096
ROOT, DISK, MARK = 1, 2, 3
NODES = {b"disk": DISK, b"mark": MARK}
NO_REPLY = {2, 36, 42}  # forget, interrupt, batch forget


class BlockLog:
    def __init__(self, device, size, log):
        self.device = device
        self.size = size
        self.log = open(log, "wb", buffering=1 << 20)
        self.content = mmap.mmap(-1, size)

    def record(self, kind, offset, data):
        self.log.write(RECORD.pack(kind, offset, len(data)))
        self.log.write(data)

    def attributes(self, node):
        mode = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o600
        size = self.size if node == DISK else 0
        return struct.pack("<6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def reply(self, opcode, node, body):
        """The body of the reply, or a negative error number."""
        if opcode == 26:  # init
            big_writes_and_max_pages = 1 << 5 | 1 << 22
            return struct.pack(
                "<IIIIHHIIHHI7I", 7, 31, 0, big_writes_and_max_pages, 16, 12, MAX_WRITE, 1, MAX_WRITE // 4096, 0, 0, *[0] * 7
            )
        if opcode == 1:  # lookup
            found = NODES.get(body.rstrip(b"\0"))
            if found is None:
                return -errno.ENOENT
            return struct.pack("<4QII", found, 0, 3600, 3600, 0, 0) + self.attributes(found)
        if opcode in (3, 4):  # getattr, setattr
            return struct.pack("<QII", 3600, 0, 0) + self.attributes(node)
        if opcode == 14:  # open, past the page cache
            return struct.pack("<QII", node, 1, 0)
        if opcode == 15:  # read
            _, offset, length = struct.unpack_from("<QQI", body)
            return self.content[offset : min(offset + length, self.size)]
        if opcode == 16:  # write
            _, offset, length = struct.unpack_from("<QQI", body)
            data = body[40 : 40 + length]
            if node == MARK:
                self.record(b"m", 0, data)
            else:
                self.content[offset : offset + length] = data
                self.record(b"w", offset, data)
            return struct.pack("<II", length, 0)
        if opcode == 17:  # statfs
            return bytes(80)
        if opcode == 20:  # fsync
            self.record(b"f", 0, b"")
            return b""
        if opcode in (18, 25, 27, 29, 38):  # release, flush (of a descriptor), opendir, releasedir, destroy
            return struct.pack("<QII", 0, 0, 0) if opcode == 27 else b""
        return -errno.ENOSYS

    def serve(self):
        while True:
            try:
                request = os.read(self.device, REQUEST_MAX)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                if error.errno == errno.ENODEV:  # unmounted
                    break
                raise
            _, opcode, unique, node, *_ = IN_HEADER.unpack_from(request)
            if opcode in NO_REPLY:
                continue
            body = self.reply(opcode, node, request[IN_HEADER.size :])
            code, body = (body, b"") if isinstance(body, int) else (0, body)
            os.write(self.device, OUT_HEADER.pack(OUT_HEADER.size + len(body), code, unique) + body)
        self.log.close()


def main():
    mountpoint, size, log = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"block-log", mountpoint.encode(), b"fuse", 0, options) != 0:
        sys.exit(f"mounting {mountpoint}: {os.strerror(ctypes.get_errno())}")
    BlockLog(device, size, log).serve()


main()
