"""What katcp 0.9.3 does with types, decorators and sensors, as it was observed: so do we.

The same is compared live, with many more values, in tests/interop/test_types.py.
"""

from __future__ import annotations

import inspect
import re
from decimal import Decimal
from fractions import Fraction

import pytest
from tornado import gen

from katcp import AsyncReply, FailReply, Message, Sensor
from katcp.core import Reading
from katcp.kattypes import (
    Address,
    Bool,
    Discrete,
    DiscreteMulti,
    Float,
    Int,
    KatcpType,
    Lru,
    Parameter,
    Regex,
    Str,
    StrictTimestamp,
    Struct,
    Timestamp,
    TimestampOrNow,
    async_make_reply,
    concurrent_reply,
    has_katcp_protocol_flags,
    inform,
    make_reply,
    minimum_katcp_version,
    pack_types,
    request,
    request_timeout_hint,
    return_reply,
    send_reply,
    unpack_message,
    unpack_types,
)


class Index:
    """A number that is no `int`."""

    def __index__(self):
        return 7


def error_of_python():
    """Return the error for a text that is formatted as a number; each Python words it anew."""
    with pytest.raises(TypeError) as raised:
        _ = b"%d" % ("5",)
    return raised.value


# ---- types: values and bytes ----


@pytest.mark.parametrize(
    ("kattype", "value", "data"),
    [
        (Int(), -546, b"-546"),
        (Int(), 2**70, b"1180591620717411303424"),
        (Int(), True, b"1"),
        (Int(), 1.5, b"1"),
        (Int(), Decimal("1.5"), b"1"),
        (Int(), Fraction(3, 2), b"1"),
        (Int(), Index(), b"7"),
        (Int(min=1), 1.5, b"1"),
        (Float(), 5, b"5.0"),
        (Float(), -1.234e-05, b"-1.234e-05"),
        (Float(), 0.1, b"0.1"),
        (Float(), True, b"1.0"),
        (Float(), float("-inf"), b"-inf"),
        (Float(min=0.0, max=1.0), float("nan"), b"nan"),
        (Bool(), True, b"1"),
        (Bool(), "0", b"1"),
        (Bool(), [], b"0"),
        (Str(), "\u00e9", b"\xc3\xa9"),
        (Str(), b"\xff\0", b"\xff\0"),
        (Str(), "", b""),
        (Str(), True, b"True"),
        (Str(), 1.5, b"1.5"),
        (Str(), ("h", 5), b"('h', 5)"),
        (Discrete(("on", "off")), "on", b"on"),
        (Discrete(("on", "Off"), case_insensitive=True), "OFF", b"OFF"),
        (Discrete(iter(["on", "off"])), "off", b"off"),
        (DiscreteMulti(("a", "B", "c")), ["c", "a"], b"a,c"),
        (DiscreteMulti(("a", "B", "c")), ["c", "B"], b"B,c"),
        (DiscreteMulti(("a", "b"), separator=";"), ("b", "a"), b"a;b"),
        (DiscreteMulti(("a", "b")), ["a", "b"], b"a,b"),
        (DiscreteMulti(("a", "b")), [], b""),
        (Lru(), Lru.LRU_NOMINAL, b"nominal"),
        (Lru(), Lru.LRU_ERROR, b"error"),
        (Timestamp(), 1222180721.5, b"1222180721.500000"),
        (Timestamp(), 1e17, b"100000000000000000.000000"),
        (Timestamp(), 1e-7, b"0.000000"),
        (Timestamp(), "5", b"5.000000"),
        (TimestampOrNow(), TimestampOrNow.NOW, b"now"),
        (TimestampOrNow(), 1.5, b"1.500000"),
        (StrictTimestamp(), 1222180721.213, b"1222180721.213"),
        (StrictTimestamp(), 5, b"5"),
        (Struct(">hB"), (1, 2), b"\0\1\2"),
        (Regex("a.c"), "abcd", b"abcd"),
        (Regex(re.compile("A.c", re.I)), "aXc", b"aXc"),
        (Address(), ("127.0.0.1", 80), b"127.0.0.1:80"),
        (Address(), ("127.0.0.1", None), b"127.0.0.1"),
        (Address(), ["::1", 80], b"[::1]:80"),
        (Address(), ("::1", None), b"[::1]"),
        (Address(), ("localhost", 80), b"localhost:80"),
        (Address(), Address.NULL, b"0.0.0.0"),
    ],
)
def test_pack(kattype, value, data):
    assert kattype.pack(value) == data


