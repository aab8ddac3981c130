"""Types and decorators: where they are stricter, or do more, than those of katcp 0.9.3.

What is the same is in tests/compat/test_kattypes_compat.py.
"""

from __future__ import annotations

import collections
import math
from fractions import Fraction

import pytest
from tornado import gen

import katcp
from katcp import FailReply, Message, kattypes
from katcp.kattypes import (
    Address,
    Discrete,
    DiscreteMulti,
    Float,
    Int,
    KatcpType,
    Parameter,
    Str,
    StrictTimestamp,
    Timestamp,
    TimestampOrNow,
    inform,
    request,
    return_reply,
)
from tests.support.helpers import PATIENCE, Recorder, TestDevice, start_client


def test_all_names_live_at_the_public_path():
    for name in kattypes.__all__:
        value = getattr(kattypes, name)
        assert getattr(value, "__module__", "katcp.kattypes") in ("katcp.kattypes", "functools")
        assert value.__doc__
    # Each has a docstring of its own.
    docs = collections.Counter(getattr(kattypes, name).__doc__ for name in kattypes.__all__)
    assert set(docs.values()) == {1}


# ---- reading ----


@pytest.mark.parametrize("data", [b"1_000", b" 1", b"1 ", b"1\n", b"\t1"])
@pytest.mark.parametrize("kattype", [Int(), Float(), Timestamp(), TimestampOrNow()])
def test_numbers_are_read_strictly(kattype, data):
    with pytest.raises(ValueError, match="^Could not parse value '"):
        kattype.unpack(data)
    with pytest.raises(ValueError, match="^Could not parse value '"):
        StrictTimestamp().unpack(data + b".5")


@pytest.mark.parametrize("data", [b"nan", b"inf", b"-Infinity", b"1e400"])
@pytest.mark.parametrize("kattype", [Timestamp(), TimestampOrNow(), StrictTimestamp()])
def test_a_time_is_finite(kattype, data):
    with pytest.raises(ValueError, match="^Could not parse value '"):
        kattype.unpack(data)


@pytest.mark.parametrize(
    "data", [b"localhost:80", b"1.2.3", b"256.0.0.1", b"[127.0.0.1]:80", b"1.2.3.4:70000", b""]
)
def test_what_is_no_address(data):
    with pytest.raises(ValueError, match="^Could not parse '") as error:
        Address().unpack(data)
    assert str(error.value) == f"Could not parse '{data!r}' as an address."


def test_text_that_is_not_utf_8_is_read_and_written_back():
    text = Str().unpack(b"caf\xe9")
    assert text == "caf\udce9"
    assert Str().pack(text) == b"caf\xe9"
    # Nothing else is changed by it.
    with pytest.raises(UnicodeEncodeError):
        Str().pack("\ud800")


def test_bytes_that_are_not_utf_8_are_shown_escaped():
    with pytest.raises(ValueError, match=r"^Could not parse value '\\xff' as timestamp\.$"):
        Timestamp().unpack(b"\xff")


# ---- writing ----


@pytest.mark.parametrize(
    ("kattype", "value", "data"),
    [
        (Str(), bytearray(b"\xff"), b"\xff"),
        (Str(), memoryview(b"\xff"), b"\xff"),
        (Float(), Fraction(3, 2), b"1.5"),
        (StrictTimestamp(), Fraction(3, 2), b"1.5"),
        (StrictTimestamp(), True, b"1"),
        (StrictTimestamp(), 1e17, b"100000000000000000.000000"),
        (StrictTimestamp(), 1.5e-5, b"0.000015"),
    ],
)
def test_values_are_written_by_value(kattype, value, data):
    assert kattype.pack(value) == data


def test_a_class_of_numbers_is_written_by_value():
    class Loud(float):
        def __repr__(self):
            return "Loud!"

    assert Float().pack(Loud(1.5)) == b"1.5"


@pytest.mark.parametrize("value", [(1, 2), (1,), [1.5], {}, None.__class__])
def test_the_error_names_the_value(value):
    with pytest.raises(ValueError, match="^Could not encode value '") as error:
        Float().pack(value)
    assert str(error.value) == f"Could not encode value '{value!r}' as float."


