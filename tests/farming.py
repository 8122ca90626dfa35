"""The farm under test: a supervisor with stand-in children, and what can be seen of it."""

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import orjson
import psutil

from leekfanout.control.control_client import Client, NoAgentError
from leekfanout.supervision.lifecycle import State
from tests.processes import ChildProcess, descendants, wait_gone
from tests.waiting import until

ROOT = Path(__file__).parents[1]
WAIT_S = 20.0

Entry = Mapping[str, Any]


class Farm:
    """``tests.farm_agent`` as a process; a context manager that leaves nothing behind."""

    def __init__(self, folder: Path, entries: Sequence[Entry], **env: str) -> None:
        """``env``: HANG_AFTER_S, OVERSLEPT_S, MEMORY_EVERY_S, DRAIN_S, SUBREAPER."""
        self.folder = folder
        self.state_dir = folder / "state"
        self.state_dir.mkdir(mode=0o700)
        self.socket = self.state_dir / "control.sock"
        self.log = folder / "farm.log"
        self.client = Client(self.socket)
        self.file = folder / "subscriptions.json"
        self._env = env
        self._seen: set[psutil.Process] = set()
        self.write(entries)

    def write(self, entries: Sequence[Entry] | str) -> None:
        """Replace the subscriptions' file, by entries or by any text."""
        text = entries if isinstance(entries, str) else json.dumps(list(entries))
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.file)

    def start(self, wait: bool = True) -> Self:
        self.process = ChildProcess(
            [sys.executable, "-m", "tests.farm_agent", str(self.state_dir), str(self.file)],
            self.log,
            {**os.environ, "PYTHONPATH": str(ROOT), **self._env},
        )
        if wait:
            until(self._answers, WAIT_S, "the farm to answer")
        return self

    def signal(self, number: int) -> None:
        self.process.signal(number)

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Return the supervisor's exit code, having made sure that no process is left."""
        code = self.process.wait(timeout_s)
        left = wait_gone(self._seen, 5)
        assert not left, f"The farm has left processes behind: {left}"
        return code

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def children(self) -> dict[int, str]:
        """Return the supervisor's children that live or are zombies: titles by process id."""
        found = descendants(self.process.pid)
        self._seen |= found.keys()
        return {child.pid: title for child, title in found.items()}

    def status(self) -> dict[str, dict[str, Any]]:
        self.children()
        return {each["name"]: each for each in self.client.call("leekfanout.getStatus")}

    def pid(self, name: str) -> int:
        """Return a subscription's process id; 0: it has no process now."""
        return int(self.status()[name]["pid"])

    def send(self, name: str, number: int) -> int:
        """Send a signal to a subscription's process, and return the process id."""
        pid = self.pid(name)
        assert pid > 0, f"{name} has no process."  # 0 would be all that the tests run in
        os.kill(pid, number)
        return pid

    def wait_for_states(self, timeout_s: float = WAIT_S, **states: State) -> None:
        """Wait until subscriptions are in these states: ``shop_prod=State.RUNNING``."""
        wanted = {name.replace("_", "-"): state for name, state in states.items()}

        def reached() -> bool:
            seen = self.status()
            return all(seen.get(name, {}).get("state") == state for name, state in wanted.items())

        until(reached, timeout_s, f"{wanted}; the log ends with\n{self.process.output()}")

    def lines(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the log lines of one event with these fields."""
        parsed = []
        for line in self.log.read_bytes().splitlines():
            if line.startswith(b"{"):
                parsed.append(orjson.loads(line))
        return [
            line for line in parsed if line["event"] == event and fields.items() <= line.items()
        ]

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End whatever still runs, at once."""
        if self.process.returncode is None:
            self.children()
            self.process.kill()
        for child in self._seen:
            if child.is_running():
                child.kill()
        wait_gone(self._seen, 5)

    def _answers(self) -> bool:
        try:
            return bool(self.client.call("supervisor.getPID") == self.process.pid)
        except NoAgentError:
            return False


def entries(*names: str, **options: Any) -> list[dict[str, Any]]:
    """Return an entry for each name, all with the same options."""
    return [{"name": name, **options} for name in names]
