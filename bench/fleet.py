"""The whole agent, ``leekfanout run``, with many subscriptions: what it costs in all."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from bench.forked import BenchError, cpu_seconds
from leekfanout.control.control_client import Client, NoAgentError

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0
ROOT = Path(__file__).parents[1]

Entry = dict[str, Any]
Status = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds that the supervisor and its processes, by pid, have used so far."""

    supervisor_s: float
    children_s: dict[int, float]


class Fleet:
    """``leekfanout run`` with ``subscriptions``, as users write them; a context manager."""

    def __init__(self, subscriptions: Sequence[Entry]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="leekfanout-bench-")
        self._log = Path(self._folder.name, "log")
        self._file = Path(self._folder.name, "subscriptions.json")
        self._write(subscriptions)
        state_dir = Path(self._folder.name, "state")
        self._client = Client(state_dir / "control.sock")
        env = {key: text for key, text in os.environ.items() if not key.startswith("LEEK")}
        env |= {
            "LEEK_ENABLE_AGENT": "true",
            "LEEK_ENABLE_API": "false",
            "LEEK_ENABLE_WEB": "false",
            "PYTHONPATH": str(ROOT),
        }
        command = [
            *(sys.executable, "-m", "leekfanout", "run"),
            *("--state-dir", str(state_dir), "--config", str(self._file)),
        ]
        with self._log.open("wb") as output:
            self.begun_at = time.time()
            """Epoch seconds, just before it was started."""
            self._process = subprocess.Popen(command, env=env, stdout=output, stderr=output)

    def connected(self) -> None:
        """Wait until every subscription consumes."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._all_connected():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"The agent doesn't connect:\n{self._log.read_text()[-4_000:]}")
            time.sleep(0.2)

    def _all_connected(self) -> bool:
        try:
            statuses = self.status()
        except NoAgentError:
            return False
        return len(statuses) == self._count and all(s["gauges"]["connected_at"] for s in statuses)

    def _write(self, subscriptions: Sequence[Entry]) -> None:
        self._count = len(subscriptions)
        self._file.write_text(json.dumps(list(subscriptions)))

    def status(self) -> list[Status]:
        """Ask the agent how each subscription is (which costs it something)."""
        statuses: list[Status] = self.call("leekfanout.getStatus")
        return statuses

    def call(self, method: str, *params: Any) -> Any:
        """Call a method of the agent's control socket, and return its answer."""
        return self._client.call(method, *params)

    def reload(self, subscriptions: Sequence[Entry]) -> None:
        """Configure these in place of the former ones."""
        self._write(subscriptions)
        self.call("leekfanout.reload")

    def children(self) -> list[psutil.Process]:
        """The subscriptions' processes."""
        return psutil.Process(self._process.pid).children()

    def cost(self) -> Cost:
        children = {child.pid: cpu_seconds(child.pid) for child in self.children()}
        return Cost(cpu_seconds(self._process.pid), children)

    def memory_mb(self) -> float:
        """Memory that the agent takes in all, in MB, what is shared counted once (PSS)."""
        everyone = [psutil.Process(self._process.pid), *self.children()]
        return sum(process.memory_full_info().pss for process in everyone) / 1e6

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        children = self.children() if self._process.poll() is None else []
        self._process.send_signal(signal.SIGKILL if kind else signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _, left = psutil.wait_procs(children, timeout=STOP_TIMEOUT_S)
        for child in left:
            child.kill()
        self._folder.cleanup()


def over(before: Cost, after: Cost, seconds: float) -> dict[str, float]:
    """Return the shares of a core that were used between two costs; no process may be new."""
    if before.children_s.keys() != after.children_s.keys():
        raise BenchError("A subscription's process ended while it was measured.")
    children = sum(after.children_s.values()) - sum(before.children_s.values())
    supervisor = after.supervisor_s - before.supervisor_s
    return {
        "cores": (children + supervisor) / seconds,
        "cores_per_subscription": children / seconds / max(len(before.children_s), 1),
        "cores_of_supervisor": supervisor / seconds,
    }


def resident_mb(pid: int) -> float:
    """Return the highest resident memory of a process so far, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise BenchError(f"Process {pid} has ended.")
