"""Make the seeds of the corpus from the vectors and transcripts: ``python -m fuzz.seed``.

They are written to ``build/seeds/TARGET``; README.md tells how the corpus is made of them.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any, Iterator

DATA = pathlib.Path(__file__).parent.parent / "tests" / "data"
SEEDS = pathlib.Path("build/seeds")
# A longer input is slower, and says nothing new.
LONGEST = 1500

GREETINGS = [
    b"#version-connect katcp-protocol 5.1-MIB\n",
    b"#version-connect katcp-protocol 5.0-M\n#version-connect katcp-device a-1.0 b\n",
    b"#version a-1.0\n#build-state b-2.0rc1\n",
    b"#version-connect katcp-protocol 5.1-IBMT\n#version-connect katcp-protocol 4.0\n",
]
# What only this server says: see the handlers of the target.
VISITS = [
    b"#ask read a\n#read[1] x\n!read[1] ok 1\n#read[1] late\n!read[1] ok twice\n",
    b"#ask read\n#ask read\n#ask help\n!help ok 0\n!read ok\n#read x\n!read fail no\n!read ok\n",
    b"#ask read\n!other[1] ok\n!read[2] ok\n!read ok\n#pause\n?greet[7] a\\_b\n?unknown[8]\n?x\n",
    b"#ask read\n#hang-up\n!read[1] ok\n",
    b"#ask read\n#disconnect bye\n!read[1] ok\n#log warn 1 a b\n#client-connected a\nhalf",
    b"#ask halt\n!halt[1]\n#ask halt x\n!halt[2] invalid Unknown\\_request.\n",
]


def vectors(name: str) -> Iterator[bytes]:
    for vector in json.loads((DATA / "vectors" / f"{name}.json").read_text("utf-8")):
        yield bytes.fromhex(vector["input_hex"])


def said() -> Iterator[bytes]:
    """Return what real servers said, by connection."""
    for path in sorted((DATA / "transcripts").glob("*.json")):
        connections: dict[Any, bytes] = {}
        for entry in json.loads(path.read_text("utf-8")):
            if not entry.get("meta"):
                heard = connections.get(entry["conn"], b"")
                connections[entry["conn"]] = heard + bytes.fromhex(entry["recv_hex"])
        yield from connections.values()


def seeds() -> Iterator[tuple[str, bytes]]:
    lines, streams = [*vectors("parse")], [*vectors("stream"), *said()]
    for line in lines:
        yield "parser", line.rstrip(b"\n")
    for stream in [*lines, *streams]:
        yield "splitter", b"\0\0" + stream
        yield "splitter", b"\x14\2" + stream
        yield "client", stream
    for greeting in GREETINGS:
        for visit in VISITS:
            yield "client", greeting + visit


def main() -> None:
    for number, (target, data) in enumerate(seeds()):
        path = SEEDS / target / f"{number:04}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[:LONGEST])


if __name__ == "__main__":
    main()
