"""An HTTP server with bounds: connections, their lifetime, a request's head; silent about requests."""

import http.client
import math
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any

from leekfanout import logs
from leekfanout.control.http_request import HEAD_MAX_BYTES

log = logs.get("http")


class BoundedHTTPServer(ThreadingHTTPServer):
    """Each connection has a thread, up to ``connections_max``; one more is closed at once.

    A connection that has lasted for ``lifetime_s`` is cut when the next one comes, or at the next
    poll of ``serve_forever``: so one that sends a byte now and then doesn't keep its place for ever.
    Bound when made; raises OSError where it can't be.
    """

    daemon_threads = True
    request_queue_size = 128
    connections_max = 512
    lifetime_s: float

    def __init__(self, host: str, port: int, handler: type["BoundedHandler"]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Since when each one has lasted, in monotonic seconds; infinity while it is answered.
        self._connections: dict[socket.socket, float] = {}
        # Guards the above; requests are taken on one thread and ended on theirs.
        self._lock = threading.Lock()
        super().__init__((host, port), handler)

    @property
    def port(self) -> int:
        """The port that it listens on; the one asked for, unless that was 0."""
        port: int = self.socket.getsockname()[1]
        return port

    def server_bind(self) -> None:
        # HTTPServer's own would ask DNS for the host's name, which nobody needs.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.service_actions()
        with self._lock:
            full = len(self._connections) >= self.connections_max
            if not full:
                self._connections[request] = time.monotonic()
        if full:
            super().shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    @contextmanager
    def answering(self, request: socket.socket) -> Iterator[None]:
        """The connection isn't cut inside, however long it takes; its lifetime begins anew after.

        For a server that keeps connections: of a client that has sent what it had to send.
        """
        self._count_from(request, math.inf)
        try:
            yield
        finally:
            self._count_from(request, time.monotonic())

    def _count_from(self, request: socket.socket, begun: float) -> None:
        with self._lock:
            if request in self._connections:
                self._connections[request] = begun

    def service_actions(self) -> None:
        self._cut(begun_before=time.monotonic() - self.lifetime_s)

    def cut_connections(self) -> None:
        """End every connection, in the middle of a request or not."""
        self._cut(begun_before=math.inf)

    def _cut(self, begun_before: float) -> None:
        with self._lock:
            for connection, begun in self._connections.items():
                if begun > begun_before:
                    continue
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the client was faster

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away, or that was cut, is no fault of ours.
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            log.exception("request.failed", client=client_address[0])


class BoundedHandler(BaseHTTPRequestHandler):
    """Answers requests, unless a head is larger than :data:`HEAD_MAX_BYTES`: that is a 431.

    The standard library would take a hundred lines of 64 KB each.
    """

    def parse_request(self) -> bool:
        whole = self.rfile
        self.rfile = _Head(whole, HEAD_MAX_BYTES)  # type: ignore[assignment]  # all that is called
        try:
            return super().parse_request()
        finally:
            self.rfile = whole

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing per request."""


class _Head:
    """The lines of a request's head, up to a number of bytes."""

    __slots__ = ("_file", "_left")

    def __init__(self, file: BufferedIOBase, left: int) -> None:
        self._file = file
        self._left = left

    def readline(self, limit: int) -> bytes:
        line = self._file.readline(min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            # BaseHTTPRequestHandler.parse_request answers this with a 431.
            raise http.client.HTTPException("The head is too large.")
        return line
