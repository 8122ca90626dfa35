"""The system's and TLS' errors, told in plain words."""

import errno
import os
import socket
import ssl

import pytest

from leekfanout.errors import SourceError, SourceRefusedError
from leekfanout.sources.network_errors import network_error


def system_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (system_error(errno.ECONNREFUSED), SourceError, "is the broker running?"),
        (system_error(errno.ETIMEDOUT), SourceError, "did not answer in time"),
        (system_error(errno.ECONNRESET), SourceError, "was lost: Connection reset by peer"),
        (system_error(errno.EHOSTUNREACH), SourceError, "was lost: No route to host"),
        (system_error(errno.ENOENT), SourceRefusedError, "file of certificates"),
        (
            system_error(errno.EACCES),
            SourceRefusedError,
            "a file of certificates can't be read, or",
        ),
        (system_error(errno.EPERM), SourceRefusedError, "a firewall or sandbox is in the way"),
        (socket.gaierror(-2, "Name not known"), SourceError, "can't be resolved: Name not known"),
        (ssl.SSLError(1, "[SSL] odd"), SourceError, "TLS with amqp://h failed"),
        (OSError("odd"), SourceError, "was lost: odd"),
    ],
)
def test_an_error_says_what_it_is_and_whether_a_person_is_needed(
    error: OSError, kind: type[SourceError], words: str
) -> None:
    told = network_error(error, "amqp://h")
    assert type(told) is kind
    assert words in str(told)
    assert "amqp://h" in str(told)
