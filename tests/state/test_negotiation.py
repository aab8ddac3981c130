"""Version and flags, and what the greeting tells, rule by rule of protocol.md, section 6."""

import pytest

from katcp import core as protocol
from katcp._state.negotiation import ServerProtocol
from katcp._wire.flags import ProtocolFlags
from katcp._wire.message import Message
from katcp.errors import KatcpTypeError

IGNORED = (
    "Protocol Version Warning: Ignoring inform received from server indicating a katcp "
    "protocol revision inconsistent with the static configuration. "
    "Static configuration: '5.0-M'.Inform received: {}"
)
NOT_UNDERSTOOD = (
    "Protocol Version Warning: Ignoring inform received from server with a katcp "
    "protocol version that cannot be understood. Inform received: {}"
)
CHANGED = (
    "Protocol Version Warning: Inform received from server indicating a katcp "
    "protocol revision inconsistent with the previously detected version. "
    "Previous version: '{}'. Inform received: {}"
)
NEWER = (
    "Protocol Version Warning: Server speaks katcp {}, which is newer than "
    "this client knows; assuming that it works like version 5."
)


def announce(*arguments):
    return Message.inform("version-connect", "katcp-protocol", *arguments)


V4_INFORMS = [
    Message.inform("version", "device-1.0"),
    Message.inform("build-state", "device-1.0a1"),
    Message.inform("version"),
]


def server(*versions):
    """Return what is known after these versions were announced; none made a warning."""
    known = ServerProtocol()
    for version in versions:
        assert known.on_version_connect(announce(version)) is None
    return known


def text_of(warning):
    """Return a warning as the log shows it; its own text tells which warning it is."""
    text, *args = warning
    assert text.startswith("Protocol Version Warning: ")
    return text % tuple(args)


# ProtocolFlags.


@pytest.mark.parametrize(
    "flags",
    [
        "IM",
        "MI",
        "IMMI",
        b"IM",
        bytearray(b"IM"),
        [b"I", b"M"],
        ("I", "M"),
        {b"M", b"I"},
        frozenset("IM"),
        ["IM"],
        [b"IM", "I"],
        iter([b"M", b"I"]),
    ],
    ids=repr,
)
def test_flags_may_be_given_in_any_form(flags):
    found = ProtocolFlags(5, 0, flags)
    assert found == ProtocolFlags(5, 0, "IM")
    assert found.flags == {b"I", b"M"}
    assert str(found) == "5.0-IM"
    assert repr(found) == "<ProtocolFlags 5.0-IM>"


@pytest.mark.parametrize("flags", [None, "", b"", [], (), set()], ids=repr)
def test_no_flags(flags):
    found = ProtocolFlags(5, 1, flags)
    assert found.flags == set()
    assert str(found) == "5.1"
    assert not found.message_ids


def test_no_number_is_zero():
    found = ProtocolFlags(None, None, "I")
    assert found == ProtocolFlags(0, 0, "I")
    assert str(found) == "0.0-I"


def test_flags_are_optional():
    assert ProtocolFlags(4, 0) == ProtocolFlags(4, 0, "")


@pytest.mark.parametrize("flag", [73, None, [b"I"]], ids=repr)
def test_a_flag_must_be_text_or_bytes(flag):
    with pytest.raises(KatcpTypeError) as raised:
        ProtocolFlags(5, 0, [b"M", flag])
    assert str(raised.value) == f"A protocol flag must be str or bytes, not {flag!r}."


@pytest.mark.parametrize(
    ("letter", "attribute"),
    [
        ("M", "multi_client"),
        ("I", "message_ids"),
        ("T", "request_timeout_hints"),
        ("B", "bulk_set_sensor_sampling"),
    ],
)
def test_each_letter_switches_one_thing(letter, attribute):
    attributes = {
        "multi_client",
        "message_ids",
        "request_timeout_hints",
        "bulk_set_sensor_sampling",
    }
    with_it, without = ProtocolFlags(5, 1, letter), ProtocolFlags(5, 1, "MITBZ".replace(letter, ""))
    assert {name for name in attributes if getattr(with_it, name)} == {attribute}
    assert {name for name in attributes if not getattr(without, name)} == {attribute}


