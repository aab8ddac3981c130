"""The message as a value, and how it is written."""

import copy
import enum
import json
import logging
import math
import pickle
import random
import tracemalloc
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from katcp._wire import message
from katcp._wire.escaping import BLOCK_SIZE, escape_argument
from katcp._wire.message import Message, encode_utf8_with_error_log, line_in_pieces
from katcp._wire.parser import MessageParser
from katcp._wire.text import shorten
from katcp.errors import KatcpClientTimeout, KatcpSyntaxError, KatcpTypeError
from tests.support import abnf

VECTORS = json.loads(
    (Path(__file__).parent.parent / "data/vectors/serialise.json").read_text("utf-8")
)
TYPES = {"request": Message.REQUEST, "reply": Message.REPLY, "inform": Message.INFORM}


class Colour(enum.IntEnum):
    RED = 7


class ExactNumber(float):
    """A subclass of float with a text of its own."""

    def __repr__(self):
        return "ExactNumber"


class Named:
    def __str__(self):
        return "d\u00e9j\u00e0 vu"


class Array:
    """What an array looks like to a message."""

    def __init__(self, shape, value=None):
        self.shape = shape
        self.value = value

    def item(self):
        return self.value


# The vectors.


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_serialise_vector(vector):
    arguments = [bytes.fromhex(argument) for argument in vector["arguments_hex"]]
    parts = TYPES[vector["type"]], vector["name"], arguments, vector["mid"]
    if vector["ok"]:
        assert bytes(Message(*parts)) + b"\n" == bytes.fromhex(vector["output_hex"])
    else:
        with pytest.raises(KatcpSyntaxError):
            Message(*parts)


# Making a message.


@pytest.mark.parametrize(
    ("make", "mtype", "symbol"),
    [
        (Message.request, Message.REQUEST, b"?"),
        (Message.reply, Message.REPLY, b"!"),
        (Message.inform, Message.INFORM, b"#"),
    ],
    ids=TYPES,
)
def test_each_type_has_a_constructor_of_its_own(make, mtype, symbol):
    bare, full = make("foo"), make("foo-bar2", "a", b"b", mid=5)
    assert (bare.mtype, bare.name, bare.arguments, bare.mid) == (mtype, "foo", [], None)
    assert (full.mtype, full.name, full.arguments, full.mid) == (
        mtype,
        "foo-bar2",
        [b"a", b"b"],
        b"5",
    )
    assert bytes(bare) == symbol + b"foo"
    assert bytes(full) == symbol + b"foo-bar2[5] a b"
    assert full == Message(mtype, "foo-bar2", ["a", "b"], "5")


@pytest.mark.parametrize("mid", [None, 7])
def test_replies_and_informs_to_a_request_take_its_name_and_id(mid):
    request = Message.request("foo", "x", mid=mid)
    assert Message.reply_to_request(request, "ok", 1) == Message.reply("foo", "ok", 1, mid=mid)
    assert Message.reply_inform(request, 2.5) == Message.inform("foo", 2.5, mid=mid)


def test_a_message_from_outside_has_no_local_error():
    assert Message.reply("foo", "ok").local_error is None


def test_arguments_are_a_list_of_ones_own():
    given = [b"a"]
    msg = Message(Message.REQUEST, "foo", given)
    msg.arguments.append(b"b")
    assert type(msg.arguments) is list
    assert given == [b"a"]
    assert bytes(msg) == b"?foo a b"


def test_arguments_may_come_from_any_iterable():
    assert Message(Message.REQUEST, "foo", (str(i) for i in range(3))).arguments == [
        b"0",
        b"1",
        b"2",
    ]


@pytest.mark.parametrize(
    ("arguments", "kind"), [("abc", "str"), (b"abc", "bytes"), (bytearray(b"abc"), "bytearray")]
)
def test_one_text_is_not_a_list_of_arguments(arguments, kind):
    with pytest.raises(
        KatcpTypeError,
        match=f"^The arguments of 'foo' must be a sequence of arguments, not a single {kind}.$",
    ):
        Message(Message.REQUEST, "foo", arguments)


