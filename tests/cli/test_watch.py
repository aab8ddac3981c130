"""``katcp watch``, but for the live table: that is tried in tests/cli."""

import contextlib
import json
import math
import sys
import time

import pytest

from katcp import Message, cli
from katcp.cli.readings import Description, Reading
from katcp.cli.watch import command as cli_watch
from katcp.cli.watch.outputs import ASCII_PLOT_LEVELS, PLOT_LEVELS, WatchedSensor, json_value, plot
from katcp.simdevice import Sensor
from tests.support.helpers import TestDevice
from tests.support.process import KatcpProcess

LOST = "katcp: the connection is lost; trying to connect again\n"
START = 1700000000.0


def make_sensors():
    return [
        Sensor("rack10.temp", "float", "", "degC", value=20.5, timestamp=START),
        Sensor("rack2.temp", "float", "", "degC", value=-3.25, timestamp=START),
        Sensor("label", "string", value="two words", timestamp=START),
        Sensor("enabled", "boolean", value=True, timestamp=START),
        Sensor("since", "timestamp", value=START, timestamp=START),
        Sensor("count", "integer", value=5, timestamp=START),
    ]


@pytest.fixture
def observatory():
    with TestDevice(sensors=make_sensors()) as device:
        yield device


@pytest.fixture(params=["5.1-MIB", "5.0-M", "4"])
def any_observatory(request):
    with TestDevice(protocol=request.param, sensors=make_sensors()) as device:
        yield device


@contextlib.contextmanager
def watch(device, *arguments):
    host, port = device.address
    with KatcpProcess("watch", f"{host}:{port}", *arguments) as process:
        yield process


def watch_in_process(device, *arguments):
    host, port = device.address
    return cli.main(["watch", f"{host}:{port}", *arguments])


def strategies(device):
    """Return what was asked of the device: names and strategies."""
    return [
        b" ".join(request.arguments).decode()
        for request in device.received_requests("sensor-sampling")
    ]


def test_lines(any_observatory):
    with watch(any_observatory, "count", "rack*") as process:
        assert [process.line() for _ in range(3)] == [
            "2023-11-14 22:13:20.000Z  count        nominal  5\n",
            "2023-11-14 22:13:20.000Z  rack2.temp   nominal  -3.25  degC\n",
            "2023-11-14 22:13:20.000Z  rack10.temp  nominal  20.5  degC\n",
        ]
        any_observatory.set_sensor("count", 6, "error", timestamp=START + 1.5)
        assert process.line() == "2023-11-14 22:13:21.500Z  count        error    6\n"
        process.interrupt()
        assert process.end() == (130, "", "")
    names = ["count", "rack2.temp", "rack10.temp"]
    expected = [f"{name} event" for name in names] + [f"{name} none" for name in names]
    assert strategies(any_observatory) == expected


def test_csv(any_observatory):
    with watch(any_observatory, "rack2.temp", "since", "--csv") as process:
        assert process.line() == "timestamp,name,status,value,units\n"
        assert process.line() == "1700000000.000000,rack2.temp,nominal,-3.25,degC\n"
        line = process.line()
        assert line.startswith("1700000000.000000,since,nominal,1700000000")
        any_observatory.set_sensor("rack2.temp", 7.0, timestamp=START + 2.25)
        assert process.line() == "1700000002.250000,rack2.temp,nominal,7.0,degC\n"


def test_jsonl(observatory):
    with watch(observatory, "count", "enabled", "label", "--jsonl") as process:
        records = [json.loads(process.line()) for _ in range(3)]
    assert records == [
        {"timestamp": START, "name": name, "status": "nominal", "value": value, "units": ""}
        for name, value in [("count", 5), ("enabled", True), ("label", "two words")]
    ]


@pytest.mark.parametrize(("protocol", "period"), [("5.1-MIB", b"0.25"), ("4", b"250")])
def test_period(protocol, period):
    with TestDevice(protocol=protocol, sensors=make_sensors()) as device:
        with watch(device, "count", "--period", "0.25") as process:
            lines = {process.line() for _ in range(3)}
        assert lines == {"2023-11-14 22:13:20.000Z  count  nominal  5\n"}
        request = device.received_requests("sensor-sampling")[0]
    assert request.arguments == [b"count", b"period", period]


def test_lost_connection(any_observatory):
    """The sampling is set up again, and the present reading is shown."""
    with watch(any_observatory, "count") as process:
        process.line()
        any_observatory.close_clients()
        assert [process.error_line() for _ in range(2)] == [LOST, "katcp: connected again\n"]
        assert process.line() == "2023-11-14 22:13:20.000Z  count  nominal  5\n"
        any_observatory.set_sensor("count", 7, timestamp=START)
        line = process.line()
        while line.endswith("nominal  5\n"):
            line = process.line()  # asked for, and told by the device, too
        assert line == "2023-11-14 22:13:20.000Z  count  nominal  7\n"


def test_sensor_that_has_gone_with_the_connection(observatory):
    with watch(observatory, "count") as process:
        process.line()
        observatory.remove_sensor("count")
        observatory.close_clients()
        assert [process.error_line() for _ in range(2)] == [LOST, "katcp: connected again\n"]
        assert process.error_line().startswith("katcp: ?sensor-sampling: ")


def refuse_event(device):
    """Let the device know the strategies none and auto only."""
    asked = []

    @device.request("sensor-sampling")
    def sensor_sampling(request, *arguments):
        """Be as simple as a device may be."""
        asked.append(arguments)
        if arguments[1:] not in [(b"auto",), (b"none",)]:
            return "fail", "no such strategy"
        return ("ok", *arguments)

    return asked


