"""Every listener of the agent and of the sink, in this process, with as little patience as is asked."""

import selectors
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from leekfanout.control import control_server
from leekfanout.control.control_server import ControlServer
from leekfanout.control.rpc import Rpc
from leekfanout.errors import LeekfanoutError
from leekfanout.metrics.metrics_server import MetricsServer
from leekfanout.sink.leek_api import Sink
from leekfanout.sink.sink_http import ENDPOINT, Server
from leekfanout.web import guard, serve
from tests.web.served import Served, made_up_agent

POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a listener bears with: seconds for each thing that a client does, and connections."""

    patience_s: float | None = None
    """None: as it is."""
    connections_max: int | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """One that listens, as its clients and its tests see it."""

    connect: Callable[[], socket.socket]
    path: str
    """Something that it answers."""
    connections: Callable[[], int]

    def is_answered(self) -> bool:
        """Whether a client of good manners gets an answer now."""
        try:
            with self.connect() as client:
                client.sendall(f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                return client.recv(7) == b"HTTP/1."
        except ConnectionError:
            return False


@contextmanager
def control_socket(bounds: Bounds, patch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """The control socket, served as the supervisor does it."""
    if bounds.patience_s is not None:
        patch.setattr(control_server, "REQUEST_S", bounds.patience_s)
        patch.setattr(control_server, "RESPONSE_S", bounds.patience_s)
    if bounds.connections_max is not None:
        patch.setattr(control_server, "CONNECTIONS_MAX", bounds.connections_max)
    stopping = threading.Event()
    with tempfile.TemporaryDirectory() as folder, selectors.DefaultSelector() as selector:
        path = Path(folder, "control.sock")
        server = ControlServer(path, selector, Rpc({}))

        def turn() -> None:
            while not stopping.is_set():
                for key, _ in selector.select(POLL_S):
                    key.data()
                server.tick(time.monotonic())

        def connect() -> socket.socket:
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(path))  # with a timeout, it would fail at once where others wait
            client.settimeout(10)
            return client

        thread = threading.Thread(target=turn)
        thread.start()
        try:
            yield Listener(connect, control_server.PATH, lambda: len(server._connections))
        finally:
            stopping.set()
            thread.join(10)
            server.close()


@contextmanager
def metrics(bounds: Bounds, patch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """The listener for metrics and health, of an agent that doesn't answer."""
    _bind(MetricsServer, bounds, patch)
    server = MetricsServer("127.0.0.1", 0, _Silent())  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,))
    thread.start()
    try:
        yield Listener(lambda: _tcp(server.port), "/metrics", lambda: len(server._connections))
    finally:
        server.shutdown()
        thread.join(10)
        server.cut_connections()
        server.server_close()


@contextmanager
def sink(bounds: Bounds, patch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """The small Leek API."""
    _bind(Server, bounds, patch)
    with Sink() as made:
        server = made._server
        assert server is not None
        yield Listener(lambda: _tcp(server.port), ENDPOINT, lambda: len(server._connections))


@contextmanager
def page(bounds: Bounds, patch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """The agent page, to somebody who doesn't have the token."""
    if bounds.patience_s is not None:
        patch.setattr(serve, "HEAD_S", bounds.patience_s)
        patch.setattr(serve, "UNREAD_S", bounds.patience_s)
        patch.setattr(serve, "KEEP_ALIVE_S", bounds.patience_s)
        patch.setattr(guard, "BODY_S", bounds.patience_s)
    if bounds.connections_max is not None:
        patch.setattr(serve, "CONNECTIONS_MAX", bounds.connections_max)
    with tempfile.TemporaryDirectory() as folder, Served(made_up_agent(Path(folder))) as served:
        yield Listener(lambda: _tcp(served.port), "/agent/login", lambda: served.connections)


ALL: Final[
    Mapping[str, Callable[[Bounds, pytest.MonkeyPatch], AbstractContextManager[Listener]]]
] = {"control": control_socket, "metrics": metrics, "sink": sink, "page": page}


class _Silent:
    """A control socket's client that no agent answers."""

    def call(self, method: str) -> object:
        raise LeekfanoutError("No agent.")


def _bind(
    kind: type[MetricsServer] | type[Server], bounds: Bounds, patch: pytest.MonkeyPatch
) -> None:
    if bounds.patience_s is not None:
        patch.setattr(kind, "lifetime_s", bounds.patience_s)
    if bounds.connections_max is not None:
        patch.setattr(kind, "connections_max", bounds.connections_max)


def _tcp(port: int) -> socket.socket:
    client = socket.socket()
    client.settimeout(10)
    # Little is on its way to a client that doesn't read.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.connect(("127.0.0.1", port))
    return client
