"""How messages are read: bytes to lines, and a line to a message."""

import json
import random
from pathlib import Path

import pytest

from katcp._wire import escaping, parser
from katcp._wire.escaping import BLOCK_SIZE, unescape_argument
from katcp._wire.lines import LineSplitter
from katcp._wire.message import Message
from katcp._wire.parser import MessageParser
from katcp.errors import KatcpSyntaxError, KatcpTypeError
from tests.support import abnf

VECTORS = Path(__file__).parent.parent / "data/vectors"
PARSE = json.loads((VECTORS / "parse.json").read_text("utf-8"))
SERIALISE = [
    vector for vector in json.loads((VECTORS / "serialise.json").read_text("utf-8")) if vector["ok"]
]
STREAM = json.loads((VECTORS / "stream.json").read_text("utf-8"))
TYPES = {"request": Message.REQUEST, "reply": Message.REPLY, "inform": Message.INFORM}

# What an escape of 8192 bytes on the wire is cut at.
EDGE = 2 * BLOCK_SIZE
MAX_MSG_SIZE = 2 * 1024 * 1024


def unescape_byte_by_byte(argument):
    """The reference: the table of protocol.md, section 2, one byte after the other."""
    result, rest = bytearray(), iter(argument)
    for byte in rest:
        if byte != ord("\\"):
            result.append(byte)
            continue
        letter = next(rest, None)
        if letter is None:
            raise KatcpSyntaxError("Escape slash at end of argument.")
        if letter not in abnf.ESCAPE:
            raise KatcpSyntaxError(f"Invalid escape character {bytes([letter])!r}.")
        result += abnf.ESCAPE[letter]
    return bytes(result)


def read_by_the_grammar(line):
    """Return the message that *line* is by the grammar, or None."""
    found = abnf.decode(line)
    if isinstance(found, abnf.BadLine):
        return None
    return Message(Message.TYPE_SYMBOL_LOOKUP[found.type], found.name, found.arguments, found.mid)


def outcome(function, *args):
    """Return what *function* returns, or the text of the syntax error it raises."""
    try:
        return function(*args)
    except KatcpSyntaxError as error:
        return f"{type(error).__name__}: {error}"


def read(pieces):
    """Return the messages (None for a bad line) in *pieces* of a stream, and what is left."""
    splitter, messages = LineSplitter(), []
    for piece in pieces:
        for line in splitter.feed(piece):
            try:
                messages.append(MessageParser().parse(line))
            except KatcpSyntaxError:
                messages.append(None)
    return messages, splitter.pending


def one_by_one(data):
    return [data[i : i + 1] for i in range(len(data))]


def expected_message(vector):
    if not vector.get("ok", "error" not in vector):
        return None
    arguments = [bytes.fromhex(argument) for argument in vector["arguments_hex"]]
    return Message(TYPES[vector["type"]], vector["name"], arguments, vector["mid"])


# The vectors.


@pytest.mark.parametrize("vector", PARSE, ids=lambda vector: vector["id"])
def test_parse_vector_whole_and_byte_by_byte(vector):
    data = bytes.fromhex(vector["input_hex"])
    expected = [] if vector["blank"] else [expected_message(vector)]
    assert read([data]) == (expected, b"")
    assert read(one_by_one(data)) == (expected, b"")


@pytest.mark.parametrize("vector", STREAM, ids=lambda vector: vector["id"])
def test_stream_vector_however_it_is_cut(vector):
    data = bytes.fromhex(vector["input_hex"])
    messages = [expected_message(result) for result in vector["results"]]
    tail = data[len(data) - vector["pending_bytes"] :]
    rng = random.Random(vector["id"])
    assert read([data]) == (messages, tail)
    assert read(one_by_one(data)) == (messages, tail)
    for cut in range(len(data) + 1):
        assert read([data[:cut], data[cut:]]) == (messages, tail)
    for _ in range(20):
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(2, 6)))
        edges = [0, *cuts, len(data)]
        pieces = [data[a:b] for a, b in zip(edges, edges[1:])]
        assert read(pieces) == (messages, tail)


