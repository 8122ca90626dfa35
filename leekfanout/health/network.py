"""What an exception of a library says about the network, in plain words."""

import errno
import socket
import ssl
from collections.abc import Iterator
from typing import Final

from leekfanout.health.check import ADVICE, Check, Kind, trouble

TIMEOUT_S: Final = 4.0
"""For connecting, and for each answer: a check must tell soon that nobody is there."""

_CAUSES_MAX: Final = 30
_TLS_SCHEMES: Final = ("amqps://", "rediss://", "https://")


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and all that it wraps: libraries hide the cause in different places."""
    pending: list[object] = [error]
    seen: set[int] = set()
    while pending and len(seen) < _CAUSES_MAX:
        current = pending.pop(0)
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            pending += [current.__cause__, current.__context__, getattr(current, "reason", None)]
            pending += current.args


def network_trouble(error: BaseException, place: str) -> Check | None:
    """Return what the network, or TLS, did to a connection to ``place``; None if it's neither."""
    causes = list(causes_of(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return trouble(
                Kind.TLS,
                f"The certificate of {place} can't be verified: {cause.verify_message}.",
                "Trust its authority (`ca` in broker_tls or api_tls), and use the host's name that "
                "the certificate has.",
            )
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, TimeoutError):
            reason = getattr(cause, "reason", None) or "unknown error"
            words = f"TLS with {place} fails: {reason.replace('_', ' ').lower()}."
            return trouble(Kind.TLS, words)
        if isinstance(cause, FileNotFoundError):
            return trouble(Kind.TLS, f"A file of certificates for {place} is not there any more.")
        if isinstance(cause, (socket.gaierror, UnicodeError)):
            return trouble(Kind.HOST_UNKNOWN, f"The host in {place} can't be resolved.")
        if isinstance(cause, ConnectionRefusedError):
            return trouble(Kind.CONNECTION_REFUSED, f"{place} refuses connections.")
        if isinstance(cause, TimeoutError):
            words = f"{place} doesn't answer within {TIMEOUT_S:g} seconds."
            # A server that waits for the end of a line never gets one in a TLS handshake.
            tls = " Does it speak TLS on that port?" if place.startswith(_TLS_SCHEMES) else ""
            return trouble(Kind.TIMEOUT, words, ADVICE[Kind.TIMEOUT] + tls)
        if isinstance(cause, (ConnectionResetError, BrokenPipeError, EOFError)):
            return trouble(Kind.PROTOCOL, f"{place} takes a connection, and closes it.")
        if isinstance(cause, OSError) and cause.errno in _UNREACHABLE:
            return trouble(Kind.UNREACHABLE, f"{place} can't be reached: {cause.strerror}.")
    return None


_UNREACHABLE: Final = frozenset(
    {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL}
    | {errno.EACCES, errno.EPERM}  # a local firewall
)