@pytest.mark.parametrize(
    ("kattype", "data", "value"),
    [
        (Int(), b"+007", 7),
        (Int(), b"-9223372036854775809", -9223372036854775809),
        (Int(), "5", 5),
        (Int(), 1.5, 1),
        (Float(), b"1E5", 1e5),
        (Float(), b".5", 0.5),
        (Float(), b"1e400", float("inf")),
        (Float(), "1.5", 1.5),
        (Float(), 5, 5.0),
        (Bool(), b"1", True),
        (Bool(), b"0", False),
        (Str(), b"\xc3\xa9\n", "\u00e9\n"),
        (Discrete(("on", "")), b"", ""),
        (Discrete(("on", "Off"), case_insensitive=True), b"oFf", "oFf"),
        (DiscreteMulti(("b", "a")), b"all", ["a", "b"]),
        (DiscreteMulti(("b", "a"), all_keyword="every"), b"every", ["a", "b"]),
        (DiscreteMulti(("b", "a")), b"b, a", ["a", "b"]),
        (DiscreteMulti(("b", "a")), b"a,a", ["a", "a"]),
        (Lru(), b"error", Lru.LRU_ERROR),
        (Timestamp(), b"1222180721.213", 1222180721.213),
        (Timestamp(), b"-1.5", -1.5),
        (Timestamp(), b"1e3", 1000.0),
        (Timestamp(), "1.5", 1.5),
        (Timestamp(), 1.5, 1.5),
        (TimestampOrNow(), b"now", TimestampOrNow.NOW),
        (StrictTimestamp(), b"1.5", 1.5),
        (StrictTimestamp(), b"+1.5", 1.5),
        (Struct(">I"), b"\0\0\0\5", (5,)),
        (Regex("a.c"), b"abcd", "abcd"),
        (Address(), b"192.168.1.1:4000", ("192.168.1.1", 4000)),
        (Address(), b"[2001:0db8::1]", ("2001:0db8::1", None)),
        (Address(), b"[::1]:080", ("::1", 80)),
    ],
)
def test_unpack(kattype, data, value):
    found = kattype.unpack(data)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kattype", "value", "error"),
    [
        (Int(), "5", error_of_python()),
        (Int(min=0, max=10), -1, ValueError("Integer -1 is lower than minimum 0.")),
        (Int(min=0, max=10), 50, ValueError("Integer 50 is higher than maximum 10.")),
        (Float(), "5", ValueError("Could not encode value ''5'' as float.")),
        (Float(), b"5", ValueError("Could not encode value 'b'5'' as float.")),
        (Float(min=0.5), 0, ValueError("Float 0 is lower than minimum 0.5.")),
        (
            Float(max=123456789.123),
            1e20,
            ValueError("Float 1e+20 is higher than maximum 1.23457e+08."),
        ),
        (Discrete(("a", "b")), "x", ValueError("Discrete value 'x' is not one of ['a', 'b'].")),
        (
            Discrete(("a", "B"), case_insensitive=True),
            "X",
            ValueError("Discrete value 'x' is not one of ['a', 'B'] (case-insensitive)."),
        ),
        (
            DiscreteMulti(("a", "b")),
            ["a", "x"],
            ValueError("Discrete value 'x' is not one of ['a', 'b']."),
        ),
        (Lru(), 2, ValueError("Lru value must be LRU_NOMINAL or LRU_ERROR.")),
        (Timestamp(), "x", ValueError("could not convert string to float: 'x'")),
        (StrictTimestamp(), -1, ValueError("Strict timestamps may not be negative.")),
        (
            StrictTimestamp(),
            "5",
            ValueError("Could not encode value ''5'' as strict timestamp."),
        ),
        (
            Struct(">I"),
            (1, 2),
            ValueError(
                "Could not pack (1, 2) into struct with format >I: "
                "pack expected 1 items for packing (got 2)"
            ),
        ),
        (
            Regex(re.compile("A.c", re.I | re.M | re.S | re.X)),
            "x",
            ValueError("Value 'x' does not match regex 'A.c' with flags 'I,M,S,U,X'."),
        ),
        (Address(), "h:5", ValueError("Could not extract host and port from value 'h:5'")),
        (Address(), ("a",), ValueError("Could not extract host and port from value ('a',)")),
        (Int(), None, ValueError("No value or default given")),
        (Int(optional=True), None, ValueError("Cannot pack a None value.")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pack_refuses(kattype, value, error):
    with pytest.raises(type(error)) as raised:
        kattype.pack(value)
    assert str(raised.value) == str(error)


@pytest.mark.parametrize(
    ("kattype", "data", "text"),
    [
        (Int(), b"1.0", "Could not parse value 'b'1.0'' as integer."),
        (Int(), "x", "Could not parse value 'x' as integer."),
        (Int(max=10), b"11", "Integer 11 is higher than maximum 10."),
        (Float(), b"0x1p3", "Could not parse value 'b'0x1p3'' as float."),
        (Float(max=10.5), b"1e3", "Float 1000 is higher than maximum 10.5."),
        (Bool(), b"true", "Boolean value must be b'0' or b'1' but is 'b'true''."),
        (Bool(), b"1\n", "Boolean value must be b'0' or b'1' but is 'b'1\\n''."),
        (Discrete(("a", "b")), b"x", "Discrete value 'x' is not one of ['a', 'b']."),
        (DiscreteMulti(("a", "b")), b"a,", "Discrete value '' is not one of ['a', 'b']."),
        (DiscreteMulti(("a", "b")), b"ALL", "Discrete value 'ALL' is not one of ['a', 'b']."),
        (Lru(), b"NOMINAL", "Lru value must be 'nominal' or 'error'."),
        (Timestamp(), b"now", "Could not parse value 'now' as timestamp."),
        (Timestamp(), b"", "Could not parse value '' as timestamp."),
        (TimestampOrNow(), b"NOW", "Could not parse value 'NOW' as timestamp."),
        (StrictTimestamp(), b"1e3", "Could not parse value 'b'1e3'' as strict timestamp."),
        (StrictTimestamp(), b"-1.5", "Strict timestamps may not be negative."),
        (
            Struct(">I"),
            b"1",
            "Could not unpack b'1' from struct with format >I: unpack requires a buffer of 4 bytes",
        ),
        (Regex("a.c"), b"xabc", "Value 'xabc' does not match regex 'a.c' with flags 'U'."),
        (Address(), b"::1", "Could not parse 'b'::1'' as an address."),
        (Address(), b"1.2.3.4:x", "Could not parse 'b'1.2.3.4:x'' as an address."),
        (Int(), None, "No value or default given"),
    ],
)
def test_unpack_refuses(kattype, data, text):
    with pytest.raises(ValueError, match=r"\S") as raised:
        kattype.unpack(data)
    assert str(raised.value) == text


@pytest.mark.parametrize(
    ("options", "default"),
    [
        ({"default": 3}, 3),
        ({"default": 0}, 0),
        ({"optional": True}, None),
        ({"default": 3, "optional": True, "multiple": True}, 3),
    ],
)
def test_a_missing_argument_is_the_default(options, default):
    kattype = Int(**options)
    assert kattype.get_default() == default
    assert kattype.unpack(None) == default
    if default is not None:
        assert kattype.pack(None) == b"%d" % default


def test_options_by_position():
    assert Int(1, 2, default=1).unpack(None) == 1
    assert Str("x", True, False).unpack(None) == "x"
    assert Discrete(["a"], True).unpack(b"A") == "A"
    assert DiscreteMulti(["b", "a"], "every", ";").unpack(b"every") == ["a", "b"]
    with pytest.raises(TypeError):
        Int(1, 2, 3)
    with pytest.raises(TypeError):
        Int(foo=1)


def test_limits_are_not_looked_at_when_packing_unchecked():
    assert Int(min=5).pack(1, True) == b"1"
    assert Int(min=5).pack(1, nocheck=True) == b"1"


def test_a_default_is_checked_too():
    with pytest.raises(ValueError, match="lower than minimum"):
        Int(min=5, default=1).unpack(None)


def test_the_unit_of_a_timestamp_follows_the_version():
    assert Timestamp().pack(1222180721.5, major=4) == b"1222180721500"
    assert Timestamp().unpack(b"1222180721500", major=4) == 1222180721.5
    assert Timestamp().unpack(b"1500.5", 3) == 1.5005
    assert Timestamp().pack(1.5, major=6) == b"1.500000"
    assert TimestampOrNow().unpack(b"1500", 4) == 1.5


def test_names_of_the_types():
    types = (Int, Float, Bool, Str, Discrete, DiscreteMulti, Lru, Timestamp, TimestampOrNow)
    assert [kattype.name for kattype in (KatcpType, *types)] == [
        *("unknown", "integer", "float", "boolean", "string", "discrete", "discretemulti", "lru"),
        *("timestamp", "timestamp_or_now"),
    ]
    assert [kattype.name for kattype in (StrictTimestamp, Struct, Regex, Address)] == [
        *("strict_timestamp", "struct", "regex", "address"),
    ]


def test_a_type_of_a_program():
    class Pair(KatcpType):
        name = "pair"

        def encode(self, value, major):
            return b"%d:%d" % value

        def decode(self, value, major):
            first, second = value.split(b":")
            return int(first), int(second)

        def check(self, value, major):
            if value[0] > value[1]:
                raise ValueError("not in order")

    assert Pair().pack((1, 2)) == b"1:2"
    assert Pair(default=(3, 4)).unpack(None) == (3, 4)
    with pytest.raises(ValueError, match="not in order"):
        Pair().unpack(b"2:1")


# ---- decorators ----


class Request:
    """As much of a server's request object as the decorators use."""

    def __init__(self, msg):
        self.msg = msg
        self.sent = []

    def reply_with_message(self, msg):
        self.sent.append(str(msg))


class Device:
    """Handlers in all their forms."""

    @request(Int(min=1), Str(default="d"), Float(optional=True))
    def request_foo(self, req, i, s, f):
        """Do something."""
        return req, i, s, f

    @request(Int(), include_msg=True)
    def request_msg(self, req, msg, i):
        return req, msg, i

    @request(Str(), Int(multiple=True))
    def request_many(self, req, s, *ints):
        return s, ints

    @request(Timestamp(), major=4)
    @return_reply(Timestamp(), major=4)
    def request_v4(self, req, when):
        assert when == 1.5
        return "ok", when

    @return_reply(Int(), Str(optional=True))
    @request(Int())
    def request_two_words(self, req, i):
        return "ok", i + 1, "x"

    @return_reply(Int(min=5), Int(multiple=True))
    def request_raw(self, req, result):
        if isinstance(result, Exception):
            raise result
        return result

    @request(Int())
    @return_reply(Int())
    @gen.coroutine
    def request_later(self, req, i):
        yield gen.moment
        if i < 0:
            raise FailReply("negative")
        return "ok", i + 1

    @inform(Int(), Str())
    def inform_foo(self, i, s):
        return i, s

    @unpack_message(Int(), include_msg=True)
    def reply_foo(self, msg, i):
        return msg, i

    @send_reply(Int(), Str())
    def reply_later(self, *result):
        return result


@pytest.mark.parametrize(
    ("arguments", "values"),
    [((5, "a", 1.5), (5, "a", 1.5)), ((5, "a"), (5, "a", None)), ((5,), (5, "d", None))],
)
def test_arguments_become_parameters(arguments, values):
    assert Device().request_foo("req", Message.request("foo", *arguments)) == ("req", *values)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "Error in parameter 1 (i): No value or default given"),
        ((0,), "Error in parameter 1 (i): Integer 0 is lower than minimum 1."),
        (("x",), "Error in parameter 1 (i): Could not parse value 'b'x'' as integer."),
        ((5, "a", "z"), "Error in parameter 3 (f): Could not parse value 'b'z'' as float."),
        ((5, "a", 1.5, "more"), "Too many parameters given."),
    ],
)
def test_arguments_that_do_not_fit(arguments, text):
    with pytest.raises(FailReply) as raised:
        Device().request_foo("req", Message.request("foo", *arguments))
    assert str(raised.value) == text


