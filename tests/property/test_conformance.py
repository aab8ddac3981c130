"""The library reads and writes what the grammar says, whatever comes."""

from __future__ import annotations

import collections
from typing import Any, Optional, Union

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from katcp import KatcpSyntaxError, KatcpTypeError, Message, MessageParser
from katcp._wire.escaping import BLOCK_SIZE
from katcp._wire.lines import LineSplitter
from tests.property.lines import Lines, lines
from tests.support import abnf

# Compared at least, in one run.
LINES = 200_000
# Where the library is documented to take more than the grammar: the line as
# the grammar would have it.
LENIENT = {
    # MessageParser.parse: "A line terminator at its end is ignored."
    "line terminator": lambda line: line.rstrip(b"\r\n"),
}

Outcome = Union[abnf.Line, abnf.BadLine]

LINE_ENDS = st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"\n \t\r"])
GOOD_NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9-]*", fullmatch=True)
GOOD_MIDS = st.none() | st.integers(1, 2**31 - 1)
TYPES = st.sampled_from([*Message.TYPE_SYMBOLS])
# Long arguments are written and read block by block.
LONG_ARGUMENTS = st.builds(
    lambda size, pattern, end: (pattern * size)[:size] + end,
    st.integers(BLOCK_SIZE - 3, 2 * BLOCK_SIZE + 3),
    st.sampled_from([b"\0", b"\\", b" ", b"a", b"\\_", b"a\0", b"\xff"]),
    st.binary(max_size=5),
)
ARGUMENTS = st.binary() | st.text("\\_0nret@ \0\n\r\x1b\t").map(str.encode) | LONG_ARGUMENTS
GOOD_MESSAGES = st.builds(Message, TYPES, GOOD_NAMES, st.lists(ARGUMENTS), GOOD_MIDS)

# What a program may try to put into a message.
NAMES = GOOD_NAMES | st.text() | st.binary() | st.none() | st.integers()
DIGITS = st.text("0123456789", max_size=11)
MIDS = (
    GOOD_MIDS
    | DIGITS
    | DIGITS.map(str.encode)
    | st.integers()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.floats()
    | st.booleans()
)
VALUES = (
    st.binary()
    | st.text()
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.none()
    | st.complex_numbers()
    | st.decimals()
    | st.fractions()
    | st.binary().map(bytearray)
    | st.binary().map(memoryview)
    | st.lists(st.integers(), max_size=3)
)


def read(line: Any) -> Outcome:
    """Return what the library says that *line* is."""
    try:
        return as_line(MessageParser().parse(line))
    except KatcpSyntaxError:
        return abnf.BadLine(line)


def as_line(msg: Message) -> abnf.Line:
    assert type(msg.name) is str
    assert type(msg.arguments) is list
    assert {type(argument) for argument in msg.arguments} <= {bytes}
    assert msg.mid is None or type(msg.mid) is bytes
    symbol = Message.TYPE_SYMBOLS[msg.mtype]
    return abnf.Line(symbol, msg.name, msg.mid, tuple(msg.arguments))


