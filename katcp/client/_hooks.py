"""The hooks of a client: documented methods that programs may override.

A hook is overridden in a subclass or on an object. Otherwise it is bypassed: the parts of a client
call each other directly. `parts_behind` alone knows which hooks are overridden.
"""

from __future__ import annotations

from typing import Any, Callable, ClassVar, Optional, Protocol, TypeVar

from .._wire.message import Message

_Method = TypeVar("_Method", bound=Callable[..., Any])
_Handlers = dict[str, Callable[..., Any]]

# From the function of a hook to the method that is called instead.
_shortcuts: dict[Any, str] = {}


class Client(Protocol):
    """What the parts need of the client: limits and attributes that programs set, and hooks."""

    MAX_MSG_SIZE: int
    MAX_WRITE_BUFFER_SIZE: int
    MAX_LOOP_LATENCY: float
    MAX_VERSIONS_SIZE: int
    MAX_LOG_RATE: int
    CONNECT_TIMEOUT: float
    GREETING_TIMEOUT: float
    auto_reconnect_delay: float
    auto_reconnect_max_delay: float
    last_connect_time: Optional[float]
    ioloop_thread_id: Optional[int]
    versions: Any
    _auto_reconnect: bool
    _bindaddr: tuple[str, int]
    _logger: Any
    _inform_handlers: ClassVar[_Handlers]
    _reply_handlers: ClassVar[_Handlers]
    _request_handlers: ClassVar[_Handlers]

    async def _install(self) -> None:
        """Run the main coroutine."""

    def send_message(self, msg: Message) -> Any:
        """Send a message."""

    def notify_connected(self, connected: bool) -> None:
        """Take note of a change of the connection."""

    def handle_message(self, msg: Message) -> Any:
        """Dispatch a message."""

    def handle_inform(self, msg: Message) -> Any:
        """Dispatch an inform."""

    def handle_reply(self, msg: Message) -> Any:
        """Dispatch a reply."""

    def handle_request(self, msg: Message) -> Any:
        """Dispatch a request."""

    def unhandled_inform(self, msg: Message) -> Any:
        """Take an inform without handler."""

    def unhandled_reply(self, msg: Message) -> Any:
        """Take a reply without handler."""

    def unhandled_request(self, msg: Message) -> Any:
        """Take a request without handler."""


def shortcut(name: str) -> Callable[[_Method], _Method]:
    """Mark a hook with the method of a part that it calls, and that can replace it."""

    def decorate(method: _Method) -> _Method:
        _shortcuts[method] = name
        return method

    return decorate


def parts_behind(part: object, *hooks: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Return each overridden hook, and for the others the method of *part* they call."""
    parts = []
    for hook in hooks:
        name = _shortcuts.get(getattr(hook, "__func__", None))
        parts.append(hook if name is None else getattr(part, name))
    return parts
