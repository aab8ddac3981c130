"""Each program of examples/ runs, as a process of its own, and says what it should."""

import contextlib
import re
import subprocess
import sys

import pytest

from katcp.simdevice import Sensor, SimulatedDevice
from tests.support.helpers import PATIENCE
from tests.support.process import ENVIRONMENT, PythonProcess
from tests.support.snippets import PORT, ROOT, rest_snippets

EXAMPLES = ROOT / "examples"

# What the programs print, given these arguments after host and port.
PRINTED = {
    "read_sensors.py": (
        ["mode", "temperature", "no-such-sensor"],
        r"mode +nominal +idle\ntemperature +nominal +\d+\.\d+ degC\n"
        r"no-such-sensor +\S+ has no sensor 'no-such-sensor'.*\n",
    ),
    "plot_sensor.py": (["--period", "0.01", "--count", "5"], r"( +\d+\.\d{3}  +\*\n){5}"),
    "track_sensor.py": (["--count", "3"], r"counter from \d+ to \d+\n"),
    "poll_in_threads.py": (["--seconds", "1"], r"((temperature|counter|mode): \S+\n){3,}"),
    "ask_in_asyncio.py": ([], r"(?s)(?=.*label = simulated device\n)(.*counter is \d+ now\n){3}.*"),
    "check_memory.py": ([], r"256 words of bram written and read, 0 bad\n"),
}
# They have tests of their own.
OTHERS = {
    "check_devices.py",
    "test_attenuator.py",
    "test_in_asyncio.py",
    "watch_devices.py",
    "watch_forever.py",
}

# What the guide promises to be short.
GUIDE = (ROOT / "docs" / "howto" / "sensors.rst").read_text("utf-8")


def run_python(*arguments):
    """Run Python to its end."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        # A whole run of pytest is one of them, on a machine that may be busy.
        timeout=6 * PATIENCE,
    )


@pytest.mark.parametrize("protocol", ["5.1-MIB", "4"])
@pytest.mark.parametrize("program", PRINTED)
def test_program(program, protocol):
    arguments, printed = PRINTED[program]
    with SimulatedDevice(protocol=protocol) as device:
        done = run_python(EXAMPLES / program, *device.address, *arguments)
    assert re.fullmatch(printed, done.stdout), done
    assert (done.returncode, done.stderr) == (0, "")


def test_every_program_is_run_and_listed():
    programs = {path.name for path in EXAMPLES.glob("*.py")}
    assert programs == PRINTED.keys() | OTHERS
    listed = re.findall(
        r"^\| \[(\S+)\]\((\S+)\)", (EXAMPLES / "README.md").read_text("utf-8"), re.M
    )
    assert {text for text, _ in listed} == {target for _, target in listed} == programs


def test_a_script_says_why_there_is_no_connection(refused_address):
    done = run_python(EXAMPLES / "read_sensors.py", *refused_address, "--timeout", "0.5")
    assert done.returncode == 1
    assert "read_sensors: " in done.stderr
    assert "Connection refused" in done.stderr
    assert "Traceback" not in done.stderr


def test_devices_that_are_down_are_named(refused_address):
    down = "{}:{}".format(*refused_address)
    with SimulatedDevice() as first, SimulatedDevice(protocol="5.0-IM") as second:
        well = ["{}:{}".format(*device.address) for device in (first, second)]
        done = run_python(EXAMPLES / "check_devices.py", well[0], down, well[1], "--timeout", "1")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{well[0]} ok, speaks 5.1-BIM"
    assert lines[1].startswith(f"{down} ")
    assert "refused" in lines[1]
    assert lines[2] == f"{well[1]} ok, speaks 5.0-IM"
    assert done.returncode == 1


def lines_of(code):
    return [line for line in code.splitlines() if line.strip()]


def test_a_program_of_six_lines_reads_a_sensor_and_waits_for_a_value(tmp_path):
    _, program = next(rest_snippets(GUIDE))
    assert len(lines_of(program)) <= 6
    sensors = [Sensor("temperature", "float", units="degC", value=12.5, timestamp=1.5e9)]
    with SimulatedDevice(sensors=sensors) as device:
        path = tmp_path / "program.py"
        path.write_text(program.replace(PORT, str(device.address[1])), "utf-8")
        with PythonProcess(path) as process:
            # It reads once itself, and once to wait.
            device.wait_for_request("sensor-value", PATIENCE, count=2)
            device.stop()
            device.start()
            device.wait_until(is_sampled(device), PATIENCE)
            device.set_sensor("temperature", 25.0)
            code, output, errors = process.end()
    assert (code, output, errors) == (0, "float degC 1500000000.0 nominal 12.5\n", "")


def is_sampled(device):
    """Return a function that tells whether a sensor of the device is sampled."""
    return lambda: any(client.samplings for client in device.clients)


def test_a_program_of_twelve_lines_watches_devices_for_ever():
    path = EXAMPLES / "watch_devices.py"
    assert len(lines_of(path.read_text("utf-8"))) <= 12
    assert f"literalinclude:: ../../examples/{path.name}" in GUIDE
    names = [f"rx.temp{number:02}" for number in range(20)]
    with contextlib.ExitStack() as stack:
        devices = [
            stack.enter_context(
                SimulatedDevice(
                    sensors=[Sensor(name, "float", value=0.5, timestamp=1.5e9) for name in names]
                )
            )
            for _ in range(3)
        ]
        addresses = ["{}:{}".format(*device.address) for device in devices]
        monitor = stack.enter_context(PythonProcess(path, *addresses))
        every = {f"{address} {name} 0.5 nominal\n" for address in addresses for name in names}
        assert {monitor.line() for _ in every} == every
        devices[1].stop()
        gone = [f"{addresses[1]} {name} 0.5 unreachable\n" for name in names]
        assert [monitor.line() for _ in names] == gone
        devices[2].set_sensor("rx.temp07", 7.5)
        assert monitor.line() == f"{addresses[2]} rx.temp07 7.5 nominal\n"
        devices[1].start()
        back = [f"{addresses[1]} {name} 0.5 nominal\n" for name in names]
        assert [monitor.line() for _ in names] == back
        devices[1].set_sensor("rx.temp19", 9.5)
        assert monitor.line() == f"{addresses[1]} rx.temp19 9.5 nominal\n"
        monitor.interrupt()
        monitor.end()


def test_the_monitor_outlives_the_device():
    with SimulatedDevice() as device:
        address = device.address
    with PythonProcess(EXAMPLES / "watch_forever.py", *address, "--sensors", "mode") as monitor:
        with device:
            assert monitor.line().endswith(" mode nominal idle\n")
            device.reset_clients()
            assert monitor.line().endswith(" mode unreachable idle\n")
            assert monitor.line().endswith(" mode nominal idle\n")
        assert monitor.line().endswith(" mode unreachable idle\n")
        with device:
            device.set_sensor("mode", "track")
            assert monitor.line().endswith(" mode nominal track\n")
            monitor.interrupt()
            code, output, errors = monitor.end()
    assert (code, output) == (0, "")
    assert "Traceback" not in errors


def test_the_tests_of_the_example_pass():
    # The plugin is named, because it need not be installed here.
    plugins = ["-p", "pytest_katcp", "-p", "no:cacheprovider"]
    done = run_python("-m", "pytest", *plugins, EXAMPLES / "test_attenuator.py")
    assert "4 passed" in done.stdout, done
    assert done.returncode == 0