@pytest.mark.parametrize("vector", SERIALISE, ids=lambda vector: vector["id"])
def test_what_a_serialise_vector_writes_is_read_whole_and_byte_by_byte(vector):
    data, message = bytes.fromhex(vector["output_hex"]), expected_message(vector)
    assert read([data]) == ([message], b"")
    assert read(one_by_one(data)) == ([message], b"")


@pytest.mark.parametrize("vector", PARSE + STREAM, ids=lambda vector: vector["id"])
def test_the_strict_decoder_of_the_tests_reads_the_vectors(vector):
    data = bytes.fromhex(vector["input_hex"])
    results = vector.get("results", [] if vector.get("blank") else [vector])
    lines, rest = abnf.split(data)
    assert [read_by_the_grammar(line) for line in lines] == [*map(expected_message, results)]
    assert len(rest) == vector.get("pending_bytes", 0)


# Bytes to lines.


@pytest.mark.parametrize(
    ("data", "lines", "pending"),
    [
        (b"", [], b""),
        (b"a", [], b"a"),
        (b"a\n", [b"a"], b""),
        (b"a\r", [b"a"], b""),
        (b"a\r\nb\n\rc", [b"a", b"b"], b"c"),
        (b"\n\r\n\n", [], b""),
        (b" \t \n\t\r", [], b""),
        (b" a\n\tb\n", [b" a", b"\tb"], b""),
        (b"\x0b\n\x0c\n\0\n", [b"\x0b", b"\x0c", b"\0"], b""),
        (b"a\x0bb\x1c\x85\xe2\x80\xa8c\n", [b"a\x0bb\x1c\x85\xe2\x80\xa8c"], b""),
        (b"a\\\nb\n", [b"a\\", b"b"], b""),
    ],
    ids=ascii,
)
def test_lines_end_at_line_feed_or_carriage_return(data, lines, pending):
    splitter = LineSplitter()
    assert splitter.feed(data) == lines
    assert splitter.pending == pending
    assert not splitter.overflowed


def test_the_pieces_of_a_line_are_put_together():
    splitter = LineSplitter()
    assert splitter.feed(b"?fo") == []
    assert splitter.feed(b"") == []
    assert splitter.feed(b"o\r") == [b"?foo"]
    assert splitter.feed(b"\n!b") == []
    assert splitter.pending == b"!b"
    assert splitter.feed(b"ar\n#x\n#") == [b"!bar", b"#x"]
    assert splitter.pending == b"#"


def test_lines_are_bytes():
    splitter = LineSplitter()
    splitter.feed(b"?a")
    assert {type(line) for line in splitter.feed(b"b\n?c\n?")} == {bytes}
    assert type(splitter.pending) is bytes


@pytest.mark.parametrize("feed", [lambda data: [data], one_by_one], ids=["whole", "bytewise"])
@pytest.mark.parametrize(
    ("data", "lines", "overflowed"),
    [
        (b"123456789\n", [b"123456789"], False),
        (b"123456789\r\n", [b"123456789"], False),
        (b"1234567890\n", [], True),
        (b"123456789", [], False),
        (b"1234567890", [], True),
        (b" " * 10, [], True),
        (b"a\nb\n123456789\n", [b"a", b"b", b"123456789"], False),
        (b"a\nb\n1234567890\nc\n", [b"a", b"b"], True),
        (b"a\n \nb\n1234567890", [b"a", b"b"], True),
        (b"a\n123456789", [b"a"], False),
        (b"123456789\n123456789\n123456789\n", [b"123456789"] * 3, False),
    ],
    ids=ascii,
)
def test_a_line_with_its_end_may_have_the_size_of_the_limit(data, lines, overflowed, feed):
    splitter, found = LineSplitter(), []
    for piece in feed(data):
        found += splitter.feed(piece, 10)
        if splitter.overflowed:
            break
    assert found == lines
    assert splitter.overflowed is overflowed


