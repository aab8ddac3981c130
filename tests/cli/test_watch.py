"""``katcp watch``, but for the live table: that is tried in tests/terminal."""

import contextlib
import json
import math
import subprocess
import sys
import types

import pytest

from katcp import Message, Reading, Status, cli
from katcp.cli.watch import command as cli_watch
from katcp.cli.watch.outputs import Output
from katcp.cli.watch.plot import ASCII_LEVELS, LEVELS, plot
from katcp.cli.watch.sampling import WatchedSensor
from katcp.simdevice import Sensor
from tests.support.helpers import PATIENCE, TestDevice
from tests.support.process import ENVIRONMENT, KatcpProcess

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


def lost(device):
    where = "{}:{}".format(*device.address)
    return [
        f"katcp: {where}: connection lost; reconnecting\n",
        f"katcp: {where}: connected again\n",
    ]


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
        f"{name} {b' '.join(rest).decode()}"
        for request in device.received_requests("sensor-sampling")
        for names, *rest in [request.arguments]
        for name in names.decode().split(",")
    ]


def test_lines(any_observatory):
    with watch(any_observatory, "rack*", "count") as process:
        assert {process.line() for _ in range(3)} == {
            "2023-11-14 22:13:20.000Z  count        nominal  5\n",
            "2023-11-14 22:13:20.000Z  rack2.temp   nominal  -3.25  degC\n",
            "2023-11-14 22:13:20.000Z  rack10.temp  nominal  20.5  degC\n",
        }
        any_observatory.set_sensor("count", 6, "error", timestamp=START + 1.5)
        assert process.line() == "2023-11-14 22:13:21.500Z  count        error    6\n"
        process.interrupt()
        assert process.end() == (130, "", "")
    names = ["count", "rack2.temp", "rack10.temp"]
    assert sorted(strategies(any_observatory)) == sorted(f"{name} event" for name in names)


def test_csv(any_observatory):
    with watch(any_observatory, "rack2.temp", "since", "-o", "csv") as process:
        assert process.line() == "timestamp,name,status,value,units\n"
        assert {process.line() for _ in range(2)} == {
            "1700000000.0,rack2.temp,nominal,-3.25,degC\n",
            "1700000000.0,since,nominal,1700000000.0,\n",
        }
        any_observatory.set_sensor("rack2.temp", 7.0, timestamp=START + 2.25)
        assert process.line() == "1700000002.25,rack2.temp,nominal,7.0,degC\n"


def test_jsonl(observatory):
    with watch(observatory, "count", "enabled", "label", "-o", "jsonl") as process:
        records = [json.loads(process.line()) for _ in range(3)]
    assert sorted(records, key=lambda record: record["name"]) == [
        {"timestamp": START, "name": name, "status": "nominal", "value": value, "units": ""}
        for name, value in [("count", 5), ("enabled", True), ("label", "two words")]
    ]


@pytest.mark.parametrize(("protocol", "period"), [("5.1-MIB", 0.25), ("4", 250)])
def test_period(protocol, period):
    with TestDevice(protocol=protocol, sensors=make_sensors()) as device:
        with watch(device, "count", "--period", "0.25") as process:
            lines = {process.line() for _ in range(3)}
        assert lines == {"2023-11-14 22:13:20.000Z  count  nominal  5\n"}
        request = device.received_requests("sensor-sampling")[0]
    assert request.arguments[:2] == [b"count", b"period"]
    assert float(request.arguments[2]) == period


def test_lost_connection(any_observatory):
    """The sensor is unreachable meanwhile, and the sampling is set up again."""
    with watch(any_observatory, "count") as process:
        assert process.line().endswith("nominal  5\n")
        any_observatory.wait_until(lambda: strategies(any_observatory))
        any_observatory.close_clients()
        assert process.line().split()[3:] == ["unreachable", "5"]
        assert [process.error_line() for _ in range(2)] == lost(any_observatory)
        assert process.line().endswith("nominal  5\n")
        any_observatory.wait_until(lambda: strategies(any_observatory)[1:] == ["count event"])
        any_observatory.set_sensor("count", 7, timestamp=START)
        assert process.line().endswith("nominal  7\n")


