"""What may be typed in which place of a request."""

import pytest

from katcp.cli.loglines import LEVELS
from katcp.cli.names import (
    REGISTERS,
    REQUESTS,
    SENSORS,
    candidates,
    first_line,
    make_names,
    read_parameters,
)

NUMPYDOC = """Tune a register.

        A longer text: of several lines.

        Parameters
        ----------
        names : str
            One or more names, which are
            separated: by commas.
        frequency : {'low',
                     'high'}, optional
            Not a sensor.

        Returns
        -------
        success : {'ok', 'fail'}
            Whether it worked.
"""

STRATEGIES = ["none", "auto", "event", "period", "differential", "event-rate", "differential-rate"]

HELPS = {
    "help": "Describe one request, or all (?help [name]).",
    "sensor-value": "Tell the readings of sensors (?sensor-value [name or /regex/]).",
    "sensor-sampling": "Only prose.",
    "tune": NUMPYDOC,
    "read": "Read bytes (?read register-or-address [offset [count]]).",
    "wordwrite": "Write words (?wordwrite register word-offset word ...).",
    "log-level": "Set the level (?log-level [level]).",
    "watchdog": "Tell that it is alive (?watchdog).",
    "upload": "Upload a file.",
    "halt": "Only prose.",
}


def look_up(kind):
    return {REQUESTS: HELPS, SENSORS: {"temp": "", "mode": ""}, REGISTERS: {"bram": ""}}[kind]


@pytest.mark.parametrize(
    ("before", "names"),
    [
        ("", [*HELPS]),
        ("help", [*HELPS]),
        ("sensor-value", ["temp", "mode"]),
        ("?sensor-value", ["temp", "mode"]),
        ("sensor-sampling", ["temp", "mode"]),
        ("tune", ["bram"]),
        ("tune bram", []),
        ("sensor-sampling temp", STRATEGIES),
        ("sensor-sampling temp period", []),
        ("read", ["bram"]),
        ("read bram", []),
        ("wordwrite bram 0 1 2 3", []),
        ("log-level", [*LEVELS]),
        ("watchdog", []),
        ("halt", []),
        # Nobody knows, and most arguments are sensors.
        ("upload", ["temp", "mode"]),
        ("nosuch", ["temp", "mode"]),
    ],
)
def test_candidates(before, names):
    assert [*candidates(before.split(), look_up)] == names


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("help", ["name"]),
        ("tune", ["names", "frequency"]),
        ("read", ["register-or-address", "offset", "count"]),
        ("wordwrite", ["register", "word-offset", "word"]),
        ("watchdog", []),
        ("upload", None),
    ],
)
def test_parameters(name, parameters):
    assert read_parameters(name, HELPS[name]) == parameters


def test_names_and_descriptions():
    rows = [["a", "How warm", "degC", "float", "0"], ["b", "Text"], ["c"], [""], []]
    assert make_names(SENSORS, rows) == {"a": "How warm (float in degC)", "b": "Text", "c": ""}
    assert make_names(REQUESTS, [["x", "one\ntwo"]]) == {"x": "one\ntwo"}


@pytest.mark.parametrize(
    ("text", "line"), [("", ""), ("\n  one  word\ntwo", "one word"), ("\x1b[2J", r"\x1b[2J")]
)
def test_first_line(text, line):
    assert first_line(text) == line
