"""The exceptions of this package.

The tree::

    Exception
    +-- ValueError
    |   +-- KatcpSyntaxError          a line, name or message id against the grammar
    |   +-- KatcpArgumentError        an argument that is missing or has the wrong form
    +-- TypeError
    |   +-- KatcpTypeError            an argument of the wrong type
    +-- RuntimeError
    |   +-- KatcpUsageError           a call in the wrong state of the client
    |       +-- KatcpThreadError      ... or from the wrong thread (an AssertionError too)
    +-- KatcpDeviceError              an error on the device's side
    +-- FailReply                     a device's handler asks for a ``fail`` reply
    +-- AsyncReply                    a device's handler will reply later
    +-- KatcpClientError              an error between client and device
        +-- KatcpReplyError           the device refused a request (in `katcp`)
        +-- KatcpSensorError          the device has no such sensor, or no such value
        +-- KatcpVersionError         the device's protocol does not support this
        +-- KatcpClientDisconnected   no connection, or it was lost
        |   +-- KatcpClientOverflow   ... or a size limit was exceeded
        +-- KatcpClientTimeout        no reply, connection or inform in time
        +-- KatcpClientStopped        the client was stopped first

`katcp.Message.local_error` of a local failure reply is also a `KatcpClientError`.
"""

from __future__ import annotations


class KatcpSyntaxError(ValueError):
    """A line, a message name or a message id does not follow the KATCP grammar."""


class KatcpArgumentError(ValueError):
    """An argument of a message is missing, or cannot be read as the requested type."""


class KatcpTypeError(TypeError):
    """A value has a type that cannot be sent or parsed."""


class KatcpUsageError(RuntimeError):
    """A method was called in the wrong state of the client."""


class KatcpThreadError(KatcpUsageError, AssertionError):
    """A method was called from the wrong thread.

    It is an `AssertionError` too, because that is what the old package raised.
    """


class KatcpDeviceError(Exception):
    """An error on the side of a device."""


class FailReply(Exception):
    """Raised by a device's request handler to answer ``fail`` with this text."""


class AsyncReply(Exception):
    """Raised by a device's request handler that will send its reply later."""


class KatcpClientError(Exception):
    """An error between a client and its device."""


class KatcpSensorError(KatcpClientError, LookupError):
    """The device has no such sensor, or its description or value cannot be read."""


class KatcpVersionError(KatcpClientError):
    """The protocol version of the device does not support a request."""


class KatcpClientDisconnected(KatcpClientError):
    """There is no connection to the device, or it was lost before the reply arrived."""


class KatcpClientOverflow(KatcpClientDisconnected):
    """A size limit was exceeded; if it is a limit of the connection, that is closed.

    With `katcp.AsyncClient.MAX_INFORMS_SIZE` only the request fails.
    """


class KatcpClientTimeout(KatcpClientError):
    """A reply, or another event, did not arrive within the timeout."""


class KatcpClientStopped(KatcpClientError):
    """The client was stopped before a reply, or another event, arrived."""
