"""``katcp simulate``."""

import re

import pytest

import katcp
from katcp import Message, cli
from tests.support.process import KatcpProcess


def test_device_with_a_fault():
    arguments = ["--protocol", "5.0-IM", "--fault", "unknown-code:watchdog", "--name", "dish"]
    with KatcpProcess("simulate", "--listen", "0", *arguments) as process:
        match = re.fullmatch(r"dish listens on (127\.0\.0\.1):([0-9]+)\n", process.line())
        client = katcp.BlockingClient(match[1], int(match[2]))
        client.start()
        assert client.wait_protocol(5)
        assert str(client.protocol_flags) == "5.0-IM"
        assert not client.blocking_request(Message.request("watchdog"))[0].reply_ok()
        client.stop()
        process.interrupt()
        assert process.end() == (0, "", "")


def test_faults_are_listed(capsys):
    assert cli.main(["simulate", "--list-faults"]) == 0
    assert "no-reply" in capsys.readouterr().out


def test_fault_that_does_not_exist(capsys):
    assert cli.main(["simulate", "--fault", "no-such-fault"]) == 2
    assert "katcp: " in (errors := capsys.readouterr().err)
    assert "no-such-fault" in errors


def test_port_that_is_taken(device, capsys):
    assert cli.main(["simulate", "--listen", str(device.address[1])]) == 1
    where = "{}:{}".format(*device.address)
    assert capsys.readouterr().err == (
        f"katcp: cannot listen on {where}: Address already in use; --listen chooses a port\n"
    )


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [("6", "'6' is not a version of KATCP: 4 and 5 are"), ("x", "'x' is no protocol")],
)
def test_protocol_that_does_not_exist(protocol, reason, capsys):
    assert cli.main(["simulate", "--protocol", protocol]) == 2
    assert capsys.readouterr().err.startswith(f"katcp: {reason}")


def test_words_that_mean_nothing(capsys):
    assert cli.main(["simulate", "7147"]) == 2
    assert capsys.readouterr().err == "katcp: unexpected argument '7147'\n"