def test_sensor_that_has_gone_for_a_while(observatory):
    with watch(observatory, "count") as process:
        process.line()
        observatory.wait_until(lambda: strategies(observatory))
        observatory.remove_sensor("count")
        assert process.error_line().endswith("sensor count: the device does not have it any more\n")
        assert process.line().split()[3:] == ["unreachable", "5"]
        observatory.add_sensor(Sensor("count", "integer", value=8, timestamp=START))
        assert process.line().endswith("nominal  8\n")


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
        observatory.wait_until(lambda: (b"count", b"auto") in asked)
        observatory.inform(Message.inform("sensor-status", START, 1, "count", "nominal", 5))
        assert process.line() == "2023-11-14 22:13:20.000Z  count  nominal  5\n"
        process.interrupt()
        assert process.end() == (130, "", "")
    assert asked == [(b"count", b"event"), (b"count", b"auto")]


@pytest.mark.parametrize("option", [["--event"], ["--period", "1"]], ids=lambda option: option[0])
def test_strategy_that_is_refused(option, observatory, capsys):
    refuse_event(observatory)
    assert watch_in_process(observatory, "count", *option) == 1
    assert capsys.readouterr().err.endswith(": no such strategy\n")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("count*x", "; did you mean count?"), ("x*", ""), ("labl", "; did you mean label?")],
)
def test_no_such_sensor(name, hint, observatory, capsys):
    assert watch_in_process(observatory, name) == 1
    where = "{}:{}".format(*observatory.address)
    assert capsys.readouterr().err == f"katcp: {where}: no sensor matches {name!r}{hint}\n"


def test_part_of_names(observatory):
    with watch(observatory, "temp") as process:
        assert {process.line().split()[2] for _ in range(2)} == {"rack2.temp", "rack10.temp"}


def test_all_sensors(observatory):
    with watch(observatory) as process:
        found = {process.line().split()[2] for _ in range(6)}
    assert found == {sensor.name for sensor in make_sensors()}


def test_sensors_that_come_later(observatory):
    """The device says that it has another one."""
    with watch(observatory, "count", "late*") as process:
        process.line()
        observatory.wait_until(lambda: strategies(observatory))
        observatory.add_sensor(Sensor("later", "integer", value=1, timestamp=START))
        assert process.line().split()[2:] == ["later", "nominal", "1"]


def test_many_sensors_that_come_later(observatory):
    """All are not listed again for each."""
    with watch(observatory, "count", "later*") as process:
        process.line()
        for number in range(200):
            observatory.add_sensor(Sensor(f"later-{number}", "integer", value=number))
        names = {process.line().split()[2] for _ in range(200)}
        observatory.wait_until(lambda: len(set(strategies(observatory))) == 201)
    assert len(names) == 200
    listed = [request.arguments for request in observatory.received_requests("sensor-list")]
    assert listed.count([]) == 1


def test_several_devices(observatory, refused_address):
    with TestDevice(sensors=[Sensor("count", "integer", value=1, timestamp=START)]) as other:
        addresses = (observatory.address, other.address, refused_address)
        names = ["{}:{}".format(*address[:2]) for address in addresses]
        with KatcpProcess("watch", *names, "count", "-o", "jsonl") as process:
            found = sorted(
                (record["device"], record["value"])
                for record in [json.loads(process.line()) for _ in range(2)]
            )
            error = process.error_line()
    assert found == sorted([(names[0], 5), (names[1], 1)])
    assert error == f"katcp: cannot connect to {names[2]}: Connection refused; trying again\n"


