"""Every exception that this package raises.

The tree::

    Exception
    +-- ValueError
    |   +-- KatcpSyntaxError          a line, name or message id against the grammar
    |   +-- KatcpArgumentError        an argument that is missing or not what was asked for
    +-- TypeError
    |   +-- KatcpTypeError            an argument of the wrong type
    +-- RuntimeError
    |   +-- KatcpUsageError           a call in the wrong state of the client
    |       +-- KatcpThreadError      ... or from the wrong thread (an AssertionError too)
    +-- KatcpDeviceError              what goes wrong on a device's side
    +-- FailReply                     a device's handler asks for a ``fail`` reply
    +-- AsyncReply                    a device's handler will reply later
    +-- KatcpClientError              what goes wrong between client and device
        +-- KatcpReplyError           the device refused a request (in `katcp`)
        +-- KatcpSensorError          the device has no such sensor, or no such value
        +-- KatcpVersionError         the device's protocol has no such thing
        +-- KatcpClientDisconnected   no connection, or it was lost
        |   +-- KatcpClientOverflow   ... or a size limit was exceeded
        +-- KatcpClientTimeout        no reply, connection or inform in time
        +-- KatcpClientStopped        the client was stopped first

An instance of a `KatcpClientError` is also what `katcp.Message.local_error`
holds in a reply that the client made up itself.
"""

from __future__ import annotations


class KatcpSyntaxError(ValueError):
    """A line, a message name or a message id does not follow the KATCP grammar."""


class KatcpArgumentError(ValueError):
    """An argument of a message is missing, or cannot be read as what was asked for."""


class KatcpTypeError(TypeError):
    """A value is of a type that cannot be sent or parsed."""


class KatcpUsageError(RuntimeError):
    """A method was called in a state of the client in which it makes no sense."""


class KatcpThreadError(KatcpUsageError, AssertionError):
    """A method was called from a thread from which it must not be called.

    It is an `AssertionError` too, because that is what the old package raised.
    """


class KatcpDeviceError(Exception):
    """Something went wrong on the side of a device."""


class FailReply(Exception):
    """Raised by a device's request handler to answer ``fail`` with this text."""


class AsyncReply(Exception):
    """Raised by a device's request handler that will send its reply later."""


class KatcpClientError(Exception):
    """Something went wrong between a client and its device."""


class KatcpSensorError(KatcpClientError, LookupError):
    """The device has no such sensor, or what it says of one cannot be read."""


class KatcpVersionError(KatcpClientError):
    """The protocol version that the device speaks does not have what was asked for."""


class KatcpClientDisconnected(KatcpClientError):
    """There is no connection to the device, or it was lost before the reply came."""


class KatcpClientOverflow(KatcpClientDisconnected):
    """A size limit was exceeded; the connection is closed for it if it is one of the connection.

    With `katcp.AsyncClient.MAX_INFORMS_SIZE` only the request has failed.
    """


class KatcpClientTimeout(KatcpClientError):
    """What was waited for, mostly a reply, did not come within the timeout."""


class KatcpClientStopped(KatcpClientError):
    """The client was stopped before what was waited for, mostly a reply, came."""