def test_a_message_has_no_other_attributes():
    with pytest.raises(AttributeError):
        Message.request("foo").argument = b"a"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "foo_bar",
            "Command name should consist only of alphanumeric characters and dashes "
            "(got 'foo_bar').",
        ),
        (
            "caf\u00e9",
            "Command name should consist only of alphanumeric characters and dashes "
            "(got 'caf\u00e9').",
        ),
        ("1foo", "Command name should start with an alphabetic character (got '1foo')."),
        ("-foo", "Command name should start with an alphabetic character (got '-foo')."),
        ("\udc80", "Command name should start with an alphabetic character (got '\\udc80')."),
        (
            "?" * 200,
            "Command name should start with an alphabetic character "
            f"(got '{'?' * 100}... (200 characters)').",
        ),
        ("", "Command missing command name."),
        (None, "Command missing command name."),
    ],
)
def test_a_bad_name_is_refused(name, text):
    for make in (Message.request, Message.reply, Message.inform):
        with pytest.raises(KatcpSyntaxError) as raised:
            make(name)
        assert str(raised.value) == text


@pytest.mark.parametrize(
    ("name", "kind"), [(b"foo", "bytes"), (5, "int"), (["foo"], "list")], ids=repr
)
def test_a_name_that_is_not_text_is_refused(name, kind):
    Message.request("foo")  # b"foo" has the same hash, and must not be compared with "foo".
    with pytest.raises(KatcpTypeError, match=f"^A message name must be a str, not {kind}.$"):
        Message.request(name)


def test_a_name_of_a_subclass_of_str_is_a_name():
    class Name(str):
        __slots__ = ()

    assert bytes(Message.request(Name("foo"))) == b"?foo"


@pytest.mark.parametrize("mtype", [3, -1, None, "?", b"?"], ids=repr)
def test_a_bad_type_is_refused(mtype):
    with pytest.raises(KatcpSyntaxError) as raised:
        Message(mtype, "foo")
    assert str(raised.value) == f"Invalid command type {mtype!r}."


@pytest.mark.parametrize(
    ("mid", "wire"),
    [
        (1, b"1"),
        (2147483647, b"2147483647"),
        ("12", b"12"),
        (b"12", b"12"),
        (Colour.RED, b"7"),
    ],
)
def test_an_id_is_kept_as_bytes(mid, wire):
    msg = Message.request("foo", mid=mid)
    assert msg.mid == wire
    assert type(msg.mid) is bytes
    assert bytes(msg) == b"?foo[%s]" % wire


@pytest.mark.parametrize(
    "mid",
    [
        "",
        b"",
        "abc",
        -1,
        0,
        "0",
        "05",
        b"007",
        1.5,
        True,
        False,
        2147483648,
        "2147483648",
        "1" * 5000,
        b"10000000000",
        b"01234567890",
        "\u0661",
        "\udc80",
        "+1",
        " 1",
        "1\n",
        [1],
        bytearray(b"1"),
    ],
    ids=lambda mid: ascii(mid)[:20],
)
def test_a_bad_id_is_refused(mid):
    with pytest.raises(KatcpSyntaxError) as raised:
        Message.request("foo", mid=mid)
    assert str(raised.value) == f"Invalid message id {mid!r}."


@pytest.mark.parametrize("make", [Message.request, Message.reply, Message.inform])
def test_an_unknown_keyword_is_refused(make):
    with pytest.raises(TypeError) as raised:
        make("name", "a", mid=1, foo=1)
    assert str(raised.value) == "Invalid keyword argument(s): {'foo': 1}"


# Arguments.


