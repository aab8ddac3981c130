"""``katcp shell`` without a terminal; with one: tests/terminal."""

import io
import subprocess
import sys
import types

import pytest

from katcp import cli
from katcp.cli.shell import command as cli_shell
from tests.support.helpers import PATIENCE, TestDevice
from tests.support.process import ENVIRONMENT


@pytest.fixture
def run(monkeypatch, capfd, device):
    """Return a function that lets the shell read lines, and returns code, output and errors."""

    def run(text, *options, address=None):
        lines = io.BytesIO(text if isinstance(text, bytes) else text.encode())
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=lines, isatty=lambda: False))
        address = address or "{}:{}".format(*device.address)
        code = cli.main(["shell", address, "--timeout", str(PATIENCE), *options])
        return code, *capfd.readouterr()

    return run


def test_lines_are_requests(run):
    assert run("count 2\n?echo a\n") == (0, "#count 0\n#count 1\n!count ok 2\n!echo ok a\n", "")


def test_blank_lines_comments_and_line_ends(run):
    assert run("\n  \n# ?refuse\n  # x\r\necho 1\r\necho 2")[:2] == (0, "!echo ok 1\n!echo ok 2\n")


def test_no_lines(run):
    assert run("") == (0, "", "")


def test_binary(run, device):
    assert run(b"echo \xff\\0\\xfe \"a b\" \\@ 'a\\b'\n")[:2] == (
        0,
        '!echo ok \\xff\\0\\xfe "a b" "" a\\\\b\n',
    )
    assert device.received_requests("echo")[0].arguments == [b"\xff\0\xfe", b"a b", b"", b"a\\b"]


def test_refused(run):
    """The others are asked all the same."""
    assert run("refuse\necho\n") == (1, '!refuse fail "not today"\n!echo ok\n', "")


def test_bad_lines(run):
    code, output, errors = run("echo 'x\n\n1x y\necho 3\n")
    assert (code, output) == (2, "!echo ok 3\n")
    assert errors.splitlines() == [
        "katcp: line 1: This quote is not closed.",
        "katcp: line 3: 1x is not the name of a request.",
    ]


def test_no_reply_in_time(run):
    code, output, errors = run("silent\necho\n", "--timeout", "0.1")
    assert (code, output) == (4, "!echo ok\n")
    assert errors.endswith(" ?silent: no reply within 0.1 seconds\n")


def test_connection_lost(run, device):
    device.request(lambda request: device.disconnect_clients(), name="cut")
    code, output, errors = run("echo\ncut\necho\n")
    assert (code, output) == (
        3,
        '!echo ok\n#disconnect "The device closes the connection."\n',
    )
    assert errors.startswith("katcp: {}:{} ?cut: ".format(*device.address))
    assert errors.count("\n") == 1


def test_everything_is_shown_in_its_order(run, device, logs):
    def bye(request):
        request.inform("soon")
        request.reply("ok")
        device.disconnect_clients("bye")

    device.request(bye)
    code, output, _ = run("bye\necho\n")
    assert code == 3
    assert output.splitlines() == ["#bye soon", "!bye ok", "#disconnect bye"]
    # The second request may meet a closed socket, which answers with a reset.
    logs.records = [r for r in logs.records if "closed with error" not in r.getMessage()]


def test_the_reader_of_the_output_goes_away(device):
    """As in ``katcp shell ... | head -1``: no traceback, and an end."""
    with subprocess.Popen(
        [sys.executable, "-m", "katcp", "shell", "{}:{}".format(*device.address)],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdin.write(b"echo\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"!echo ok\n"
        process.stdout.close()
        device.send_raw(b"#unasked\n")
        process.stdin.write(b"echo\n")
        process.stdin.flush()
        assert process.wait(PATIENCE) == 1
        assert process.stderr.read() == b""


def test_a_dead_device(run, refused_address):
    code, output, errors = run("echo\n", address="{}:{}".format(*refused_address[:2]))
    assert (code, output) == (3, "")
    assert errors.startswith("katcp: cannot connect to 127.0.0.1:")
    assert errors.count("\n") == 1


def test_what_comes_unasked(run, device):
    def talk(request):
        request.connection.send_raw(b"#log warn 1000000000 a.b it\\_burns\n#log 1\n#hey \xff\n")
        request.connection.send_raw(b"#log info x a.b odd\\_time\n!nobody ok\n")
        return "ok"

    device.request(talk)
    code, output, errors = run("talk\n")
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0] == "2001-09-09 01:46:40.000Z WARN  a.b: it burns"
    assert lines[1:] == [
        "#log 1",
        "#hey \\xff",
        "x INFO  a.b: odd time",
        "!nobody ok",
        "!talk ok",
    ]


def test_time_of_a_log_of_version_4(monkeypatch, device_v4, run):
    def talk(request):
        request.connection.send_raw(b"#log warn 1000000000000 a.b x\n")
        return "ok"

    device_v4.request(talk)
    _, output, _ = run("talk\n", address="{}:{}".format(*device_v4.address))
    assert output.splitlines()[0] == "2001-09-09 01:46:40.000Z WARN  a.b: x"


def test_in_a_pipe():
    """The output comes as it is made, and Ctrl-D is the end."""
    with (
        TestDevice() as device,
        subprocess.Popen(
            [sys.executable, "-m", "katcp", "shell", "{}:{}".format(*device.address)],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        for number in range(2):
            process.stdin.write(b"echo %d\n" % number)
            process.stdin.flush()
            assert process.stdout.readline() == b"!echo ok %d\n" % number
        assert process.communicate(timeout=PATIENCE) == (b"", b"")
        assert process.returncode == 0


def test_without_prompt_toolkit(monkeypatch, capsys):
    """One line says what to install."""
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(cli_shell, "is_terminal", lambda stream: True)
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    monkeypatch.delitem(sys.modules, "katcp.cli.shell.prompt", raising=False)
    assert cli.main(["shell", "localhost:1"]) == 2
    assert capsys.readouterr().err == (
        "katcp: for a shell on a terminal, in a checkout of katcp, run pip install '.[cli]'\n"
    )
