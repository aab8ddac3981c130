"""``request``, ``sensors``, ``watch``, ``log`` and ``simulate`` as a person uses them."""

import asyncio
import re
import time

import pytest

from katcp import Message
from katcp.cli.readings import _PROGRESS_INTERVAL
from katcp.simdevice import Sensor
from tests.support.helpers import TestDevice
from tests.terminal.conftest import plain

START = 1700000000.0
# The headings are bold, each by itself.
WIDE_HEADING = r"AGE[^\n]*LOW[^\n]*PLOT[^\n]*HIGH"
HEADING = r"AGE[^LH\n]*PLOT[^LH\n]*\n"


def make_sensors():
    return [
        Sensor("dish.temp", "float", "", "degC", value=20.5, timestamp=time.time()),
        Sensor("dish.state", "string", value="ok", timestamp=time.time()),
    ]


@pytest.fixture(params=["5.1-MIB", "4"])
def observatory(request):
    with TestDevice(protocol=request.param, sensors=make_sensors()) as device:
        yield device


def address(device):
    host, port = device.address
    return f"{host}:{port}"


# ---- request ----


def test_request(observatory, terminal):
    code, output = terminal("request", address(observatory), "echo", "a b").end()
    assert (code, output) == (0, "\x1b[32mok\x1b[0m  a b\r\n")


def test_refused_request(observatory, terminal):
    code, output = terminal("request", address(observatory), "refuse").end()
    assert (code, output) == (1, "\x1b[31mfail\x1b[0m  not today\r\n")


def test_no_colour(observatory, terminal):
    started = terminal("request", address(observatory), "echo", NO_COLOR="1")
    assert started.end() == (0, "ok\r\n")


def test_bytes_that_would_steer_the_terminal(observatory, terminal):
    observatory.request(lambda request: ("ok", b"\xff\x1b[2J\x07"), name="evil")
    code, output = terminal("request", address(observatory), "evil").end()
    assert (code, plain(output)) == (0, "ok  \\xff\\x1b[2J\\x07\n")


def test_interrupted_request(observatory, terminal):
    started = terminal("request", address(observatory), "silent")
    observatory.wait_for_request("silent")
    started.press("c")
    code, output = started.end()
    assert code == 130
    assert "Traceback" not in output


def test_dead_device(refused_address, terminal):
    host, port = refused_address
    code, output = terminal("request", f"{host}:{port}", "help").end()
    assert code == 3
    assert re.fullmatch(rf"katcp: cannot connect to {host}:{port}: .*\r\n", output)


# ---- sensors ----


def test_sensors(observatory, terminal):
    observatory.set_sensor("dish.temp", 99.0, "error")
    code, output = terminal("sensors", address(observatory)).end()
    assert code == 0
    assert "\x1b[31merror  \x1b[0m" in output
    assert "\x1b[32mnominal\x1b[0m" in output


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_sensors_fit_the_terminal(columns, terminal):
    long = Sensor("a" * 60, "string", value="value " * 15, timestamp=START)
    with TestDevice(sensors=[long]) as device:
        _, output = terminal("sensors", address(device), columns=columns).end()
    lines = plain(output).splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= columns
    assert ("..." in lines[1]) == (columns < 200)


def test_progress(terminal):
    """A device that takes its time is seen to say something."""
    with TestDevice() as device:

        @device.request("sensor-list")
        async def sensor_list(request):
            """Describe three sensors, longer than a terminal is left without a word."""
            for position in range(3):
                request.inform(f"sensor-{position}", "", "", "integer")
                await asyncio.sleep(2 * _PROGRESS_INTERVAL)
            return "ok", 3

        started = terminal("sensors", address(device))
        started.expect("\rListing sensors: [23]\x1b\\[K")
        code, output = started.end()
    assert code == 0
    # Nothing is left of it.
    assert "\r\x1b[K\x1b[1mNAME" in output


# ---- watch ----


def test_watch(observatory, terminal):
    started = terminal("watch", address(observatory), "dish.*")
    started.expect("dish.state.*nominal.*ok")
    for value in (1, 2, 3):
        observatory.set_sensor("dish.temp", value)
    seen = started.expect("█")
    assert "NAME" in seen
    started.press("c")
    code, output = started.end()
    assert code == 130
    # The screen is given back, and the last table stays on it.
    rest = output.split("\x1b[?1049l")[1]
    assert re.search(r"dish\.temp +nominal +3\.0 +degC .*█", plain(rest))
    assert "Traceback" not in output
    assert observatory.received_requests("sensor-sampling")[-1].arguments[1] == b"none"


def test_watch_is_resized(observatory, terminal):
    started = terminal("watch", address(observatory), "dish.*", columns=200)
    started.expect(WIDE_HEADING)
    started.resize(80, 10)
    started.expect(HEADING)
    started.resize(50, 4)
    started.expect("1 more need a higher terminal")
    started.resize(200, 10)
    started.expect(WIDE_HEADING)


def test_watch_loses_the_device(observatory, terminal):
    started = terminal("watch", address(observatory), "dish.temp")
    started.expect("20.5")
    observatory.stop()
    started.expect("connection lost, trying again")
    started.expect("unreachable")
    observatory.start()
    started.expect("nominal")
    observatory.set_sensor("dish.temp", 77.25)
    started.expect("77.25")
    observatory.stop()
    started.expect("unreachable")
    started.press("c")
    assert started.end()[0] == 130


def test_watch_shows_strange_bytes(observatory, terminal):
    started = terminal("watch", address(observatory), "dish.state", columns=120)
    started.expect("nominal")
    reading = (START, 1, "dish.state", "nominal", b"[red]no markup \xff\x1b[2J")
    observatory.inform(Message.inform("sensor-status", *reading))
    started.expect(re.escape(r"[red]no markup \xff\x1b[2J"))


def test_watch_in_ascii(observatory, terminal):
    started = terminal(
        "watch", address(observatory), "dish.temp", PYTHONIOENCODING="ascii", TERM="xterm"
    )
    started.expect("20.5")
    observatory.set_sensor("dish.temp", 30)
    started.expect("_#")


def test_watch_on_a_dumb_terminal(observatory, terminal):
    started = terminal("watch", address(observatory), "dish.temp", TERM="dumb")
    seen = started.expect("20.5  degC\r\n")
    assert "\x1b" not in seen
    started.press("c")
    assert started.end()[0] == 130


# ---- log ----


def test_log(observatory, terminal):
    started = terminal("log", address(observatory))
    observatory.wait_for_client()
    observatory.log("error", "It burns.\n\x1b[2J", "dish")
    seen = started.expect("dish: .*\r\n")
    assert "\x1b[31mERROR\x1b[0m dish: It burns.\\n\\x1b[2J\r\n" in seen
    started.press("c")
    code, output = started.end()
    assert code == 130
    assert "Traceback" not in output


# ---- simulate ----


def test_simulate(terminal):
    started = terminal("simulate", "--name", "dish")
    started.expect(r"dish listens on 127\.0\.0\.1:\d+\r\n")
    started.press("c")
    assert started.end()[0] == 0
