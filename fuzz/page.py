"""Bytes at the agent page, from somebody who doesn't have the token."""

import asyncio
import secrets
import tempfile
from pathlib import Path
from typing import Any

from uvicorn.server import ServerState

from fuzz.http_answers import check_answers
from leekfanout.configuration.config import Settings
from leekfanout.web.agent import Agent
from leekfanout.web.app import build
from leekfanout.web.guard import Door
from leekfanout.web.options import WebOptions
from leekfanout.web.serve import settings_for

FOLDER = tempfile.TemporaryDirectory(prefix="leekfanout-fuzz-")
LOOP = asyncio.new_event_loop()
BEHIND_THE_DOOR = (b"csrf-token", b'"openapi"')
"""What the page and the description of the HTTP interface hold."""

ROUNDS_MAX = 200
"""A request that goes on for longer waits for what doesn't come: the rest of its body."""


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 8_000)})
        self.written = bytearray()
        self._closing = False

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    abort = close

    def pause_reading(self) -> None:
        """Nothing comes but the input."""

    resume_reading = pause_reading

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""


def _settings() -> Any:
    folder = Path(FOLDER.name)
    agent = Agent(Settings(folder), folder / "control.sock", folder / "subscriptions.json")
    settings = settings_for(build(agent, Door(secrets.token_hex(), WebOptions())))
    settings.load()
    return settings


SETTINGS = _settings()


async def _talk(received: bytes) -> bytes:
    wire, state = Wire(), ServerState()
    protocol = SETTINGS.http_protocol_class(SETTINGS, state, {})
    protocol.connection_made(wire)
    protocol.data_received(received)
    for _ in range(ROUNDS_MAX):
        if not state.tasks:
            break
        waiting_for_body = protocol.cycle.more_body
        await (asyncio.sleep(0) if waiting_for_body else asyncio.wait(state.tasks))
    sent = bytes(wire.written)
    protocol.connection_lost(None)
    if state.tasks:
        await asyncio.wait(state.tasks)
    return sent


def one_input(received: bytes) -> None:
    """Raise if the page gives a bad answer, or one to a question that needs the token."""
    if not received:
        return  # asyncio never gives a protocol nothing
    sent = LOOP.run_until_complete(_talk(received))
    check_answers(sent)
    assert not any(secret in sent for secret in BEHIND_THE_DOOR)