def test_the_message_may_be_passed_on():
    msg = Message.request("msg", 1)
    assert Device().request_msg("req", msg) == ("req", msg, 1)
    msg = Message.reply("foo", 2)
    assert Device().reply_foo(msg) == (msg, 2)


def test_the_last_parameter_may_be_many():
    msg = Message.request("many", "a", 1, 2, 3)
    assert Device().request_many(None, msg) == ("a", (1, 2, 3))
    with pytest.raises(FailReply, match=r"^Error in parameter 2 \(\): No value or default given$"):
        Device().request_many(None, Message.request("many", "a"))
    with pytest.raises(FailReply, match=r"^Error in parameter 3 \(\): Could not parse"):
        Device().request_many(None, Message.request("many", "a", 1, "x"))


def test_informs_and_replies_have_no_request_object():
    assert Device().inform_foo(Message.inform("foo", 1, "a")) == (1, "a")
    assert Device().inform_foo(msg=Message.inform("foo", 1, "a")) == (1, "a")
    with pytest.raises(FailReply, match=r"^Error in parameter 2 \(s\): No value"):
        Device().inform_foo(Message.inform("foo", 1))


@pytest.mark.parametrize("decorator", [inform, unpack_message])
def test_has_req_may_be_overridden(decorator):
    handler = decorator(Int(), has_req=True)(lambda self, req, i: (req, i))
    assert handler(None, "req", Message.inform("foo", 1)) == ("req", 1)


