"""What passes between a client and the API double: requests, replies, and POSTs as they ended."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer, and how. A body of bytes goes out as it is, anything else as JSON."""

    status: int = 201
    body: object = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    silent: bool = False
    """Never answer; the connection stays open until the client leaves."""
    cut_after_bytes: int | None = None
    """Send so many bytes of the answer (its head included), then close the connection.

    Within the head this is no clear case: http.client takes a status line alone for an answer.
    """
    reset: bool = False
    """Close with RST in place of FIN, where the connection is closed at all."""
    close: bool = False
    """Close the kept-alive connection after the answer, without having announced it."""
    takes: bool = True
    """Whether the documents are indexed, if the status says so at all."""


@dataclass(slots=True)
class Request:
    """One request as it came in; ``number`` counts the requests of its method from 1."""

    method: str
    path: str
    headers: dict[str, str]
    number: int
    started_at: float
    body: bytes = b""


@dataclass
class Post:
    """One POST: what came, what was answered, and which documents the API has since then."""

    request: Request
    reply: Reply
    refused: frozenset[str] = frozenset()
    answered: bool = False
    """The whole answer was handed to a client that was still there."""
    ended_at: float = 0.0

    @property
    def started_at(self) -> float:
        """Monotonic seconds, when its head had been read."""
        return self.request.started_at

    @property
    def body(self) -> bytes:
        return self.request.body

    @cached_property
    def documents(self) -> list[dict[str, Any]]:
        """The documents as they were posted; none if the body is no JSON array."""
        try:
            documents = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return []
        return documents if isinstance(documents, list) else []

    @property
    def taken(self) -> list[dict[str, Any]]:
        """The documents that were indexed, whether or not the client learnt of it."""
        indexes = self.reply.status == 201 or (self.reply.status == 400 and self.refused)
        if not (self.reply.takes and indexes):
            return []
        return [document for document in self.documents if document["id"] not in self.refused]

    @property
    def confirmed(self) -> list[dict[str, Any]]:
        """The documents of which the client was told that they are indexed."""
        return self.taken if self.answered else []


def encode(reply: Reply) -> bytes:
    """Return the answer as it goes over the wire."""
    body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unknown"
    headers = {"content-type": "application/json", **reply.headers}
    if reply.status != 204:
        headers = {"content-length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {reply.status} {phrase}\r\n{head}\r\n".encode("latin-1") + body


def error_body(code: str, message: str, reason: str) -> dict[str, str]:
    """Return what Leek puts under ``error``."""
    return {"code": code, "message": message, "reason": reason}
