"""The page's process: an HTTP server that ends with the supervisor, and harms nobody else."""

import asyncio
import os
import socket
from types import FrameType
from typing import Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from leekfanout import logs
from leekfanout.configuration.listen_address import shown
from leekfanout.web import tokens
from leekfanout.web.agent import Agent
from leekfanout.web.app import build
from leekfanout.web.guard import Door
from leekfanout.web.logouts import FILE_NAME, Logouts
from leekfanout.web.options import WebOptions

CONNECTIONS_MAX: Final = 200
"""More are closed at once."""

HEAD_S: Final = 10.0
"""A request's line and headers must have come within this time of the connection."""

UNREAD_S: Final = 30.0
"""A client that leaves something unread for so long is cut off."""

KEEP_ALIVE_S: Final = 30
STOP_S: Final = 3
"""What is under way may take so long when the page is told to end."""

EXIT_NO_ADDRESS: Final = 1

log = logs.get("web")


def run(agent: Agent, options: WebOptions, lifeline_fd: int) -> int:
    """Serve the page until SIGTERM or the end of the supervisor; return the exit code."""
    token = tokens.load(os.environ, agent.settings.state_dir)
    logs.hide([token])
    try:
        listener = _listen(options)
    except OSError as error:
        log.error(  # noqa: TRY400  # the reason says it all
            "web.address", address=shown(options.host, options.port), error=error.strerror
        )
        return EXIT_NO_ADDRESS
    server: _Server
    door = Door(token, options, Logouts(agent.settings.state_dir / FILE_NAME))
    app = build(agent, door, lambda: server.should_exit)
    server = _Server(settings_for(app), lifeline_fd)
    log.info("web.started", url=f"http://{shown(options.host, options.port)}/agent")
    server.run(sockets=[listener])
    return 0


def settings_for(app: ASGIApp) -> uvicorn.Config:
    """Return how the page is served: by uvicorn, within bounds, silent about requests."""
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",  # not a line for each request that is none
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=32_768,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
    )


class _Server(uvicorn.Server):
    def __init__(self, settings: uvicorn.Config, lifeline_fd: int) -> None:
        super().__init__(settings)
        self._lifeline_fd = lifeline_fd

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Nobody writes to the lifeline: it becomes readable when the supervisor is gone.
        asyncio.get_running_loop().add_reader(self._lifeline_fd, self._orphaned)

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self._lifeline_fd)
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True


class _Protocol(H11Protocol):
    """HTTP/1.1 with bounds that uvicorn lacks: on connections, and on the time of clients.

    It waits neither for a request's head nor for a client that doesn't read for long; bodies are
    up to the guard.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            transport.abort()
            return
        # So that pause_writing tells of each byte that the system doesn't take at once.
        transport.set_write_buffer_limits(high=0)
        self._head_timer = self.loop.call_later(HEAD_S, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._cancel_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_timer = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_unread_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        self._cancel_unread_timer()
        super().connection_lost(exc)

    def _cancel_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _listen(options: WebOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((options.host, options.port))
        # Whoever has read in the log that the page is there has to wait at most, and isn't refused.
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener
