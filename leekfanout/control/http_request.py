"""Reading one small HTTP/1.1 request as its bytes come in, within bounds: pure."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

HEAD_MAX_BYTES: Final = 16_384
BODY_MAX_BYTES: Final = 1_000_000


class HttpError(Exception):
    """The request can't be served; ``status`` is the answer."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """A request that has come in full."""

    method: str
    path: str
    body: bytes


class RequestReader:
    """Takes bytes until they are a whole request."""

    __slots__ = ("_body_bytes", "_buffer", "_head")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: tuple[str, str] | None = None
        self._body_bytes = 0

    def feed(self, received: bytes) -> Request | None:
        """Take more bytes; return the request once it is whole, and None before.

        Raises HttpError as soon as it can't become one that is acceptable.
        """
        self._buffer += received
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n", 0, HEAD_MAX_BYTES)
            if end < 0:
                if len(self._buffer) >= HEAD_MAX_BYTES:
                    raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return None
            self._read_head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
        if self._head is None or len(self._buffer) < self._body_bytes:
            return None
        return Request(*self._head, bytes(self._buffer[: self._body_bytes]))

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = first.partition(" ")
        path, _, version = rest.partition(" ")
        if version not in {"HTTP/1.0", "HTTP/1.1"}:
            raise HttpError(HTTPStatus.BAD_REQUEST)
        headers = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        if "transfer-encoding" in headers:
            raise HttpError(HTTPStatus.LENGTH_REQUIRED)
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            raise HttpError(HTTPStatus.BAD_REQUEST)
        self._body_bytes = int(length)
        if self._body_bytes > BODY_MAX_BYTES:
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        self._head = (method, path)


def response(status: HTTPStatus, body: bytes = b"", content_type: str = "text/plain") -> bytes:
    """Return the bytes of an answer after which the connection is closed."""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
