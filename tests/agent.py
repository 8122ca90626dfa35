"""The agent under test: all of it as ``leekfanout run``, or one subscription's process alone."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson
import psutil

from leekfanout.control.control_client import Client
from tests.api_double import ApiDouble
from tests.processes import ChildProcess, wait_gone
from tests.waiting import until

ROOT = Path(__file__).parents[1]
START_TIMEOUT_S = 30.0


def subscription(broker: str, api: ApiDouble, **keys: Any) -> dict[str, Any]:
    """Return a subscription as users write it; short windows, so that tests don't wait for them."""
    return {
        "broker": broker,
        "org_name": "mono",
        "app_name": "shop",
        "app_env": "prod",
        "app_key": api.app_key,
        "api_url": api.url,
        "batch_max_window_in_seconds": 0.2,
        **keys,
    }


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process has taken of its host, to be compared before and after a disturbance."""

    rss_bytes: int
    threads: int
    fds: int

    @classmethod
    def of(cls, pid: int) -> Self:
        process = psutil.Process(pid)
        return cls(process.memory_info().rss, process.num_threads(), process.num_fds())


class _Logged:
    """What :class:`Agent` and :class:`Alone` have in common: a process that logs JSON lines."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.state_dir = folder / "state"
        self.log = folder / f"{name}.log"
        self._process: ChildProcess | None = None

    @property
    def process(self) -> ChildProcess:
        assert self._process is not None, "The agent has not been started."
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def lines(self, event: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """Return its log lines, or only those of one event with these fields."""
        parsed = []
        for line in self.log.read_bytes().splitlines():
            if line.startswith(b"{"):
                with suppress(orjson.JSONDecodeError):
                    parsed.append(orjson.loads(line))
                    continue
            # A traceback, or a part of stacks that processes wrote at once: numbers, for one.
            parsed.append({"event": line.decode("utf-8", "replace")})
        return [
            line
            for line in parsed
            if (event is None or line["event"] == event) and fields.items() <= line.items()
        ]

    def wait_for_line(
        self, event: str, count: int = 1, timeout_s: float = 30.0, **fields: Any
    ) -> list[dict[str, Any]]:
        """Wait until it has written so many lines of an event, and return them."""
        return self._until(
            lambda: found if len(found := self.lines(event, **fields)) >= count else None,
            timeout_s,
            f"{count} log lines {event} {fields or ''}",
        )

    def wait_until_connected(self, times: int = 1, timeout_s: float = 30.0, **fields: Any) -> None:
        """Wait until it consumes, or has reconnected so often, in all its processes together."""
        self.wait_for_line("broker.connected", times, timeout_s, **fields)

    def state_of(self, name: str = "shop-prod") -> Path:
        """The folder in which a subscription keeps its state."""
        return self.state_dir / name

    def _show_log_of_failure(self, kind: object) -> None:
        """Print the end of the log when a test fails: pytest shows what a failed test printed."""
        if kind is not None and self._process is not None:
            print(f"{self.log.name}, exit code {self._process.returncode}:")
            print(self._process.output(20_000))

    def _until(self, condition: Any, timeout_s: float, what: str) -> Any:
        """Wait as :func:`until` does, but no longer than the process lives."""

        def attempt() -> Any:
            ended = self.process.returncode is not None
            value = condition()
            assert value or not ended, f"The agent has ended; this waited for {what}."
            return value

        try:
            return until(attempt, timeout_s, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.process.output()}") from None


class Agent(_Logged):
    """``leekfanout run`` with these subscriptions; a context manager that leaves nothing behind."""

    def __init__(
        self,
        subscriptions: Sequence[Mapping[str, Any]],
        folder: Path,
        *,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, "agent")
        self._subscriptions = subscriptions
        self._options = options
        self._env = env or {}
        self._children: dict[int, psutil.Process] = {}

    def start(self, wait: bool = True) -> Self:
        """Start it, and wait until a process runs for each subscription."""
        seen = len(self.lines("process.started")) if self.log.exists() else 0
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LEEK")},
            "LEEK_AGENT_SUBSCRIPTIONS": json.dumps(list(self._subscriptions)),
            "LEEK_ENABLE_AGENT": "true",
            "LEEK_ENABLE_API": "false",
            "LEEK_ENABLE_WEB": "false",
            "LEEKFANOUT_LOG_FORMAT": "json",
            "PYTHONPATH": str(ROOT),
            **self._env,
        }
        self._process = ChildProcess(
            [
                *(sys.executable, "-m", "leekfanout", "run"),
                *("--state-dir", str(self.state_dir), *self._options),
            ],
            self.log,
            env,
        )
        if wait:
            self._until(
                lambda: len(self.lines("process.started")) >= seen + len(self._subscriptions),
                START_TIMEOUT_S,
                "the agent to start its processes",
            )
            self.children()
        return self

    def call(self, method: str, *params: Any) -> Any:
        """Call a method of its control socket."""
        return Client(self.state_dir / "control.sock").call(method, *params)

    def children(self) -> dict[str, int]:
        """Return the process ids of the subscriptions' processes that live, by name."""
        started = {line["subscription"]: line["pid"] for line in self.lines("process.started")}
        living = {}
        for name, pid in started.items():
            try:
                if self._own(pid).status() != psutil.STATUS_ZOMBIE:
                    living[name] = pid
            except psutil.NoSuchProcess:
                continue
        return living

    def _own(self, pid: int) -> psutil.Process:
        """Return its child of this id; NoSuchProcess if that has ended, whoever has the id now."""
        child = self._children.get(pid)
        if child is None or not child.is_running():
            child = psutil.Process(pid)
            if child.ppid() != self.process.pid:
                raise psutil.NoSuchProcess(pid)
            self._children[pid] = child
        return child

    def wait_for_child(self, name: str = "shop-prod", other_than: int | None = None) -> int:
        """Wait until a subscription has a (new) process, and return its id."""
        return self._until(
            lambda: pid if (pid := self.children().get(name)) not in {None, other_than} else None,
            START_TIMEOUT_S,
            f"a process of {name}",
        )

    def kill_child(self, name: str = "shop-prod") -> int:
        """Kill a subscription's process with -9 and return the process id that it had."""
        pid = self.children()[name]
        os.kill(pid, signal.SIGKILL)
        return pid

    def stop(self, timeout_s: float = 30.0) -> int:
        """End it with SIGTERM; return its exit code, having made sure that no process is left."""
        self.children()
        self.process.signal(signal.SIGTERM)
        code = self.process.wait(timeout_s)
        left = wait_gone(self._children.values(), 5)
        assert not left, f"The agent has left processes behind: {left}"
        return code

    def kill(self) -> None:
        """Kill the supervisor with -9; its processes find out by themselves."""
        self.children()
        self.process.kill()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: object, *_: object) -> None:
        self._show_log_of_failure(kind)
        self.close()

    def close(self) -> None:
        """End whatever still runs, at once."""
        if self._process is None:
            return
        self.children()
        self.process.kill()
        for child in self._children.values():
            if child.is_running():
                child.kill()
        wait_gone(self._children.values(), 5)


