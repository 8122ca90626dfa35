"""An HTTP server with bounds: connections, their lifetime, and nothing said per request."""

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from leekfanout import logs

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
    lifetime_s: float | None = None

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
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

    def service_actions(self) -> None:
        if self.lifetime_s is not None:
            self._cut(begun_before=time.monotonic() - self.lifetime_s)

    def cut_connections(self) -> None:
        """End every connection, in the middle of a request or not."""
        self._cut(begun_before=time.monotonic())

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
        log.exception("request.failed", client=client_address[0])