@pytest.mark.parametrize(
    ("argument", "wire"),
    [
        (b"\xff\x00 a", b"\xff\x00 a"),
        ("d\u00e9j\u00e0 \U0001f6f0", "d\u00e9j\u00e0 \U0001f6f0".encode()),
        ("", b""),
        (bytearray(b"ba\x00"), b"ba\x00"),
        (memoryview(b"abcd")[1:3], b"bc"),
        (memoryview(b"abcd")[::2], b"ac"),
        (0, b"0"),
        (-17, b"-17"),
        (10**30, b"1" + b"0" * 30),
        (-(2**64), b"-18446744073709551616"),
        (10**4000, b"1" + b"0" * 4000),
        (True, b"1"),
        (False, b"0"),
        (Colour.RED, b"7"),
        (1.5, b"1.5"),
        (0.1, b"0.1"),
        (-0.0, b"-0.0"),
        (1e300, b"1e+300"),
        (1e-7, b"1e-07"),
        (math.inf, b"inf"),
        (-math.inf, b"-inf"),
        (math.nan, b"nan"),
        (ExactNumber(2.5), b"2.5"),
        (Decimal("1.10"), b"1.10"),
        (Decimal("1E+5"), b"1E+5"),
        (Decimal("0.1234567890123456789012345"), b"0.1234567890123456789012345"),
        (Decimal("NaN"), b"NaN"),
        (Fraction(1, 4), b"0.25"),
        (Fraction(6, 2), b"3.0"),
        (3 + 4j, b"3+4j"),
        (-4j, b"-0-4j"),
        (1.5 - 0.5j, b"1.5-0.5j"),
        (None, b"None"),
        (Named(), "d\u00e9j\u00e0 vu".encode()),
        (ValueError("no such thing"), b"no such thing"),
        ([1, 2], b"[1, 2]"),
        (Array((), 0.5), b"0.5"),
        (Array((), True), b"1"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_an_argument_becomes(argument, wire):
    msg = Message.request("foo", argument)
    assert msg.arguments == [wire]
    assert type(msg.arguments[0]) is bytes
    assert msg.format_argument(argument) == wire


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e22, 5e-324, 1.7976931348623157e308, 2**53 + 1.0])
def test_a_float_reads_back_as_the_same_value(value):
    assert float(Message.request("foo", value).arguments[0]) == value


def test_a_buffer_is_taken_as_it_is_now():
    buffer = bytearray(b"abc")
    msg = Message.request("foo", buffer, memoryview(buffer))
    buffer[:] = b"xyz"
    assert msg.arguments == [b"abc", b"abc"]


@pytest.mark.parametrize("shape", [(2,), (1,), (0,), (2, 3)], ids=str)
def test_an_array_is_not_one_argument(shape):
    with pytest.raises(KatcpTypeError) as raised:
        Message.request("foo", Array(shape))
    assert str(raised.value) == (
        f"An array of shape {shape} is not one argument: pass its values with *array, "
        "or its memory with array.tobytes()."
    )


@pytest.mark.parametrize(
    ("text", "wire"),
    [("a\ud800b", b"a?b"), ("\udc80\udfff", b"??"), ("\ud800\u00e9", b"?\xc3\xa9")],
)
def test_a_lone_surrogate_is_replaced_and_reported(logs, text, wire):
    if "\u00e9" in text:
        wire = text.encode("utf-8", "replace")
    assert Message.request("foo", text).arguments == [wire]
    assert b"?" in wire
    logs.expect(
        "Error encoding message argument to byte str! Replacing bad characters with '?'.",
        logging.ERROR,
    )


def test_text_is_encoded_without_a_log(logs):
    assert encode_utf8_with_error_log("d\u00e9j\u00e0") == b"d\xc3\xa9j\xc3\xa0"
    assert not logs.records


# Writing it.


def test_every_byte_is_written_as_the_table_says():
    every = bytes(range(256))
    for byte in every:
        assert escape_argument(bytes([byte])) == abnf.escape(bytes([byte]))
    assert escape_argument(every) == abnf.escape(every)
    assert bytes(Message.request("foo", every)) == b"?foo " + abnf.escape(every)


def test_arguments_are_escaped_one_by_one():
    msg = Message.request("foo", "", "a", " ", "", b"\\", "b")
    assert bytes(msg) == b"?foo \\@ a \\_ \\@ \\\\ b"


def generated_argument(rng):
    """Return bytes of any kind: text, specials, zeros, noise."""
    kind = rng.randrange(5)
    size = rng.choice([0, 1, 2, 3, 10, 100])
    if kind == 0:
        return bytes(rng.choices(b"abcXYZ019-.", k=size))
    if kind == 1:
        return bytes(rng.choices(b"\\ \0\n\r\x1b\t@_0nret", k=size))
    if kind == 2:
        return bytes(size)
    return bytes(rng.randrange(256) for _ in range(size))


def test_generated_messages_are_written_as_the_reference_writes_them():
    rng = random.Random(2)
    for _ in range(300):
        arguments = [generated_argument(rng) for _ in range(rng.randrange(5))]
        line = b" ".join([b"#a-b[3]", *map(abnf.escape, arguments)])
        assert bytes(Message.inform("a-b", *arguments, mid=3)) == line


def long_arguments():
    """Return (name, argument) for long ones with something special at a block's edge."""
    for offset in (-3, -2, -1, 0, 1):
        for run in (1, 2, 3, 4, 5):
            size = BLOCK_SIZE + offset
            yield f"run-of-{run}-at-{offset:+}", b"a" * size + b"\\" * run + b"n tail"
    for size in (BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 2 * BLOCK_SIZE, 2 * BLOCK_SIZE + 1):
        yield f"zeros-{size}", bytes(size)
        yield f"one-then-zeros-{size}", b"\1" + bytes(size)
        yield f"zeros-{size}-then-one", bytes(size) + b"\1"
        yield f"backslashes-{size}", b"\\" * size
        yield f"letters-{size}", b"a" * size
        yield f"zeros-between-{size}", b"a" * BLOCK_SIZE + bytes(size) + b" \n" * 3000
    yield "all-bytes", bytes(range(256)) * 40


def test_a_long_argument_is_written_as_the_reference_writes_it():
    for name, argument in long_arguments():
        assert escape_argument(argument) == abnf.escape(argument), name


def test_the_line_to_send_is_the_same_in_pieces():
    for name, argument in (("empty", b""), ("short", b"a b"), *long_arguments()):
        for mid in (None, 7):
            msg = Message.request("foo", b"first", b"", argument, mid=mid)
            pieces = line_in_pieces(msg)
            assert b"".join(pieces) == bytes(msg) + b"\n", name
            assert (len(pieces) > 1) is (len(argument) > BLOCK_SIZE), name


@pytest.mark.parametrize("argument", ["text", "", 5, 0, None, [b"a"]], ids=repr)
def test_an_argument_that_is_not_bytes_is_named_when_the_line_is_large(argument):
    msg = Message.request("foo", "first", bytes(BLOCK_SIZE + 1))
    msg.arguments[0] = argument
    with pytest.raises(KatcpTypeError, match=r"^Argument 1 of 'foo' is of type .*, not bytes: "):
        line_in_pieces(msg)


@pytest.mark.parametrize("argument", ["text", "", 5, 0, None, [b"a"]], ids=repr)
def test_an_argument_that_is_not_bytes_is_named(argument):
    for first in (b"a", b"a b", b""):
        msg = Message.request("foo", first)
        msg.arguments.append(argument)
        with pytest.raises(KatcpTypeError) as raised:
            bytes(msg)
        assert str(raised.value) == (
            f"Argument 2 of 'foo' is of type {type(argument).__name__}, not bytes: "
            "use Message.format_argument() before adding it."
        )


@pytest.mark.parametrize("first", [b"a", b"a b", b""], ids=repr)
@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_a_buffer_put_among_the_arguments_is_sent_as_its_bytes(first, kind):
    msg = Message.request("foo", first)
    msg.arguments += [kind(b"a\0b"), kind(b"")]
    assert bytes(msg) == b"?foo %s a\\0b \\@" % abnf.escape(first)


@pytest.mark.parametrize(
    ("attribute", "value", "error"),
    [
        ("name", "foo bar", KatcpSyntaxError),
        ("name", "foo\n?halt", KatcpSyntaxError),
        ("name", 5, KatcpTypeError),
        ("mid", b"0", KatcpSyntaxError),
        ("mid", "1]\n?halt[1", KatcpSyntaxError),
        ("mtype", 9, KatcpSyntaxError),
    ],
)
def test_a_message_changed_to_what_cannot_be_sent_is_not_written_but_shown(attribute, value, error):
    msg = Message.request("foo", "a")
    setattr(msg, attribute, value)
    with pytest.raises(error):
        bytes(msg)
    assert str(msg) == repr(msg)


def test_the_parts_of_a_message_may_be_changed():
    msg = Message.request("foo", "a", mid=1)
    msg.mtype, msg.name, msg.mid, msg.arguments = Message.REPLY, "bar", 2, [b"b"]
    assert bytes(msg) == b"!bar[2] b"


def test_made_up_names_cost_no_memory_for_ever():
    for number in range(message._MAX_HEADS + 50):
        assert bytes(Message.request(f"name{number}")) == b"?name%d" % number
        assert len(message._heads) <= message._MAX_HEADS
    assert bytes(Message.request("name0")) == b"?name0"


def test_long_names_cost_no_memory_for_ever():
    long_name = "x" * 1_000_000
    assert bytes(Message.reply(long_name)) == b"!" + long_name.encode()
    assert all(len(name) <= 100 for _, name in message._heads)


@pytest.mark.parametrize(
    "line",
    [b"#x", b"#x[7] ok", b"#x " + b"ab " * 10_000, b"#x " + b"a" * 100_000, b"#" + b"x" * 100_000],
    ids=["empty", "short", "many-arguments", "long-argument", "long-name"],
)
def test_the_size_in_memory_is_about_what_python_uses(line):
    parser = MessageParser()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        messages = [parser.parse(line) for _ in range(50)]
        used = (tracemalloc.get_traced_memory()[0] - before) / len(messages)
    finally:
        tracemalloc.stop()
    assert 0.8 * used <= message.memory_size(messages[0]) <= 1.5 * used + 200


def test_a_message_is_written_although_its_head_was_forgotten():
    msg = Message.request("foo", "a")
    message._heads.clear()
    assert bytes(msg) == b"?foo a"


# Showing it.


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        (b"a b", "?foo a\\_b"),
        (b"\xff\xfe", "?foo \\xff\\xfe"),
        ("d\u00e9j\u00e0", "?foo d\u00e9j\u00e0"),
        (b"\xc3", "?foo \\xc3"),
        (b"", "?foo \\@"),
    ],
)
def test_str_is_the_line_as_text(argument, text):
    assert str(Message.request("foo", argument)) == text


