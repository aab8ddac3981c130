"""The live table of ``katcp watch``."""

from __future__ import annotations

import re
import signal

import pytest

from katcp import Message
from katcp.simdevice import Sensor
from tests.support.helpers import PATIENCE, TestDevice
from tests.terminal.conftest import make_sensors
from tests.terminal.terminal import ScreenTerminal

CTRL_C, UP, DOWN, PAGE_DOWN, END = "\x03", "\x1b[A", "\x1b[B", "\x1b[6~", "\x1b[F"


@pytest.fixture
def watch():
    """Return a function that watches devices in a terminal."""
    terminals = []

    def watch(*devices, filters=(), **kwargs):
        names = ["{}:{}".format(*device.address) for device in devices]
        terminals.append(ScreenTerminal("watch", *names, *filters, **kwargs))
        return terminals[-1]

    yield watch
    for terminal in terminals:
        terminal.close()


def sampled(device):
    return [request.arguments for request in device.received_requests("sensor-sampling")]


def rows(screen):
    """Return the first words of the rows."""
    return [line.split()[0] for line in screen[2:] if "nominal" in line]


def test_table(observatory, watch):
    terminal = watch(observatory)
    terminal.wait(lambda lines: len(lines) == 5)
    observatory.wait_until(lambda: len(sampled(observatory)) > 0, PATIENCE)
    # Else a device of version 4 may be asked for its present reading after the change.
    terminal.wait_line("20.5")
    for value in (1, 2, 3):
        observatory.set_sensor("dish.temp", value)
    terminal.wait_line("3.0")
    title, heading, state, temperature, foot = terminal.lines
    assert title == "{}:{}".format(*observatory.address)
    assert heading.split() == ["NAME", "STATUS", "VALUE", "UNITS", "AGE", "LOW", "HIGH", "PLOT"]
    assert re.fullmatch(r"dish\.state  nominal  ok +\d\.\d s", state)
    reading = r"dish\.temp   nominal  3\.0    degC   \d\.\d s    1  20\.5  .*\u2588"
    assert re.match(reading, temperature)
    assert foot.startswith("2 sensors by name   arrows scroll")
    terminal.type(CTRL_C)
    assert terminal.wait_end() == 130
    assert b"Traceback" not in terminal.said


@pytest.mark.parametrize("key", ["q", CTRL_C, 3 * CTRL_C])
def test_it_ends_and_leaves_nothing_behind(key, observatory, watch):
    terminal = watch(observatory)
    terminal.wait_line("dish.temp")
    terminal.type(key)
    assert terminal.wait_end() == 130
    # The screen is given back.
    assert b"dish" not in terminal.said.split(b"\x1b[?1049l")[1]


@pytest.mark.parametrize("columns", [20, 60, 80, 200])
def test_it_fits(columns, watch):
    long = Sensor("a" * 70, "string", units="degC", value="value " * 14, timestamp=1.0)
    with TestDevice(sensors=[long, *make_sensors()]) as device:
        terminal = watch(device, columns=columns)
        terminal.wait(lambda lines: len(lines) == 6)
        assert terminal.lines[1].startswith("NAME")
        assert "PLOT" in terminal.lines[1] or columns == 20
        assert "a" * 8 in terminal.lines[2]
        assert ("..." in terminal.lines[2]) == (columns < 200)


def test_it_is_resized(observatory, watch):
    terminal = watch(observatory, columns=200)
    terminal.wait_line("HIGH")
    terminal.resize(60, 4)
    terminal.wait(lambda lines: "".join(lines[-1:]).startswith("1-1 of 2 sensors"))
    assert "HIGH" not in terminal.lines[1]
    terminal.resize(200, 24)
    terminal.wait(lambda lines: len(lines) == 5)


def test_thousands_of_sensors(watch):
    """It scrolls, sorts and ends at once."""
    sensors = [
        Sensor(f"s{number}", "integer", value=-number, timestamp=1e9 + number)
        for number in range(5000)
    ]
    with TestDevice(sensors=sensors) as device:
        terminal = watch(device, rows=13)
        terminal.wait(lambda lines: rows(lines) == [f"s{number}" for number in range(10)])
        terminal.wait(lambda lines: lines[-1].startswith("1-10 of 5000 sensors by name "))
        terminal.type(DOWN * 3 + UP)
        terminal.wait(lambda lines: rows(lines)[0] == "s2")
        terminal.type(PAGE_DOWN)
        terminal.wait(lambda lines: rows(lines)[0] == "s12")
        terminal.type(END)
        terminal.wait(lambda lines: rows(lines)[-1] == "s4999")
        terminal.type("gr")
        terminal.wait(lambda lines: rows(lines)[:2] == ["s4999", "s4998"])
        terminal.wait(lambda lines: "by name, reversed" in lines[-1])
        terminal.type("ss")
        terminal.wait(lambda lines: rows(lines)[:2] == ["s0", "s1"])
        terminal.wait(lambda lines: "by value, reversed" in lines[-1])
        terminal.type("s")
        terminal.wait(lambda lines: "by age" in lines[-1] and rows(lines)[:2] == ["s0", "s1"])
        terminal.type(CTRL_C)
        assert terminal.wait_end() == 130
    assert len(terminal.said.split(b"\x1b[?1049l")[1]) < 200


