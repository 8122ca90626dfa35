"""The sink's HTTP/1.1 server: connections, bodies and their bounds, but not what to answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson

from leekfanout.metrics.http_server import BoundedHandler, BoundedHTTPServer
from leekfanout.version import VERSION

ENDPOINT: Final = "/v1/events/process"
BODY_MAX_BYTES: Final = 32_000_000
"""A larger body is answered with 413, as by a proxy; an agent's batches end at 10 MB."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer; ``payload`` is sent as JSON."""

    status: int
    payload: Any


Answer = Callable[[Mapping[str, str], bytes], Reply | None]
"""Answers a request from its headers (lower-case names) and body; None cuts the connection."""


def error_reply(status: int, message: str, reason: str) -> Reply:
    """Return an error in the shape that Leek gives to all of its errors."""
    code = f"{status}001"
    return Reply(status, {"error": {"code": code, "message": message, "reason": reason}})


class Server(BoundedHTTPServer):
    """Serves the endpoint, at the end of any path, with one answer per method."""

    lifetime_s = 300.0
    """A connection that has sent no whole request for this long is closed."""

    def __init__(self, host: str, port: int, answers: Mapping[str, Answer]) -> None:
        self.answers = answers
        super().__init__(host, port, _Handler)


class _Handler(BoundedHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        body = self._read_body()
        if body is None:
            return
        with self.server.answering(self.connection):
            reply = self._answer(body)
        if reply is None:
            self.close_connection = True
        else:
            self._send(reply)

    do_OPTIONS = do_POST = do_GET

    def _answer(self, body: bytes) -> Reply | None:
        if not self.path.partition("?")[0].endswith(ENDPOINT):
            return error_reply(404, "Not found", f"Nothing is here but {ENDPOINT}")
        headers = {name.lower(): value for name, value in self.headers.items()}
        return self.server.answers[self.command](headers, body)

    def _read_body(self) -> bytes | None:
        """Return the request's body, or None where it can't be had and the connection is done."""
        if "transfer-encoding" in self.headers:
            self.send_error(411, explain="A body needs the header content-length")
            return None
        text = self.headers.get("content-length", "0")
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            self.send_error(400, explain="The header content-length is no number")
            return None
        length = int(text)
        if length > BODY_MAX_BYTES:
            self.send_error(413, explain=f"A body may have {BODY_MAX_BYTES} bytes")
            # Closed while the client still sends, the connection would be reset, the answer lost.
            self._discard(min(length, BODY_MAX_BYTES))
            return None
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return None
        return body

    def _discard(self, length: int) -> None:
        while length > 0 and (chunk := self.rfile.read(min(length, 65_536))):
            length -= len(chunk)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what isn't HTTP as expected; the connection ends, since a body may be unread."""
        status = 405 if code == HTTPStatus.NOT_IMPLEMENTED else code
        self.close_connection = True
        phrase = HTTPStatus(status).phrase
        self._send(error_reply(status, phrase, explain or message or phrase))

    def _send(self, reply: Reply) -> None:
        body = orjson.dumps(reply.payload)
        head = (
            f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\n"
            f"Server: leekfanout-sink/{VERSION}\r\n"
            f"Date: {self.date_time_string()}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"Connection: {'close' if self.close_connection else 'keep-alive'}\r\n\r\n"
        ).encode()
        # One write: a body sent after its head would wait 40 ms for the client's delayed ack.
        self.wfile.write(head if self.command == "HEAD" else head + body)