@pytest.mark.parametrize("value", [(1, 2), (b"h", 1), ("a", "b"), (None, 5), ("\u00e9", 1), "ab"])
def test_what_is_no_host_and_port(value):
    with pytest.raises(ValueError, match="^Could not extract host and port from value ") as error:
        Address().pack(value)
    assert str(error.value).endswith(repr(value))


@pytest.mark.parametrize("major", [4, 5])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kattype", [Timestamp(), StrictTimestamp()])
def test_what_is_no_time_is_not_packed(kattype, value, major):
    with pytest.raises(ValueError, match="is not a time|as strict timestamp"):
        kattype.pack(value, major=major)


@pytest.mark.parametrize(
    ("seconds", "data"),
    [(1.001, b"1001"), (0.0005, b"0.5"), (1234567890.123456, b"1234567890123.456")],
)
def test_milliseconds_keep_their_fraction(seconds, data):
    assert Timestamp().pack(seconds, major=4) == data
    assert Timestamp().unpack(data, major=4) == seconds


# ---- what a program may do ----


def test_a_type_without_encode_and_decode_says_so():
    with pytest.raises(NotImplementedError):
        KatcpType().pack(1)
    with pytest.raises(NotImplementedError):
        KatcpType().unpack(b"1")


def test_a_class_in_place_of_a_type_is_refused_when_decorating():
    with pytest.raises(AttributeError, match="_multiple"):
        request(Int)


def test_options_that_are_not_text_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^Discrete value '1' is not one of \[1, 2\]\.$"):
        Discrete((1, 2)).unpack(b"1")
    with pytest.raises(TypeError):
        DiscreteMulti(["a"]).pack(5)


def test_a_parameter_packs_for_its_version_and_within_its_limits():
    assert Parameter(1, "when", Timestamp(), 4).pack(1.5) == b"1500"
    with pytest.raises(ValueError, match="lower than minimum"):
        Parameter(1, "count", Int(min=1), 5).pack(0)


class Coroutines:
    """Handlers that take their time."""

    @request(Int())
    @return_reply(Int())
    @gen.coroutine
    def request_old(self, req, count):
        yield gen.moment
        return "ok", count + 1

    @request(Int())
    @return_reply(Int())
    async def request_new(self, req, count):
        if count < 0:
            raise FailReply("negative")
        return "ok", count + 1


@pytest.mark.parametrize("name", ["old", "new"])
def test_coroutines_reply_later(name, ioloop):
    handler = getattr(Coroutines(), f"request_{name}")
    reply = ioloop.run_sync(lambda: handler(None, Message.request(name, 1)))
    assert str(reply) == f"!{name} ok 2"
    with pytest.raises(FailReply, match=r"^Error in parameter 1 \(count\): "):
        handler(None, Message.request(name, "x"))


def test_a_coroutine_may_fail(ioloop):
    with pytest.raises(FailReply, match="^negative$"):
        ioloop.run_sync(lambda: Coroutines().request_new(None, Message.request("new", -1)))


class Client(katcp.BlockingClient):
    """Its handlers are decorated."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = Recorder()

    @inform(Str(), Int(default=1))
    def inform_greeting(self, text, count):
        self.seen(text, count)

    @request(Int(), has_req=False)
    @return_reply(Int())
    def request_double(self, number):
        """Double a number."""
        return "ok", 2 * number


def test_handlers_of_a_client(logs):
    with TestDevice() as device:
        client = start_client(device, Client)
        device.inform(Message.inform("greeting", "h\u00e9", 3))
        device.inform(Message.inform("greeting", "you"))
        client.seen.wait(2)
        assert client.seen.calls == [("h\u00e9", 3), ("you", 1)]
        device.send_raw(b"?double[3] 21\n")
        device.wait_until(
            lambda: (
                [str(msg) for msg in device.received if msg.name == "double"]
                == ["!double[3] ok 42"]
            ),
            PATIENCE,
        )
        device.inform(Message.inform("greeting"))
        logs.expect("Error in parameter 1 (text): No value or default given", 40, PATIENCE)