def test_device_without_event(observatory):
    asked = refuse_event(observatory)
    with watch(observatory, "count") as process:
        assert process.line() == "2023-11-14 22:13:20.000Z  count  nominal  5\n"
        process.interrupt()
        assert process.end() == (130, "", "")
    assert asked == [(b"count", b"event"), (b"count", b"auto"), (b"count", b"none")]


@pytest.mark.parametrize("option", [["--event"], ["--period", "1"]], ids=lambda option: option[0])
def test_strategy_that_is_refused(option, observatory, capsys):
    refuse_event(observatory)
    assert watch_in_process(observatory, "count", *option) == 1
    assert capsys.readouterr().err == "katcp: ?sensor-sampling: no such strategy\n"


@pytest.mark.parametrize("name", ["count*x", "x*"])
def test_no_such_sensors(name, observatory, capsys):
    assert watch_in_process(observatory, name) == 1
    assert capsys.readouterr().err == f"katcp: no such sensor: {name}\n"


def test_no_such_sensor(observatory, capsys):
    assert watch_in_process(observatory, "coun") == 1
    assert capsys.readouterr().err.startswith("katcp: ?sensor-list: ")


def test_device_that_takes_names_as_prefixes(capsys):
    with TestDevice(sensors=make_sensors(), faults=["prefix-matching"]) as device:
        assert watch_in_process(device, "coun") == 1
        assert capsys.readouterr().err == "katcp: no such sensor: coun\n"


def test_device_that_is_gone_at_the_end(observatory):
    with watch(observatory, "count") as process:
        process.line()
        observatory.stop()
        assert process.error_line() == LOST
        process.interrupt()
        code, output, _ = process.end()
        assert (code, output) == (130, "")


def test_device_that_says_nothing_at_the_end(observatory):
    with watch(observatory, "count") as process:
        process.line()
        observatory.faults = ["no-reply"]
        began = time.monotonic()
        process.interrupt()
        assert process.end() == (130, "", "")
        assert time.monotonic() - began >= cli_watch.PARTING_PATIENCE
    assert strategies(observatory) == ["count event", "count none"]


def test_reader_goes_away(observatory):
    with watch(observatory, "count") as process:
        process.line()
        process.close_output()
        observatory.set_sensor("count", 6)
        assert process.end() == (1, "", "")
    assert strategies(observatory)[-1] == "count none"


def test_updates_that_are_odd(observatory):
    """Of other sensors, malformed, or not UTF-8: no reason to fail."""
    with watch(observatory, "label", "--csv") as process:
        assert process.line().startswith("timestamp")
        process.line()
        for arguments in (
            (START, 1, "other", "nominal", 1),
            (START, 2, "label", "nominal", "half"),
            (),
            ("never", 1, "label", b"\xff", b"\xfe\x1b,\n"),
        ):
            observatory.inform(Message.inform("sensor-status", *arguments))
        assert process.line() == ',label,\\xff,"\\xfe\\x1b,\\n",\n'


@pytest.mark.parametrize(
    ("sensor_type", "status", "value", "result"),
    [
        ("integer", "nominal", b"-12", -12),
        ("integer", "nominal", b"1.5", "1.5"),
        ("integer", "nominal", b"9" * 5000, "9" * 5000),
        ("float", "error", b"1e3", 1000.0),
        ("float", "nominal", b"nan", "nan"),
        ("float", "failure", b"1.5", "1.5"),
        ("boolean", "nominal", b"0", False),
        ("boolean", "nominal", b"yes", "yes"),
        ("string", "nominal", b"1", "1"),
        ("string", "nominal", b"\xff", "\\xff"),
    ],
)
def test_values_in_json(sensor_type, status, value, result):
    found = json_value(Reading(b"a", 0.0, status, value), sensor_type)
    assert (found, type(found)) == (result, type(result))


@pytest.mark.parametrize(
    ("numbers", "width", "levels", "text"),
    [
        (range(8), 8, PLOT_LEVELS, "▁▂▃▄▅▆▇█"),
        (range(8), 8, ASCII_PLOT_LEVELS, "_.-=+*%#"),
        (range(100), 3, PLOT_LEVELS, "▁▅█"),
        ([5, 5, 5], 8, PLOT_LEVELS, "▁▁▁"),
        ([0, math.nan, 7, math.inf], 8, PLOT_LEVELS, "▁ █ "),
        ([-1.7e308, 0, 1.7e308], 8, PLOT_LEVELS, "▁▅█"),
        ([math.nan], 8, PLOT_LEVELS, " "),
        ([], 8, PLOT_LEVELS, ""),
        ([1, 2], 0, PLOT_LEVELS, ""),
    ],
)
def test_plot(numbers, width, levels, text):
    assert plot(numbers, width, levels) == text


def test_numbers_of_a_sensor():
    sensor = WatchedSensor(Description(b"a", "", "float"))
    for status, value in [("nominal", b"1"), ("failure", b"2"), ("warn", b"x"), ("error", b"3")]:
        sensor.update(Reading(b"a", START, status, value), None)
    assert [number for number in sensor.numbers if not math.isnan(number)] == [1, 3]
    assert len(sensor.numbers) == 4


def test_terminal_without_rich(observatory, capsys, monkeypatch):
    """There are lines, and a line that says what to install."""
    monkeypatch.setattr(cli_watch, "is_terminal", lambda stream: True)
    monkeypatch.setitem(sys.modules, "katcp.cli.watch.table", None)
    monkeypatch.setattr(cli_watch._Watch, "run", lambda watch, output: print(type(output).__name__))
    assert watch_in_process(observatory, "count") == 130
    assert capsys.readouterr() == (
        "LineOutput\n",
        "katcp: for a live table: pip install 'katcp[cli]'\n",
    )
