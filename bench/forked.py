"""Work in forked processes, and what the operating system says that it cost."""

import ctypes
import gc
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

PR_SET_PDEATHSIG = 1
EXIT_FAILED = 70

_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """A measurement that can't be trusted, or didn't come about."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used up in its life, by ``wait4``: all of its threads, ended ones too."""

    cpu_s: float
    rss_mb: float
    exit_code: int


class Forked:
    """A forked process that does ``work`` and ends; its standard error goes to ``log``.

    Linux kills it with its parent. As a context manager it is killed on leaving, if it still runs.
    """

    def __init__(self, work: Callable[[], object], log: Path | None = None) -> None:
        sys.stdout.flush()
        self._usage: Usage | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _be_child(work, log)

    def signal(self, number: int) -> None:
        """Send it a signal, if it hasn't ended: the id of a reaped process may be another's."""
        if not self.ended():
            os.kill(self.pid, number)

    def wait(self) -> Usage:
        """Wait until it has ended, and return what it has used."""
        if self._usage is None:
            _, status, usage = os.wait4(self.pid, 0)
            code = os.waitstatus_to_exitcode(status)
            self._usage = Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6, code)
        return self._usage

    def ended(self) -> bool:
        """Whether it has ended; it is reaped then."""
        if self._usage is None and os.waitid(
            os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
        ):
            self.wait()
        return self._usage is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.signal(signal.SIGKILL)
        self.wait()


def _be_child(work: Callable[[], object], log: Path | None) -> None:
    code = EXIT_FAILED
    try:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if log is not None:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        # What the harness holds is nobody's garbage; no client that is measured is to look at it.
        gc.freeze()
        work()
        code = 0
    except KeyboardInterrupt:
        pass  # the terminal sends it to all processes; the parent will tell
    except BaseException:  # noqa: BLE001  # what happened is told, and the process ends here
        traceback.print_exc()
    finally:
        os._exit(code)


class Answer:
    """What ``work`` returns (something for JSON) when a forked process does it; a context manager."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._read_end, write_end = os.pipe()

        def tell() -> None:
            with os.fdopen(write_end, "w") as file:
                json.dump(work(), file)

        self._process = Forked(tell)
        os.close(write_end)

    def get(self, timeout_s: float = 120.0) -> Any:
        """Wait for the answer. Raises BenchError where there is none in time, or work failed."""
        if not select.select([self._read_end], [], [], timeout_s)[0]:
            raise BenchError(f"A process was not done after {timeout_s:g} s.")
        with os.fdopen(self._read_end, closefd=False) as file:
            text = file.read()
        if self._process.wait().exit_code:
            raise BenchError("A process failed; its traceback is above.")
        return json.loads(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.__exit__()
        os.close(self._read_end)


def answer_of(work: Callable[[], Any], timeout_s: float = 120.0) -> Any:
    """Return what ``work`` returns when a process of its own does it."""
    with Answer(work) as answer:
        return answer.get(timeout_s)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a living process has used so far, all threads, in nanosecond steps.

    clock_getcpuclockid(3); ``/proc/PID/stat`` counts in steps of 10 ms.
    """
    clock = ctypes.c_int()
    error = _libc.clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise BenchError(f"The CPU clock of process {pid} can't be read: {os.strerror(error)}.")
    return time.clock_gettime(clock.value)