@pytest.mark.parametrize("version", ["4.0-I", "5.0-IMTB", "5.0-B", "4.9-M", "0.0-Z"])
def test_no_combination_is_refused(version):
    assert ProtocolFlags.parse_version(version).flags == {
        letter.encode() for letter in version.partition("-")[2]
    }


def test_supports_asks_for_one_letter_or_several():
    flags = ProtocolFlags(5, 1, "MIZ")
    for announced in ("I", b"I", "Z", ProtocolFlags.MESSAGE_IDS, ProtocolFlags.MULTI_CLIENT, b"MI"):
        assert flags.supports(announced) is True
    for missing in ("B", b"T", "i", b"MB", ProtocolFlags.BULK_SET_SENSOR_SAMPLING):
        assert flags.supports(missing) is False


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("5.0-IM", "5.0-IM"),
        (b"5.0-IM", "5.0-IM"),
        ("5.1-MIB", "5.1-BIM"),
        ("5.0", "5.0"),
        ("5.1-", "5.1"),
        ("4.9-M", "4.9-M"),
        ("6.0-IMZ", "6.0-IMZ"),
        ("5.0-II", "5.0-I"),
        ("05.00", "5.0"),
        ("123456789.987654321", "123456789.987654321"),
        (b"5.0-\xff", "5.0-\\xff"),
        ("5.0-I-", "5.0--I"),
        # These are no versions.
        ("", "0.0"),
        ("foo", "0.0"),
        ("5", "0.0"),
        ("5.", "0.0"),
        (".0", "0.0"),
        ("500", "0.0"),
        ("5x0", "0.0"),
        ("5.0IM", "0.0"),
        (" 5.0", "0.0"),
        ("5.0\n", "0.0"),
        ("5.0 -I", "0.0"),
        ("-5.0", "0.0"),
        ("\u0665.0", "0.0"),
        ("5.0.1", "0.0"),
        ("1234567890.0", "0.0"),
        (b"\xff", "0.0"),
    ],
    ids=ascii,
)
def test_parse_version(text, shown):
    assert str(ProtocolFlags.parse_version(text)) == shown


def test_parse_version_makes_what_it_is_called_on():
    class Own(ProtocolFlags):
        pass

    assert type(Own.parse_version("5.0-I")) is Own
    assert type(Own.parse_version("rubbish")) is Own


@pytest.mark.parametrize(
    "other",
    [
        ProtocolFlags(5, 1, "IM"),
        ProtocolFlags(4, 0, "IM"),
        ProtocolFlags(5, 0, "I"),
        "5.0-IM",
        None,
    ],
    ids=repr,
)
def test_flags_are_equal_if_version_and_letters_are(other):
    flags = ProtocolFlags(5, 0, "IM")
    assert flags == ProtocolFlags(5, 0, "MI")
    assert flags != other
    assert (flags == other) is False


def test_flags_are_not_hashable():
    with pytest.raises(TypeError, match="unhashable"):
        hash(ProtocolFlags(5, 0))


@pytest.mark.parametrize(
    ("major", "v4", "v5"),
    [(0, True, False), (3, True, False), (4, True, False), (5, True, True), (6, True, True)],
)
def test_the_strategies_of_a_version(major, v4, v5):
    flags = ProtocolFlags(major, 0)
    for strategy in ("none", "auto", "period", "event", "differential"):
        assert flags.strategy_allowed(strategy) is v4
        assert flags.strategy_allowed(strategy.encode()) is v4
    for strategy in ("event-rate", b"differential-rate"):
        assert flags.strategy_allowed(strategy) is v5
    for unknown in ("", "often", b"\xff"):
        assert flags.strategy_allowed(unknown) is False


