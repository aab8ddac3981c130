"""What a client does when the device or the network does wrong.

Two tables say what a user sees: `FAULTS_OF_DEVICES` for everything that the
simulated device can do wrong, `FAULTS_OF_NETWORKS` for what a proxy does to the
connection. One driver goes through both. For each fault three requests are in
flight when it strikes, one of each kind: callback, future and blocking. Then

- each ends exactly once, in time, and as the table says: with its own answer
  (every request carries a nonce), or with a reply that names the cause;
- the log names the cause where the table says so, and says nothing else;
- when the fault is over, the client is usable again, by itself: requests of all
  kinds get their own answers;
- nothing is pending, and no thread and no socket is left (`conftest`).

Faults that need more than a row have a test of their own, a *story*.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import re
import threading
import time
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence, Union

import pytest

import katcp
from katcp import Message
from katcp.simdevice import DeviceRequest
from katcp.simdevice.faults import Fault, list_faults
from katcp.simdevice.sensors import Sensor
from tests.conftest import Logs
from tests.support.faultproxy import Door, End, FaultProxy, Way
from tests.support.helpers import PATIENCE, Recorder, TestDevice, in_loop, texts
from tests.support.peek import Peek

# The timeout of requests that have to run into it, and how much later than it
# says, or than its cause, a request may end on a machine that is busy.
TIMEOUT = 0.25
MARGIN = 3.0

# Later than the timeout, even then.
LATE = 0.6

# The kinds of requests; each has a request of its own on the device.
KINDS = ("callback", "future", "blocking")

PROTOCOLS = {"v5": "5.1-MIB", "v4": "4"}
FLAGS = {"v5": "5.1-BIM", "v4": "4.0"}

# How requests end.
ANSWERED = "ok NONCE | NONCE"
TIMED_OUT = "KatcpClientTimeout: timed out"
CLOSED = "KatcpClientDisconnected: Connection closed before reply was received"
TOO_LONG = (
    "KatcpClientDisconnected: Connection closed before reply was received: "
    "a line was longer than MAX_MSG_SIZE (2097152 bytes)"
)
NOT_CONNECTED = "KatcpClientDisconnected: Not connected to device HOST"


class Seen(NamedTuple):
    """What a user sees of a fault.

    Attributes
    ----------
    outcome : str or tuple
        How each request ends, or all of them.
    warnings, errors : tuple
        What stands in the log, at least once each.
    perhaps : tuple
        Which warnings may come too: it depends on where the pieces end.
    flags : str or None
        The protocol that the client finds out. Default: that of the device.
    strays : int
        How many replies go to `unhandled_reply` before the fault is over.
    lost : bool
        Whether replies are lost for good: without ids the next requests of
        their names time out, and then the client renews the connection.
    cure : str or None
        What has to be done to the device, since the client cannot know.
    """

    outcome: Union[str, tuple[str, ...]] = ANSWERED
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    perhaps: tuple[str, ...] = ()
    flags: Optional[str] = "default"
    strays: int = 0
    lost: bool = False
    cure: Optional[str] = None

    @property
    def outcomes(self) -> tuple[str, ...]:
        return (self.outcome,) * len(KINDS) if isinstance(self.outcome, str) else self.outcome

    @property
    def reconnects(self) -> bool:
        return self.cure is not None or CLOSED in self.outcomes[0]


class FaultOfDevice(NamedTuple):
    """What a user sees of a device with ids and of one without."""

    v5: Seen
    v4: Seen


def both(seen: Seen) -> FaultOfDevice:
    return FaultOfDevice(seen, seen)


HARMLESS = both(Seen())
IGNORED_IDS = ("Ignoring the id of",)

FAULTS_OF_DEVICES = {
    # The connection
    "stall": both(Seen(TIMED_OUT, flags=None, cure="close_clients")),
    "stall:callback": both(Seen(TIMED_OUT, cure="close_clients")),
    "close-on-request": both(Seen(CLOSED)),
    "disconnect-on-request": both(
        Seen(f"{CLOSED}, as the device announced: No more of ?callback.")
    ),
    "reset-on-request": both(Seen(CLOSED, ("closed with error ConnectionResetError",))),
    # The greeting
    "no-greeting": both(Seen(flags=None)),
    "late-greeting=0.05": HARMLESS,
    "protocol-last": HARMLESS,
    "both-greetings": HARMLESS,
    "bad-version": FaultOfDevice(
        Seen(flags=None, warnings=("katcp protocol version that cannot be understood",)), Seen()
    ),
    "bad-version=9.0-IM": FaultOfDevice(
        Seen(flags="9.0-IM", warnings=("newer than this client knows",)), Seen()
    ),
    # Ids. A device that does not keep to them is not believed.
    "no-ids": FaultOfDevice(Seen(TIMED_OUT, strays=3), Seen()),
    "wrong-id": FaultOfDevice(
        Seen(TIMED_OUT, IGNORED_IDS, strays=3), Seen(TIMED_OUT, strays=3, lost=True)
    ),
    "unknown-id": FaultOfDevice(Seen(TIMED_OUT, strays=3), Seen(TIMED_OUT, strays=3, lost=True)),
    "duplicate-id": FaultOfDevice(Seen((ANSWERED, TIMED_OUT, ANSWERED), strays=1), Seen()),
    # Replies
    "no-reply": FaultOfDevice(Seen(TIMED_OUT), Seen(TIMED_OUT, lost=True)),
    f"late-reply={LATE}": both(Seen(TIMED_OUT, strays=3)),
    "duplicate-reply": both(Seen(strays=3)),
    "reordered-replies": FaultOfDevice(
        Seen((ANSWERED, ANSWERED, TIMED_OUT)), Seen((ANSWERED, ANSWERED, TIMED_OUT), lost=True)
    ),
    "wrong-name": FaultOfDevice(
        Seen(TIMED_OUT, IGNORED_IDS, strays=3), Seen(TIMED_OUT, strays=3, lost=True)
    ),
    "reply-before-informs": both(Seen("ok NONCE | ")),
    "no-code": both(Seen(" | NONCE")),
    "unknown-code": both(Seen("partial NONCE | NONCE")),
    # Unexpected messages
    "request-to-client": HARMLESS,
    "unknown-inform": HARMLESS,
    # Lines
    "bad-escape": FaultOfDevice(
        Seen(TIMED_OUT, errors=("Invalid escape character",)),
        Seen(TIMED_OUT, errors=("Invalid escape character",), lost=True),
    ),
    "not-utf8": both(Seen("ok NONCE \\xff\\xfe\\x80 | NONCE \\xff\\xfe\\x80")),
    "over-long-line": both(
        Seen(TOO_LONG, ("longer than MAX_MSG_SIZE",), perhaps=("Dropped a line of",))
    ),
    "half-line-then-close": both(Seen(CLOSED, ("Dropped a line of",))),
    # Bytes
    "cr": HARMLESS,
    "crlf": HARMLESS,
    "blank-lines": HARMLESS,
    "byte-by-byte": HARMLESS,
    "coalesce": HARMLESS,
}


class FaultOfNetwork(NamedTuple):
    """What the proxy does on both ways, and what a user sees of it."""

    seen: Seen
    to_device: Way = Way()
    to_client: Way = Way()


RESET = Seen(CLOSED, ("closed with error ConnectionResetError",))
LATE_ANSWERS = Seen(TIMED_OUT, strays=3)

FAULTS_OF_NETWORKS = {
    "delay": FaultOfNetwork(Seen(), Way(delay=0.05), Way(delay=0.05)),
    "delay of the requests beyond the timeout": FaultOfNetwork(LATE_ANSWERS, Way(delay=LATE)),
    "delay of the answers beyond the timeout": FaultOfNetwork(
        LATE_ANSWERS, to_client=Way(delay=LATE)
    ),
    "single bytes": FaultOfNetwork(Seen(), Way(single=True), Way(single=True)),
    "coalesce": FaultOfNetwork(Seen(), Way(gather=0.05), Way(gather=0.05)),
    "nobody reads the requests": FaultOfNetwork(
        Seen(TIMED_OUT), to_device=Way(limit=0, end=End.STALL)
    ),
    "nobody reads the answers": FaultOfNetwork(
        Seen(TIMED_OUT), to_client=Way(limit=0, end=End.STALL)
    ),
    "close at the requests": FaultOfNetwork(Seen(CLOSED), Way(limit=0)),
    "close at the answers": FaultOfNetwork(Seen(CLOSED), to_client=Way(limit=0)),
    "close within a request": FaultOfNetwork(Seen(CLOSED), Way(limit=3)),
    "close within an answer": FaultOfNetwork(
        Seen(CLOSED, ("Dropped a line of 3 bytes",)), to_client=Way(limit=3)
    ),
    "reset at the requests": FaultOfNetwork(RESET, Way(limit=0, end=End.RESET)),
    "reset at the answers": FaultOfNetwork(RESET, to_client=Way(limit=0, end=End.RESET)),
    "half-close to the device": FaultOfNetwork(Seen(CLOSED), Way(limit=0, end=End.HALF_CLOSE)),
    "half-close to the client": FaultOfNetwork(
        Seen(CLOSED), to_client=Way(limit=0, end=End.HALF_CLOSE)
    ),
}

# The faults that have a test of their own.
STORIES: set[object] = set()


def story(*faults: object) -> Callable[[Any], Any]:
    """Note that the decorated test shows what these faults do."""
    STORIES.update(faults)
    return lambda test: test


# ---- the driver ----


class Client(katcp.BlockingClient):
    """A client that notes what it has sent, and the replies that nobody awaits."""

    def __init__(self, *args: Any, connect_timeout: float = PATIENCE, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.CONNECT_TIMEOUT = connect_timeout
        self.auto_reconnect_delay = self.auto_reconnect_max_delay = 0.02
        self.sent = Recorder()
        self.strays = Recorder()

    def send_message(self, msg: Message) -> Any:
        try:
            return super().send_message(msg)
        finally:
            if msg.name in KINDS:
                self.sent(msg)

    def unhandled_reply(self, msg: Message) -> None:
        self.strays(msg)


class Question:
    """One request, and how it ends."""

    _numbers = itertools.count()

    def __init__(self, client: Client, kind: str, timeout: float = PATIENCE) -> None:
        self.kind = kind
        self.nonce = f"nonce-{next(self._numbers)}"
        self.ends = Recorder()
        self._client = client
        self._timeout = timeout
        self._began = time.monotonic()
        self._thread: Optional[threading.Thread] = None
        getattr(self, f"_ask_{kind}")(Message.request(kind, self.nonce))

    def outcome(self) -> str:
        """Wait for the end and tell it, if it came in time."""
        ((reply, informs, took),) = self.ends.wait()
        assert (reply.mtype, reply.name) == (Message.REPLY, self.kind)
        if reply.local_error is None:
            outcome = f"{_words(reply)} | {'; '.join(map(_words, informs))}"
        else:
            assert reply.arguments == [b"fail", str(reply.local_error).encode()]
            outcome = f"{type(reply.local_error).__name__}: {reply.local_error}"
        outcome = outcome.replace(self.nonce, "NONCE")
        outcome = outcome.replace(self._client.bind_address_string, "HOST")
        outcome = re.sub(r"Request \S+ timed out after [0-9.]+ seconds\.", "timed out", outcome)
        # The last one before the connection is renewed tells of that.
        outcome = re.sub(r"timed out \?.*: replies come, but.*", "timed out", outcome)
        earliest = self._timeout if outcome == TIMED_OUT else 0
        assert earliest <= took < earliest + MARGIN, outcome
        return outcome

    def assert_ended_once(self) -> None:
        if self._thread is not None:
            self._thread.join()
        assert len(self.ends.calls) == 1

    def _end(self, reply: Message, informs: list[Message]) -> None:
        self.ends(reply, informs, time.monotonic() - self._began)

    def _ask_callback(self, msg: Message) -> None:
        informs: list[Message] = []
        self._client.callback_request(
            msg, lambda reply: self._end(reply, informs), informs.append, timeout=self._timeout
        )

    def _ask_future(self, msg: Message) -> None:
        def ask() -> None:
            future = self._client.future_request(msg, self._timeout)
            future.add_done_callback(lambda done: self._end(*done.result()))

        self._client.ioloop.add_callback(ask)

    def _ask_blocking(self, msg: Message) -> None:
        self._thread = threading.Thread(
            target=lambda: self._end(*self._client.blocking_request(msg, self._timeout))
        )
        self._thread.start()


def _words(msg: Message) -> str:
    return b" ".join(msg.arguments).decode("utf-8", "backslashreplace")


def answer(request: DeviceRequest, nonce: bytes) -> Any:
    """Send the nonce back, as an inform and in the reply."""
    request.inform(nonce)
    return "ok", nonce


class Trial:
    """A client whose device, or the network on the way there, has a fault."""

    def __init__(self, device: TestDevice, proxy: Any, client: Client, logs: Logs) -> None:
        self.device = device
        self.proxy = proxy
        self.client = client
        self._logs = logs
        self._questions: list[Question] = []

    def ask(self, *kinds: str, timeouts: Union[float, tuple[float, ...]] = PATIENCE) -> Any:
        """Begin a request of each kind; they are sent in this order."""
        if isinstance(timeouts, float):
            timeouts = (timeouts,) * len(kinds)
        questions = []
        for kind, timeout in zip(kinds, timeouts):
            questions.append(Question(self.client, kind, timeout))
            self.client.sent.wait(len(self._questions) + len(questions))
        self._questions += questions
        return questions

    def outcomes(self, *kinds: str, **kwargs: Any) -> tuple[str, ...]:
        """Make a request of each kind, and return how they ended."""
        return tuple(question.outcome() for question in self.ask(*kinds, **kwargs))

    def until_usable(self) -> None:
        """Ask until the device answers; before that there is no connection."""
        outcome = ""
        while outcome != ANSWERED:
            assert self.client.wait_connected(PATIENCE)
            (outcome,) = self.outcomes("callback")
            assert outcome == ANSWERED or outcome.startswith((CLOSED, NOT_CONNECTED)), outcome

    def assert_usable(self) -> None:
        assert self.outcomes(*KINDS) == (ANSWERED,) * len(KINDS)
        assert in_loop(self.client, len, Peek(self.client).pending) == 0

    def expect(self, *warnings: str, level: int = logging.WARNING) -> None:
        """Check that each of these stands in the log, and take it out."""
        for text in warnings:
            self._logs.expect(text, level)
            self.forgive(text)

    def forgive(self, *warnings: str) -> None:
        """Take these out of the log."""
        for text in warnings:
            for record in self._logs.matching(text):
                self._logs.records.remove(record)

    def end(self) -> None:
        """Stop the client: each request has ended exactly once."""
        self.client.stop(PATIENCE)
        for question in self._questions:
            question.assert_ended_once()
        assert len(Peek(self.client).pending) == 0


@pytest.fixture
def start_trial(logs: Logs) -> Iterator[Callable[..., Trial]]:
    """Start a device with faults, perhaps a proxy before it, and a client."""
    with contextlib.ExitStack() as stack:

        def start_trial(
            version: str,
            *faults: str,
            proxied: bool = False,
            door: Door = Door.OPEN,
            sensors: Sequence[Sensor] = (),
            **kwargs: Any,
        ) -> Trial:
            device = TestDevice(protocol=PROTOCOLS[version], faults=faults, sensors=sensors)
            for kind in KINDS:
                device.add_request(answer, kind)
            stack.enter_context(device)
            proxy = stack.enter_context(FaultProxy(device.address)) if proxied else None
            if proxy is not None:
                proxy.door = door
            client = Client(*(proxy or device).address, **kwargs)
            trial = Trial(device, proxy, client, logs)
            stack.callback(trial.end)
            client.start()
            return trial

        yield start_trial


def timeouts_of(seen: Seen) -> tuple[float, ...]:
    """Return small timeouts for those requests only that have to run into them."""
    return tuple(TIMEOUT if outcome == TIMED_OUT else PATIENCE for outcome in seen.outcomes)


def finish(trial: Trial, seen: Seen) -> None:
    """The fault is over: check that the client is usable again."""
    if seen.lost:
        kinds = [kind for kind, outcome in zip(KINDS, seen.outcomes) if outcome == TIMED_OUT]
        while trial.device.connection_count < 2:
            for outcome in trial.outcomes(*kinds, timeouts=0.2):
                renewed = outcome == ANSWERED and trial.device.connection_count > 1
                assert renewed or outcome.startswith((TIMED_OUT, CLOSED, NOT_CONNECTED)), outcome
        trial.expect("replies come, but to earlier requests")
    if seen.reconnects or seen.lost:
        trial.until_usable()
    trial.assert_usable()
    assert (trial.device.connection_count > 1) == (seen.reconnects or seen.lost)
    trial.client.stop(PATIENCE)
    trial.expect(*seen.warnings)
    trial.expect(*seen.errors, level=logging.ERROR)
    trial.forgive(*seen.perhaps)


# ---- the tables ----


@pytest.mark.parametrize("version", PROTOCOLS)
@pytest.mark.parametrize("fault", FAULTS_OF_DEVICES)
def test_faults_of_devices(start_trial, fault, version):
    seen = getattr(FAULTS_OF_DEVICES[fault], version)
    flags = FLAGS[version] if seen.flags == "default" else seen.flags
    trial = start_trial(version, fault)
    device, client = trial.device, trial.client
    assert client.wait_connected(PATIENCE)
    assert client.wait_protocol(0.05 if flags is None else PATIENCE) == (flags is not None)
    assert str(client.protocol_flags) == str(flags)

    device.pause_reading()
    questions = trial.ask(*KINDS, timeouts=timeouts_of(seen))
    device.resume_reading()
    assert tuple(question.outcome() for question in questions) == seen.outcomes
    assert in_loop(client, len, Peek(client).pending) == 0
    client.strays.wait(seen.strays)

    device.faults = ()
    if seen.cure is not None:
        getattr(device, seen.cure)()
        assert client.wait_disconnected(PATIENCE)
    finish(trial, seen)


@pytest.mark.parametrize("version", PROTOCOLS)
@pytest.mark.parametrize("fault", FAULTS_OF_NETWORKS)
def test_faults_of_networks(start_trial, fault, version):
    seen, to_device, to_client = FAULTS_OF_NETWORKS[fault]
    trial = start_trial(version, proxied=True)
    proxy, client = trial.proxy, trial.client
    assert client.wait_protocol(PATIENCE)
    trial.assert_usable()

    # All three are on their way when the fault comes.
    proxy.to_device = Way(limit=0, end=End.STALL)
    questions = trial.ask(*KINDS, timeouts=timeouts_of(seen))
    proxy.to_client = to_client
    proxy.to_device = to_device
    assert tuple(question.outcome() for question in questions) == seen.outcomes
    assert in_loop(client, len, Peek(client).pending) == 0
    client.strays.wait(seen.strays)

    proxy.heal()
    if TIMED_OUT in seen.outcomes:
        client.strays.wait(len(KINDS))
    finish(trial, seen)


def test_every_fault_of_the_device_has_a_test():
    rows = {Fault.parse(text).name for text in FAULTS_OF_DEVICES}
    names = {Fault.parse(text.partition("=")[0]).name for text in list_faults()}
    assert names == rows | {name for name in STORIES if isinstance(name, str)}


def test_every_fault_of_the_proxy_has_a_test():
    ways = [way for fault in FAULTS_OF_NETWORKS.values() for way in fault[1:]]
    for field in dataclasses.fields(Way):
        assert any(getattr(way, field.name) != field.default for way in ways), field.name
    assert {way.end for way in ways if way.limit is not None} == set(End)
    assert {door for door in STORIES if isinstance(door, Door)} == set(Door) - {Door.OPEN}


# ---- stories of devices ----


SENSORS = (
    Sensor("a", "string", value="7", timestamp=1.0),
    Sensor("a.b", "string", value="8", timestamp=1.0),
    Sensor("n", "integer"),
)


def ask_device(client: Client, *words: Any) -> str:
    """Make a request; return all that came, without ids."""
    reply, informs = client.blocking_request(Message.request(*words), timeout=PATIENCE)
    return " / ".join(texts([*informs, reply]))


@story("unknown-status", "wrong-triples", "unknown-type", "wrong-count")
@story("normalised-parameters", "prefix-matching")
@pytest.mark.parametrize(
    ("fault", "words", "answer"),
    [
        (
            "unknown-status",
            "sensor-value a",
            "#sensor-value 1.000000 1 a odd 7 / !sensor-value ok 1",
        ),
        (
            "wrong-triples",
            "sensor-value a",
            "#sensor-value 1.000000 2 a nominal 7 / !sensor-value ok 1",
        ),
        ("unknown-type", "sensor-list a", "#sensor-list a \\@ \\@ odd / !sensor-list ok 1"),
        (
            "wrong-count",
            "sensor-value a",
            "#sensor-value 1.000000 1 a nominal 7 / !sensor-value ok 2",
        ),
        (
            "normalised-parameters",
            "sensor-sampling n differential 2",
            "!sensor-sampling ok n differential 2.000000",
        ),
        (
            "prefix-matching",
            "sensor-value a",
            "#sensor-value 1.000000 1 a nominal 7 / #sensor-value 1.000000 1 a.b nominal 8 / "
            "!sensor-value ok 2",
        ),
    ],
)
@pytest.mark.parametrize("version", PROTOCOLS)
def test_odd_words_arrive_as_they_are(start_trial, version, fault, words, answer):
    # What they mean is the business of the layers above; this one loses none.
    trial = start_trial(version, fault, sensors=SENSORS)
    assert trial.client.wait_protocol(PATIENCE)
    if version == "v4":
        answer = answer.replace("1.000000", "1000")
    assert ask_device(trial.client, *words.split()) == answer
    trial.assert_usable()


@pytest.mark.parametrize("status", ["failure", "inactive"])
def test_a_value_that_cannot_be_decoded_arrives_as_it_is(start_trial, status):
    trial = start_trial("v5", sensors=SENSORS)
    assert trial.client.wait_protocol(PATIENCE)
    trial.device.set_sensor("a", b"\xff \\?", status, timestamp=1.0)
    _, informs = trial.client.blocking_request(Message.request("sensor-value", "a"), PATIENCE)
    assert informs[0].arguments[3:] == [status.encode(), b"\xff \\?"]
    trial.assert_usable()


@story("other-version")
@pytest.mark.parametrize(("version", "other"), [("v5", "4.0"), ("v4", "5.0-IM")])
def test_a_device_that_comes_back_in_another_version_is_spoken_to_in_that(
    start_trial, version, other
):
    trial = start_trial(version, "other-version")
    device, client = trial.device, trial.client
    for flags in (FLAGS[version], other, FLAGS[version]):
        assert client.wait_connected(PATIENCE)
        assert client.wait_protocol(PATIENCE)
        assert str(client.protocol_flags) == flags
        device.clear_received()
        trial.assert_usable()
        assert {message.mid is not None for message in device.received} == {"I" in flags}
        device.close_clients()
        assert client.wait_disconnected(PATIENCE)


def test_a_device_that_greets_late_is_asked_without_ids_until_then(start_trial):
    trial = start_trial("v5", "no-greeting")
    device, client = trial.device, trial.client
    assert client.wait_connected(PATIENCE)
    trial.assert_usable()
    assert {message.mid for message in device.received} == {None}
    # One is in flight when the greeting comes.
    held = Recorder()
    client.callback_request(Message.request("hold"), held, timeout=PATIENCE)
    request = device.next_held()
    device.send_raw(b"#version-connect katcp-protocol 5.1-MIB\n")
    assert client.wait_protocol(PATIENCE)
    device.clear_received()
    assert trial.outcomes(*KINDS) == (ANSWERED,) * len(KINDS)
    assert None not in {message.mid for message in device.received}
    request.reply("ok")
    assert texts(held.wait()[0]) == ["!hold ok"]


# ---- stories of networks ----


@pytest.mark.parametrize("version", PROTOCOLS)
@pytest.mark.parametrize("way", ["to_device", "to_client"])
def test_a_late_answer_is_not_taken_for_that_of_a_later_request(start_trial, version, way):
    trial = start_trial(version, proxied=True)
    assert trial.client.wait_protocol(PATIENCE)
    setattr(trial.proxy, way, Way(limit=0, end=End.STALL))
    assert trial.outcomes(*KINDS, timeouts=TIMEOUT) == (TIMED_OUT,) * len(KINDS)
    later = trial.ask(*KINDS)
    trial.proxy.heal()
    assert tuple(question.outcome() for question in later) == (ANSWERED,) * len(KINDS)
    assert len(trial.client.strays.calls) == len(KINDS)
    trial.assert_usable()


@pytest.mark.parametrize("version", PROTOCOLS)
@pytest.mark.parametrize("way", ["to_device", "to_client"])
def test_a_connection_may_end_after_any_byte(start_trial, version, way):
    trial = start_trial(version, proxied=True)
    proxy, client = trial.proxy, trial.client
    assert client.wait_protocol(PATIENCE)
    trial.until_usable()
    # As many bytes as a request has, or an inform and the reply, and some more.
    for limit in range(30 if way == "to_device" else 56):
        setattr(proxy, way, Way(limit=limit))
        (outcome,) = trial.outcomes("callback")
        answered = outcome.partition(" | ")[0] == "ok NONCE"
        assert answered or outcome.startswith((CLOSED, NOT_CONNECTED)), outcome
        proxy.heal()
        trial.until_usable()
    trial.forgive("Dropped a line of")
    trial.assert_usable()


@pytest.mark.parametrize("version", PROTOCOLS)
def test_a_connection_may_end_within_the_greeting(start_trial, version):
    trial = start_trial(version, proxied=True)
    proxy, client = trial.proxy, trial.client
    trial.until_usable()
    # Before, within and behind the line with the version: 30 bytes in v4, 40 in v5.
    for limit in range(0, 50, 5):
        proxy.to_client = Way(limit=limit)
        proxy.end_links(End.CLOSE)
        assert client.wait_disconnected(PATIENCE)
        assert client.wait_connected(PATIENCE)
        assert client.wait_disconnected(PATIENCE)
        proxy.heal()
        trial.until_usable()
        assert client.wait_protocol(PATIENCE)
        assert str(client.protocol_flags) == FLAGS[version]
    trial.forgive("Dropped a line of")
    trial.assert_usable()


@story(Door.REFUSED)
@pytest.mark.parametrize("version", PROTOCOLS)
def test_where_nobody_listens_requests_fail_at_once_until_somebody_does(start_trial, version):
    trial = start_trial(version, proxied=True)
    trial.until_usable()
    trial.proxy.door = Door.REFUSED
    trial.proxy.end_links(End.CLOSE)
    assert trial.client.wait_disconnected(PATIENCE)
    assert trial.outcomes(*KINDS) == (NOT_CONNECTED,) * len(KINDS)
    trial.expect("Connection refused")
    trial.proxy.heal()
    trial.until_usable()
    trial.assert_usable()
    # After many attempts it is worth a word.
    trial.forgive("Reconnected to")


@story(Door.SILENT)
def test_who_is_accepted_and_told_nothing_times_out(start_trial):
    trial = start_trial("v5", proxied=True, door=Door.SILENT)
    client = trial.client
    assert client.wait_connected(PATIENCE)
    assert not client.wait_protocol(0.05)
    assert trial.outcomes(*KINDS, timeouts=TIMEOUT) == (TIMED_OUT,) * len(KINDS)
    trial.proxy.heal()
    trial.proxy.end_links(End.CLOSE)
    assert client.wait_disconnected(PATIENCE)
    trial.until_usable()
    trial.assert_usable()


@story(Door.FULL)
def test_an_address_that_never_answers_is_given_up_and_tried_again(start_trial):
    trial = start_trial("v5", proxied=True, door=Door.FULL, connect_timeout=0.05)
    trial.expect("no answer within 0.05 seconds")
    assert trial.outcomes(*KINDS) == (NOT_CONNECTED,) * len(KINDS)
    assert not trial.client.is_connected()
    trial.proxy.heal()
    trial.client.CONNECT_TIMEOUT = PATIENCE
    trial.until_usable()
    trial.assert_usable()
    trial.forgive("Reconnected to")


@story(Door.FULL)
def test_a_backlog_that_is_full_for_a_while_is_waited_for(start_trial):
    trial = start_trial("v5", proxied=True, door=Door.FULL)
    assert trial.outcomes(*KINDS) == (NOT_CONNECTED,) * len(KINDS)
    # The kernel asks again after a second: there is no second attempt, and no warning.
    trial.proxy.heal()
    trial.until_usable()
    trial.assert_usable()


@story(Door.FULL)
def test_stop_cuts_an_attempt_that_is_not_answered(start_trial):
    trial = start_trial("v5", proxied=True, door=Door.FULL)
    assert trial.outcomes("callback") == (NOT_CONNECTED,)
    began = time.monotonic()
    trial.client.stop()
    assert time.monotonic() - began < MARGIN


@pytest.mark.parametrize("version", PROTOCOLS)
def test_who_writes_on_when_nobody_reads_hits_the_limit_and_is_told_so(start_trial, version):
    trial = start_trial(version, proxied=True, max_write_buffer_size=100_000)
    client = trial.client
    trial.until_usable()
    trial.proxy.to_device = Way(limit=0, end=End.STALL)
    replies = Recorder()
    asked = 0
    while not replies.calls:
        msg = Message.request("silent", b"x" * 50_000)
        client.callback_request(msg, replies, timeout=PATIENCE)
        asked += 1
        # The second turn of the loop comes after the reply of the first.
        in_loop(client, int)
        in_loop(client, int)
    replies.wait(asked)
    limit = "more than MAX_WRITE_BUFFER_SIZE (100000 bytes) would wait to be sent"
    assert all(limit in _words(reply) for reply in replies.messages)
    trial.expect(f"Could not send to device {client.bind_address_string}: {limit}", limit)
    trial.proxy.heal()
    trial.until_usable()
    trial.assert_usable()
    assert len(replies.calls) == asked
