"""TLS: the handshake, the stream, and error messages in plain words.

Certificates are checked by OpenSSL alone, during the handshake, as the program's `ssl.SSLContext`
says. The handshake is done here, and not in tornado's `SSLIOStream`, which would log its own
warning at each attempt to reconnect, and would wait for ever if the peer goes right after the
handshake.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import Any, Awaitable, Callable, Optional, Union

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from ..errors import KatcpTypeError

# Why this end rejects the device's certificate, by OpenSSL's X509_V_ERR_*.
_REFUSED = {
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed, and ssl_options does not trust it",
    19: "was issued by an authority that ssl_options does not trust",
    20: "was issued by an authority that ssl_options does not trust",
    21: "was issued by an authority that ssl_options does not trust",
    62: "is for another host name",
    64: "is for another IP address",
}

# What the other end reports, or sends instead of TLS, by OpenSSL's reason.
_REASONS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the device requires a client certificate",
    # A device with TLS 1.2 does not say more when the certificate is missing.
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the device refuses the handshake: "
    "it may require a client certificate, or have no cipher in common",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the device refuses the client certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the client certificate is revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the device refuses the client certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the device refuses the client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the device does not trust the issuer of the client certificate",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the device speaks no TLS version that ssl_options allows",
    "UNSUPPORTED_PROTOCOL": "the device speaks no TLS version that ssl_options allows",
    "WRONG_VERSION_NUMBER": "the device does not speak TLS on this port",
}


class TlsFailure(ConnectionResetError):
    """TLS could not be established, or ended with an error; the text is the reason.

    It has the number of a reset, which a stream treats as the end of the connection and does not
    log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.errno = errno.ECONNRESET


class TlsStream(IOStream):
    """A stream over a socket after its handshake; it reports its end like one without TLS."""

    socket: ssl.SSLSocket

    def read_from_fd(self, buf: Union[bytearray, memoryview]) -> Optional[int]:
        try:
            return super().read_from_fd(buf)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLError as error:
            raise TlsFailure(reason_of(error)) from error

    def write_to_fd(self, data: memoryview) -> int:
        try:
            return super().write_to_fd(data)
        except ssl.SSLWantWriteError:
            return 0
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise BrokenPipeError(errno.EPIPE, str(error)) from error


def check_ssl_options(ssl_options: Any) -> Optional[ssl.SSLContext]:
    """Return a client's context, or None; raise an error that says what to do for anything else."""
    if ssl_options is None:
        return None
    if not isinstance(ssl_options, ssl.SSLContext):
        raise KatcpTypeError(
            "ssl_options must be an ssl.SSLContext (ssl.create_default_context() makes one) "
            f"or None, not {type(ssl_options).__name__}."
        )
    if ssl_options.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise KatcpTypeError(
            "ssl_options is a context of a server: "
            "make it with ssl.create_default_context() or ssl.PROTOCOL_TLS_CLIENT."
        )
    return ssl_options


def wrap(sock: socket.socket, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    """Return a TLS socket that replaces *sock*; the handshake is yet to come."""
    # Certificates do not contain the scope of an IPv6 address ("fe80::1%eth0").
    name = host.partition("%")[0]
    # Before Python 3.13, wrap_socket() does not close a socket that was reset.
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))
    try:
        # wrap_socket() does this too, but would not close the socket.
        name.encode("idna")
        return context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
    except ValueError as error:
        raise TlsFailure(f"no certificate can be for the host {host!r}: {error}") from error


async def shake_hands(
    sock: ssl.SSLSocket, until_ready: Callable[[ssl.SSLSocket, int], Awaitable[None]]
) -> None:
    """Perform the TLS handshake, or raise `OSError`.

    *until_ready* waits until the socket can be read or written.
    """
    while True:
        try:
            sock.do_handshake()
            return
        except ssl.SSLWantReadError:
            event = IOLoop.READ
        except ssl.SSLWantWriteError:
            event = IOLoop.WRITE
        except ssl.SSLError as error:
            raise TlsFailure(reason_of(error)) from error
        except OSError as error:
            raise TlsFailure(f"the TLS handshake failed: {error}") from error
        await until_ready(sock, event)


def reason_of(error: ssl.SSLError) -> str:
    """Return a reason that users can act on, and OpenSSL's own words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = _REFUSED.get(error.verify_code, "is refused")
        return f"the certificate of the device {why} ({error.verify_message})"
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return f"the device ended the connection in the TLS handshake ({error})"
    return f"{_REASONS.get(error.reason or '', 'TLS failed')} ({error.reason or error})"