def test_sorting_by_status(watch):
    with TestDevice(sensors=[Sensor(name, "integer") for name in "abc"]) as device:
        for name, status in [("a", "warn"), ("b", "nominal"), ("c", "error")]:
            device.set_sensor(name, 1, status)
        terminal = watch(device)
        terminal.wait_line("warn")
        terminal.type("s")
        terminal.wait(lambda lines: [line[:1] for line in lines[2:5]] == ["c", "b", "a"])


def test_several_devices(watch):
    with TestDevice(sensors=make_sensors()) as first, TestDevice(sensors=make_sensors()) as second:
        terminal = watch(first, second, filters=["temp"])
        terminal.wait(lambda lines: len(lines) == 5)
        title, heading, *found = terminal.lines[:4]
        names = title.split(", ")
        assert heading.startswith("DEVICE ")
        assert [line.split()[:2] for line in found] == sorted([name, "dish.temp"] for name in names)
        second.stop()
        terminal.wait_line(f"not connected: {names[1]}; trying again")
        terminal.wait_line("unreachable")
        assert any("nominal" in line for line in terminal.lines)


def test_it_loses_the_device(observatory, watch):
    terminal = watch(observatory, filters=["dish.temp"])
    terminal.wait_line("20.5")
    observatory.wait_until(lambda: len(sampled(observatory)) == 1, PATIENCE)
    observatory.stop()
    terminal.wait_line("; trying again")
    terminal.wait_line("unreachable")
    observatory.start()
    terminal.wait_line("nominal")
    observatory.wait_until(lambda: len(sampled(observatory)) == 2, PATIENCE)
    observatory.set_sensor("dish.temp", 77.25)
    terminal.wait_line("77.25")
    observatory.stop()
    terminal.wait_line("unreachable")
    terminal.type(CTRL_C)
    assert terminal.wait_end() == 130


def test_strange_bytes(observatory, watch):
    terminal = watch(observatory, filters=["dish.state"], columns=120)
    terminal.wait_line("nominal")
    observatory.wait_until(lambda: len(sampled(observatory)) > 0, PATIENCE)
    reading = (1700000000.0, 1, "dish.state", "nominal", b"[red]no markup \xff\x1b[2J")
    observatory.inform(Message.inform("sensor-status", *reading))
    terminal.wait_line(r"[red]no markup \xff\x1b[2J")


def test_in_ascii(observatory, watch):
    terminal = watch(observatory, filters=["dish.temp"], PYTHONIOENCODING="ascii", TERM="xterm")
    terminal.wait_line("20.5")
    observatory.wait_until(lambda: len(sampled(observatory)) > 0, PATIENCE)
    observatory.set_sensor("dish.temp", 30)
    terminal.wait_line("_#")


def test_on_a_dumb_terminal(observatory, watch):
    terminal = watch(observatory, filters=["dish.temp"], TERM="dumb")
    terminal.wait_line("20.5  degC")
    assert b"\x1b" not in terminal.said
    terminal.type(CTRL_C)
    assert terminal.wait_end() == 130


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 130)]
)
def test_terminated(number, code, observatory, watch):
    """The screen is given back, and the cursor shown."""
    terminal = watch(observatory)
    terminal.wait_line("dish.temp")
    terminal.kill(number)
    assert terminal.wait_end() == code
    assert terminal.said.rfind(b"\x1b[?1049l") > terminal.said.rfind(b"\x1b[?1049h")
    assert terminal.said.rfind(b"\x1b[?25h") > terminal.said.rfind(b"\x1b[?25l")
    assert b"Traceback" not in terminal.said


def test_what_the_library_logs_is_shown_below(observatory, watch):
    terminal = watch(observatory)
    terminal.wait_line("dish.temp")
    observatory.send_raw(b"this is not KATCP\n")
    terminal.wait(lambda lines: "BAD COMMAND" in lines[-1])
    assert len(terminal.lines) == 5


def test_no_such_sensor(observatory, watch):
    """The reason is left on the screen when the table has gone."""
    terminal = watch(observatory, filters=["nosuch"])
    assert terminal.wait_end() == 1
    assert b": no sensor matches 'nosuch'" in terminal.said.split(b"\x1b[?1049l")[1]