def test_what_a_handler_returns_becomes_the_reply():
    """It is named after the method, and has no id."""
    reply = Device().request_two_words(None, Message.request("other", 3, mid=7))
    assert (str(reply), reply.mid) == ("!two-words ok 4 x", None)
    reply = Device().request_v4(None, Message.request("v4", 1500))
    assert str(reply) == "!v4 ok 1500"


@pytest.mark.parametrize(
    ("result", "reply"),
    [
        (("ok", 5, 1), "!raw ok 5 1"),
        (["ok", 5, 1, 2, 3], "!raw ok 5 1 2 3"),
        (("fail", "why"), "!raw fail why"),
        (("fail", b"why"), "!raw fail why"),
        (("fail", 5), "!raw fail 5"),
    ],
)
def test_results(result, reply):
    assert str(Device().request_raw(None, result)) == reply


NEITHER = ValueError("First returned value must be 'ok' or 'fail'.")


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (("ok", 5), ValueError("No value or default given")),
        (("ok", 4, 1), ValueError("Integer 4 is lower than minimum 5.")),
        (("ok", 5, "x"), error_of_python()),
        (("fail",), ValueError("No value or default given")),
        (("fail", "why", "more"), ValueError("Too many arguments to pack.")),
        (("invalid", "why"), NEITHER),
        (("OK", 5, 1), NEITHER),
        ("ok", NEITHER),
        (None, TypeError("'NoneType' object is not subscriptable")),
        (AsyncReply(), AsyncReply()),
        (FailReply("no"), FailReply("no")),
    ],
    ids=str,
)
def test_results_that_are_refused(result, error):
    with pytest.raises(type(error)) as raised:
        Device().request_raw(None, result)
    assert str(raised.value) == str(error)