class FileAgent(Agent):
    """An agent whose subscriptions come from a file, which may change while it runs."""

    def __init__(self, folder: Path, entries: Sequence[Mapping[str, Any]], *options: str) -> None:
        self.file = folder / "subscriptions.json"
        self.write(entries)
        super().__init__(
            entries,
            folder,
            options=("--config", str(self.file), *options),
            env={"LEEK_AGENT_SUBSCRIPTIONS": ""},
        )

    def write(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Replace the file."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(list(entries)))
        fresh.replace(self.file)


class Alone(_Logged):
    """One subscription's process without a supervisor: the same code, sooner there.

    A context manager. Leaving it kills the process; :meth:`stop` and :meth:`close_lifeline` end it
    in good order.
    """

    def __init__(
        self,
        subscription: Mapping[str, Any],
        folder: Path,
        *,
        constants: Mapping[str, float] | None = None,
        **settings: Any,
    ) -> None:
        """``settings`` are fields of :class:`leekfanout.configuration.config.Settings`.

        ``constants`` of leekfanout have these values in that process, for tests that can't wait as
        long as people can: ``{"delivery.hand_backs.HAND_BACK_AFTER_S": 1.0}``.
        """
        super().__init__(folder, "alone")
        self._constants = constants or {}
        self._subscription = subscription
        self._settings = settings
        self._lifeline: int | None = None

    def start(self) -> Self:
        read_end, self._lifeline = os.pipe()
        arguments = {
            "subscription": self._subscription,
            "constants": self._constants,
            "settings": {**self._settings, "state_dir": str(self.state_dir)},
            "stats_file": str(self.folder / "stats.json"),
        }
        self._process = ChildProcess(
            [sys.executable, "-m", "tests.alone", json.dumps(arguments)],
            self.log,
            {**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=read_end,
        )
        os.close(read_end)
        return self

    @property
    def stats(self) -> dict[str, Any]:
        """Its counters, gauges and texts, at most a moment old; empty before it has any."""
        path = self.folder / "stats.json"
        return orjson.loads(path.read_bytes()) if path.exists() else {}

    def wait_for_stat(self, name: str, at_least: float = 1, timeout_s: float = 30.0) -> None:
        self._until(
            lambda: self.stats.get(name, 0) >= at_least, timeout_s, f"{name} to reach {at_least}"
        )

    def stop(self, timeout_s: float = 30.0) -> int:
        """End it with SIGTERM and return its exit code."""
        self.process.signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def close_lifeline(self) -> None:
        """Let it think that the supervisor has died."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def kill(self) -> None:
        self.process.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: object, *_: object) -> None:
        self._show_log_of_failure(kind)
        if self._process is not None:
            self._process.kill()
        self.close_lifeline()


# All of the command is imported before: the other user may not read the interpreter's folders.
_AS_NOBODY = """
import importlib, os, sys
from leekfanout import cli
importlib.import_module(f"leekfanout.commands.{sys.argv[1]}")
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(cli.main())
"""


def run_leekfanout(
    *arguments: str, env: Mapping[str, str] | None = None, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run a command of leekfanout to its end, with none of its variables inherited."""
    return _run(["-m", "leekfanout"], arguments, env, stdin)


def run_as_nobody(
    *arguments: str, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """As :func:`run_leekfanout`, but as user 65534, which only root can become."""
    return _run(["-c", _AS_NOBODY], arguments, env, "")


def _run(
    program: Sequence[str], arguments: Sequence[str], env: Mapping[str, str] | None, stdin: str
) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LEEK")}
    return subprocess.run(
        [sys.executable, *program, *arguments],
        env={**inherited, "PYTHONPATH": str(ROOT), **(env or {})},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
