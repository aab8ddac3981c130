"""What an answer shows, and what is raised where there is none."""

import copy
import html
import pickle
import re

import pytest

from katcp import (
    Answer,
    KatcpClientDisconnected,
    KatcpClientError,
    KatcpClientTimeout,
    KatcpReplyError,
    Message,
)
from katcp._state.replies import answer_of

INFORMS = [Message.inform("help", "watchdog", "Is it there?")]


def reply(*arguments, mid=None):
    return Message.reply("help", *arguments, mid=mid)


def test_an_answer_has_arguments_informs_and_reply():
    answer = answer_of(reply("ok", 1, "x", mid=5), INFORMS)
    assert answer.arguments == [b"1", b"x"]
    assert answer.informs == INFORMS
    assert answer.reply == reply("ok", 1, "x", mid=5)


def test_an_answer_unpacks_into_arguments_and_informs():
    arguments, informs = answer_of(reply("ok", 1), INFORMS)
    assert (arguments, informs) == ([b"1"], INFORMS)


@pytest.mark.parametrize("name", ["arguments", "informs", "reply"])
def test_an_answer_cannot_be_changed(name):
    with pytest.raises(AttributeError):
        setattr(answer_of(reply("ok"), []), name, None)


@pytest.mark.parametrize(
    ("informs", "text"),
    [
        ([], "<Answer <Message reply help (b'ok', b'1')>>"),
        (INFORMS, "<Answer <Message reply help (b'ok', b'1')>, 1 inform>"),
        (INFORMS * 2, "<Answer <Message reply help (b'ok', b'1')>, 2 informs>"),
    ],
)
def test_repr(informs, text):
    assert repr(Answer(reply("ok", 1), informs)) == text


class Printer:
    """What IPython hands to `_repr_pretty_`."""

    def __init__(self, indentation):
        self.indentation = indentation
        self.shown = ""

    def text(self, text):
        self.shown += text


def pretty(answer, indentation=0):
    printer = Printer(indentation)
    answer._repr_pretty_(printer, False)
    return printer.shown


MODES = [
    Message.inform("sensor-value", 1.5, 1, "mode", "nominal", "idle"),
    Message.inform("sensor-value", 22.25, 1, "data", "unknown", b"\0" * 100, "<&>"),
]
HEAD = "<Answer <Message reply sensor-value[7] (b'ok', b'2')>, 2 informs>"
CUT = "b'" + "\\x00" * 32 + "'... (100 bytes)"


def test_ipython_shows_the_informs_as_a_table():
    answer = answer_of(Message.reply("sensor-value", "ok", 2, mid=7), MODES)
    head, *lines = pretty(answer).splitlines()
    assert head == HEAD
    assert [line.split() for line in lines] == [
        ["0", "1", "2", "3", "4", "5"],
        ["arguments", "b'2'"],
        ["informs[0]", "b'1.5'", "b'1'", "b'mode'", "b'nominal'", "b'idle'"],
        ["informs[1]", "b'22.25'", "b'1'", "b'data'", "b'unknown'", *CUT.split(), "b'<&>'"],
    ]
    columns = [lines[0].index(str(number)) for number in range(6)]
    assert [lines[3][column - 1] for column in columns] == [" "] * 6
    assert [lines[3][column] for column in columns] == ["b"] * 6
    # In a list there is no room for it.
    assert pretty(answer, indentation=1) == HEAD


def test_jupyter_shows_the_informs_as_a_table():
    shown = answer_of(Message.reply("sensor-value", "ok", 2, mid=7), MODES)._repr_html_()
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in shown.split("<tr>")[1:]]
    assert [html.unescape(cell) for cell in rows[0]] == ["", "0", "1", "2", "3", "4", "5"]
    assert [html.unescape(cell) for cell in rows[3]] == [
        *("informs[1]", "b'22.25'", "b'1'", "b'data'", "b'unknown'", CUT, "b'<&>'")
    ]
    assert f"<caption>{html.escape(HEAD)}</caption>" in shown
    assert "<&>" not in shown


def test_an_answer_without_informs_is_no_table():
    answer = answer_of(reply("ok", b"\0 "), [])
    assert pretty(answer) == "<Answer <Message reply help (b'ok', b'\\x00 ')>>"
    assert answer._repr_html_() is None


def test_of_many_informs_the_first_are_shown():
    lines = pretty(answer_of(reply("ok", 1000), INFORMS * 1000)).splitlines()
    assert lines[-2].split()[:2] == ["informs[49]", "b'watchdog'"]
    assert lines[-1] == "... and 950 more"


def test_informs_without_arguments_are_shown():
    assert pretty(answer_of(reply("ok"), [Message.inform("help")])).splitlines()[1:] == [
        "",
        "arguments",
        "informs[0]",
    ]


def test_an_answer_can_be_copied():
    answer = answer_of(reply("ok", 1), INFORMS)
    for other in (copy.copy(answer), copy.deepcopy(answer)):
        assert (other, other.reply) == (answer, answer.reply)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("fail", "not today"), "not today"),
        (("invalid", "no such thing", "more"), "no such thing"),
        (("fail", b"\xff"), "\\xff"),
        (("fail", ""), ""),
        (("fail",), "!help fail"),
        (("busy", "later"), "!help busy later"),
        ((), "!help"),
    ],
)
def test_a_refusal_raises_the_reason_of_the_device(arguments, text):
    with pytest.raises(KatcpReplyError) as error:
        answer_of(reply(*arguments, mid=7), INFORMS)
    assert str(error.value) == text
    assert error.value.reply == reply(*arguments, mid=7)
    assert error.value.informs == INFORMS


def test_a_refusal_can_be_passed_to_another_process():
    error = KatcpReplyError("not today", None, INFORMS)
    error.informs = []
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.reply, again.informs) == ("not today", None, [])


@pytest.mark.parametrize("cls", [KatcpClientTimeout, KatcpClientDisconnected, KatcpClientError])
def test_a_reply_that_the_client_made_up_raises_its_cause(cls):
    made_up = reply("fail", "the reason")
    made_up.local_error = cls("the reason")
    made_up.local_error.__cause__ = cause = OSError()
    with pytest.raises(KatcpClientError, match=r"^the reason$") as error:
        answer_of(made_up, [])
    assert type(error.value) is cls
    assert error.value.__cause__ is cause
    # Other threads may raise theirs from the same.
    assert error.value is not made_up.local_error
