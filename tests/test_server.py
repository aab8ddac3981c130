"""What clients use of the server side, and that there is no more of it."""

import logging

import pytest

import katcp
import katcp.server
from katcp import DeviceLogger, Message

LEVELS = [
    ("trace", 0),
    ("debug", logging.DEBUG),
    ("info", logging.INFO),
    ("warn", logging.WARNING),
    ("error", logging.ERROR),
    ("fatal", logging.CRITICAL),
]


class Calls:
    def __init__(self):
        self.calls = []

    def log(self, level, text):
        self.calls.append((level, text))


def log(*arguments):
    logger = Calls()
    DeviceLogger.log_to_python(logger, Message.inform("log", *arguments))
    return logger.calls


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_a_log_inform_is_logged_at_its_level(name, level):
    assert log(name, "1234567890.5", "dev.part", "100% of it") == [
        (level, "1234567890.5 dev.part: 100% of it")
    ]


def test_bytes_that_are_not_text_are_logged_with_escapes():
    assert log("info", "1", b"n\xff", b"a\xfeb") == [(logging.INFO, r"1 n\xff: a\xfeb")]


@pytest.mark.parametrize(
    "arguments",
    [(), ("info", "1", "name"), ("info", "1", "name", "text", "more"), ("loud", "1", "n", "t")],
    ids=["none", "few", "many", "level"],
)
def test_what_is_no_log_inform_is_refused(arguments):
    with pytest.raises(ValueError, match="unpack|not in list"):
        log(*arguments)


def test_the_levels_are_numbered():
    assert DeviceLogger.LEVELS[DeviceLogger.WARN] == "warn"
    assert DeviceLogger.ALL == 0
    assert DeviceLogger.LEVELS[DeviceLogger.OFF] == DeviceLogger.LEVELS[-1] == "off"
    for name, level in LEVELS:
        assert DeviceLogger.PYTHON_LEVEL[getattr(DeviceLogger, name.upper())] == level


def test_there_is_nothing_else_of_a_server():
    assert katcp.server.__all__ == ["DeviceLogger"]
    assert katcp.server.DeviceLogger is katcp.DeviceLogger
    with pytest.raises(TypeError):
        DeviceLogger("server")
