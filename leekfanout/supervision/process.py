"""One subscription's process as the supervisor sees it: its state, and the verbs that change it."""

import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from leekfanout import logs
from leekfanout.configuration.config import Settings, Subscription
from leekfanout.redaction import mask, secrets_of
from leekfanout.status.stats import Condition, Stats
from leekfanout.supervision import child, exits
from leekfanout.supervision.exits import Cause
from leekfanout.supervision.lifecycle import (
    STEADY_AFTER_S,
    UP,
    WAITING,
    Backoff,
    Move,
    State,
    after,
)

Target = Callable[[Subscription, Settings, Stats, int], int]
"""What a child runs: subscription, settings, stats, and the read end of the lifeline."""

KILL_MARGIN_S: Final = 1.0
"""A child has the drain time to end by itself, and this long in addition before it is killed."""

LAST_WORDS_S: Final = 0.5
"""From the signal that makes a hung child write its stacks to the one that kills it."""

_PROCESS_GAUGES: Final = {
    "messages_in_flight": 0,
    "bytes_in_flight": 0,
    "batches_queued": 0,
    "oldest_batch_at": 0,
    "posts_under_way": 0,
    "breaker_open": 0,
    "connected_at": 0,
    "broker_backlog": -1,
}
"""Gauges that tell of the process itself, each with what it is when there is none."""