def test_the_constants_are_those_of_the_old_package():
    assert protocol.DEFAULT_KATCP_MAJOR == 5
    assert protocol.SEC_TS_KATCP_MAJOR == 5
    assert protocol.FLOAT_TS_KATCP_MAJOR == 4
    assert protocol.MID_KATCP_MAJOR == 5
    assert protocol.VERSION_CONNECT_KATCP_MAJOR == 5
    assert protocol.INTERFACE_CHANGED_KATCP_MAJOR == 5
    assert (protocol.SEC_TO_MS_FAC, protocol.MS_TO_SEC_FAC) == (1000, 0.001)
    assert (ProtocolFlags.MULTI_CLIENT, ProtocolFlags.MESSAGE_IDS) == (b"M", b"I")
    assert ProtocolFlags.REQUEST_TIMEOUT_HINTS_MIN_VERSION == (5, 1)
    assert ProtocolFlags.BULK_SET_SENSOR_SAMPLING_MIN_VERSION == (5, 1)


# ServerProtocol. Rule 1: before the first inform nothing is known.


def test_rule_1_at_first_nothing_is_known():
    known = ServerProtocol()
    assert known.flags is None
    assert known.message_ids is False
    assert known.preset is False


# Rule 2: a katcp-protocol with a parsable version decides.


@pytest.mark.parametrize(
    ("version", "ids"),
    [("5.0-IM", True), ("5.0-M", False), ("5.1-MIB", True), ("4.9-M", False), ("4.0-I", True)],
)
def test_rule_2_the_announcement_decides(version, ids):
    known = server(version)
    assert known.flags == ProtocolFlags.parse_version(version)
    assert known.message_ids is ids


@pytest.mark.parametrize("arguments", [("5.0-IM", "more"), ("5.0-IM", "", "\xff")])
def test_rule_2_surplus_arguments_are_ignored(arguments):
    known = ServerProtocol()
    assert known.on_version_connect(announce(*arguments)) is None
    assert known.flags == ProtocolFlags(5, 0, "IM")


def test_rule_2_a_newer_version_is_used_with_a_warning():
    known = ServerProtocol()
    assert text_of(known.on_version_connect(announce("6.0-IMZ"))) == NEWER.format("6.0-IMZ")
    assert known.flags == ProtocolFlags(6, 0, "IMZ")
    assert known.message_ids is True


# Rule 3: what cannot be parsed is as if it had not come.


@pytest.mark.parametrize("text", ["foo", "5", "", "x" * 5000], ids=lambda text: text[:5])
def test_rule_3_an_unparsable_version_changes_nothing_and_warns(text):
    shown = repr(str(announce(text)))
    shown = shown if len(shown) <= 1000 else f"{shown[:1000]}... ({len(shown)} characters)"
    for known, before in (
        (ServerProtocol(), None),
        (server("5.0-IM"), ProtocolFlags(5, 0, "IM")),
    ):
        assert text_of(known.on_version_connect(announce(text))) == NOT_UNDERSTOOD.format(shown)
        assert known.flags == before


def test_rule_3_the_version_4_informs_still_count_after_an_unparsable_version():
    known = ServerProtocol()
    known.on_version_connect(announce("foo"))
    assert known.on_v4_inform(V4_INFORMS[0]) is None
    assert known.flags == ProtocolFlags(4, 0)
    assert text_of(known.on_version_connect(announce(b"\xff"))) == NOT_UNDERSTOOD.format(
        r"'#version-connect katcp-protocol \\xff'"
    )
    assert known.flags == ProtocolFlags(4, 0)


# Rule 4: without it, #version or #build-state mean version 4.


@pytest.mark.parametrize("inform", V4_INFORMS, ids=str)
def test_rule_4_a_version_4_greeting(inform):
    known = ServerProtocol()
    assert known.on_v4_inform(inform) is None
    assert known.flags == ProtocolFlags(4, 0)
    assert known.message_ids is False


@pytest.mark.parametrize("inform", V4_INFORMS, ids=str)
def test_rule_4_a_later_announcement_decides_without_a_warning(inform):
    known = ServerProtocol()
    known.on_v4_inform(inform)
    assert known.on_version_connect(announce("5.0-IM")) is None
    assert known.flags == ProtocolFlags(5, 0, "IM")


# Rule 5: nothing ever arrives. Rule 6: version 4 informs after an announcement.