def test_a_future_of_a_result_becomes_a_future_of_the_reply(ioloop):
    def call(argument):
        return ioloop.run_sync(
            lambda: Device().request_later(None, Message.request("later", argument))
        )

    assert str(call(3)) == "!later ok 4"
    with pytest.raises(FailReply, match="^negative$"):
        call(-1)


def test_a_reply_is_sent():
    req = Request(Message.request("foo", mid=3))
    assert Device().reply_later(req, "ok", 1, "x") is None
    assert Device().reply_later(req, "fail", "why") is None
    assert req.sent == ["!foo ok 1 x", "!foo fail why"]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (
            lambda: request(Int(), foo=1, bar=2),
            TypeError("does not take keyword argument(s) ['foo', 'bar']."),
        ),
        (lambda: inform(foo=1), TypeError("does not take keyword argument(s) ['foo'].")),
        (
            lambda: return_reply(include_msg=True),
            TypeError("return_reply does not take keyword argument(s) ['include_msg']."),
        ),
        (
            lambda: send_reply(foo=1),
            TypeError("send_reply does not take keyword argument(s) ['foo']."),
        ),
        (
            lambda: return_reply(Int())(lambda self, msg: None),
            ValueError(
                "This decorator can only be used on a katcp request handler "
                "(method name should start with 'request_')."
            ),
        ),
        *(
            (
                lambda decorator=decorator: decorator(Int(multiple=True), Str()),
                TypeError("Only the last parameter type can accept multiple arguments."),
            )
            for decorator in (request, inform, return_reply)
        ),
    ],
)
def test_decorators_that_are_misused(make, error):
    with pytest.raises(type(error)) as raised:
        make()
    assert str(raised.value) == str(error)


def test_decorated_handlers_look_like_what_they_were():
    handler = Device.request_foo
    assert (handler.__name__, handler.__doc__) == ("request_foo", "Do something.")
    assert str(inspect.signature(handler)) == "(self, req, i, s, f)"
    assert handler._request_decorated


def test_marks_for_a_server():
    def handler():
        """Do nothing."""

    for decorator in (
        concurrent_reply,
        request_timeout_hint("5"),
        minimum_katcp_version(5, 1),
        has_katcp_protocol_flags([b"T"]),
    ):
        assert decorator(handler) is handler
    assert vars(handler) == {
        "_concurrent_reply": True,
        "request_timeout_hint": 5.0,
        "_minimum_katcp_version": (5, 1),
        "_has_katcp_protocol_flags": [b"T"],
    }
    assert request_timeout_hint(None)(handler).request_timeout_hint is None
    assert minimum_katcp_version(5)(handler)._minimum_katcp_version == (5, 0)


