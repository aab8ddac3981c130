"""Types, decorators, sensors and strategies beside those of katcp 0.9.3, value by value."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess

import pytest

from tests.interop import observe_types
from tests.interop.environments import python_of
from tests.support.snippets import DOCS

# What may be otherwise: the difference in docs/explanation/differences.rst, what was done, and
# what comes of it now.
DIFFERENCES = {
    "strict-numbers": (
        r".*(1_0|b' 1'|b'1 '|b'1\\n')",
        r"\w+Error: (Could not parse|could not convert|invalid literal).*|\(.*, 4, .*\)",
    ),
    "finite-times": (r"\w*Timestamp\w* .*(nan|inf|NaN|Inf|1e400)", r"ValueError: .*"),
    "strict-addresses": (
        r"Address unpack .*|address .*|parse_params 7 .*",
        r"ValueError: Could not parse .* as an address\.|\(.*, 4, \('0.0.0.0', None\)\)",
    ),
    "bytes-as-text": (r".*xff'|.*'\\udcff'", r"b'\\xff'|.*\\udcff.*|ValueError: .*|TypeError"),
    "by-value": (
        r"(Float|Str|StrictTimestamp)\b.* pack . (Fraction|bytearray|True|False|1e)",
        r"b'[0-9.]+'",
    ),
    "fraction-of-milliseconds": (r"Timestamp\w* pack 4 ", r"b'[0-9.]+'"),
    "errors-of-values": (
        r"Float pack . \(|float (set_value|read_formatted) \(|Address pack",
        r"ValueError: Could not (encode value|extract host and port from value) .*",
    ),
    "no-value": (r"\w+ b'failure' ", r"\(.*, 4, .*\)"),
    "parameter-pack": (r"Parameter pack 4", r"b'1500'"),
    "sampling-parameters": (
        r"sample ",
        r"ValueError: (The period must be a positive float in seconds\."
        r"|The 'period' strategy takes one parameter\.|The diff amount must .*"
        r"|The longest period must be greater than 0\.)",
    ),
}


@pytest.fixture(scope="module")
def tables():
    """What katcp 0.9.3 does, and what we do."""
    python = python_of(pathlib.Path(os.environ["KATCP_PEERS"]), "katcp")
    run = subprocess.run(
        [python, "-I", observe_types.__file__], capture_output=True, check=True, text=True
    )
    return json.loads(run.stdout), observe_types.observe()


def differences_of(label, now):
    return {
        name
        for name, (done, outcome) in DIFFERENCES.items()
        if re.match(done, label) and re.fullmatch(outcome, now, re.DOTALL)
    }


def test_the_tables_are_of_the_same_things(tables):
    old, new = tables
    assert list(old) == list(new)
    assert len(new) > 6000


def test_what_is_otherwise_is_a_difference_that_is_documented(tables):
    old, new = tables
    undocumented = {
        label: (old[label], now)
        for label, now in new.items()
        if now != old[label] and not differences_of(label, now)
    }
    assert undocumented == {}


def test_each_difference_is_met(tables):
    old, new = tables
    met = {
        name
        for label, now in new.items()
        if now != old[label]
        for name in differences_of(label, now)
    }
    assert met == set(DIFFERENCES)


def test_the_differences_have_these_names():
    page = (DOCS / "explanation" / "differences.rst").read_text("utf-8")
    assert set(DIFFERENCES) - set(re.findall(r"^([a-z-]+)\n~+$", page, re.MULTILINE)) == set()
