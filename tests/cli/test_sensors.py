"""``katcp sensors``."""

import json
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
    # The first reading of the new sensor has no time, and those of version 4 come at once.
    return [line for line in output.splitlines() if "new" not in line]


def test_table(observatory, capsys):
    assert sensors(observatory) == 0
    found = lines(capsys)
    assert re.fullmatch("label  +nominal  two words +2 d  string", found.pop(1))
    assert found == [
        "NAME         STATUS   VALUE                     UNITS    AGE  TYPE       DESCRIPTION",
        "rack2.temp   nominal  -3.25                     degC     2 h  float      Cold",
        "rack10.temp  nominal  20.5                      degC   5 min  float      Hot",
        "since        nominal  2023-11-14 22:13:20.500Z         5 min  timestamp",
    ]


@pytest.mark.parametrize("filters", [["temp"], ["rack*"], ["/^rack/"], ["rack2.temp", "k1"]])
def test_filter(filters, observatory, capsys):
    assert sensors(observatory, *filters) == 0
    assert [line.split()[0] for line in lines(capsys)] == ["NAME", "rack2.temp", "rack10.temp"]


def test_sensor_that_was_never_read(capsys):
    with TestDevice(sensors=[Sensor("new", "integer", timestamp=0.0)]) as device:
        assert sensors(device) == 0
    assert re.search(r"^new .* never  integer$", capsys.readouterr().out, re.M)


def test_no_such_sensor(observatory, capsys):
    where = "{}:{}".format(*observatory.address)
    assert sensors(observatory, "rack3.temp") == 1
    assert capsys.readouterr() == (
        "",
        f"katcp: {where}: no sensor matches 'rack3.temp'; did you mean rack2.temp?\n",
    )


def test_one_filter_of_several_matches(observatory, capsys):
    assert sensors(observatory, "pressure", "label") == 0
    output, errors = capsys.readouterr()
    assert "two words" in output
    assert errors.endswith(": no sensor matches 'pressure'\n")


def test_regex_that_is_none(observatory, capsys):
    assert sensors(observatory, "/(/") == 2
    assert capsys.readouterr().err.startswith("katcp: bad regular expression /(/: ")


RECORD = {
    "timestamp": 1700000000.5,
    "name": "since",
    "status": "nominal",
    "value": 1700000001.25,
    "units": "",
    "type": "timestamp",
    "description": "When",
}


@pytest.fixture
def old_sensor():
    sensor = Sensor("since", "timestamp", "When", value=1700000001.25, timestamp=1700000000.5)
    with TestDevice(sensors=[sensor]) as device:
        yield device


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_json(form, old_sensor, capsys):
    assert sensors(old_sensor, "-o", form) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == ([RECORD] if form == "json" else RECORD)


def test_csv(old_sensor, capsys):
    assert sensors(old_sensor, "-o", "csv") == 0
    assert capsys.readouterr().out == (
        f"{','.join(RECORD)}\n{','.join(map(str, RECORD.values()))}\n"
    )


def test_several_devices(old_sensor, capsys):
    with TestDevice(sensors=[Sensor("since", "integer"), Sensor("x", "integer")]) as other:
        names = ["{}:{}".format(*device.address) for device in (old_sensor, other)]
        assert cli.main(["sensors", *names, "since"]) == 0
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split()[:2] == ["DEVICE", "NAME"]
    assert [first.split()[0], second.split()[0]] == names


def test_one_device_of_several_is_dead(old_sensor, refused_address, capsys):
    names = ["{}:{}".format(*address[:2]) for address in (refused_address, old_sensor.address)]
    assert cli.main(["sensors", "-d", names[0], "-d", names[1], "-o", "json"]) == 3
    output, errors = capsys.readouterr()
    assert json.loads(output) == [{"device": names[1], **RECORD}]
    assert errors == f"katcp: cannot connect to {names[0]}: Connection refused\n"


def test_status_and_age_of_a_fresh_reading(capsys):
    with TestDevice(sensors=make_sensors()[:2]) as device:
        device.set_sensor("rack2.temp", 1.5, "error")
        assert sensors(device, "rack2") == 0
    assert re.search(
        r"^rack2\.temp  error   1\.5    degC   0\.\d s  float  Cold$",
        capsys.readouterr().out,
        re.M,
    )


def test_reading_that_is_malformed(device, capsys):
    @device.request("sensor-list")
    def sensor_list(request):
        """Describe more sensors than have readings."""
        request.inform("odd")
        request.inform(b"\xff", b"\xff", b"\xb0C", "string")
        request.inform("late", "", "", "float")
        request.inform("silent", "", "", "float")
        return "ok", 4

    @device.request("sensor-value")
    def sensor_value(request, name):
        """Tell readings that are hard to show."""
        request.inform("1", 1, b"\xff", "odd", b"\xfe\x1b[2J")
        request.inform("never", 1, "late", "nominal", b"5")
        request.inform("1", 2, "silent", "nominal", "5")
        return "ok", 3

    assert sensors(device) == 0
    output, errors = capsys.readouterr()
    rows = {line.split()[0]: line for line in output.splitlines()[1:]}
    assert re.fullmatch(r"silent  no reading +float", rows["silent"])
    assert re.fullmatch(r"late +unknown +0\.\d s  float", rows["late"])
    assert re.fullmatch(r"\\xff +unknown +\\xfe\\x1b\[2J +\\xb0C .* string  \\xff", rows["\\xff"])
    assert "sensor late: b'never' is no timestamp" in errors


def test_silence(device, capsys):
    device.faults = ["no-reply:sensor-value"]
    device.add_sensor(Sensor("a", "integer"))
    assert sensors(device, "--timeout", "0.2") == 4
    assert capsys.readouterr().err.endswith(" ?sensor-value: no reply within 0.2 seconds\n")
