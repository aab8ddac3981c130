"""What types, decorators, sensors and strategies do with many values, as a table.

The program runs with katcp 0.9.3 as well as with this package, and prints the table as JSON: from
what was done to what came of it. Of errors that Python words, only the class is told.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import sys
from decimal import Decimal
from fractions import Fraction

from tornado.ioloop import IOLoop

from katcp import FailReply, KatcpSyntaxError, Message, Sensor, kattypes, sampling
from katcp.kattypes import (
    Address,
    Bool,
    Discrete,
    DiscreteMulti,
    Float,
    Int,
    Lru,
    Parameter,
    Regex,
    Str,
    StrictTimestamp,
    Struct,
    Timestamp,
    TimestampOrNow,
    inform,
    request,
    return_reply,
    send_reply,
)

TYPES = {
    "Int": Int(),
    "Int 0..10": Int(min=0, max=10),
    "Int default": Int(default=3),
    "Int optional": Int(optional=True),
    "Float": Float(),
    "Float 0..10.5": Float(min=0.0, max=10.5),
    "Bool": Bool(),
    "Str": Str(),
    "Discrete": Discrete(("abc", "5", "")),
    "Discrete folded": Discrete(("abc", "Def"), case_insensitive=True),
    "DiscreteMulti": DiscreteMulti(("abc", "5")),
    "DiscreteMulti folded": DiscreteMulti(("abc", "Def"), "All", ";", case_insensitive=True),
    "Lru": Lru(),
    "Timestamp": Timestamp(),
    "TimestampOrNow": TimestampOrNow(),
    "StrictTimestamp": StrictTimestamp(),
    "Struct": Struct(">hB"),
    "Regex": Regex("a.c"),
    "Address": Address(),
}

# Text and bytes are compared nowhere: Python with -bb forbids it.
VALUES = [
    *(None, 0, 1, -1, 5, 2**70, True, False, 1.5, 1.0, -0.0, 1e17, 1e-7, 0.0005, 12.3456789),
    *(1234567890.1234567, 1222180721.5, 1.001, math.nan, math.inf, Decimal("1.5"), Fraction(3, 2)),
    *(
        "",
        "abc",
        "5",
        "ABC",
        "def",
        "aXc",
        "nominal",
        "\u00e9",
        "\udcff",
        [],
        ["abc"],
        ["5", "abc"],
    ),
    *(["abc", "x"], (1, 2), ("a",), {}, 1j, ("10.0.0.1", 80), ("10.0.0.1", None)),
    *(("::1", 80), ("::1", None), ("localhost", 80), (b"h", 1), ("a", "b"), ("h", 70000)),
    *(bytearray(b"5"), object),
]
BYTES = [b"abc", b"5", b"\xff"]
BYTES_ARE_TAKEN = ("Int", "Float", "Bool", "Str", "Timestamp", "StrictTimestamp", "Struct")

WIRE = [
    *(None, b"", b"0", b"1", b"5", b"-1", b"+5", b"007", b"1.0", b"1.5", b"-1.5", b"1e3", b"1e-05"),
    *(b"1_000", b" 1", b"1 ", b"1\n", b"0x10", b"--1", b"one", b"\xd9\xa1", b"inf", b"-inf"),
    *(b"nan", b"NaN", b"Infinity", b".5", b"5.", b"1e400", b"1222180721.213", b"1222180721213"),
    *(b"true", b"2", b"abc", b"ABC", b"def", b"aXc", b"xabc", b"abcd", b"\xff", b"\xc3\xa9"),
    *(b"nominal", b"error", b"NOMINAL", b"now", b"NOW", b"all", b"All", b"ALL", b"abc,5"),
    *(b"5, abc", b"abc,abc", b"abc,x", b"abc;def", b"DEF;abc", b",", b"\0\1\2", b"\0\1"),
    *(b"127.0.0.1", b"127.0.0.1:80", b"[::1]", b"[::1]:80", b"::1", b"1.2.3.4:", b"1.2.3.4:x"),
    *(b"1.2.3.4:70000", b"[::1", b"[::1]80", b"1.2.3", b"256.0.0.1", b"localhost:80"),
    *(b"[127.0.0.1]:80", b"[::1]:080", b"[2001:0db8::1]", b"[]", b"1.2.3.4:80\n", "5", 5, 1.5),
]


def outcome(function, *args):
    """Return what came of a call, as text."""
    try:
        result = function(*args)
    except (FailReply, KatcpSyntaxError, ValueError) as error:
        if isinstance(error, UnicodeError):
            return type(error).__name__
        return f"{type(error).__name__}: {error}"
    except Exception as error:
        return type(error).__name__
    if result is TimestampOrNow.NOW:
        return "NOW"
    return str(result) if isinstance(result, Message) else repr(result)


def types():
    """Yield what the types do."""
    for (name, kattype), major in itertools.product(TYPES.items(), (4, 5)):
        values = VALUES + (BYTES if name in BYTES_ARE_TAKEN else [])
        for value in values:
            label = value.__name__ if isinstance(value, type) else repr(value)
            yield f"{name} pack {major} {label}", kattype.pack, value, False, major
        for data in WIRE:
            if isinstance(data, bytes) or name in ("Int", "Float", "Timestamp", "Str", "Struct"):
                yield f"{name} unpack {major} {data!r}", kattype.unpack, data, major
    for name, kattype in TYPES.items():
        yield f"{name} get_default", kattype.get_default
        yield f"{name} name", getattr, kattype, "name"
    yield "TimestampOrNow pack NOW", TimestampOrNow().pack, TimestampOrNow.NOW
    yield "Parameter pack 4", Parameter(1, "t", Timestamp(), 4).pack, 1.5
    yield "Parameter unpack", Parameter(1, "t", Int(), 5).unpack, b"x"


class Device:
    """Handlers in several forms."""

    @request(Int(min=1), Str(default="d"), Float(optional=True))
    def request_foo(self, req, i, s, f):
        return req, i, s, f

    @request(Str(), Int(multiple=True))
    @return_reply(Str(), Int(multiple=True))
    def request_many(self, req, s, *numbers):
        return ("ok", s, *numbers)

    @request(Timestamp(), include_msg=True, major=4)
    @return_reply(Timestamp(), major=4)
    def request_when(self, req, msg, when):
        return "ok", when

    @return_reply(Int(min=5), Str(optional=True))
    def request_raw(self, req, result):
        return result

    @inform(Int(), Str())
    def inform_foo(self, i, s):
        return i, s

    @send_reply(Int())
    def reply_later(self, *result):
        return result


class Request:
    """As much of a request object as is used."""

    msg = Message.request("foo", mid=3)

    def reply_with_message(self, msg):
        self.sent = str(msg)


def decorators():
    """Yield what decorated handlers do."""
    device = Device()
    for arguments in [(), (0,), ("x",), (5,), (5, "a"), (5, "a", 1.5), (5, "a", "z"), (5, 1, 1, 1)]:
        msg = Message.request("foo", *arguments)
        yield f"request {arguments}", device.request_foo, "req", msg
        yield f"inform {arguments}", device.inform_foo, msg
        yield f"many {arguments}", device.request_many, "req", msg
        yield f"when {arguments}", device.request_when, "req", msg
    for result in [
        *(("ok", 5, "x"), ["ok", 5, "x"], ("ok", 5), ("ok", 4, "x"), ("ok", "z", "x"), ("ok",)),
        *(("ok", 5, "x", "y"), ("fail", "why"), ("fail", 5), ("fail",), ("fail", 1, 2), ()),
        *(("invalid", "why"), ("OK", 5, "x"), "ok", "fail", None, 5),
    ]:
        yield f"return_reply {result!r}", device.request_raw, None, result
        yield f"make_reply {result!r}", kattypes.make_reply, "a-b", (Int(),), result, 5
        if isinstance(result, (tuple, list)):
            yield f"send_reply {result!r}", send, device, result
    lists = {"one": [Int()], "many": [Int(), Int(multiple=True)], "default": [Int(default=7)]}
    for (label, kattypes_), args in itertools.product(
        [*lists.items(), ("none", [])], [(), (1,), (1, 2), (1, 2, 3), ("x",)]
    ):
        data = [str(arg).encode() for arg in args]
        yield f"pack_types {label} {args}", kattypes.pack_types, kattypes_, args, 5
        yield f"unpack_types {label} {args}", kattypes.unpack_types, kattypes_, data, ["i"], 5
    for name in ("request", "inform", "return_reply", "send_reply"):
        decorator = getattr(kattypes, name)
        yield f"{name} with an unknown option", functools.partial(decorator, Int(), foo=1)
        if name != "send_reply":
            yield f"{name} with many in between", decorator, Int(multiple=True), Str()
    yield "return_reply of a callback", return_reply(Int()), decorators


def send(device, result):
    """Return the reply that is sent."""
    req = Request()
    device.reply_later(req, *result)
    return req.sent


def read(sensor):
    """Return a reading without the time of construction."""
    timestamp, status, value = sensor.read()
    return "now" if timestamp > 1e9 else timestamp, status, value


def described(make, *args):
    """Return all that a new sensor says of itself."""
    sensor = make(*args)
    names = ("name", "type", "stype", "description", "units", "params", "formatted_params")
    return [getattr(sensor, name) for name in names], read(sensor)


def make_sensor(kind):
    """Return a sensor of a type."""
    options = {"params": ["a", "b"]} if kind == "discrete" else {}
    return getattr(Sensor, kind)("n", **options)


def set_value(kind, value):
    """Return what a sensor shows after its value was set."""
    sensor = make_sensor(kind)
    sensor.set_value(value, Sensor.WARN, 12.5)
    return read(sensor), sensor.value(), sensor.status()


def set_and_format(kind, value, major):
    """Return what a sensor with a reading sends."""
    sensor = make_sensor(kind)
    sensor.set(12.5, Sensor.ERROR, value)
    return sensor.read_formatted(major)


def set_formatted(kind, *args):
    """Return what a sensor shows after it was sent a reading."""
    sensor = make_sensor(kind)
    sensor.set_formatted(b"12.5", *args)
    return read(sensor)


def sensors():
    """Yield what sensors do."""
    kinds = ["integer", "float", "boolean", "lru", "discrete", "string", "timestamp", "address"]

    for kind in [*range(9), *kinds, int, float, str, bool, bytes, None]:
        label = kind.__name__ if isinstance(kind, type) else kind
        yield f"Sensor({label})", described, Sensor, kind, "n"
    for kind, options in [
        *(
            ("integer", {"params": params})
            for params in ([1, 10], [-5, 10], [10, 1], (3,), [1.5, 2])
        ),
        *(("integer", {"params": params}) for params in ([1, 10, 0, 20], [None, 5], ["1", "2"])),
        *(("integer", {"default": default}) for default in (5, 0, "x", 1.5)),
        *(("float", {"params": params}) for params in ([0.5, 10], [-5, 10], [-5.0, -1.0])),
        *(("discrete", {"params": params}) for params in (["a"], [b"a"], "ab", [], [1])),
        *(("discrete", {"params": ["a", "b"], "default": default}) for default in ("b", "x")),
        *(("string", {"unit": unit}) for unit in ("", None, "m", b"m", 5)),
        *(("lru", {"description": description}) for description in ("", "d", b"d", 5)),
        *(("boolean", {"initial_status": status}) for status in (0, 1, 99)),
        ("string", {"params": ["a"]}),
    ]:
        make = functools.partial(getattr(Sensor, kind), **options)
        yield f"Sensor.{kind}({options})", described, make, "n"
    for kind, value in itertools.product(
        kinds, (5, -1, 1.5, "x", "a", True, None, ("::1", 5), [1])
    ):
        yield f"{kind} set_value {value!r}", set_value, kind, value
        for major in (4, 5):
            yield f"{kind} read_formatted {value!r} {major}", set_and_format, kind, value, major
    data = [b"", b"5", b"1.5", b"1_0", b"x", b"a", b"nominal", b"[::1]:5", b"localhost:5", b"\xff"]
    for kind, value, major in itertools.product(kinds, data, (4, 5)):
        yield f"{kind} parse_value {value!r} {major}", make_sensor(kind).parse_value, value, major
        for status in (b"nominal", b"failure", b"unheard-of"):
            label = f"{kind} {status!r} {value!r} {major}"
            yield label, set_formatted, kind, status, value, major
    for kind in range(9):
        for params in ([], [b"1", b"10"], [b"a", b"b"], (b"1.5", b"2"), [b"1_0"], [b"\xff"]):
            for major in (4, 5):
                label = f"parse_params {kind} {params} {major}"
                yield label, Sensor.parse_params, kind, params, major
    for text in [*kinds, "INTEGER", "xx", "", None]:
        yield f"parse_type {text}", Sensor.parse_type, text
    yield "parse_value of text", Sensor.integer("n").parse_value, "5"


def strategies():
    """Yield what strategies make of their parameters."""
    ioloop = IOLoop()

    def sample(kind, name, params):
        sensor = getattr(Sensor, kind)("n")
        strategy = sampling.SampleStrategy.get_strategy(
            name, lambda sensor, reading: None, sensor, *params, ioloop=ioloop
        )
        return type(strategy).__name__, strategy.get_sampling(), strategy.get_sampling_formatted()

    names = ["none", "auto", "period", "event", "differential", "event-rate", "differential-rate"]
    numbers = [b"0", b"-1", b"0.5", b"2", b"x", b"nan", b"inf", b"1_0", b" 1", 3, 0.25, "1.5"]
    for kind, name in itertools.product(
        ("integer", "float", "timestamp", "string"), [*names, "xx"]
    ):
        for params in [(), (b"5",), (b"1", b"5"), (b"3", b"1", b"5")]:
            yield f"sample {kind} {name} {params}", sample, kind, name, params
    for number in numbers:
        for kind, name in [
            *(("string", "period"), ("integer", "differential"), ("float", "differential")),
        ]:
            yield f"sample {kind} {name} {number!r}", sample, kind, name, (number,)
        for periods in [(number, 5), (0, number), (number, number)]:
            yield f"sample event-rate {periods}", sample, "string", "event-rate", periods
        params = (number, 1, 2)
        yield f"sample differential-rate {params}", sample, "float", "differential-rate", params
    for major in (4, 5):
        function = getattr(sampling, f"format_inform_v{major}")
        yield f"format_inform {major}", function, Sensor.timestamp("n"), 1.5, 4, 3.25
    ioloop.close()


def observe():
    """Return the table."""
    table = {}
    for label, *call in itertools.chain(types(), decorators(), sensors(), strategies()):
        table[label] = outcome(*call)
    return table


if __name__ == "__main__":
    json.dump(observe(), sys.stdout)