def read_stream(pieces: list[bytes]) -> tuple[list[Outcome], bytes]:
    splitter = LineSplitter()
    found = [read(line) for piece in pieces for line in splitter.feed(piece)]
    return found, splitter.pending


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return *data* in pieces; the places count from where the last cut was."""
    pieces = []
    for place in places:
        pieces.append(data[:place])
        data = data[place:]
    return [*pieces, data]


def test_lines_are_read_as_the_strict_decoder_reads_them():
    compared: collections.Counter[type] = collections.Counter()

    # Hypothesis likes smaller examples, but these are cheap. It need not look for a
    # smaller one that fails either: the assert shows the one line.
    @settings(
        max_examples=2 * settings.default.max_examples,
        phases=[phase for phase in Phase if phase is not Phase.shrink],
        suppress_health_check=[HealthCheck.large_base_example],
    )
    @given(lines(size=7000))
    def compare(generated: Lines) -> None:
        for line in generated:
            expected = abnf.decode(line)
            assert read(line) == expected, line
            compared[type(expected)] += 1
        stream = b"\n".join([*generated, b""])
        expected_lines = [line for line in generated if not abnf.is_blank(line)]
        assert LineSplitter().feed(stream) == expected_lines

    compare()
    assert sum(compared.values()) >= LINES, compared
    # Neither is rare.
    assert min(compared[abnf.Line], compared[abnf.BadLine]) >= LINES // 4, compared


@pytest.mark.parametrize("rule", LENIENT)
def test_where_more_is_taken_it_is_what_the_documentation_says(rule):
    @given(lines(size=500), st.lists(st.sampled_from([b"\n", b"\r"]), min_size=1, max_size=3))
    def compare(generated: Lines, end: list[bytes]) -> None:
        for line in generated:
            for given_line in (line + b"".join(end), line[:3] + end[0] + line[3:]):
                meant = LENIENT[rule](given_line)
                expected = abnf.decode(meant)
                if isinstance(expected, abnf.BadLine):
                    expected = abnf.BadLine(given_line)
                assert read(given_line) == expected, given_line

    compare()


@given(lines(size=500))
def test_text_and_buffers_are_read_like_bytes(generated):
    for line in generated:
        expected = abnf.decode(line)
        for form in (line.decode("utf-8", "surrogateescape"), bytearray(line), memoryview(line)):
            found = read(form)
            assert found == expected or type(found) is type(expected) is abnf.BadLine, line


@given(
    st.lists(st.tuples(lines(size=60), LINE_ENDS), max_size=8),
    lines(size=15),
    st.lists(st.integers(0, 40), max_size=60),
)
def test_a_stream_is_read_the_same_however_it_is_cut(groups, rest, places):
    ended = [line + end for generated, end in groups for line in generated]
    data = b"".join(ended) + b"".join(rest)
    good, tail = abnf.split(data)
    expected = [abnf.decode(line) for line in good], tail
    assert read_stream([data]) == expected
    assert read_stream(cut(data, places)) == expected
    assert read_stream(cut(data, [1] * len(data))) == expected


@given(GOOD_MESSAGES)
def test_a_message_survives_the_round_trip(msg):
    line = bytes(msg)
    assert line + b"\n" == abnf.encode(as_line(msg))
    assert abnf.decode(line) == as_line(msg)
    assert MessageParser().parse(line) == msg


@given(lines(size=500))
def test_what_was_read_is_written_so_that_it_reads_the_same(generated):
    for line in generated:
        found = read(line)
        if isinstance(found, abnf.Line):
            written = bytes(MessageParser().parse(line))
            assert written + b"\n" == abnf.encode(found)
            assert read(written) == found


@given(
    TYPES | st.integers() | st.none() | st.text(),
    NAMES,
    st.none() | st.lists(VALUES, max_size=4) | st.binary() | st.text(),
    MIDS,
)
def test_what_a_message_is_made_of_is_refused_or_can_be_sent(mtype, name, arguments, mid):
    msg = made(mtype, name, arguments, mid)
    if msg is not None:
        assert MessageParser().parse(bytes(msg)) == msg


@given(TYPES, GOOD_NAMES, st.lists(VALUES, max_size=4), MIDS)
def test_an_id_and_arguments_are_refused_or_can_be_sent(mtype, name, arguments, mid):
    msg = made(mtype, name, arguments, mid)
    if msg is not None:
        assert MessageParser().parse(bytes(msg)) == msg


def made(mtype: Any, name: Any, arguments: Any, mid: Any) -> Optional[Message]:
    """Return a message, or None if what it would be made of is refused."""
    try:
        return Message(mtype, name, arguments, mid)
    except (KatcpSyntaxError, KatcpTypeError):
        return None


@given(st.text() | st.text(st.characters()) | st.binary() | st.none() | st.integers() | st.floats())
def test_whatever_is_parsed_only_documented_errors_are_raised(line):
    try:
        MessageParser().parse(line)
    except KatcpSyntaxError:
        assert isinstance(line, (str, bytes))
    except KatcpTypeError:
        assert not isinstance(line, (str, bytes))