@pytest.mark.parametrize("limit", [1, 2, 10, 1000])
def test_the_limit_is_the_same_however_the_line_is_cut(limit):
    for size, overflowed in ((limit - 1, False), (limit, True)):
        line = b"a" * size
        for cut in {0, 1, size // 2, size} & set(range(size + 1)):
            splitter = LineSplitter()
            splitter.feed(line[:cut], limit)
            splitter.feed(line[cut:], limit)
            if not splitter.overflowed:
                splitter.feed(b"\n", limit)
            assert splitter.overflowed is overflowed


@pytest.mark.parametrize("piece_size", [MAX_MSG_SIZE, 65536])
def test_the_default_limit(piece_size):
    for size, overflowed in ((MAX_MSG_SIZE - 1, False), (MAX_MSG_SIZE, True)):
        line = b"#big " + b"a" * (size - 5)
        data = b"#first\n" + line + b"\n#last\n"
        splitter, lines = LineSplitter(), []
        for start in range(0, len(data), piece_size):
            if not splitter.overflowed:
                lines += splitter.feed(data[start : start + piece_size], MAX_MSG_SIZE)
        assert splitter.overflowed is overflowed
        assert lines == ([b"#first"] if overflowed else [b"#first", line, b"#last"])


def test_the_limit_may_change_between_two_pieces():
    splitter = LineSplitter()
    assert splitter.feed(b"a" * 99, 100) == []
    assert not splitter.overflowed
    assert splitter.feed(b"b" * 99, 200) == []
    assert not splitter.overflowed
    assert splitter.feed(b"\n", 200) == [b"a" * 99 + b"b" * 99]
    assert splitter.feed(b"c" * 99, 50) == []
    assert splitter.overflowed


def test_without_a_limit_a_line_may_have_any_size():
    splitter = LineSplitter()
    assert splitter.feed(b"a" * 10**6) == []
    assert splitter.feed(b"b\n") == [b"a" * 10**6 + b"b"]
    assert not splitter.overflowed


# Plain lines.

SPECIAL_PIECES = [b"\\_", b"\t", b"\v", b"\f", b"\0", b"\x1b", b"\r", b"\n", b" ", b"\n ", b"\n\n"]


@pytest.mark.parametrize("special", SPECIAL_PIECES, ids=ascii)
def test_lines_with_something_special_are_not_plain_wherever_they_are_cut(special):
    for before, after in ((b"", b"?foo a\n"), (b"?foo a", b"b\n"), (b"?foo a b\n", b"#c\n")):
        data = b"#x\n" + before + special + after
        for cut in range(len(data) + 1):
            splitter = LineSplitter()
            for piece in (data[:cut], data[cut:]):
                for line in splitter.feed(piece):
                    alike = outcome(MessageParser().parse, line)
                    if splitter.plain:
                        assert outcome(MessageParser().parse_plain, line) == alike, (data, cut)
                        assert not set(line) & set(b"\\\t\v\f\0\x1b")


def test_a_chunk_of_plain_lines_is_plain():
    splitter = LineSplitter()
    assert splitter.plain
    splitter.feed(b"#a b  c \n!d[12] ok\n?e")
    assert splitter.plain
    assert splitter.feed(b"f\n") == [b"?ef"]
    assert splitter.plain


def test_a_line_is_as_plain_as_the_pieces_it_came_from():
    splitter = LineSplitter()
    splitter.feed(b"#a\\_b\n?c")
    assert not splitter.plain
    # The tail "?c" is plain, but it came from a piece that is not.
    assert splitter.feed(b"d\n?e") == [b"?cd"]
    assert not splitter.plain
    assert splitter.feed(b"f") == []
    assert splitter.feed(b"g\n") == [b"?efg"]
    assert splitter.plain
    splitter.feed(b"?h \\")
    splitter.feed(b"_")
    assert splitter.feed(b"i\n") == [b"?h \\_i"]
    assert not splitter.plain


@pytest.mark.parametrize(
    "line",
    [
        b"?foo",
        b"?foo ",
        b"#foo  a   b ",
        b"!foo[12] ok",
        b"!foo[2147483647]  ok \xff\x1c\x85\xa0",
        b"?foo[2147483648]",
        b"?foo[9999999999]",
        b"?foo[012]",
        b"?foo[]",
        b"?foo[",
        b"?foo[1",
        b"?foo]",
        b"?]",
        b"]",
        b"foo a",
        b"#foo " + b"a" * 5000,
        b"#foo a " + b"b" * 5000,
        b"#foo a " + b"b" * 5000 + b" ",
        b"#foo a  b " + b"c" * 5000 + b" d  e",
        b"#" + b"foo" * 5000,
    ],
    ids=lambda line: ascii(line)[:40],
)
def test_a_plain_line_is_read_by_parse_plain_as_by_parse(line):
    splitter = LineSplitter()
    assert splitter.feed(line + b"\n") == [line]
    assert splitter.plain
    expected = read_by_the_grammar(line)
    for read_line in (MessageParser().parse_plain, MessageParser().parse):
        found = outcome(read_line, line)
        if expected is None:
            assert found.startswith("KatcpSyntaxError: Bad "), found
        else:
            assert found == expected
    assert outcome(MessageParser().parse_plain, line) == outcome(MessageParser().parse, line)


def test_a_limit_may_leave_no_line_of_a_plain_chunk():
    splitter = LineSplitter()
    assert splitter.feed(b"#abcdefghijk\n#b\n", 10) == []
    assert splitter.overflowed


# A line to a message.


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"", "Empty message received."),
        (b"\n", "Empty message received."),
        (b"good", "Bad type character 'g'."),
        (b" ?foo", "Bad type character ' '."),
        (b"\t?foo", "Bad type character '\\t'."),
        (b"\xff", "Bad type character '\\\\xff'."),
        (b"\0?foo", "Bad type character '\\x00'."),
        (b"]", "Bad type character ']'."),
        (b"?", "Bad message name (and possibly id) ''."),
        (b"?foo[abc]", "Bad message name (and possibly id) 'foo[abc]'."),
        (b"?foo[0]", "Bad message name (and possibly id) 'foo[0]'."),
        (b"?foo[2147483648]", "Bad message name (and possibly id) 'foo[2147483648]'."),
        (b"?foo[1][2]", "Bad message name (and possibly id) 'foo[1][2]'."),
        (b"?foo]", "Bad message name (and possibly id) 'foo]'."),
        (b"?[1]", "Bad message name (and possibly id) '[1]'."),
        (b"?foo\x1b a", "Bad message name (and possibly id) 'foo\\x1b'."),
        (b"?foo\0\ta", "Bad message name (and possibly id) 'foo\\x00'."),
        (b"?f\xc3\xb6o", "Bad message name (and possibly id) 'f\u00f6o'."),
        (b"?f\xffo", "Bad message name (and possibly id) 'f\\\\xffo'."),
        (
            b"?foo[" + b"1" * 5000 + b"]",
            f"Bad message name (and possibly id) 'foo[{'1' * 996}... (1099 characters)'.",
        ),
        (b"?foo \\q", "Invalid escape character b'q'."),
        (b"?foo ok \\\xff", "Invalid escape character b'\\xff'."),
        (b"?foo \\N\\q", "Invalid escape character b'N'."),
        (b"?foo \\", "Escape slash at end of argument."),
        (b"?foo a\\ b", "Escape slash at end of argument."),
        (b"?foo \\\\\\", "Escape slash at end of argument."),
        (b"?foo a\0", "Un-escaped special b'\\x00'."),
        (b"?foo a\x1b[0m", "Un-escaped special b'\\x1b'."),
        (b"?foo \\\0", "Un-escaped special b'\\x00'."),
        (b"?foo a\nb", "Un-escaped special b'\\n'."),
        (b"?foo a\rb\n", "Un-escaped special b'\\r'."),
        (b"?foo a\rb", "Un-escaped special b'\\r'."),
        (b"?foo\n?bar\n", "Un-escaped special b'\\n'."),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_the_error_tells_what_is_wrong(line, text):
    with pytest.raises(KatcpSyntaxError) as raised:
        MessageParser().parse(line)
    assert str(raised.value) == text


