"""The corpus of the fuzzer, run through its targets; and the targets notice what is wrong."""

from pathlib import Path

import pytest

from fuzz import targets
from katcp import KatcpUsageError, Message
from katcp._state.requests import PendingRequests
from katcp._wire.lines import LineSplitter
from katcp._wire.parser import MessageParser
from katcp.client import DeviceClient
from katcp.client._dispatch import Dispatcher

CORPUS = Path(__file__).parent.parent.parent / "fuzz" / "corpus"
GREETING = b"#version-connect katcp-protocol 5.1-MIB\n"
ASK = GREETING + b"#ask read\n#read[1] x\n"


def corpus(target):
    return sorted((CORPUS / target).iterdir())


@pytest.mark.parametrize("target", targets.TARGETS)
def test_the_corpus_is_small(target):
    sizes = [path.stat().st_size for path in corpus(target)]
    assert 10 < len(sizes) < 250
    assert sum(sizes) < 100_000


@pytest.mark.parametrize("target", targets.TARGETS)
def test_nothing_of_the_corpus_is_wrong(target):
    for path in corpus(target):
        targets.TARGETS[target](path.read_bytes())


def raise_(error):
    raise error


# What is broken, and the input by which the target notices.
@pytest.mark.parametrize(
    ("target", "data", "owner", "method", "broken"),
    [
        ("splitter", b"\0\0a\nb\n", LineSplitter, "feed", lambda *_: [b"a"]),
        ("splitter", b"\5\0aaaaa\n", LineSplitter, "feed", lambda *_: [b"aaaaa"]),
        ("parser", b"?foo", MessageParser, "parse", lambda *_: raise_(RuntimeError("no"))),
        ("parser", b"?foo a", MessageParser, "parse", lambda *_: Message(0, "foo")),
        ("parser", b"?foo\\", MessageParser, "parse", lambda *_: Message(0, "foo")),
        ("client", b"#a\n", MessageParser, "parse_plain", lambda *_: raise_(RuntimeError("no"))),
        ("client", b"#a\n", Dispatcher, "handle_lines", lambda *_: None),
        ("client", b"#1\n", Dispatcher, "handle_lines", lambda *_: None),
        ("client", b"#a\n", DeviceClient, "handle_inform", lambda *_: raise_(KatcpUsageError())),
        ("client", ASK, PendingRequests, "take_all", lambda *_: []),
    ],
)
def test_a_target_notices_what_is_wrong(target, data, owner, method, broken, monkeypatch):
    targets.TARGETS[target](data)
    monkeypatch.setattr(owner, method, broken)
    with pytest.raises((targets.Wrong, RuntimeError)):
        targets.TARGETS[target](data)
