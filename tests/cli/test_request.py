"""``katcp request``."""

import io
import json
import re
import subprocess
import sys

import pytest

from katcp import cli
from katcp.simdevice import Sensor
from tests.support.helpers import TestDevice
from tests.support.process import ENVIRONMENT, KatcpProcess

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
    where = "{}:{}".format(*device.address)
    assert capsys.readouterr() == ("", f"katcp: {where} ?refuse: not today\n")


def test_reply_without_code(talker, capsys):
    assert request(talker, "no-code") == 1
    assert "?no-code: refused, and no reason was given\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "hint"), [("eco", "; did you mean echo?"), ("xyzzy", "."), ("count", ".")]
)
def test_request_that_the_device_does_not_know(name, hint, device, capsys):
    assert request(device, name) == 1
    errors = capsys.readouterr().err
    assert errors.endswith(f"{hint}\n")
    assert f" ?{name}: " in errors


def test_wrong_name(device, capsys):
    assert request(device, "host.name") == 2
    assert capsys.readouterr().err == (
        "katcp: 'host.name' is not the name of a request; a device has a port, or stands "
        "behind -d\n"
    )
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
    assert " ?leave: Connection closed before reply was received\n" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["table", "lines", "json", "jsonl", "csv", "raw"])
def test_no_reply(form, device, capsys):
    option = ["--raw-output"] if form == "raw" else ["-o", form]
    assert request(device, "silent", "--timeout", "0.2", *option) == 4
    output, errors = capsys.readouterr()
    where, reason = "{}:{}".format(*device.address), "no reply within 0.2 seconds"
    assert errors == f"katcp: {where} ?silent: {reason}\n"
    expected = {
        "json": {
            "ok": False,
            "device": where,
            "request": "silent",
            "reply": None,
            "informs": [],
            "error": reason,
        },
        "jsonl": {"type": "error", "name": "silent", "error": reason},
    }
    assert (json.loads(output) if form in expected else output or None) == expected.get(
        form, "type\n" if form == "csv" else None
    )


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_json_also_for_errors(form, refused_address, capsys):
    host, port = refused_address
    assert cli.main(["request", f"{host}:{port}", "-o", form, "help"]) == 3
    output, errors = capsys.readouterr()
    assert json.loads(output) == {"ok": False, "error": errors[7:-1], "code": 3}


def test_json(talker, capsys):
    assert request(talker, "table", "-o", "json") == 0
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    assert json.loads(output) == {
        "ok": True,
        "device": "{}:{}".format(*talker.address),
        "request": "table",
        "reply": ["ok", "3"],
        "informs": [
            ["a", "short one", "1"],
            ["long-name", "", "\u00b0C"],
            ["x" * 50, {"base64": "/xtbMko="}, "end"],
        ],
        "error": None,
    }


def test_json_of_a_refusal(device, capsys):
    assert request(device, "refuse", "-o", "json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ok"], answer["reply"], answer["error"]) == (
        False,
        ["fail", "not today"],
        "not today",
    )


def test_jsonl(talker, capsys):
    assert request(talker, "page", "-o", "jsonl") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {
            "type": "inform",
            "name": "page",
            "arguments": ["page", "First line\n  second\tline\n\n"],
        },
        {"type": "reply", "name": "page", "arguments": ["ok", "done", "over\ntwo lines"]},
    ]


def test_csv(talker, capsys):
    assert request(talker, "table", "-o", "csv") == 0
    assert capsys.readouterr().out == (
        "type,argument1,argument2,argument3\n"
        "inform,a,short one,1\n"
        "inform,long-name,,\u00b0C\n"
        f"inform,{'x' * 50},\\xff\\x1b[2J,end\n"
        "reply,ok,3,\n"
    )


def test_times_are_dates_for_people(capsys):
    with TestDevice(sensors=[Sensor("a", "integer", value=1, timestamp=1700000000.5)]) as device:
        assert request(device, "sensor-value", "a") == 0
    assert capsys.readouterr().out == "2023-11-14T22:13:20.500Z  1  a  nominal  1\nok  1\n"


def test_lines(talker, capfdbinary):
    assert request(talker, "table", "-o", "lines") == 0
    assert capfdbinary.readouterr().out == (
        b"#table[1] a short\\_one 1\n"
        b"#table[1] long-name \\@ \xc2\xb0C\n" + b"#table[1] " + b"x" * 50 + b" \xff\\e[2J end\n"
        b"!table[1] ok 3\n"
    )


def test_version_4(device_v4, capsys):
    assert request(device_v4, "count", "2", "-o", "lines") == 0
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
    done = run(device, "echo", "-", b"argument \xff", "-o", "lines", input=BINARY)
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


# ---- raw output ----


def test_binary_out_and_in_again(device, tmp_path):
    """What is read into a file can be written from it."""
    path = tmp_path / "bram.bin"
    data = (BINARY * 64)[: 64 * 1024]
    where, words = "{}:{}".format(*device.address), ["read", "bram", "0", str(len(data))]
    assert run(device, "write", "bram", "0", "-", input=data).returncode == 0
    with path.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "katcp", "request", where, *words, "--raw-output"],
            env=ENVIRONMENT,
            stdout=file,
            timeout=30,
            check=True,
        )
    assert done.returncode == 0
    assert path.read_bytes() == data


def test_raw_output_of_several_arguments(device, capfdbinary):
    assert request(device, "echo", "a b", "", "c", "-r") == 0
    assert capfdbinary.readouterr().out == b"a b\n\nc"


def test_raw_output_of_a_refusal(device, capfdbinary):
    assert request(device, "refuse", "-r") == 1
    output, errors = capfdbinary.readouterr()
    assert output == b""
    assert errors.endswith(b" ?refuse: not today\n")


# ---- again and again ----


def test_latencies(device, capsys):
    assert request(device, "echo", "--repeat", "5") == 0
    where = "{}:{}".format(*device.address)
    number = r"\d+\.\d+ m?s"
    statistics = f"min {number}, mean {number}, median {number}, p99 {number}, max {number}"
    assert re.fullmatch(rf"{where} \?echo: 5 replies: {statistics}\n", capsys.readouterr().out)
    assert len(device.received_requests("echo")) == 5


def test_latencies_of_refusals(device, capsys):
    assert request(device, "refuse", "--repeat", "1", "-o", "json") == 1
    record = json.loads(capsys.readouterr().out)
    assert (record["count"], record["refused"]) == (1, 1)
    assert 0 < record["min_ms"] == record["p99_ms"] == record["max_ms"]


def test_latencies_of_what_is_not_answered(device, capsys):
    assert request(device, "silent", "--repeat", "2", "--timeout", "0.2") == 4
    output, errors = capsys.readouterr()
    assert output.endswith(" ?silent: no replies\n")
    assert errors.endswith(" ?silent: no reply within 0.2 seconds\n")


def test_latencies_until_ctrl_c(device):
    arguments = ["{}:{}".format(*device.address), "echo", "--repeat", "0", "--interval", "0.001"]
    with KatcpProcess("request", *arguments) as process:
        device.wait_for_request("echo", count=3)
        process.interrupt()
        code, output, errors = process.end()
    assert (code, errors) == (130, "")
    assert re.search(r"\?echo: \d+ replies: min ", output)
