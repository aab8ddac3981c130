"""What an answer shows, and what is raised where there is none."""

import copy
import pickle

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
