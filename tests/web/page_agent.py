"""An agent with its page, as ``leekfanout run --web`` starts it."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import orjson
import psutil
import requests

from leekfanout.control.control_client import Client, NoAgentError
from tests.agent import ROOT
from tests.processes import ChildProcess, free_ports, wait_gone
from tests.waiting import until

TOKEN = "a-token-for-tests-only"
WAIT_S = 30.0


class PageAgent:
    """A context manager that leaves nothing behind; subscriptions are in a file, or fixed."""

    def __init__(
        self,
        folder: Path,
        entries: Sequence[Mapping[str, Any]] | None = None,
        *,
        fixed: bool = False,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.file = folder / "subscriptions.json"
        self.log = folder / "agent.log"
        (self.port,) = free_ports(1)
        self.client = Client(self.state_dir / "control.sock")
        self._options = options
        self._env = {"LEEKFANOUT_WEB_TOKEN": TOKEN} if env is None else dict(env)
        self._children: dict[int, psutil.Process] = {}
        if fixed:
            self._env["LEEK_AGENT_SUBSCRIPTIONS"] = json.dumps(entries)
        elif entries is not None:
            self.file.write_text(json.dumps(entries))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        inherited = {name: v for name, v in os.environ.items() if not name.startswith("LEEK")}
        env = {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "LEEKFANOUT_LOG_FORMAT": "json",
            **self._env,
        }
        self._process = ChildProcess(
            [
                *(sys.executable, "-m", "leekfanout", "run"),
                *("--state-dir", str(self.state_dir), "--config", str(self.file)),
                *("--web", f"127.0.0.1:{self.port}", *self._options),
            ],
            self.log,
            env,
        )
        until(self.answers, WAIT_S, "the agent page to answer")
        return self

    def entries(self) -> list[dict[str, Any]]:
        """What the subscriptions' file holds."""
        return json.loads(self.file.read_text()) if self.file.exists() else []

    def status(self, name: str = "shop-prod") -> dict[str, Any]:
        """The status of a subscription; empty if there is none of this name."""
        self._see_children()
        try:
            statuses = self.client.call("leekfanout.getStatus")
        except NoAgentError:
            return {}
        return next((each for each in statuses if each["name"] == name), {})

    def wait_for_state(self, state: str, name: str = "shop-prod") -> None:
        until(
            lambda: self.status(name).get("statename") == state,
            WAIT_S,
            f"{name} to be {state}; the log ends with\n{self._process.output()}",
        )

    def wait_until_connected(self, name: str = "shop-prod") -> None:
        until(
            lambda: self.status(name).get("condition") == "DELIVERING",
            WAIT_S,
            f"{name} to be connected; the log ends with\n{self._process.output()}",
        )

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        lines = [line for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]
        return [line for line in map(orjson.loads, lines) if line["event"] == event]

    def supervisor_pid(self) -> int:
        return self._process.pid

    def page_pid(self) -> int:
        """The process id of the page's process."""
        return int(self.lines("side.started")[-1]["pid"])

    def get(self, path: str, **options: Any) -> requests.Response:
        """GET with the token."""
        return self.request("GET", path, **options)

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request with the token as Leek's page would."""
        headers = {"Authorization": f"Bearer {TOKEN}", **options.pop("headers", {})}
        return requests.request(
            method, f"{self.url}{path}", headers=headers, timeout=WAIT_S, **options
        )

    def stop(self) -> int:
        """End it with SIGTERM; return its exit code, having made sure that no process is left."""
        self._see_children()
        code = self._process.stop(WAIT_S)
        left = wait_gone(self._children.values(), 5)
        assert not left, f"The agent has left processes behind: {left}"
        return code

    def kill(self) -> None:
        """Kill the supervisor with -9."""
        self._see_children()
        self._process.kill()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            print(self._process.output(20_000))
        self.close()

    def close(self) -> None:
        """End whatever still runs, at once."""
        if self._process.returncode is None:
            self._see_children()
            self._process.kill()
        for child in self._children.values():
            if child.is_running():
                child.kill()
        wait_gone(self._children.values(), 5)

    def _see_children(self) -> None:
        for child in psutil.Process(self._process.pid).children(recursive=True):
            self._children.setdefault(child.pid, child)

    def answers(self) -> bool:
        """Whether the page's login is there."""
        ended = self._process.returncode
        assert ended is None, f"The agent has ended with {ended}:\n{self._process.output()}"
        try:
            return requests.get(f"{self.url}/agent/login", timeout=5).ok
        except requests.ConnectionError:
            return False