def test_str_never_raises():
    every = bytes(range(256))
    assert str(Message.request("foo", every)).startswith("?foo \\0\x01")
    odd = Message.request("foo")
    odd.arguments = [b"a", "text", None, 5]
    assert str(odd) == repr(odd) == "<Message request foo (b'a', 'text', None, 5)>"


@pytest.mark.parametrize(
    ("msg", "text"),
    [
        (
            Message.request("foo-bar", "a b", "c\n", 1.5),
            "<Message request foo-bar (b'a\\\\_b', b'c\\\\n', b'1.5')>",
        ),
        (Message.request("foo"), "<Message request foo >"),
        (Message.reply("foo", "ok", mid=12), "<Message reply foo[12] (b'ok')>"),
        (Message.inform("foo", mid=3), "<Message inform foo[3] >"),
        (Message.inform("foo", b"\xff"), "<Message inform foo (b'\\xff')>"),
        (Message.inform("foo", ""), "<Message inform foo (b'')>"),
        (Message.inform("foo", "x" * 1000), f"<Message inform foo (b'{'x' * 1000}')>"),
        (Message.inform("foo", "x" * 1001), f"<Message inform foo (b'{'x' * 1000}'...)>"),
        (Message.inform("foo", " " * 501), "<Message inform foo (b'" + "\\\\_" * 500 + "'...)>"),
        (
            Message.inform("foo", "x" * 10**6, "b"),
            f"<Message inform foo (b'{'x' * 1000}'..., b'b')>",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Message) else f"{len(value)}-characters",
)
def test_repr_shows_the_id_and_cuts_long_arguments(msg, text):
    assert repr(msg) == text


class Printer:
    """What IPython hands to `_repr_pretty_`."""

    def __init__(self):
        self.shown = ""

    def text(self, text):
        self.shown += text


@pytest.mark.parametrize(
    ("msg", "text"),
    [
        (Message.request("foo"), "<Message request foo >"),
        (
            Message.reply("foo", "a b", b"\0", "", mid=3),
            "<Message reply foo[3] (b'a b', b'\\x00', b'')>",
        ),
        (Message.inform("foo", "x" * 120), f"<Message inform foo (b'{'x' * 120}')>"),
        (
            Message.inform("foo", b"\0" * 10**6, 5),
            "<Message inform foo (b'" + "\\x00" * 120 + "'... (1000000 bytes), b'5')>",
        ),
    ],
    ids=["bare", "special", "whole", "cut"],
)
def test_ipython_shows_arguments_as_they_are(msg, text):
    printer = Printer()
    msg._repr_pretty_(printer, False)
    assert printer.shown == text


def test_ipython_shows_also_what_cannot_be_sent():
    msg = Message.request("foo")
    msg.arguments = ["x" * 5000, None]
    printer = Printer()
    msg._repr_pretty_(printer, False)
    assert printer.shown.startswith("<Message request foo ('xxx")
    assert len(printer.shown) < 1100


@pytest.mark.parametrize("mid", [b"\xff", 5, "5", None, 1.5], ids=repr)
def test_repr_shows_also_what_cannot_be_sent(mid):
    for argument in ("text", 5, None, [b"a"], "x" * 5000):
        msg = Message.request("foo")
        msg.mid, msg.mtype, msg.arguments = mid, 9, [argument]
        assert repr(msg).startswith("<Message unknown foo")
        assert repr(argument)[:900] in repr(msg)
        assert len(repr(msg)) < 1100


@pytest.mark.parametrize(
    ("text", "limit", "short"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "abc... (4 characters)"),
        ("", 0, ""),
        ("x" * 1001, 1000, "x" * 1000 + "... (1001 characters)"),
    ],
    ids=["fits", "too-long", "empty", "default"],
)
def test_a_log_shows_the_beginning_of_a_long_text(text, limit, short):
    assert shorten(text, limit) == short
    assert shorten("x" * 1001) == "x" * 1000 + "... (1001 characters)"