log = logs.get("supervisor")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all children have in common."""

    settings: Settings
    target: Target
    lifeline_fd: int
    """The read end of a pipe whose write end only the supervisor holds: its end is their end."""
    release: Callable[[], None]
    """Closes in a child what belongs to the supervisor alone."""


class Process:
    """A subscription, its process if there is one now, and what is to become of it.

    Times that are passed in are monotonic seconds. Used by the supervisor's only thread.
    """

    def __init__(
        self,
        subscription: Subscription,
        around: Surroundings,
        forerunner: "Process | None" = None,
    ) -> None:
        """``forerunner``: one of the same name that may still drain; this one starts after it."""
        self.subscription = subscription
        """What the next process is started with."""
        self.stats = Stats()
        self.state = State.STOPPED
        self.pid = 0
        self.wanted = False
        """Whether it is to run once the present state has passed."""
        self.started_at = 0.0
        """Epoch seconds of the last start; 0: never."""
        self.stopped_at = 0.0
        self.exit_status = 0
        """The last exit code; minus the signal's number if a signal ended it."""
        self.reason = ""
        """Why it isn't running, or was restarted, in words; empty while there is nothing to say."""
        self.starts = 0
        self.ends = dict.fromkeys(Cause, 0)
        """How often it ended though it was to go on, or in a way that it wasn't to, by cause."""
        self.due = math.inf
        """When :meth:`tick` has something to do."""
        self._around = around
        self._forerunner = forerunner
        self._backoff = Backoff()
        self._spawned = 0.0
        self._verdict = ""
        self._cause: Cause | None = None
        """Why the supervisor ends it, where nobody has asked for that."""
        self._reset_gauges()

    @property
    def name(self) -> str:
        return self.subscription.name

    @property
    def log_file(self) -> Path:
        """Where the process writes its log, beside standard error."""
        return self._around.settings.state_dir / self.name / "agent.log"

    def next_start_in_s(self, now: float) -> float:
        """Return the seconds until it starts again by itself; 0 if it doesn't wait for that."""
        return max(0.0, self.due - now) if self.state in WAITING else 0.0

    def start(self, now: float) -> None:
        """Start it now, or as soon as it or its forerunner has stopped; nothing if it runs."""
        self.wanted = True
        if self.state not in UP and not self._forerunner_is_up:
            self._backoff.reset()
            self.reason = ""
            self._spawn(now)

    def stop(self, now: float) -> None:
        """Let it drain and stop, and kill it when the drain time and the margin are over."""
        self.wanted = False
        if self.state in UP:
            self._drain(now)
        elif self.state is not State.STOPPED:
            self._move(Move.STOP)
            self.due = math.inf
            self.reason = ""

    def restart(self, now: float, why: str = "") -> None:
        """Let it drain, stop and start again; start it if it doesn't run."""
        if self.state in UP:
            self._drain(now)
            self._verdict = why
            self._cause = Cause.MEMORY if why else None
        self.start(now)

    def hurry(self, now: float) -> None:
        """Where it is draining, end it at once: a second SIGTERM says so, SIGKILL follows soon."""
        if self.state is State.STOPPING:
            self.signal(signal.SIGTERM)
            self.due = now + LAST_WORDS_S

    def hung(self, now: float, silent_s: float) -> None:
        """Make it write its stacks, then kill it: its main loop hasn't turned for ``silent_s``."""
        log.error("process.hung", subscription=self.name, pid=self.pid, silent_s=silent_s)
        self._verdict = f"was killed: its main loop had not turned for {silent_s:.0f} s"
        self._cause = Cause.HANG
        self.signal(child.STACKS_SIGNAL)
        self.due = now + LAST_WORDS_S

    def report(self, now: float) -> None:
        """Log all that is known of it."""
        log.warning(
            "dump.process",
            subscription=self.name,
            pid=self.pid,
            state=self.state.name,
            condition=Condition(int(self.stats.get("condition"))).name,
            wanted=self.wanted,
            reason=self.reason,
            starts=self.starts,
            turned_ago_s=now - self.stats.get("turned_at"),
            due_in_s=self.due - now,
            **{gauge: self.stats.get(gauge) for gauge in _PROCESS_GAUGES},
            last_error=self.stats.read_text("last_error"),
        )

    def dump_stacks(self) -> None:
        """Make it write the stacks of its threads."""
        if self.state in UP:
            self.signal(child.STACKS_SIGNAL)

    def signal(self, number: int) -> None:
        """Send a signal to the process; it hasn't been reaped, so the id is still its own."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def tick(self, now: float) -> None:
        """Do what is due: take it for steady, start it again, or kill it."""
        if now < self.due:
            return
        self.due = math.inf
        if self.state in WAITING:
            self._spawn(now)
        elif self.state is State.STARTING:
            self._move(Move.STEADY)
        elif self.state in UP:
            log.warning("process.kill", subscription=self.name, pid=self.pid, signal="SIGKILL")
            self._verdict = self._verdict or "was killed: it had not drained in time"
            self._cause = self._cause or Cause.UNDRAINED
            self.signal(signal.SIGKILL)

    def reaped(self, now: float, status: int, oom_killed: bool) -> None:
        """Take note that the process has ended with a wait status, and decide what comes next."""
        ended = exits.describe(status, oom_killed and not self._verdict)
        self.exit_status = os.waitstatus_to_exitcode(status)
        asked = self.state is State.STOPPING
        self.reason = f"The process {self._verdict or ended}." if self._verdict or not asked else ""
        if self.exit_status == child.EXIT_CRASHED:
            self.reason = self.stats.read_text("last_error")
        cause = self._cause
        if cause is None and not asked:
            cause = exits.cause_of(status, oom_killed)
        if cause is not None:
            self.ends[cause] += 1
        self._verdict, self._cause = "", None
        self._gone(Move.END if self.exit_status == 0 else Move.CRASH, now)
        fields = {"subscription": self.name, "pid": self.pid, "exit": ended}
        self.pid = 0
        if not asked:
            log.error("process.ended", **fields, restart_in_s=self.due - now)
            return
        log.info("process.stopped", **fields)
        if self.wanted:
            self._spawn(now)

    @property
    def _forerunner_is_up(self) -> bool:
        """Both would use one state folder, and deliver what is in it twice."""
        return self._forerunner is not None and self._forerunner.state in UP

    def _spawn(self, now: float) -> None:
        self._forerunner = None
        self._move(Move.SPAWN)
        self.started_at = time.time()
        self._spawned = now
        self.stats.set("turned_at", now)
        self.stats.set("started_at", self.started_at)
        self.stats.set("condition", Condition.STARTING)
        try:
            self.pid = child.fork(f"leekfanout: {self.name}", self._around.release, self._work)
        except OSError as error:
            self.reason = f"The system can't start another process: {error.strerror}."
            self._gone(Move.CRASH, now)
            log.warning("process.fork", subscription=self.name, error=error.strerror)
            return
        self.starts += 1
        self.due = now + STEADY_AFTER_S
        log.info("process.started", subscription=self.name, pid=self.pid)

    def _work(self) -> int:
        logs.bind(subscription=self.name)
        around = self._around
        try:
            self.log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            logs.also_to(self.log_file)
        except OSError as error:
            log.warning("log.file", path=self.log_file, error=error.strerror)
        try:
            return around.target(self.subscription, around.settings, self.stats, around.lifeline_fd)
        except Exception as error:
            what = mask(f"{type(error).__name__}: {error}", secrets_of(self.subscription))
            self.stats.problem(
                f"The process crashed with {what}",
                "This is a fault in leekfanout: please report it with the traceback in the log.",
            )
            raise

    def _drain(self, now: float) -> None:
        if self.state is not State.STOPPING:
            self._move(Move.STOP)
            self.due = now + self._around.settings.drain_timeout_s + KILL_MARGIN_S
            self.signal(signal.SIGTERM)

    def _gone(self, move: Move, now: float) -> None:
        self._move(move)
        self.stopped_at = time.time()
        waits = self.state in WAITING
        self.due = now + self._backoff.delay(now - self._spawned) if waits else math.inf
        self.stats.set("condition", Condition.STOPPED)
        self._reset_gauges()

    def _reset_gauges(self) -> None:
        for gauge, nothing in _PROCESS_GAUGES.items():
            self.stats.set(gauge, nothing)

    def _move(self, move: Move) -> None:
        self.state = after(self.state, move)
