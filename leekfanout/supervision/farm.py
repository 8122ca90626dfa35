"""All subscriptions' processes: which there are, reload by difference, hangs, memory."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psutil

from leekfanout import logs
from leekfanout.configuration.config import BYTES_PER_MB, Subscription
from leekfanout.redaction import secrets_of
from leekfanout.supervision.exits import OomKills
from leekfanout.supervision.lifecycle import UP, State
from leekfanout.supervision.process import Process, Surroundings

HANG_AFTER_S: Final = 60.0
"""A process whose main loop hasn't turned for so long is killed and restarted."""

OVERSLEPT_S: Final = 5.0
"""Waking so much later than asked means that everything stood still (a paused container, a host
without CPU), the children too: they get their time anew."""

MEMORY_EVERY_S: Final = 15.0
"""How often the memory of processes that have a bound is looked at."""

log = logs.get("supervisor")


@dataclass(frozen=True, slots=True)
class Difference:
    """How one set of subscriptions differs from another, by name."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def difference(have: Iterable[Subscription], want: Iterable[Subscription]) -> Difference:
    """Return what must change to get from ``have`` to ``want``."""
    before = {subscription.name: subscription for subscription in have}
    then = {subscription.name: subscription for subscription in want}
    return Difference(
        added=tuple(name for name in then if name not in before),
        changed=tuple(name for name in then if name in before and then[name] != before[name]),
        removed=tuple(name for name in before if name not in then),
    )


class Farm:
    """The processes by name, and the verbs for one or all of them; none of these blocks.

    Times that are passed in are monotonic seconds. Used by the supervisor's only thread.
    """

    def __init__(
        self, around: Surroundings, load: Callable[[], Sequence[Subscription]], now: float
    ) -> None:
        """``load`` reads the subscriptions again and raises ConfigError where it can't."""
        self._around = around
        self._load = load
        self._processes: dict[str, Process] = {}
        self._removed: list[Process] = []
        self._oom_kills = OomKills()
        self._hangs_due = now + HANG_AFTER_S
        self._memory_due = math.inf
        self._alive_since = now

    @property
    def processes(self) -> Mapping[str, Process]:
        """The processes of the subscriptions that are configured."""
        return self._processes

    @property
    def quiet(self) -> bool:
        """Whether no process is left."""
        return all(process.state is State.STOPPED for process in self._all())

    def read(self) -> tuple[list[Subscription], Difference]:
        """Read the subscriptions again and compare, changing nothing; ConfigError: they are bad."""
        want = list(self._load())
        have = [process.subscription for process in self._processes.values()]
        return want, difference(have, want)

    def apply(self, want: Sequence[Subscription], what: Difference, now: float) -> None:
        """Start what is new, drain what is removed, restart what has changed, and nothing else."""
        by_name = {subscription.name: subscription for subscription in want}
        for name in what.removed:
            self.remove(name, now)
        changed = [by_name[name] for name in what.changed]
        self._prepare(changed, now)
        for subscription in changed:
            self._change(subscription, now)
        self.open([by_name[name] for name in what.added], now)

    def open(self, subscriptions: Sequence[Subscription], now: float) -> None:
        """Start subscriptions whose names are new."""
        self._prepare(subscriptions, now)
        for subscription in subscriptions:
            self._add(subscription, now)

    def remove(self, name: str, now: float) -> None:
        """Drain and stop a process, and forget it."""
        process = self._processes.pop(name)
        process.stop(now)
        if process.state in UP:
            self._removed.append(process)

    def start_all(self, now: float) -> None:
        """Start all processes."""
        for process in self._processes.values():
            process.start(now)

    def stop_all(self, now: float) -> None:
        """Let all processes drain and stop."""
        for process in self._all():
            process.stop(now)

    def hurry(self, now: float) -> None:
        """Wait no longer for processes that are draining."""
        for process in self._all():
            process.hurry(now)

    def summary(self) -> str:
        """Say in one line how many processes there are, by state."""
        states = Counter(process.state.name.lower() for process in self._processes.values())
        number = len(self._processes)
        counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        return f"{number} subscription{'' if number == 1 else 's'}: {counted or 'none'}"

    def report(self, now: float) -> None:
        """Log how each process is."""
        for process in self._all():
            process.report(now)

    def dump_stacks(self) -> None:
        """Make each process write the stacks of its threads."""
        for process in self._all():
            process.dump_stacks()

    def reap(self, now: float) -> dict[int, int]:
        """Collect every process that has ended; return the wait statuses of those that are no
        subscription's, by process id.

        Among these are adopted orphans, which come to PID 1.
        """
        others: dict[int, int] = {}
        oom_killed: bool | None = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return others
            if pid == 0:
                return others
            process = next((one for one in self._all() if one.pid == pid), None)
            if process is None:
                others[pid] = status
                continue
            if oom_killed is None:
                oom_killed = self._oom_kills.happened()
            process.reaped(now, status, oom_killed)
            if process in self._removed:
                self._forget(process, now)

    def due(self) -> float:
        """Return when :meth:`tick` has something to do."""
        processes = min((process.due for process in self._all()), default=math.inf)
        return min(processes, self._hangs_due, self._memory_due)

    def tick(self, now: float) -> None:
        """Do what is due: restarts, kills, and looking for processes that hang or have grown."""
        for process in list(self._all()):
            process.tick(now)
        if now >= self._hangs_due:
            self._look_for_hangs(now)
        if now >= self._memory_due:
            self._look_at_memory(now)

    def _add(self, subscription: Subscription, now: float) -> None:
        # At most one: none of those that came after it has been started.
        forerunner = next((old for old in self._removed if old.name == subscription.name), None)
        process = Process(subscription, self._around, forerunner)
        self._processes[subscription.name] = process
        process.start(now)

    def _change(self, subscription: Subscription, now: float) -> None:
        process = self._processes[subscription.name]
        process.subscription = subscription
        if process.wanted:  # one that is stopped stays so
            process.restart(now)

    def _prepare(self, subscriptions: Sequence[Subscription], now: float) -> None:
        logs.hide(secret for subscription in subscriptions for secret in secrets_of(subscription))
        if any(subscription.max_memory_mb is not None for subscription in subscriptions):
            self._memory_due = min(self._memory_due, now + MEMORY_EVERY_S)

    def _all(self) -> Iterable[Process]:
        yield from self._processes.values()
        yield from self._removed

    def _forget(self, process: Process, now: float) -> None:
        self._removed.remove(process)
        follower = self._processes.get(process.name)
        if follower is not None and follower.wanted and follower.state is State.STOPPED:
            follower.start(now)

    def _look_for_hangs(self, now: float) -> None:
        if now - self._hangs_due > OVERSLEPT_S:
            self._alive_since = now
        earliest = now
        for process in self._processes.values():
            if process.state is not State.RUNNING or process.due != math.inf:
                continue
            turned = max(process.stats.get("turned_at"), self._alive_since)
            if now - turned >= HANG_AFTER_S:
                process.hung(now, now - process.stats.get("turned_at"))
            else:
                earliest = min(earliest, turned)
        # No process can hang before this: the parent sleeps until then.
        self._hangs_due = earliest + HANG_AFTER_S

    def _look_at_memory(self, now: float) -> None:
        self._memory_due = math.inf
        for process in self._processes.values():
            limit_mb = process.subscription.max_memory_mb
            if limit_mb is None:
                continue
            self._memory_due = now + MEMORY_EVERY_S
            if process.state is not State.RUNNING:
                continue
            used_mb = resident_bytes(process.pid) / BYTES_PER_MB
            if used_mb > limit_mb:
                why = f"was restarted: it used {used_mb:.0f} MB, above max_memory_mb {limit_mb:g}"
                log.warning("process.memory", subscription=process.name, used_mb=used_mb)
                process.restart(now, why)


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 if there is no such process."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
