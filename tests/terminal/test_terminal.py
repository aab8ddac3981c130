"""``request``, ``sensors``, ``log``, ``record`` and ``simulate`` as a person uses them."""

import asyncio
import os
import re
import sys

import pexpect
import pytest

from katcp import cli
from katcp.cli.output import STATUS_INTERVAL
from katcp.simdevice import Sensor
from tests.support.helpers import PATIENCE, TestDevice
from tests.support.process import ENVIRONMENT
from tests.terminal.conftest import make_sensors, plain

START = 1700000000.0


def address(device):
    host, port = device.address
    return f"{host}:{port}"


# ---- request ----


def test_request(observatory, terminal):
    code, output = terminal("request", address(observatory), "echo", "a b").end()
    assert (code, output) == (0, "\x1b[32mok\x1b[0m  a b\r\n")


def test_refused_request(observatory, terminal):
    code, output = terminal("request", address(observatory), "refuse").end()
    assert (code, output) == (1, f"katcp: {address(observatory)} ?refuse: not today\r\n")


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
                await asyncio.sleep(2 * STATUS_INTERVAL)
            return "ok", 3

        started = terminal("sensors", address(device))
        started.expect("\rListing sensors of 127.0.0.1:\\d+: [23]\x1b\\[K")
        code, output = started.end()
    assert code == 0
    # Nothing is left of it.
    assert "\r\x1b[K\x1b[1mNAME" in output


# ---- log ----


def test_log(observatory, terminal):
    started = terminal("log", address(observatory))
    observatory.wait_for_request("log-level")
    observatory.log("error", "It burns.\n\x1b[2J", "dish")
    seen = started.expect("dish: .*\r\n")
    assert "\x1b[31mERROR\x1b[0m dish: It burns.\\n\\x1b[2J\r\n" in seen
    started.press("c")
    code, output = started.end()
    assert code == 130
    assert "Traceback" not in output


# ---- simulate ----


def test_simulate(terminal):
    started = terminal("simulate", "--listen", "0", "--name", "dish")
    started.expect(r"dish listens on 127\.0\.0\.1:\d+\r\n")
    started.press("c")
    assert started.end()[0] == 0


# ---- record ----


def test_record_shows_what_is_said(observatory, terminal, tmp_path):
    path = str(tmp_path / "file")
    started = terminal("record", address(observatory), path, "--listen", "0", columns=60)
    port = re.search(r":(\d+)\r\n", started.expect(r" listens on \S+\r\n"))[1]
    terminal("request", f":{port}", "echo", "x" * 100).end()
    started.expect("!echo")
    started.press("c")
    code, output = started.end()
    assert code == 0
    lines = plain(output).splitlines()
    assert all(len(line) <= 60 for line in lines if line[2:3] == ":")


# ---- completion ----


@pytest.fixture
def shell_with_completion(tmp_path):
    """A bash that completes ``katcp``."""
    command = tmp_path / "katcp"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m katcp "$@"\n')
    command.chmod(0o700)
    environment = {**ENVIRONMENT, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TERM": "dumb"}
    shell = pexpect.spawn(
        "bash", ["--norc", "--noprofile"], env=environment, encoding="utf-8", timeout=PATIENCE
    )
    shell.sendline("bind 'set enable-bracketed-paste off'; eval \"$(katcp completion bash)\"")
    shell.sendline("PS1='RE''ADY '")
    shell.expect_exact("READY ")
    yield shell
    shell.close(force=True)


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("katcp req", "request "),
        ("katcp help wat", "watch "),
        ("katcp sensors -d {} dish.t", "dish.temp "),
        ("katcp request -d {} ech", "echo "),
        ("katcp request -d {} sensor-value dish.s", "dish.state "),
        ("katcp request -d {} read sys_b", "sys_board_id "),
        ("katcp request -d {} -o cs", "csv "),
        ("katcp watch --per", "--period "),
    ],
)
def test_completion_in_bash(typed, completed, shell_with_completion):
    with TestDevice(sensors=make_sensors()) as device:
        line = typed.format(address(device))
        shell_with_completion.send(line + "\t")
        shell_with_completion.expect_exact(line[: line.rindex(" ") + 1] + completed)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_code(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    assert "_ARGCOMPLETE" in capsys.readouterr().out
