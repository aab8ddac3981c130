"""Which device is meant; nicknames are tried in tests/terminal."""

import sys

import pytest

from katcp.cli.devices import (
    Address,
    default_device,
    find_device,
    is_device,
    parse_address,
    split_devices,
)
from katcp.cli.output import CommandError


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("localhost:7147", "localhost", 7147, "localhost:7147"),
        ("10.0.0.1:1", "10.0.0.1", 1, "10.0.0.1:1"),
        ("[::1]:65535", "::1", 65535, "[::1]:65535"),
        ("[fe80::1%eth0]", "fe80::1%eth0", 7147, "[fe80::1%eth0]:7147"),
        ("correlator", "correlator", 7147, "correlator:7147"),
        (":7200", "localhost", 7200, "localhost:7200"),
    ],
)
def test_address(text, host, port, shown):
    address = parse_address(text)
    assert address == Address(host, port)
    assert str(address) == address.full == shown


@pytest.mark.parametrize(
    "text", ["", "localhost:", "a b:7147", "host:65536", "host:x", "[]:1", "http://host"]
)
def test_not_an_address(text):
    with pytest.raises(ValueError, match="is not an address such as localhost:7147"):
        parse_address(text)


def test_ipv6_address_without_brackets():
    with pytest.raises(ValueError, match="put an IPv6 address in brackets"):
        parse_address("::1:7147")


def test_without_platformdirs(config, monkeypatch):
    """There are no nicknames, and all else works."""
    config.write_text("[devices]\nlab = 10.0.0.5:1234\n")
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert find_device("lab") == Address("lab", 7147)


@pytest.mark.parametrize(
    "text", ["a:1", ":7147", "[::1]", "localhost", "10.0.0.1", "correlator:7147"]
)
def test_what_can_only_be_a_device(text):
    assert is_device(text)


@pytest.mark.parametrize("text", ["help", "rack1.temp", "temp*", "/a:1b/", "", "a:b"])
def test_what_may_be_something_else(text):
    assert not is_device(text)


def test_default_device(monkeypatch):
    assert default_device() == Address("localhost", 7147, is_default=True)
    monkeypatch.setenv("KATCP_DEVICE", "lab:1234")
    assert default_device() == Address("lab", 1234, is_default=True)
    monkeypatch.setenv("KATCP_DEVICE", "a b")
    with pytest.raises(CommandError, match=r"^\$KATCP_DEVICE: 'a b' is not an address"):
        default_device()


@pytest.mark.parametrize(
    ("named", "words", "most", "found", "rest"),
    [
        ([], ["a:1", "help"], 1, ["a:1"], ["help"]),
        ([], ["a:1", "b:2", "x"], 1, ["a:1"], ["b:2", "x"]),
        ([], ["a:1", "b:2", "x"], None, ["a:1", "b:2"], ["x"]),
        ([], ["help", "a:1"], 1, ["localhost:7147"], ["help", "a:1"]),
        (["dish"], ["a:1", "x"], 1, ["dish:7147"], ["a:1", "x"]),
        (["dish", "b:2"], [], None, ["dish:7147", "b:2"], []),
    ],
)
def test_splitting(named, words, most, found, rest):
    devices, others = split_devices(named, words, most)
    assert ([str(device) for device in devices], others) == (found, rest)
