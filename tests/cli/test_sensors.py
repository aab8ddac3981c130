"""``katcp sensors``."""

import re
import time

import pytest

from katcp import cli
from katcp.simdevice import Sensor
from tests.support.helpers import TestDevice


def sensors(device, *arguments):
    host, port = device.address
    return cli.main(["sensors", f"{host}:{port}", *arguments])


def make_sensors():
    now = time.time()
    return [
        Sensor("rack10.temp", "float", "Hot", "degC", value=20.5, timestamp=now - 300),
        Sensor("rack2.temp", "float", "Cold", "degC", value=-3.25, timestamp=now - 7200),
        Sensor("label", "string", value="two words", timestamp=now - 200000),
        Sensor("since", "timestamp", value=1700000000.5, timestamp=now - 300),
        Sensor("new", "integer"),
    ]


@pytest.fixture(params=["5.1-MIB", "5.0-M", "4"])
def observatory(request):
    with TestDevice(protocol=request.param, sensors=make_sensors()) as device:
        yield device


def lines(capsys):
    output, errors = capsys.readouterr()
    assert errors == ""
    assert "\x1b" not in output
    # The first reading of the new sensor has no time.
    return [re.sub(r" +\d+ d$", "", line) for line in output.splitlines() if "new" not in line]


def test_table(observatory, capsys):
    assert sensors(observatory) == 0
    assert lines(capsys) == [
        "NAME         STATUS   VALUE                     UNITS      AGE",
        "label        nominal  two words",
        "rack2.temp   nominal  -3.25                     degC       2 h",
        "rack10.temp  nominal  20.5                      degC     5 min",
        "since        nominal  2023-11-14 22:13:20.500Z           5 min",
    ]


@pytest.mark.parametrize("text", ["temp", "rack*", "/^rack/"])
def test_filter(text, observatory, capsys):
    assert sensors(observatory, text) == 0
    assert [line.split()[0] for line in lines(capsys)] == ["NAME", "rack2.temp", "rack10.temp"]


def test_no_such_sensor(observatory, capsys):
    assert sensors(observatory, "pressure") == 1
    assert capsys.readouterr() == ("", "katcp: no such sensor\n")


def test_regex_that_is_none(observatory, capsys):
    assert sensors(observatory, "/(/") == 1
    assert capsys.readouterr().err.startswith("katcp: ?sensor-list: ")


def test_status_and_age_of_a_fresh_reading(capsys):
    with TestDevice(sensors=make_sensors()[:2]) as device:
        device.set_sensor("rack2.temp", 1.5, "error")
        assert sensors(device, "rack2") == 0
    assert re.search(
        r"^rack2\.temp  error   1\.5    degC   0\.\d s$", capsys.readouterr().out, re.M
    )


def test_reading_that_is_malformed(device, capsys):
    @device.request("sensor-list")
    def sensor_list(request):
        """Describe more sensors than have readings."""
        request.inform("odd")
        request.inform(b"\xff", b"\xff", b"\xb0C", "float")
        request.inform("silent", "", "", "float")
        return "ok", 3

    @device.request("sensor-value")
    def sensor_value(request):
        """Tell readings that are hard to show."""
        request.inform("never", 1, b"\xff", "nominal", b"\xfe\x1b[2J")
        request.inform("1", 2, "silent", "nominal", "5")
        return "ok", 2

    assert sensors(device) == 0
    assert capsys.readouterr().out == (
        "NAME    STATUS      VALUE        UNITS  AGE\n"
        "silent  no reading\n"
        "\\xff    nominal     \\xfe\\x1b[2J  \\xb0C    ?\n"
    )


def test_silence(device, capsys):
    device.faults = ["no-reply:sensor-value"]
    device.add_sensor(Sensor("a", "integer"))
    assert sensors(device, "--timeout", "0.2") == 4
    assert capsys.readouterr().err == "katcp: ?sensor-value: no reply within 0.2 seconds\n"
