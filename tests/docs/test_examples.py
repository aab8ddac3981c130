"""Each program of examples/ runs, as a process of its own, and says what it should."""

import re
import subprocess
import sys

import pytest

from katcp.simdevice import SimulatedDevice
from tests.support.helpers import PATIENCE
from tests.support.process import ENVIRONMENT, PythonProcess
from tests.support.snippets import ROOT

EXAMPLES = ROOT / "examples"

# What the programs print, given these arguments after host and port.
PRINTED = {
    "read_sensors.py": (
        ["mode", "temperature", "no-such-sensor"],
        r"mode +nominal +idle\ntemperature +nominal +\d+\.\d+\nno-such-sensor +Unknown .*\n",
    ),
    "plot_sensor.py": (["--period", "0.01", "--count", "5"], r"( +\d+\.\d{3}  +\*\n){5}"),
    "track_sensor.py": (
        ["--count", "3"],
        r"connected\ndisconnected\ncounter from \d+ to \d+\n",
    ),
    "poll_in_threads.py": (["--seconds", "1"], r"((temperature|counter|mode): \S+\n){3,}"),
    "ask_in_asyncio.py": ([], r"(?s)(?=.*label = simulated device\n)(.*counter is \d+ now\n){3}.*"),
    "check_memory.py": ([], r"256 words of bram written and read, 0 bad\n"),
}
# They have tests of their own.
OTHERS = {"check_devices.py", "watch_forever.py", "test_attenuator.py"}


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


def test_the_monitor_outlives_the_device():
    with (
        SimulatedDevice() as device,
        PythonProcess(
            EXAMPLES / "watch_forever.py", *device.address, "--sensors", "mode"
        ) as monitor,
    ):
        assert monitor.line() == "connected\n"
        assert monitor.line().endswith(" mode nominal idle\n")
        device.reset_clients()
        assert monitor.line() == "disconnected\n"
        assert monitor.line() == "connected\n"
        assert monitor.line().endswith(" mode nominal idle\n")
        monitor.interrupt()
        code, output, errors = monitor.end()
    assert (code, output) == (0, "disconnected\n")
    assert "Traceback" not in errors


def test_the_tests_of_the_example_pass():
    # The plugin is named, because it need not be installed here.
    plugins = ["-p", "pytest_katcp", "-p", "no:cacheprovider"]
    done = run_python("-m", "pytest", *plugins, EXAMPLES / "test_attenuator.py")
    assert "4 passed" in done.stdout, done
    assert done.returncode == 0
