"""A process beside the subscriptions' own: restarted like them, and of no importance to them."""

import math
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from leekfanout import logs
from leekfanout.supervision import child, exits
from leekfanout.supervision.lifecycle import Backoff

STOP_S: Final = 8.0
"""It has this long to end by itself before it is killed."""

Work = Callable[[int], int]
"""What it does until SIGTERM: gets the read end of the lifeline, and returns an exit code."""

log = logs.get("supervisor")


class SideProcess:
    """Keeps one process running: whenever it ends, it starts again after a growing delay.

    Times that are passed in are monotonic seconds. Used by the supervisor's only thread.
    """

    def __init__(
        self, name: str, work: Work, lifeline_fd: int, release: Callable[[], None]
    ) -> None:
        """``release`` closes in the child what belongs to the supervisor alone."""
        self.name = name
        self.pid = 0
        self.due = math.inf
        """When :meth:`tick` has something to do."""
        self._work = work
        self._lifeline_fd = lifeline_fd
        self._release = release
        self._backoff = Backoff()
        self._wanted = False
        self._spawned = 0.0

    def start(self, now: float) -> None:
        """Start it, and keep it running from now on."""
        self._wanted = True
        self._spawn(now)

    def stop(self, now: float) -> None:
        """Let it end; kill it if it takes too long."""
        self._wanted = False
        self.due = math.inf
        if self.pid:
            self._signal(signal.SIGTERM)
            self.due = now + STOP_S

    def kill(self) -> None:
        """End it at once."""
        if self.pid:
            self._signal(signal.SIGKILL)

    def dump_stacks(self) -> None:
        """Make it write the stacks of its threads."""
        if self.pid:
            self._signal(child.STACKS_SIGNAL)

    def tick(self, now: float) -> None:
        """Do what is due: start it again, or kill it."""
        if now < self.due:
            return
        self.due = math.inf
        if self._wanted and not self.pid:
            self._spawn(now)
        elif not self._wanted:
            self.kill()

    def reaped(self, now: float, status: int) -> None:
        """Take note that it has ended with a wait status."""
        self.pid = 0
        self.due = math.inf
        if self._wanted:
            self.due = now + self._backoff.delay(now - self._spawned)
            log.error(
                "side.ended",
                process=self.name,
                exit=exits.describe(status),
                restart_in_s=self.due - now,
            )

    def _spawn(self, now: float) -> None:
        self._spawned = now
        try:
            self.pid = child.fork(
                f"leekfanout: {self.name}", self._release, lambda: self._work(self._lifeline_fd)
            )
        except OSError as error:
            self.due = now + self._backoff.delay(0.0)
            log.warning("side.fork", process=self.name, error=error.strerror)
            return
        log.info("side.started", process=self.name, pid=self.pid)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
