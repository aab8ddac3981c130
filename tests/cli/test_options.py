"""The types of the arguments."""

import argparse

import pytest

from katcp.cli.options import Address, parse_address, parse_seconds


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost:7147", "localhost", 7147),
        ("10.0.0.1:1", "10.0.0.1", 1),
        ("[::1]:65535", "::1", 65535),
        ("[fe80::1%eth0]:7147", "fe80::1%eth0", 7147),
    ],
)
def test_address(text, host, port):
    address = parse_address(text)
    assert address == Address(host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "localhost:", ":7147", "a b:7147", "host:0", "host:65536", "host:x", "[]:1"],
)
def test_no_address(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not an address like localhost:7147$"):
        parse_address(text)


def test_ipv6_address_without_brackets():
    with pytest.raises(argparse.ArgumentTypeError, match="put an IPv6 address in brackets"):
        parse_address("::1:7147")


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1s", ""])
def test_no_seconds(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number of seconds"):
        parse_seconds(text)
