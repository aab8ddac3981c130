"""Check the memory of an FPGA board: write a pattern, read it back, count bad words.

Arguments of requests may hold any bytes, so memory goes over the wire as it is.
The check destroys what the register holds.
"""

import argparse
import struct

from katcp import BlockingClient

# One request moves this many bytes. A reply may have 2 MiB, see docs/explanation/limits.rst.
CHUNK = 64 * 1024


def pattern(first, count):
    """Return words that differ from each other, and have bits of all places."""
    return [(number * 2654435761) % 2**32 for number in range(first, first + count)]


def pack(words):
    # FPGA registers are mostly big-endian; "<" would be little-endian.
    return struct.pack(f">{len(words)}I", *words)


def unpack(data):
    return struct.unpack(f">{len(data) // 4}I", data)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="localhost")
    parser.add_argument("port", nargs="?", type=int, default=7147)
    parser.add_argument("--register", default="bram")
    parser.add_argument("--size", type=int, default=1024, help="in bytes, a multiple of 4")
    options = parser.parse_args()

    words = pattern(0, options.size // 4)
    data = pack(words)
    offsets = range(0, len(data), CHUNK)
    # Large transfers take their time on a slow board.
    with BlockingClient(options.host, options.port, timeout=30) as client:
        for offset in offsets:
            client.ask("write", options.register, offset, data[offset : offset + CHUNK])
        found = b""
        for offset in offsets:
            count = min(CHUNK, len(data) - offset)
            found += client.ask("read", options.register, offset, count).arguments[0]
    bad = [place for place, pair in enumerate(zip(words, unpack(found))) if pair[0] != pair[1]]
    print(f"{len(words)} words of {options.register} written and read, {len(bad)} bad")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