@pytest.mark.parametrize("line", [b"?foo[1] a\xc3\xa9", b"?foo[1] a\xff", b"?foo[1]\ta\\_b \\@\n"])
def test_text_and_buffers_are_read_like_bytes(line):
    msg = MessageParser().parse(line)
    for form in (line.decode("utf-8", "surrogateescape"), bytearray(line), memoryview(line)):
        assert MessageParser().parse(form) == msg
    assert {type(argument) for argument in msg.arguments} == {bytes}


def test_text_without_a_utf8_form_is_no_message():
    with pytest.raises(KatcpSyntaxError, match=r"^The line has no UTF-8 form: .*surrogates"):
        MessageParser().parse("?foo \ud800")


@pytest.mark.parametrize("line", [None, 5, [b"?foo"], Message.request("foo")], ids=repr)
def test_what_is_no_line_is_refused(line):
    with pytest.raises(KatcpTypeError) as raised:
        MessageParser().parse(line)
    assert str(raised.value) == f"Line type must be bytes or str - not {type(line)}"


@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n", b" \n", b"\t \r\n"], ids=ascii)
def test_a_terminator_at_the_end_is_ignored(end):
    assert MessageParser().parse(b"!foo[5] ok" + end) == Message.reply("foo", "ok", mid=5)