# ---- helpers ----


def test_pack_types():
    assert pack_types((Int(), Str()), (1, "a"), 5) == [b"1", b"a"]
    assert pack_types((Int(multiple=True),), (1, 2, 3), 5) == [b"1", b"2", b"3"]
    assert pack_types((Int(default=3),), (), 5) == [b"3"]
    assert pack_types((Timestamp(),), (1.5,), 4) == [b"1500"]
    assert pack_types((), (), 5) == []
    with pytest.raises(ValueError, match=r"^Too many arguments to pack\.$"):
        pack_types((Int(),), (1, 2), 5)
    with pytest.raises(ValueError, match=r"^Cannot pack a None value\.$"):
        pack_types((Int(optional=True),), (), 5)


def test_unpack_types():
    assert unpack_types((Int(), Str()), (b"1", b"a"), ["i", "s"], 5) == [1, "a"]
    assert unpack_types((Int(optional=True, multiple=True),), (), ["i"], 5) == [None]
    assert unpack_types((Timestamp(),), (b"1500",), [], 4) == [1.5]
    with pytest.raises(FailReply, match=r"^Error in parameter 2 \(i\): "):
        unpack_types((Int(multiple=True),), (b"1", b"x"), ["i"], 5)
    with pytest.raises(FailReply, match=r"^Error in parameter 1 \(\): "):
        unpack_types((Int(),), (b"x",), [], 5)


def test_parameter():
    parameter = Parameter(2, "speed", Int(min=1), 5)
    assert (parameter.position, parameter.name, parameter.major) == (2, "speed", 5)
    assert parameter.pack(5) == b"5"
    assert parameter.unpack(b"5") == 5
    with pytest.raises(FailReply) as raised:
        parameter.unpack(b"0")
    assert str(raised.value) == "Error in parameter 2 (speed): Integer 0 is lower than minimum 1."


def test_make_reply(ioloop):
    assert str(make_reply("foo-bar", (Int(),), ("ok", 1), 5)) == "!foo-bar ok 1"
    assert str(make_reply("foo", (Int(),), ("fail", "x"), 5)) == "!foo fail x"

    async def result():
        return "ok", 1

    reply = ioloop.run_sync(lambda: async_make_reply("foo", (Int(),), result(), 5))
    assert str(reply) == "!foo ok 1"


# ---- sensors ----


def shown(sensor):
    timestamp, status, value = sensor.read()
    assert timestamp > 1e9
    return sensor.type, sensor.params, sensor.formatted_params, status, value


@pytest.mark.parametrize(
    ("sensor", "expected"),
    [
        (Sensor.integer("n"), ("integer", [], [], 0, 0)),
        (Sensor.integer("n", params=[1, 10]), ("integer", [1, 10], [b"1", b"10"], 0, 1)),
        (Sensor.integer("n", params=[-5, 10]), ("integer", [-5, 10], [b"-5", b"10"], 0, 0)),
        (
            Sensor.integer("n", params=[1, 10, 0, 20]),
            ("integer", [1, 10, 0, 20], [b"1", b"10", b"0", b"20"], 0, 0),
        ),
        (Sensor.integer("n", default=50), ("integer", [], [], 0, 50)),
        (Sensor.integer("n", initial_status=Sensor.ERROR), ("integer", [], [], 3, 0)),
        (Sensor.float("n"), ("float", [], [], 0, 0.0)),
        (Sensor.float("n", params=(1.5, 10)), ("float", (1.5, 10), [b"1.5", b"10.0"], 0, 1.5)),
        (Sensor.boolean("n"), ("boolean", [], [], 0, False)),
        (Sensor.lru("n"), ("lru", [], [], 0, Sensor.LRU_NOMINAL)),
        (
            Sensor.discrete("n", params=["b", "a"]),
            ("discrete", ["b", "a"], [b"b", b"a"], 0, "b"),
        ),
        (
            Sensor.discrete("n", params=[b"b", b"a"], default="a"),
            ("discrete", ["b", "a"], [b"b", b"a"], 0, "a"),
        ),
        (Sensor.string("n"), ("string", [], [], 0, "")),
        (Sensor.timestamp("n"), ("timestamp", [], [], 0, 0.0)),
        (Sensor.address("n"), ("address", [], [], 0, ("0.0.0.0", None))),
        (Sensor(int, "n"), ("integer", [], [], 0, 0)),
        (Sensor(float, "n"), ("float", [], [], 0, 0.0)),
        (Sensor(bool, "n"), ("boolean", [], [], 0, False)),
        (Sensor(str, "n"), ("string", [], [], 0, "")),
        (
            Sensor(Sensor.INTEGER, "n", "d", "u", [0, 10], 5, Sensor.WARN),
            ("integer", [0, 10], [b"0", b"10"], 2, 5),
        ),
    ],
)
def test_a_new_sensor(sensor, expected):
    assert shown(sensor) == expected
    assert sensor.stype == sensor.type