# Comparing and copying.


def test_messages_are_equal_if_all_their_parts_are():
    def make(mtype=Message.REPLY, name="foo", arguments=(b"ok", b"1"), mid=b"1"):
        return Message(mtype, name, arguments, mid)

    assert make() == make()
    assert (make() != make()) is False
    for different in (
        make(mtype=Message.INFORM),
        make(name="fo"),
        make(arguments=[b"ok"]),
        make(arguments=[b"1", b"ok"]),
        make(mid=2),
        make(mid=None),
        "!foo[1] ok 1",
        None,
    ):
        assert make() != different
        assert (make() == different) is False


def test_a_message_is_not_hashable():
    with pytest.raises(TypeError, match="unhashable"):
        hash(Message.request("foo"))


def test_copy_drops_the_id_and_shares_nothing():
    original = Message.reply("foo", "fail", "late", mid=5)
    original.local_error = KatcpClientTimeout("late")
    copied = original.copy()
    assert copied == Message.reply("foo", "fail", "late")
    assert copied.mid is None
    assert copied.local_error is original.local_error
    copied.arguments.append(b"more")
    assert original.arguments == [b"fail", b"late"]
    assert original.mid == b"5"


def test_a_message_can_be_copied_and_pickled_as_it_is():
    msg = Message.reply("foo", "ok", b"\0\xff", mid=5)
    for twin in (copy.copy(msg), copy.deepcopy(msg), pickle.loads(pickle.dumps(msg))):
        assert twin == msg
        assert bytes(twin) == bytes(msg)
        assert twin.local_error is None