def test_rule_5_without_a_greeting_there_are_no_ids():
    known = server("5.0-IM")
    known.reset()
    assert known.flags is None
    assert known.message_ids is False


@pytest.mark.parametrize("inform", V4_INFORMS, ids=str)
def test_rule_6_after_an_announcement_version_4_informs_are_information(inform):
    known = server("5.0-IM")
    assert known.on_v4_inform(inform) is None
    assert known.flags == ProtocolFlags(5, 0, "IM")


# Rule 7: a preset overrides it all.


def preset(version="5.0-M"):
    known = ServerProtocol()
    known.use_preset(ProtocolFlags.parse_version(version))
    return known


def test_rule_7_a_preset_is_known_at_once():
    assert preset().preset is True
    assert preset().flags == ProtocolFlags(5, 0, "M")
    assert preset().message_ids is False
    assert preset("4.0-I").message_ids is True


@pytest.mark.parametrize("version", ["5.0-IM", "5.1-M", "4.0", "6.0-M", "foo"])
def test_rule_7_another_announcement_changes_nothing_and_warns(version):
    known, inform = preset(), announce(version)
    assert text_of(known.on_version_connect(inform)) == IGNORED.format(repr(str(inform)))
    assert known.flags == ProtocolFlags(5, 0, "M")


@pytest.mark.parametrize("inform", V4_INFORMS, ids=str)
def test_rule_7_a_version_4_greeting_changes_nothing_and_warns(inform):
    known = preset()
    assert text_of(known.on_v4_inform(inform)) == IGNORED.format(repr(str(inform)))
    assert known.flags == ProtocolFlags(5, 0, "M")


def test_rule_7_what_agrees_with_the_preset_makes_no_warning():
    assert preset("5.0-IM").on_version_connect(announce("5.0-MI")) is None
    assert preset("4.0").on_v4_inform(V4_INFORMS[0]) is None
    assert preset("4.9-M").on_v4_inform(V4_INFORMS[1]) is None


def test_rule_7_a_preset_is_kept_over_connections():
    known = preset()
    known.reset()
    assert known.flags == ProtocolFlags(5, 0, "M")
    assert known.preset is True


# Rule 8: a later, different announcement.


@pytest.mark.parametrize(
    ("first", "second"),
    [("5.0-IM", "5.0-M"), ("5.0", "5.1"), ("5.0-IM", "4.0"), ("4.0", "5.0-IM"), ("5.0", "6.0")],
)
def test_rule_8_a_different_announcement_is_adopted_with_a_warning(first, second):
    known, inform = server(first), announce(second)
    assert text_of(known.on_version_connect(inform)) == CHANGED.format(first, repr(str(inform)))
    assert known.flags == ProtocolFlags.parse_version(second)


def test_rule_8_the_same_announcement_again_is_harmless():
    known = server("5.0-IM", "5.0-IM", "5.0-MI")
    assert known.flags == ProtocolFlags(5, 0, "IM")


def test_rule_8_holds_within_one_connection_only():
    known = server("5.0-IM")
    known.reset()
    assert known.on_version_connect(announce("4.0")) is None
    known.reset()
    assert known.on_v4_inform(V4_INFORMS[0]) is None
    assert known.flags == ProtocolFlags(4, 0)


# What it was on another connection.


@pytest.mark.parametrize(
    ("version", "had_ids"), [("5.0-MI", True), ("5.1-I", True), ("5.0-M", False), ("4.0", False)]
)
def test_whether_the_device_had_ids_is_remembered(version, had_ids):
    known = server(version)
    known.reset()
    assert (known.flags, known.had_ids) == (None, had_ids)
    known.on_version_connect(announce("gibberish"))
    assert known.had_ids is had_ids


@pytest.mark.parametrize("inform", V4_INFORMS)
def test_a_device_that_comes_back_as_version_4_has_no_ids_any_more(inform):
    known = server("5.0-I")
    known.on_v4_inform(inform)
    assert known.had_ids
    known.reset()
    known.on_v4_inform(inform)
    assert not known.had_ids