@pytest.mark.parametrize(
    ("sensor", "texts"),
    [
        (Sensor.integer("n"), ("n", "Integer sensor 'n' with no unit", "")),
        (Sensor.lru(b"n", unit=b"m"), ("n", "Lru sensor 'n' in unit m", "m")),
        (Sensor.float("n", "", "m"), ("n", "", "m")),
        (Sensor(Sensor.STRING, "n", b"d", None), ("n", "d", "")),
    ],
)
def test_texts_of_a_sensor(sensor, texts):
    assert (sensor.name, sensor.description, sensor.units) == texts


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Sensor(8, "n"), KeyError(8)),
        (lambda: Sensor("integer", "n"), KeyError("integer")),
        (lambda: Sensor.discrete("n"), IndexError("list index out of range")),
        (
            lambda: Sensor.integer(5),
            TypeError("Invalid type for string conversion: <class 'int'>"),
        ),
        (
            lambda: Sensor.discrete("n", params=[1]),
            TypeError("Invalid type for string conversion: <class 'int'>"),
        ),
    ],
)
def test_a_sensor_that_cannot_be(make, error):
    with pytest.raises(type(error)) as raised:
        make()
    assert str(raised.value) == str(error)


def test_statuses():
    names = ["unknown", "nominal", "warn", "error", "failure", "unreachable", "inactive"]
    assert dict(enumerate(names)) == Sensor.STATUSES
    assert {name.encode(): number for number, name in enumerate(names)} == Sensor.STATUS_NAMES_RAW
    assert [Sensor.STATUSES_RAW[number].decode() for number in range(7)] == names
    assert [Sensor.STATUS_NAMES[name] for name in names] == list(range(7))
    assert (Sensor.UNKNOWN, Sensor.NOMINAL, Sensor.WARN, Sensor.ERROR) == (0, 1, 2, 3)
    assert (Sensor.FAILURE, Sensor.UNREACHABLE, Sensor.INACTIVE) == (4, 5, 6)


def test_nothing_is_checked_but_options():
    sensor = Sensor.integer("n", params=[0, 10])
    sensor.set_value(50)
    assert sensor.read()[1:] == (Sensor.NOMINAL, 50)
    sensor.set_value("x", 99, 0)
    assert sensor.read() == Reading(0, 99, "x")
    discrete = Sensor.discrete("n", params=["a"])
    with pytest.raises(ValueError, match=r"^Discrete value 'q' is not one of \['a'\]\.$"):
        discrete.set_value("q")
    assert discrete.value() == "a"
    discrete.set(1, Sensor.NOMINAL, "q")
    assert discrete.value() == "q"
    assert discrete.read_formatted() == (b"1.000000", b"nominal", b"q")


@pytest.mark.parametrize(
    ("sensor", "value", "v5", "v4"),
    [
        (Sensor.integer("n"), 5, b"5", b"5"),
        (Sensor.float("n"), 5, b"5.0", b"5.0"),
        (Sensor.boolean("n"), True, b"1", b"1"),
        (Sensor.lru("n"), Sensor.LRU_ERROR, b"error", b"error"),
        (Sensor.discrete("n", params=["a", "b"]), "b", b"b", b"b"),
        (Sensor.string("n"), "\u00e9", b"\xc3\xa9", b"\xc3\xa9"),
        (Sensor.timestamp("n"), 1.5, b"1.500000", b"1500"),
        (Sensor.address("n"), ("h", 5), b"h:5", b"h:5"),
    ],
    ids=lambda value: getattr(value, "type", ""),
)
def test_formatted_readings(sensor, value, v5, v4):
    sensor.set_value(value, Sensor.WARN, 12.5)
    assert (sensor.value(), sensor.status()) == (value, Sensor.WARN)
    assert sensor.read_formatted() == (b"12.500000", b"warn", v5)
    assert sensor.read_formatted(4) == (b"12500", b"warn", v4)
    assert sensor.format_reading((1, 6, value), major=4) == (b"1000", b"inactive", v4)