def test_what_is_parsed_is_a_message_like_any_other():
    msg = MessageParser().parse(b"!foo[12] ok a")
    assert (msg.mtype, msg.name, msg.mid) == (Message.REPLY, "foo", b"12")
    assert type(msg.name) is str
    assert type(msg.arguments) is list
    assert msg.local_error is None
    msg.arguments.append(b"b c")
    assert bytes(msg) == b"!foo[12] ok a b\\_c"
    again = MessageParser().parse(b"!foo[12] ok a")
    assert again.arguments == [b"ok", b"a"]


def test_made_up_names_cost_no_memory_for_ever():
    parser._heads.clear()
    for number in range(parser._MAX_HEADS + 50):
        name = f"name{number}"
        assert MessageParser().parse(f"#{name}[1] x") == Message.inform(name, "x", mid=1)
        assert len(parser._heads) <= parser._MAX_HEADS
    long_name = "a" * 500
    assert MessageParser().parse(f"#{long_name}").name == long_name
    assert b"#" + long_name.encode() not in parser._heads
    assert b"#foo[1]" not in parser._heads


def test_lines_are_read_as_the_grammar_says():
    rng = random.Random(3)
    words = [b"?", b"!", b"#", b"foo", b"a-1", b"Z", b"[", b"]", b"[1]", b"[0]", b"12", b" ", b"\t"]
    words += [b"\\", b"\\\\", b"\\_", b"\\0", b"\\@", b"\\q", b"\0", b"\x1b", b"\xff", b"_", b"@"]
    good = 0
    for _ in range(4000):
        line = b"".join(rng.choices(words, k=rng.randrange(1, 9)))
        if rng.randrange(3):
            line = rng.choice([b"?foo", b"!a[12]", b"#b "]) + line
        expected = read_by_the_grammar(line)
        found = outcome(MessageParser().parse, line)
        if expected is None:
            assert isinstance(found, str), line
        else:
            good += 1
            assert found == expected, line
    assert 500 < good < 3500


