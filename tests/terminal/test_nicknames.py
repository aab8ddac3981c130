"""Nicknames of devices, in a configuration file."""

import pytest

from katcp.cli.devices import Address, default_device, find_device, is_device
from katcp.cli.output import CommandError
from tests.support.process import KatcpProcess

NICKNAMES = "[devices]\nlab = 10.0.0.5:1234\nDish.1=[fe80::1]\nbad = a b\n"


def test_nicknames(config):
    config.write_text(NICKNAMES)
    lab = find_device("lab")
    assert lab == Address("10.0.0.5", 1234, "lab")
    assert (str(lab), lab.full) == ("lab", "lab (10.0.0.5:1234)")
    assert find_device("Dish.1") == Address("fe80::1", 7147, "Dish.1")
    # Another spelling is a host.
    assert find_device("LAB") == Address("LAB", 7147)


def test_nickname_of_nothing(config):
    config.write_text(NICKNAMES)
    with pytest.raises(CommandError, match=r"config\.ini: 'a b' is not an address"):
        find_device("bad")


@pytest.mark.parametrize("text", ["lab = x\n", "[devices]\nlab = x\nlab = y\n", b"\xff"])
def test_config_that_cannot_be_read(text, config):
    config.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CommandError, match=r"cannot read .*config\.ini: ") as failure:
        find_device("lab")
    assert "\n" not in str(failure.value)


def test_default_device(monkeypatch, config):
    config.write_text(NICKNAMES)
    assert is_device("lab")
    assert not is_device("LAB")
    monkeypatch.setenv("KATCP_DEVICE", "lab")
    assert default_device() == Address("10.0.0.5", 1234, "lab", is_default=True)


@pytest.mark.parametrize(
    "arguments", [["lab", "echo"], ["-d", "lab", "echo"], ["echo"]], ids=" ".join
)
def test_request_by_nickname(arguments, config, device):
    config.write_text("[devices]\nlab = {}:{}\n".format(*device.address))
    environment = {"XDG_CONFIG_HOME": str(config.parent.parent), "KATCP_DEVICE": "lab"}
    with KatcpProcess("request", *arguments, **environment) as process:
        assert process.end() == (0, "ok\n", "")
    with KatcpProcess("request", "lab", "refuse", **environment) as process:
        assert process.end() == (1, "", "katcp: lab ?refuse: not today\n")
