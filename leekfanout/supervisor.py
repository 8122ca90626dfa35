"""The parent of all: one thread that sleeps until a signal, a request or a deadline wakes it."""

import math
import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

from leekfanout import logs, proctitle
from leekfanout.config import Settings, Subscription
from leekfanout.errors import ConfigError
from leekfanout.farm import Farm, difference
from leekfanout.process import Surroundings, Target

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

log = logs.get("supervisor")


class Supervisor:
    """Runs the farm until it is told to stop; there is one, on a process's only thread.

    It connects to nothing and does no heavy work, so that nothing can keep it from its children.
    """

    def __init__(
        self, settings: Settings, target: Target, load: Callable[[], Sequence[Subscription]]
    ) -> None:
        self._selector = selectors.DefaultSelector()
        self._signals, self._signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lifeline, self._lifeline_held = os.pipe2(os.O_CLOEXEC)
        self._stopping = False
        around = Surroundings(settings, target, self._lifeline, self._release)
        self.farm = Farm(around, load, time.monotonic())

    def run(self, subscriptions: Sequence[Subscription]) -> int:
        """Start a process for each subscription, and return the exit code once all is over."""
        proctitle.set_title("leekfanout: supervisor")
        self._selector.register(self._signals, selectors.EVENT_READ, self._receive_signals)
        signal.set_wakeup_fd(self._signalled, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, _wake)
        log.info("supervisor.started", pid=os.getpid(), subscriptions=len(subscriptions))
        self.farm.apply(subscriptions, difference([], subscriptions), time.monotonic())
        while not (self._stopping and self.farm.quiet):
            self._turn()
        log.info("supervisor.stopped")
        return 0

    def handle_term(self) -> None:
        """Drain and stop; the second time, at once."""
        if self._stopping:
            log.warning("supervisor.hurry")
            self.farm.hurry(time.monotonic())
        else:
            self._stopping = True
            log.info("supervisor.stopping")
            self.farm.stop_all(time.monotonic())

    handle_int = handle_term

    def handle_hup(self) -> None:
        """Read the subscriptions again and apply the difference."""
        if self._stopping:
            return
        try:
            want, what = self.farm.read()
        except ConfigError as error:
            for problem in error.problems:
                log.warning("reload.refused", problem=problem)
            return
        log.info("reload", added=what.added, changed=what.changed, removed=what.removed)
        self.farm.apply(want, what, time.monotonic())

    def handle_chld(self) -> None:
        """Collect the processes that have ended."""
        self.farm.reap(time.monotonic())

    def _turn(self) -> None:
        due = self.farm.due()
        timeout = None if due == math.inf else max(0.0, due - time.monotonic())
        for key, _ in self._selector.select(timeout):
            key.data()
        self.farm.tick(time.monotonic())

    def _receive_signals(self) -> None:
        for number in os.read(self._signals, 4_096):  # a byte for each, in order
            handler = getattr(self, "handle_" + signal.Signals(number).name[3:].lower())
            handler()

    def _release(self) -> None:
        self._selector.close()
        for fd in (self._signals, self._signalled, self._lifeline_held):
            os.close(fd)


def _wake(_number: int, _frame: FrameType | None) -> None:
    """The interpreter has written the signal's number to the wake-up descriptor, which is all."""
