"""Bytes at the small Leek API."""

from fuzz.http_answers import check_answers
from fuzz.threaded import answers
from leekfanout.sink.leek_api import Sink

SINK = Sink()
SINK.start()
SERVER = SINK._server
assert SERVER is not None
SERVER.RequestHandlerClass.disable_nagle_algorithm = False  # type: ignore[attr-defined]  # TCP's


def one_input(received: bytes) -> None:
    """Raise if the server does, or gives a bad answer."""
    assert SERVER is not None
    check_answers(answers(SERVER, received))
