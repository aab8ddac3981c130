"""JSON for people: indented and coloured."""

import io
import json
import re
import sys

import pytest

from katcp.cli.formats import print_json

RECORD = {"name": "caf\u00e9", "value": 1.5, "more": None}


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def shown(monkeypatch):
    """Return a function that prints JSON on a terminal, and returns what is shown."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def shown(document):
        terminal = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            print_json(document)
        return terminal.getvalue()

    return shown


def test_json_for_people(shown):
    text = shown(RECORD)
    assert text.startswith("\x1b[1m{\x1b[0m\n  \x1b")
    assert "caf\u00e9" in text


@pytest.mark.parametrize("reason", ["NO_COLOR", "rich"])
def test_json_without_colours(reason, shown, monkeypatch):
    if reason == "rich":
        monkeypatch.setitem(sys.modules, "rich.console", None)
    else:
        monkeypatch.setenv(reason, "1")
    assert shown(RECORD) == json.dumps(RECORD, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("text", ["\x1b[2J", "\u009b2J", "\u202eabc", "\U000e0001", "[red]x[/red]"])
def test_json_never_steers_a_terminal(text, shown):
    plain = re.sub("\x1b\\[[0-9;]*m", "", shown([text])).replace("\n", "")
    assert plain.isprintable()
    assert json.loads(plain) == [text]