def test_full_disk(observatory):
    """One line says so."""
    with (
        open("/dev/full", "w") as full,
        subprocess.Popen(
            [sys.executable, "-m", "katcp", "watch", "{}:{}".format(*observatory.address)],
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        errors = process.communicate(timeout=PATIENCE)[1]
    assert (process.returncode, errors) == (
        1,
        "katcp: cannot write the output: No space left on device\n",
    )


def test_many_sensors(capsys):
    """Sampled together where the device takes that, and never one after the other."""
    sensors = [Sensor(f"s{number}", "integer", value=number) for number in range(3000)]
    for protocol in ("5.1-MIB", "5.0-MI", "4"):
        with (
            TestDevice(sensors=sensors, protocol=protocol) as device,
            watch(device, "-o", "csv") as process,
        ):
            process.line()
            values = [process.line().split(",")[3] for _ in sensors]
            requests = device.received_requests("sensor-sampling")
            process.interrupt()
            code, _, errors = process.end()
        assert sorted(values, key=int) == [str(number) for number in range(3000)]
        assert len(requests) == (6 if "B" in protocol else 3000)
        assert (code, errors) == (130, "")


def test_sensor_that_cannot_be_sampled_with_others(observatory):
    """The others are sampled nevertheless."""

    @observatory.request("sensor-sampling")
    def sensor_sampling(request, names, *strategy):
        """Refuse one."""
        return ("fail", "not label") if b"label" in names else ("ok", names, *strategy)

    with watch(observatory, "count", "label") as process:
        assert process.error_line().endswith(
            " sensor label cannot be sampled with 'auto': not label\n"
        )
    assert {"count event", "label event", "label auto"} < set(strategies(observatory))


@pytest.mark.parametrize("fault", ["no-reply", None])
def test_device_that_is_gone_or_silent_at_the_end(fault, observatory):
    with watch(observatory, "count") as process:
        process.line()
        if fault is None:
            observatory.stop()
            assert process.error_line() == lost(observatory)[0]
        else:
            observatory.faults = [fault]
        process.interrupt()
        assert process.end()[0] == 130


def test_reader_goes_away(observatory):
    with watch(observatory, "count") as process:
        process.line()
        process.close_output()
        observatory.set_sensor("count", 6)
        assert process.end() == (1, "", "")


def test_updates_that_are_odd(observatory):
    """Of other sensors, malformed, or not UTF-8: no reason to fail."""
    with watch(observatory, "label", "-o", "csv") as process:
        assert process.line().startswith("timestamp")
        process.line()
        for arguments in (
            (START, 1, "other", "nominal", 1),
            (START, 2, "label", "nominal", "half"),
            (),
            ("never", 1, "label", b"\xff", b"\xfe\x1b,\n"),
        ):
            observatory.inform(Message.inform("sensor-status", *arguments))
        assert process.line().endswith(",label,unknown,,\n")
        assert "sensor label: b'never' is no timestamp" in process.error_line()
        observatory.inform(
            Message.inform("sensor-status", START, 1, "label", b"\xff", b"\xfe\x1b,\n")
        )
        assert process.line() == '1700000000.0,label,unknown,"\\xfe\\x1b,\\n",\n'


@pytest.mark.parametrize(
    ("numbers", "width", "levels", "text"),
    [
        (range(8), 8, LEVELS, "▁▂▃▄▅▆▇█"),
        (range(8), 8, ASCII_LEVELS, "_.-=+*%#"),
        (range(100), 3, LEVELS, "▁▅█"),
        ([5, 5, 5], 8, LEVELS, "▁▁▁"),
        ([0, math.nan, 7, math.inf], 8, LEVELS, "▁ █ "),
        ([-1.7e308, 0, 1.7e308], 8, LEVELS, "▁▅█"),
        ([math.nan], 8, LEVELS, " "),
        ([], 8, LEVELS, ""),
        ([1, 2], 0, LEVELS, ""),
    ],
)
def test_plot(numbers, width, levels, text):
    assert plot(numbers, width, levels) == text


def test_numbers_of_a_sensor():
    remote = types.SimpleNamespace(name="a", units="", type="float")
    sensor = WatchedSensor(types.SimpleNamespace(device="x"), remote)
    for status, value in [("NOMINAL", 1.0), ("FAILURE", 2.0), ("UNKNOWN", None), ("ERROR", 0.0)]:
        sensor.update(Reading(START, Status[status], value))
    assert [number for number in sensor.numbers if not math.isnan(number)] == [1, 0]
    assert len(sensor.numbers) == 4


def test_terminal_without_prompt_toolkit(observatory, capsys, monkeypatch):
    """There are lines, and a line that says what to install."""
    monkeypatch.setattr(cli_watch, "is_terminal", lambda stream: True)
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.setitem(sys.modules, "katcp.cli.watch.table", None)
    monkeypatch.setattr(Output, "run", lambda output, handle: print(type(output).__name__))
    assert watch_in_process(observatory, "count") == 130
    assert capsys.readouterr() == (
        "LineOutput\n",
        "katcp: for a live table, in a checkout of katcp, run pip install '.[cli]'\n",
    )