def test_formatted_readings_are_set():
    sensor = Sensor.timestamp("n")
    sensor.set_formatted(b"12.5", b"warn", b"1.5")
    assert sensor.read() == Reading(12.5, Sensor.WARN, 1.5)
    sensor.set_formatted(b"12500", b"unreachable", b"1500", 4)
    assert sensor.read() == Reading(12.5, Sensor.UNREACHABLE, 1.5)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((b"1", b"nominal", b"x"), ValueError("Could not parse value 'b'x'' as integer.")),
        ((b"x", b"nominal", b"1"), ValueError("Could not parse value 'x' as timestamp.")),
        ((b"1", b"NOMINAL", b"1"), KeyError(b"NOMINAL")),
        (
            (b"1", b"nominal", "1"),
            TypeError("Sensor value type must be bytes - not <class 'str'>"),
        ),
    ],
)
def test_formatted_readings_that_are_refused_change_nothing(arguments, error):
    sensor = Sensor.integer("n", default=7)
    before = sensor.read()
    with pytest.raises(type(error)) as raised:
        sensor.set_formatted(*arguments)
    assert str(raised.value) == str(error)
    assert sensor.read() == before


def test_what_a_sensor_list_tells():
    assert Sensor.parse_type("address") == Sensor.ADDRESS
    with pytest.raises(ValueError, match="^Invalid sensor type string xx$"):
        Sensor.parse_type("xx")
    assert Sensor.parse_params(Sensor.INTEGER, [b"1", b"2"]) == [1, 2]
    assert Sensor.parse_params(Sensor.FLOAT, [b"1", b"2"]) == [1.0, 2.0]
    assert Sensor.parse_params(Sensor.DISCRETE, (b"a", b"")) == ["a", ""]
    assert Sensor.parse_params(Sensor.TIMESTAMP, [b"1500"], 4) == [1.5]
    with pytest.raises(ValueError, match="as integer"):
        Sensor.parse_params(Sensor.INTEGER, [b"1.5"])


class Observer:
    """Notes what it is told."""

    def __init__(self):
        self.readings = []

    def update(self, sensor, reading):
        assert sensor.read() == reading
        self.readings.append(reading)


def test_observers_are_told_of_every_setting():
    sensor, observer = Sensor.integer("n"), Observer()
    sensor.attach(observer)
    sensor.attach(observer)
    sensor.set_value(5, timestamp=1)
    sensor.set_value(5, timestamp=1)
    sensor.set(2, Sensor.WARN, 6)
    sensor.set_formatted(b"3", b"error", b"7")
    sensor.detach(observer)
    sensor.detach(observer)
    sensor.set_value(8)
    assert observer.readings == [(1, 1, 5), (1, 1, 5), (2, 2, 6), (3.0, 3, 7)]


def test_an_error_of_an_observer_reaches_who_sets_the_sensor():
    class Failing:
        def update(self, sensor, reading):
            raise RuntimeError("boom")

    sensor = Sensor.integer("n")
    sensor.attach(Failing())
    with pytest.raises(RuntimeError, match="boom"):
        sensor.set_value(77)
    assert sensor.value() == 77


def test_methods_that_a_subclass_replaces_are_used():
    called = []

    class Noting(Sensor):
        def read(self):
            called.append("read")
            return super().read()

        def set(self, timestamp, status, value):
            called.append("set")
            super().set(timestamp, status, value)

        def notify(self, reading):
            called.append("notify")
            super().notify(reading)

        def parse_value(self, s_value, katcp_major=5):
            called.append(f"parse_value {katcp_major}")
            return super().parse_value(s_value, katcp_major)

        def format_reading(self, reading, major=5):
            called.append(f"format_reading {major}")
            return super().format_reading(reading, major)

    sensor = Noting.integer("n")
    assert type(sensor) is Noting
    sensor.set_value(1)
    sensor.set_formatted(b"1", b"warn", b"2", major=4)
    assert (sensor.value(), sensor.status()) == (2, Sensor.WARN)
    sensor.read_formatted(4)
    assert called == [
        *("set", "notify"),
        *("parse_value 4", "set", "notify"),
        *("read", "read", "read", "format_reading 4"),
    ]
