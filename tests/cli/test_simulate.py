"""``katcp simulate``."""

import re

import katcp
from katcp import Message, cli
from tests.support.process import KatcpProcess


def test_device_with_a_fault():
    arguments = ["--protocol", "5.0-IM", "--fault", "unknown-code:watchdog", "--name", "dish"]
    with KatcpProcess("simulate", *arguments) as process:
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
    assert "no-such-fault" in capsys.readouterr().err


def test_port_that_is_taken(device, capsys):
    assert cli.main(["simulate", "--port", str(device.address[1])]) == 1
    assert "cannot listen" in capsys.readouterr().err
