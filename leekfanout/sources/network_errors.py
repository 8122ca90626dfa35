"""What went wrong with a connection, as a sentence for the person on call."""

import socket
import ssl

from leekfanout.errors import SourceError, SourceRefusedError


def network_error(error: OSError, address: str) -> SourceError:
    """Return the system's or TLS' error in plain words; ``address`` is shown, so without secrets.

    Refused is what only a person can change: a certificate, or a file of certificates.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return SourceRefusedError(
            f"The certificate of {address} can't be verified: {error.verify_message}."
        )
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None)  # there only where OpenSSL has given one
        return SourceError(f"TLS with {address} failed: {reason or error}.")
    if isinstance(error, FileNotFoundError):
        return SourceRefusedError(
            f"A file of certificates for {address} can't be read: {error.strerror}."
        )
    if isinstance(error, PermissionError):  # of a file, or of connect (connect(2): EACCES, EPERM)
        return SourceRefusedError(
            f"The system doesn't let us connect to {address} ({error.strerror}): a file of "
            "certificates can't be read, or a firewall or sandbox is in the way."
        )
    if isinstance(error, socket.gaierror):
        return SourceError(f"The host name in {address} can't be resolved: {error.strerror}.")
    if isinstance(error, TimeoutError):
        return SourceError(f"{address} did not answer in time.")
    if isinstance(error, ConnectionRefusedError):
        return SourceError(f"{address} refuses connections: is the broker running?")
    return SourceError(f"The connection to {address} was lost: {error.strerror or error}.")