@pytest.mark.parametrize(
    ("msg", "ok"),
    [
        (Message.reply("foo", "ok"), True),
        (Message.reply("foo", Message.OK, "x"), True),
        (Message.reply("foo"), False),
        (Message.reply("foo", "fail", "ok"), False),
        (Message.reply("foo", "invalid"), False),
        (Message.reply("foo", "OK"), False),
        (Message.reply("foo", ""), False),
        (Message.request("foo", "ok"), False),
        (Message.inform("foo", "ok"), False),
    ],
    ids=str,
)
def test_only_a_reply_with_ok_is_ok(msg, ok):
    assert msg.reply_ok() is ok


# Constants.


def test_the_constants_and_tables_are_those_of_the_old_package():
    assert (Message.REQUEST, Message.REPLY, Message.INFORM) == (0, 1, 2)
    assert (Message.OK, Message.FAIL, Message.INVALID) == (b"ok", b"fail", b"invalid")
    assert Message.TYPE_NAMES == {0: "REQUEST", 1: "REPLY", 2: "INFORM"}
    assert Message.TYPE_SYMBOLS == {0: b"?", 1: b"!", 2: b"#"}
    assert Message.TYPE_SYMBOL_LOOKUP == {b"?": 0, b"!": 1, b"#": 2}
    assert Message.ESCAPE_LOOKUP == {
        b"\\": b"\\",
        b"_": b" ",
        b"0": b"\0",
        b"n": b"\n",
        b"r": b"\r",
        b"e": b"\x1b",
        b"t": b"\t",
        b"@": b"",
    }
    way_back = {plain: letter for letter, plain in Message.ESCAPE_LOOKUP.items()}
    assert way_back == Message.REVERSE_ESCAPE_LOOKUP


def test_the_escape_expression_finds_what_must_be_escaped():
    found = {byte for byte in range(256) if Message.ESCAPE_RE.match(bytes([byte]))}
    assert found == set(b"".join(abnf.ESCAPE.values()))
