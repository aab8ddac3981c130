"""NumPy's numbers go out by value, never by their debug text; arrays are refused."""

import math

import numpy as np
import pytest

from katcp import KatcpTypeError, Message, MessageParser, Sensor
from katcp.kattypes import Address, Bool, Discrete, Float, Int, Lru, Str, StrictTimestamp, Timestamp


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (np.bool_(True), b"1"),
        (np.bool_(False), b"0"),
        (np.int8(-128), b"-128"),
        (np.uint8(255), b"255"),
        (np.int16(-5), b"-5"),
        (np.uint32(2**32 - 1), b"4294967295"),
        (np.int64(-(2**63)), b"-9223372036854775808"),
        (np.uint64(2**64 - 1), b"18446744073709551615"),
        (np.float16(0.5), b"0.5"),
        (np.float32(1.5), b"1.5"),
        (np.float64(1.5), b"1.5"),
        (np.float64(0.1), b"0.1"),
        (np.float64(1e300), b"1e+300"),
        (np.float64(math.inf), b"inf"),
        (np.float32(-math.inf), b"-inf"),
        (np.float64(math.nan), b"nan"),
        (np.longdouble(2.5), b"2.5"),
        (np.complex64(3 + 4j), b"3+4j"),
        (np.complex128(1.5 - 0.5j), b"1.5-0.5j"),
        (np.str_("d\u00e9j\u00e0 vu"), "d\u00e9j\u00e0 vu".encode()),
        (np.bytes_(b"\x01\xff"), b"\x01\xff"),
        (np.datetime64("2020-01-02"), b"2020-01-02"),
        (np.array(7), b"7"),
        (np.array(1.5, dtype=np.float32), b"1.5"),
        (np.array(True), b"1"),
        (np.array("text"), b"text"),
        (np.array([4, 5, 6])[1], b"5"),
    ],
    ids=lambda value: f"{value.dtype}" if hasattr(value, "dtype") else "",
)
def test_a_value_is_sent_as_a_value(value, wire):
    msg = Message.request("foo", value)
    assert msg.arguments == [wire]
    assert MessageParser().parse(bytes(msg)) == msg


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_float_reads_back_as_the_same_value(kind):
    for value in (kind(0.1), kind(1) / kind(3), np.finfo(kind).max, np.finfo(kind).tiny):
        assert kind(float(Message.request("foo", value).arguments[0])) == value


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3),
        np.zeros(1),
        np.zeros(0),
        np.zeros((2, 3)),
        np.array(["a", "b"]),
        np.ma.masked_array([1, 2], mask=[True, False]),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_an_array_is_not_one_argument(array):
    with pytest.raises(KatcpTypeError) as raised:
        Message.request("foo", array)
    assert str(raised.value) == (
        f"An array of shape {array.shape} is not one argument: pass its values with *array, "
        "or its memory with array.tobytes()."
    )


def test_what_the_error_advises_works():
    array = np.array([1, 2, 258], dtype=">u2")
    assert Message.request("foo", *array).arguments == [b"1", b"2", b"258"]
    assert Message.request("foo", array.tobytes()).arguments == [b"\0\1\0\2\1\2"]
    assert Message(Message.REQUEST, "foo", array).arguments == [b"1", b"2", b"258"]
    assert Message.request("foo", memoryview(array)).arguments == [b"\0\1\0\2\1\2"]


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64])
def test_an_integer_is_an_id(kind):
    assert bytes(Message.request("foo", mid=kind(5))) == b"?foo[5]"


# ---- types and sensors ----


@pytest.mark.parametrize(
    ("kattype", "value", "wire"),
    [
        (Int(), np.int8(-128), b"-128"),
        (Int(), np.uint64(2**64 - 1), b"18446744073709551615"),
        (Int(), np.array(7), b"7"),
        (Int(), np.bool_(True), b"1"),
        (Int(min=0, max=5), np.int64(5), b"5"),
        (Float(), np.float16(0.5), b"0.5"),
        (Float(), np.float32(1.5), b"1.5"),
        (Float(), np.float64(0.1), b"0.1"),
        (Float(), np.float64(math.inf), b"inf"),
        (Float(), np.longdouble(2.5), b"2.5"),
        (Float(), np.int32(3), b"3.0"),
        (Float(), np.bool_(True), b"1.0"),
        (Float(), np.array(1.5), b"1.5"),
        (Float(max=2.0), np.float64(1.5), b"1.5"),
        (Bool(), np.bool_(False), b"0"),
        (Bool(), np.int64(3), b"1"),
        (Str(), np.str_("on"), b"on"),
        (Str(), np.bytes_(b"\xff"), b"\xff"),
        (Str(), np.float64(1.5), b"1.5"),
        (Str(), np.array("on"), b"on"),
        (Discrete(("on", "off")), np.str_("on"), b"on"),
        (Lru(), np.int64(1), b"error"),
        (Timestamp(), np.float64(1.5), b"1.500000"),
        (Timestamp(), np.array(2), b"2.000000"),
        (StrictTimestamp(), np.float64(1.5), b"1.5"),
        (Address(), ("h", np.uint16(80)), b"h:80"),
    ],
    ids=lambda value: getattr(value, "name", f"{getattr(value, 'dtype', '')}"),
)
def test_types_pack_values(kattype, value, wire):
    assert kattype.pack(value) == wire


@pytest.mark.parametrize("kattype", [Int(), Float(), Str(), Timestamp(), StrictTimestamp()])
def test_types_pack_no_arrays(kattype):
    with pytest.raises((TypeError, ValueError)):
        kattype.pack(np.arange(3.0))


def test_sensors_hold_values():
    sensor = Sensor.float("n", params=[np.float64(0.5), np.float32(1.5)])
    assert sensor.formatted_params == [b"0.5", b"1.5"]
    sensor.set_value(np.float64(0.1), timestamp=np.float64(2.5))
    assert sensor.read_formatted() == (b"2.500000", b"nominal", b"0.1")
    assert repr(Sensor.integer("n", default=np.int64(5)).value() + 1) == repr(np.int64(6))
