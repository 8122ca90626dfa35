"""Processes that end with the one that started them, however that one ends.

They share a process group with a guard, which holds the read end of a pipe. When the pipe's other
end is gone (closed, or its process killed), the guard ends whoever is left in the group and removes
their folder. Linux offers PR_SET_PDEATHSIG for the same, but it reaches no grandchildren.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from leekfanout.terminal.stopping import StopSignals

GRACE_S: Final = 8.0
"""How long the guard lets processes end by themselves after SIGTERM."""
POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Child:
    """A process of a :class:`ProcessGroup`; what it writes goes to its log."""

    name: str
    popen: "subprocess.Popen[bytes]"
    log: Path

    @property
    def ended(self) -> bool:
        return self.popen.poll() is not None

    def last_words(self, lines: int = 15) -> str:
        """Return the end of its log."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 16_384))
            return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-lines:])


class ProcessGroup:
    """A temporary folder and the processes that work in it; a context manager that leaves neither.

    The processes are out of the terminal's reach: Ctrl-C is only for the one that owns them, which
    ends them in the order it likes.
    """

    def __init__(self) -> None:
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="leekfanout-demo-"))
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "leekfanout.supervision.lifeline", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End what is left, at once."""
        for child in reversed(self._children):
            if not child.ended:
                child.popen.kill()
            child.popen.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait()

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start a process; ``environment`` is all of its environment (None: the same as ours)."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            popen = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=self._guard.pid,
            )
        child = Child(name, popen, log)
        self._children.append(child)
        return child

    def stop(self, child: Child, timeout_s: float, stop: StopSignals) -> bool:
        """End a process with SIGTERM; SIGKILL after ``timeout_s`` or at a second stop signal.

        Returns whether it ended by itself.
        """
        if not child.ended:
            child.popen.terminate()
        deadline = time.monotonic() + timeout_s
        while not child.ended:
            if time.monotonic() > deadline or stop.wait(POLL_S, signals=2):
                child.popen.kill()
                child.popen.wait()
                return False
        return True


def _guard(folder: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    # By its id, not 0: a guard that leads no group must not hit the one that it is in by chance.
    os.killpg(os.getpid(), signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while (left := _others_in_group()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def _others_in_group() -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and _is_alive_in(process, os.getpid())
    ]


def _is_alive_in(process: psutil.Process, group: int) -> bool:
    try:
        is_zombie: bool = process.status() == psutil.STATUS_ZOMBIE
        return os.getpgid(process.pid) == group and not is_zombie
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


if __name__ == "__main__":
    _guard(Path(sys.argv[1]))
