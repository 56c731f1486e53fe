"""Disks as random power cuts leave them: replay-cuts.py LOG SIZE COUNT SEED IMAGE COMMAND...

LOG is from block-log.py. For each of COUNT random instants from the first mark to the end, makes the file IMAGE and runs COMMAND with
two more arguments: the number of the instant, and a file with the marks made before it. IMAGE has every write before the last flush
before the instant, and of the later ones, which a disk may do in any order or lose, none, all or a random half of their blocks.
Prints how many commands succeeded; exits 1 if one failed.
"""
import mmap
import os
import random
import struct
import subprocess
import sys

RECORD = struct.Struct("<cQQ")
BLOCK_BYTES = 4096


def records(log):
    """Kind, offset and bytes of each record."""
    position, view = 0, memoryview(log)
    while position + RECORD.size <= len(view):
        kind, offset, length = RECORD.unpack_from(view, position)
        position += RECORD.size
        yield kind, offset, view[position : position + length]
        position += length


def write_some(image, offset, data, share, chance):
    for start in range(0, len(data), BLOCK_BYTES):
        if chance.random() < share:
            os.pwrite(image, data[start : start + BLOCK_BYTES], offset + start)


def main():
    log_path, size, count, seed, image_path, *command = sys.argv[1:]
    chance = random.Random(seed)
    with open(log_path, "rb") as file:
        log = list(records(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    first = next(index for index, (kind, _, _) in enumerate(log) if kind == b"m")
    instants = sorted(chance.randint(first, len(log)) for _ in range(int(count)))

    durable_path = image_path + ".durable"
    durable = os.open(durable_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.ftruncate(durable, int(size))
    done, good, marks = 0, 0, []
    for number, instant in enumerate(instants):
        flushes = [index for index in range(done, instant) if log[index][0] == b"f"]
        for kind, offset, data in log[done : flushes[-1] if flushes else done]:
            if kind == b"w":
                os.pwrite(durable, data, offset)
            elif kind == b"m":
                marks.append(bytes(data))
        done = flushes[-1] if flushes else done

        subprocess.run(["cp", "--sparse=always", durable_path, image_path], check=True)
        image = os.open(image_path, os.O_RDWR)
        share = chance.choice([0, 0.5, 0.5, 1])
        for kind, offset, data in log[done:instant]:
            if kind == b"w":
                write_some(image, offset, data, share, chance)
        os.close(image)
        later_marks = [bytes(data) for kind, _, data in log[done:instant] if kind == b"m"]
        with open(image_path + ".marks", "wb") as file:
            file.write(b"".join(marks + later_marks))

        where = f"record {instant} of {len(log)}, {share} of the writes after the last flush"
        ended = subprocess.run([*command, str(number), image_path + ".marks"])
        good += ended.returncode == 0
        if ended.returncode != 0:
            print(f"cut {number}: {where}: failed")
    os.unlink(durable_path)
    print(f"{good} of {len(instants)} cuts, {len(log)} records, seed {seed}")
    sys.exit(good != len(instants))


main()
