"""``katcp request``."""

import io
import json
import subprocess
import sys

import pytest

from katcp import cli
from tests.support.process import ENVIRONMENT

BINARY = bytes(range(256)) * 4


def request(device, *arguments):
    host, port = device.address
    return cli.main(["request", f"{host}:{port}", *arguments])


@pytest.fixture
def talker(device):
    """A device with requests whose answers are hard to show."""

    @device.request("table")
    def table(request):
        """Send informs of several columns."""
        request.inform("a", "short one", 1)
        request.inform("long-name", "", "\u00b0C")
        request.inform("x" * 50, b"\xff\x1b[2J", "end")
        return "ok", 3

    @device.request("page")
    def page(request):
        """Send a text of several lines."""
        request.inform("page", "First line\n  second\tline\n\n")
        return "ok", "done", "over\ntwo lines"

    @device.request("no-code")
    def no_code(request):
        """Reply nothing at all."""
        return ()

    return device


def test_table(talker, capsys):
    assert request(talker, "table") == 0
    assert capsys.readouterr().out == (
        "a          short one    1\n"
        'long-name  ""           \u00b0C\n'
        f"{'x' * 50}  \\xff\\x1b[2J  end\n"
        "ok  3\n"
    )


def test_text_of_several_lines(talker, capsys):
    assert request(talker, "page") == 0
    assert capsys.readouterr().out == (
        "page  First line\n      second        line\nok  done  over\n    two lines\n"
    )


def test_question_mark_is_welcome(device, capsys):
    assert request(device, "?echo", "a b", "") == 0
    assert capsys.readouterr().out == 'ok  a b  ""\n'


def test_arguments_that_begin_with_a_dash(device, capsys):
    assert request(device, "echo", "-5", "--", "--json") == 0
    assert capsys.readouterr().out == "ok  -5  --json\n"


def test_refused(device, capsys):
    assert request(device, "refuse") == 1
    assert capsys.readouterr().out == "fail  not today\n"


def test_reply_without_code(talker, capsys):
    assert request(talker, "no-code") == 1
    assert capsys.readouterr() == ("\n", "")


def test_wrong_name(device, capsys):
    assert request(device, "no such name") == 2
    assert capsys.readouterr().err.startswith("katcp: ")
    assert device.received == []


def test_nobody_listens(refused_address, capsys):
    host, port = refused_address
    assert cli.main(["request", f"{host}:{port}", "help"]) == 3
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"katcp: cannot connect to {host}:{port}: ")
    assert errors.count("\n") == 1


def test_connection_lost(device, capsys):
    @device.request("leave")
    def leave(request):
        """Send everybody away."""
        device.close_clients()

    assert request(device, "leave") == 3
    assert "katcp: ?leave: Connection closed before reply" in capsys.readouterr().err


@pytest.mark.parametrize("form", [[], ["--raw"], ["--json"]], ids=str)
def test_no_reply(form, device, capsys):
    assert request(device, "silent", "--timeout", "0.2", *form) == 4
    output, errors = capsys.readouterr()
    assert errors == "katcp: ?silent: no reply within 0.2 seconds\n"
    if form == ["--json"]:
        answer = {"ok": False, "reply": None, "informs": [], "error": "no reply within 0.2 seconds"}
        assert json.loads(output) == answer
    else:
        assert output == ""


def test_json(talker, capsys):
    assert request(talker, "table", "--json") == 0
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    assert json.loads(output) == {
        "ok": True,
        "reply": ["ok", "3"],
        "informs": [
            ["a", "short one", "1"],
            ["long-name", "", "\u00b0C"],
            ["x" * 50, {"base64": "/xtbMko="}, "end"],
        ],
        "error": None,
    }


def test_json_of_a_refusal(device, capsys):
    assert request(device, "refuse", "--json") == 1
    answer = {"ok": False, "reply": ["fail", "not today"], "informs": [], "error": None}
    assert json.loads(capsys.readouterr().out) == answer


def test_raw(talker, capfdbinary):
    assert request(talker, "table", "--raw") == 0
    assert capfdbinary.readouterr().out == (
        b"#table[1] a short\\_one 1\n"
        b"#table[1] long-name \\@ \xc2\xb0C\n" + b"#table[1] " + b"x" * 50 + b" \xff\\e[2J end\n"
        b"!table[1] ok 3\n"
    )


def test_version_4(device_v4, capsys):
    assert request(device_v4, "count", "2", "--raw") == 0
    assert capsys.readouterr().out == "#count 0\n#count 1\n!count ok 2\n"


def test_standard_input(device, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BINARY)))
    assert request(device, "echo", "before", "-", "after") == 0
    assert device.received[-1].arguments == [b"before", BINARY, b"after"]


def test_standard_input_twice(device, capsys):
    assert request(device, "echo", "-", "-") == 2
    assert capsys.readouterr().err == "katcp: only one argument can be - (the standard input)\n"


def run(device, *arguments, **kwargs):
    host, port = device.address
    return subprocess.run(
        [sys.executable, "-m", "katcp", "request", f"{host}:{port}", *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        timeout=30,
        check=False,
        **kwargs,
    )


def test_any_bytes_through_pipes(device):
    done = run(device, "echo", "-", b"argument \xff", "--raw", input=BINARY)
    assert (done.returncode, done.stderr) == (0, b"")
    assert device.received[-1].arguments == [BINARY, b"argument \xff"]
    assert done.stdout == bytes(device.received[-1]).replace(b"?echo[1]", b"!echo[1] ok") + b"\n"


def test_terminal_without_the_characters(device):
    """What an encoding does not have is escaped, and is no reason to fail."""
    host, port = device.address
    done = subprocess.run(
        [sys.executable, "-m", "katcp", "request", f"{host}:{port}", "echo", "-"],
        env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"},
        input="\u00b0C".encode(),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"ok  \\xb0C\n", b"")
