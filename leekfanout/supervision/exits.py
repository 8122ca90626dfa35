"""Why a process ended, in words and as a cause to count: exit codes, signals, the kernel's killer."""

import os
import signal
from enum import StrEnum
from pathlib import Path

from leekfanout.supervision.child import EXIT_CRASHED


class Cause(StrEnum):
    """Why a process ended that was to go on: the few words that ends are counted by."""

    CRASH = "crash"
    """An exception, or a signal like SIGSEGV that a fault in a program raises."""
    HANG = "hang"
    """Its main loop had stopped turning, so that the supervisor killed it."""
    MEMORY = "memory"
    """It had grown above ``max_memory_mb``."""
    OOM = "oom"
    """The kernel killed it for want of memory."""
    KILLED = "killed"
    """Somebody sent a signal."""
    UNDRAINED = "undrained"
    """It was asked to stop, and killed when the drain time was over."""
    EXITED = "exited"
    """It ended by itself with an exit code."""


_FAULTS = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGSYS}
)


def cause_of(status: int, oom_killed: bool = False) -> Cause:
    """Return why a process ended by itself; the parameters are those of :func:`describe`."""
    code = os.waitstatus_to_exitcode(status)
    if code == EXIT_CRASHED or -code in _FAULTS:
        return Cause.CRASH
    if code >= 0:
        return Cause.EXITED
    return Cause.OOM if -code == signal.SIGKILL and oom_killed else Cause.KILLED


def describe(status: int, oom_killed: bool = False) -> str:
    """Say how a process ended whose wait status is ``status``, as in "was killed by SIGSEGV".

    ``oom_killed``: the kernel's out-of-memory killer was seen at work meanwhile.
    """
    code = os.waitstatus_to_exitcode(status)
    if code == EXIT_CRASHED:
        return "crashed (its log has the traceback)"
    if code >= 0:
        return f"exited with code {code}"
    name = signal_name(-code)
    if -code != signal.SIGKILL:
        return f"was killed by {name}"
    if oom_killed:
        return f"was killed by {name}: oom, no memory was left in the container or host"
    return f"was killed by {name} (perhaps out of memory)"


def signal_name(number: int) -> str:
    """Return ``SIGTERM`` for 15, and ``signal 40`` for one that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class OomKills:
    """Tells whether the kernel has killed for want of memory in this process's control group."""

    def __init__(self, root: Path = Path("/sys/fs/cgroup"), own: Path | None = None) -> None:
        self._file = _counter_file(root, own or Path("/proc/self/cgroup"))
        self._seen = self._count()

    def happened(self) -> bool:
        """Return whether there were such kills since this was last called (or since the start)."""
        before, self._seen = self._seen, self._count()
        return self._seen > before

    def _count(self) -> int:
        if self._file is None:
            return 0
        try:
            lines = self._file.read_text().splitlines()
            return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
        except (OSError, ValueError, IndexError):
            return 0


def _counter_file(root: Path, own: Path) -> Path | None:
    # cgroups(7): "0::/path" is version 2, "n:memory:/path" the memory controller of version 1.
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        number, controllers, path = line.split(":", 2)
        relative = path.lstrip("/")
        if number == "0":
            candidate = root / relative / "memory.events"
        elif "memory" in controllers.split(","):
            candidate = root / "memory" / relative / "memory.oom_control"
        else:
            continue
        if candidate.is_file():
            return candidate
    return None
