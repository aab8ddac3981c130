"""What was observed of the old package beside the record in test_old_client.py.

Each test does what a program in the field does, and expects what katcp 0.9.3 did then.
"""

from __future__ import annotations

import pytest

from katcp import Message, ProtocolFlags

# ---- messages and flags ----


@pytest.mark.parametrize(
    ("msg", "shown"),
    [
        (Message.reply("ok", ""), "<Message reply ok (b'')>"),
        (
            Message.reply("ok", " ", b"\0", ""),
            "<Message reply ok (b'\\\\_', b'\\\\0', b'')>",
        ),
    ],
    ids=["one", "between"],
)
def test_an_empty_argument_is_shown_as_no_bytes(msg, shown):
    assert repr(msg) == shown


def test_no_version_is_version_zero():
    flags = ProtocolFlags.parse_version(b"foo")
    assert flags == ProtocolFlags(None, None, set())
    assert (flags.major, flags.minor, flags.flags, str(flags)) == (0, 0, set(), "0.0")
    assert ProtocolFlags(5, None, set()).minor == 0
