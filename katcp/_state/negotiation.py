"""Detection of the device's protocol from its informs.

`ProtocolFlags` is the value: version and flags. `ServerProtocol` is what the client knows so far:
it takes the greeting informs one by one, in any order, since nothing marks the end of a greeting.
The rules of protocol.md, section 6:

1. before the first one nothing is known: no message ids;
2. a ``katcp-protocol`` with a parsable version decides;
3. one that cannot be parsed is ignored;
4. without it, ``#version`` or ``#build-state`` mean version 4;
5. after it, these two are information only;
6. flags preset by the user override all of this;
7. a later, different ``katcp-protocol`` is adopted, with a warning.
"""

from __future__ import annotations

from typing import Any, Optional

from .._wire.flags import DEFAULT_KATCP_MAJOR, ProtocolFlags, parse_version
from .._wire.message import Message, quote

# The text of a warning, and its arguments.
LogText = tuple[Any, ...]


class ServerProtocol:
    """What a client knows about the protocol of its device.

    Attributes
    ----------
    flags : ProtocolFlags or None
        None until it is known.
    message_ids : bool
        Whether requests may carry message ids.
    major : int
        The major version; 4 until it is known.
    preset : bool
        Whether the user preset the flags; informs change nothing then.
    had_ids : bool
        Whether the device had message ids when its protocol was last known, on any connection.
    """

    flags: Optional[ProtocolFlags]
    message_ids: bool
    major: int

    def __init__(self) -> None:
        self.preset = False
        self.had_ids = False
        self._announced = False
        self._set_flags(None)

    def _set_flags(self, flags: Optional[ProtocolFlags]) -> None:
        self.flags = flags
        self.message_ids = flags is not None and flags.message_ids
        if flags is not None:
            self.had_ids = flags.message_ids
        self.major = 4 if flags is None else flags.major

    def use_preset(self, flags: ProtocolFlags) -> None:
        """Use *flags*, whatever the device says."""
        self._set_flags(flags)
        self.preset = True

    def reset(self) -> None:
        """Forget the protocol of the last connection: the next device may be another."""
        self._announced = False
        if not self.preset:
            self._set_flags(None)

    def on_version_connect(self, msg: Message) -> Optional[LogText]:
        """Handle ``#version-connect katcp-protocol``; return a warning, if any."""
        flags = parse_version(ProtocolFlags, msg.arguments[1])
        if self.preset:
            return None if flags == self.flags else self._preset_warning(msg)
        if flags is None:
            return (
                "Protocol Version Warning: Ignoring inform received from server with a katcp "
                "protocol version that cannot be understood. Inform received: %s",
                quote(msg),
            )
        previous, known = self.flags, self._announced
        self._set_flags(flags)
        self._announced = True
        if known and flags != previous:
            return (
                "Protocol Version Warning: Inform received from server indicating a katcp "
                "protocol revision inconsistent with the previously detected version. "
                "Previous version: '%s'. Inform received: %s",
                previous,
                quote(msg),
            )
        if flags.major > DEFAULT_KATCP_MAJOR:
            return (
                "Protocol Version Warning: Server speaks katcp %s, which is newer than "
                "this client knows; assuming that it works like version %d.",
                flags,
                DEFAULT_KATCP_MAJOR,
            )
        return None

    def on_v4_inform(self, msg: Message) -> Optional[LogText]:
        """Handle ``#version`` or ``#build-state``; return a warning, if any."""
        if self.preset:
            same = self.flags is not None and self.flags.major <= 4
            return None if same else self._preset_warning(msg)
        if not self._announced:
            self._set_flags(ProtocolFlags(4, 0))
        return None

    def _preset_warning(self, msg: Message) -> LogText:
        return (
            "Protocol Version Warning: Ignoring inform received from server indicating a katcp "
            "protocol revision inconsistent with the static configuration. "
            "Static configuration: '%s'.Inform received: %s",
            self.flags,
            quote(msg),
        )
