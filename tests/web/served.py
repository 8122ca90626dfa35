"""The page's application on a port of its own, in front of an agent that is made up."""

import dataclasses
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn

from leekfanout.configuration.config import Settings
from leekfanout.control.control_client import RefusedError
from leekfanout.control.rpc import Fault
from leekfanout.web.agent import Agent
from leekfanout.web.app import build
from leekfanout.web.guard import Door
from leekfanout.web.options import WebOptions
from leekfanout.web.serve import settings_for
from tests.web.page_agent import TOKEN

KNOWN = "shop-prod"


@dataclasses.dataclass(frozen=True, slots=True)
class MadeUpAgent(Agent):
    """An agent with one subscription, that does nothing when it is told to."""

    calls: list[tuple[Any, ...]] = dataclasses.field(default_factory=list)

    def call(self, method: str, *params: Any) -> Any:
        self.calls.append((method, *params))
        name = str(params[0]).removeprefix("agent:") if params else "agent"
        if name not in {"agent", KNOWN}:
            raise RefusedError(Fault.BAD_NAME, f"BAD_NAME: {name}")
        if method == "leekfanout.getStatus":
            return []
        if method == "supervisor.tailProcessStdoutLog":
            return ["a line\n", 7, False]
        if method == "leekfanout.reload":
            return {"added": [], "changed": [], "removed": []}
        if method == "supervisor.reloadConfig":
            return [[[], [], []]]
        if method == "supervisor.getProcessInfo":
            texts = dict.fromkeys(("statename", "description", "spawnerr"), "")
            numbers = dict.fromkeys(("start", "stop", "now", "state", "pid"), 0)
            return {"name": name, **texts, **numbers, "statename": "RUNNING"}
        return [{"name": KNOWN, "group": "agent", "status": 80, "description": "OK"}]


def made_up_agent(folder: Path) -> MadeUpAgent:
    return MadeUpAgent(Settings(folder), folder / "control.sock", folder / "subscriptions.json")


class Served:
    """Serves the application from a thread; a context manager."""

    def __init__(self, agent: Agent, options: WebOptions | None = None) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        app = build(agent, Door(TOKEN, options or WebOptions()), lambda: self._server.should_exit)
        self._server = uvicorn.Server(settings_for(app))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._server.server_state.connections)

    def __enter__(self) -> Self:
        self._socket.listen()  # from here on, clients wait for the server to start
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive(), "The server doesn't end."
        self._socket.close()
