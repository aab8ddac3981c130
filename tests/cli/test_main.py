"""The command ``katcp``."""

import re
import shlex
import subprocess
import sys

import pytest

import katcp
from katcp import cli
from katcp.cli.commands import demo
from katcp.cli.devices import split_devices
from katcp.cli.options import parse
from katcp.simdevice import SimulatedDevice
from tests.support.process import ENVIRONMENT


def run_in_process(capsys, *arguments):
    code = cli.main(arguments)
    output = capsys.readouterr()
    return code, output.out, output.err


def check_demo(output):
    """The output shows every step, in order, with the lines of both directions."""
    assert re.findall(r"^(\d+)\. ", output, re.MULTILINE) == [str(n) for n in range(1, 10)]
    steps = [
        r"<-- #version-connect katcp-protocol 5\.1-BIM\n",
        r"--> \?version-list\[\d+\]\n",
        r"<-- #version-list\[\d+\] katcp-protocol 5\.1-BIM\n",
        r"katcp-protocol is 5\.1-BIM\.\n",
        r"--> \?help\[\d+\]\n",
        r"\.\.\. \d+ more\n   <-- !help\[\d+\] ok \d+\n",
        r"--> \?sensor-list\[\d+\]\n",
        r"temperature +nominal +\d+\.\d+ degC\n",
        r"--> \?sensor-sampling\[\d+\] counter event\n",
        *[r"<-- #sensor-status \S+ 1 counter nominal \d+\n", r"inform_sensor_status\(\): \d+\n"]
        * demo.UPDATES,
        r"<-- !sensor-sampling\[\d+\] ok counter none\n",
        r"--> \?write\[\d+\] bram 0 any\\_bytes:\\_\\0\\_\\n\\_\\\\\n",
        r"<-- !write\[\d+\] ok\n",
        r"Written: (b'.*')\n   Read:    \1\n",
        r"--> \?read\[\d+\] no-such-register\n",
        r"reply\.local_error is None",
        r"--> \?watchdog\[\d+\]\n",
        r"timed out after 0\.\d+ seconds\.\n",
        r"reply\.local_error is a KatcpClientTimeout",
        r"The client and the device have stopped\.",
    ]
    position = 0
    for step in steps:
        found = re.compile(step).search(output, position)
        assert found, f"{step!r} is not in what follows {output[:position][-200:]!r}"
        position = found.end()
    assert max(map(len, output.splitlines())) <= 120


def test_demo(capsys):
    code, output, errors = run_in_process(capsys, "demo")
    assert (code, errors) == (0, "")
    check_demo(output)


def test_demo_as_a_process():
    done = subprocess.run(
        [sys.executable, "-m", "katcp", "demo"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    check_demo(done.stdout)


def test_demo_whose_reader_goes_away():
    """As in ``katcp demo | head -1``: no traceback, and an end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "katcp", "demo"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline().startswith("A simulated device listens on 127.0.0.1:")
        process.stdout.close()
        assert process.wait(30) == 1
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        (["no-greeting"], "the device did not say which protocol it speaks"),
        (["no-reply"], r"\?version-list failed: Request version-list timed out after .* seconds\."),
        (["no-code:help"], r"\?help failed: refused, and no reason was given"),
    ],
    ids=lambda value: str(value)[:16],
)
def test_demo_with_a_faulty_device(faults, reason, capsys, monkeypatch):
    monkeypatch.setattr(demo, "SimulatedDevice", lambda: SimulatedDevice(faults=faults))
    monkeypatch.setattr(demo, "PATIENCE", 0.3)
    code, _, errors = run_in_process(capsys, "demo")
    assert code == 1
    assert re.fullmatch(f"katcp: {reason}\n", errors)


def test_demo_without_updates(capsys, monkeypatch):
    def drop(client, msg):
        """Let the update be lost."""

    monkeypatch.setitem(demo._DemoClient._inform_handlers, "sensor-status", drop)
    monkeypatch.setattr(demo, "PATIENCE", 0.3)
    code, _, errors = run_in_process(capsys, "demo")
    assert code == 1
    assert errors == "katcp: an update of the sensor did not come within 0.3 seconds\n"


def test_interrupted(capsys, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo._Demo, "_read_sensors", interrupt)
    code, output, errors = run_in_process(capsys, "demo")
    assert (code, errors) == (130, "")
    assert "3. " in output


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"katcp {katcp.__version__}\n"


COMMANDS = cli._make_parser()[1].choices


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name, capsys):
    """It fits a terminal, shows what is optional as optional, and has examples."""
    with pytest.raises(SystemExit) as exit_:
        cli.main([name, "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert cli.main(["help", name]) == 0
    assert capsys.readouterr().out == text
    assert re.match(rf"usage: katcp {name}( [][A-Z|a-z.]+)* \[options\]\n\n[A-Z]", text)
    assert max(map(len, text.splitlines())) <= 90
    assert ("\nexamples:\n  katcp " in text) == (name not in ("demo", "help"))


@pytest.mark.parametrize(
    "example",
    [
        line
        for parser in COMMANDS.values()
        if parser.epilog
        for line in parser.epilog.splitlines()[1:]
    ],
)
def test_examples_are_understood(example):
    words = shlex.split(re.split(" >>? | < ", example)[0])
    assert words.pop(0) == "katcp"
    options = parse(*cli._make_parser(), words)
    assert split_devices(getattr(options, "device", []), options.words, None)[0]


@pytest.mark.parametrize("arguments", [["--help"], ["help"], []], ids=str)
def test_help_of_the_whole(arguments, capsys):
    try:
        code = cli.main(arguments)
    except SystemExit as exit_:
        code = exit_.code
    text = capsys.readouterr().out
    assert code == 0
    assert all(re.search(rf"^    {name}\s+\w", text, re.MULTILINE) for name in COMMANDS)
    assert "exit codes: 0 " in text


def test_unknown_command(capsys):
    assert run_in_process(capsys, "dance") == (
        2,
        "",
        "katcp: unknown command 'dance'; see katcp --help\n",
    )


@pytest.mark.parametrize(
    "arguments", [["help"], ["demo"], ["simulate", "--list-faults"]], ids=" ".join
)
def test_full_disk(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "katcp", *arguments],
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        1,
        "katcp: cannot write the output: No space left on device\n",
    )
