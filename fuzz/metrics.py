"""Bytes at the listener for metrics and health."""

from typing import Any, cast

from fuzz.http_answers import check_answers
from fuzz.threaded import answers
from leekfanout.control.control_client import Client
from leekfanout.errors import LeekfanoutError
from leekfanout.metrics.metrics_server import MetricsServer


class Silent:
    """A client of an agent that doesn't answer."""

    def call(self, method: str) -> Any:
        raise LeekfanoutError("No agent.")


SERVER = MetricsServer("127.0.0.1", 0, cast(Client, Silent()))


def one_input(received: bytes) -> None:
    """Raise if the server does, or gives a bad answer."""
    sent = answers(SERVER, received)
    # What isn't of HTTP/1 is answered without a head, as HTTP/0.9 has it (RFC 1945, 6).
    if sent.startswith(b"HTTP/"):
        check_answers(sent)