def test_generated_messages_survive_the_round_trip():
    rng = random.Random(4)
    for number in range(500):
        arguments = [
            rng.choice([rng.randbytes, lambda n: bytes(n), lambda n: b"\\" * n])(
                rng.choice([0, 1, 2, 5, 50])
            )
            for _ in range(rng.randrange(5))
        ]
        mtype, mid = rng.choice(list(TYPES.values())), rng.choice([None, 1, number + 1, 2**31 - 1])
        msg = Message(mtype, f"a{number}-b", arguments, mid)
        assert MessageParser().parse(bytes(msg)) == msg
        assert read([bytes(msg) + b"\n"]) == ([msg], b"")


def test_all_bytes_survive_the_round_trip():
    every = bytes(range(256))
    msg = Message.reply("foo", every, *one_by_one(every), every[::-1] * 100, mid=1)
    assert MessageParser().parse(bytes(msg)) == msg
    assert read(one_by_one(bytes(msg)[:3000] + b"\n"))[1] == b""


# Long arguments, which are unescaped block by block.


def long_arguments():
    """Return (name, argument on the wire) for what may go wrong at a block's edge."""
    for offset in (-3, -2, -1, 0, 1):
        for run in (1, 2, 3, 4, 5):
            for end in (b"n\\_tail", b"", b"\\q"):
                name = f"run-of-{run}-at-{offset:+}-then-{end!a}"
                yield name, b"a" * (EDGE + offset) + b"\\" * run + end
    for size in (EDGE - 2, EDGE - 1, EDGE, EDGE + 1, EDGE + 2, 3 * EDGE + 1):
        yield f"backslashes-{size}", b"\\" * size
        yield f"letters-{size}", b"a" * size
        yield f"zeros-{size}", b"\\0" * (size // 2)
        yield f"one-then-zeros-{size}", b"a" + b"\\0" * (size // 2)
        yield f"nothings-{size}", b"\\@" * (size // 2) + b"a"
        yield f"bad-after-{size}", b"\\_" * (size // 2) + b"\\x"
        yield f"bad-then-{size}", b"\\x" + b"a" * size + b"\\"


def test_a_long_argument_is_read_as_the_reference_reads_it():
    for name, wire in long_arguments():
        assert outcome(unescape_argument, wire) == outcome(unescape_byte_by_byte, wire), name


@pytest.mark.parametrize("decoder", [escaping._escape_decode, None], ids=["codec", "pattern"])
def test_escapes_of_all_kinds_are_read_as_the_reference_reads_them(monkeypatch, decoder):
    monkeypatch.setattr(escaping, "_escape_decode", decoder)
    rng = random.Random(6)
    kinds = [
        b"\\\\",
        b"\\_",
        b"\\0",
        b"\\n",
        b"\\r",
        b"\\e",
        b"\\t",
        b"\\@",
        b"a",
        b"n",
        b"_",
        b"@",
        b"0",
    ]
    for number in range(3000):
        some = rng.sample(kinds, rng.randrange(1, 6))
        wire = b"".join(rng.choices(some, k=rng.randrange(1, 30)))
        if number % 10 == 0:
            wire = b"a" * 1020 + wire + rng.choice([b"", b"\\", b"\\q", b"\\\\q"])
        expected = outcome(unescape_byte_by_byte, wire)
        assert outcome(unescape_argument, wire) == expected, wire


def test_random_long_arguments_are_read_as_the_reference_reads_them():
    rng = random.Random(5)
    good = 0
    for _ in range(100):
        middle = bytes(rng.choices(b"\\\\\\\\0_@na", k=12))
        wire = b"a" * (EDGE - rng.randrange(13)) + middle + b"\\0b"
        expected = outcome(unescape_byte_by_byte, wire)
        assert outcome(unescape_argument, wire) == expected, wire[-25:]
        good += isinstance(expected, bytes)
    assert 10 < good < 90


@pytest.mark.parametrize("size", [BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE + 5])
@pytest.mark.parametrize("before", [b"", b"\1", b" "], ids=repr)
def test_blank_memory_survives_the_round_trip(before, size):
    msg = Message.reply("read", "ok", before + bytes(size), before + b"\\" * size)
    assert MessageParser().parse(bytes(msg)) == msg
