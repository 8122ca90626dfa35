"""The parent of all: one thread that sleeps until a signal, a request or a deadline wakes it."""

import faulthandler
import math
import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from leekfanout import logs
from leekfanout.configuration.config import Settings, Subscription
from leekfanout.configuration.file_watch import FileWatch
from leekfanout.control.agent_api import AgentApi
from leekfanout.control.control_server import ControlServer
from leekfanout.control.rpc import Rpc
from leekfanout.control.supervisor_api import Mood, SupervisorApi
from leekfanout.errors import AgentRunsError, ConfigError, LeekfanoutError
from leekfanout.stores.process_lock import FOLDER_LOCK, ProcessLock
from leekfanout.supervision import child, proctitle
from leekfanout.supervision.farm import Difference, Farm
from leekfanout.supervision.process import Surroundings, Target
from leekfanout.supervision.side_process import SideProcess, Work
from leekfanout.supervision.systemd import Notifier

SIGNALS: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGCHLD,
)

Check = Callable[[Sequence[Subscription]], int]
"""Reports how brokers and APIs are, and returns an exit code."""

log = logs.get("supervisor")


class Supervisor:
    """Runs the farm until it is told to stop; there is one, on a process's only thread.

    It connects to nothing and does no heavy work, so that nothing can keep it from its children.
    """

    def __init__(
        self,
        settings: Settings,
        socket_path: Path,
        target: Target,
        load: Callable[[], Sequence[Subscription]],
        watch: FileWatch | None = None,
    ) -> None:
        """``load`` reads the subscriptions again, or raises ConfigError; ``watch`` says when to.

        Raises AgentRunsError if another agent has the state folder, or listens on ``socket_path``.
        Where no lock or no socket can be made, this one runs without, since delivering is more
        important.
        """
        self._lock = _lock(settings.state_dir)
        self._checking = 0
        self._sides: list[SideProcess] = []
        self._mood = Mood.RUNNING
        self._systemd = Notifier.from_environment(os.environ)
        self._selector = selectors.DefaultSelector()
        self._signals, self._signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lifeline, self._lifeline_held = os.pipe2(os.O_CLOEXEC)
        around = Surroundings(settings, target, self._lifeline, self._release)
        self._farm = Farm(around, load, time.monotonic())
        self._control = self._open_control(socket_path)
        self._watch = watch

    def run(
        self,
        subscriptions: Sequence[Subscription],
        check: Check,
        sides: Mapping[str, Work] | None = None,
    ) -> int:
        """Start a process for each subscription, and return the exit code once all is over.

        ``check`` runs once, in one more process; ``sides`` are, by name, what is kept running
        beside the subscriptions.
        """
        proctitle.set_title("leekfanout: supervisor")
        self._selector.register(self._signals, selectors.EVENT_READ, self._receive_signals)
        if self._watch is not None:
            self._selector.register(self._watch, selectors.EVENT_READ, self._look_at_file)
        signal.set_wakeup_fd(self._signalled, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, _wake)
        log.info("supervisor.started", pid=os.getpid(), subscriptions=len(subscriptions))
        self._farm.open(subscriptions, time.monotonic())
        self._start_checks(subscriptions, check)
        for name, work in (sides or {}).items():
            side = SideProcess(name, work, self._lifeline, self._release)
            self._sides.append(side)
            side.start(time.monotonic())
        self._systemd.ready(time.monotonic())
        while self._mood is not Mood.SHUTDOWN or not self._quiet:
            self._turn()
        if self._checking:
            os.kill(self._checking, signal.SIGKILL)
            os.waitpid(self._checking, 0)
        if self._control is not None:
            self._control.close()
        log.info("supervisor.stopped")
        return 0

    def handle_term(self) -> None:
        """Drain and stop; the second time, at once."""
        if self._mood is Mood.SHUTDOWN:
            log.warning("supervisor.hurry")
            self._farm.hurry(time.monotonic())
            for side in self._sides:
                side.kill()
        else:
            self._change(Mood.SHUTDOWN)

    handle_int = handle_term

    def handle_hup(self) -> None:
        """Read the subscriptions again and apply the difference; if they are bad, say why."""
        if self._mood is not Mood.RUNNING:
            return
        self._systemd.reloading()
        try:
            self._reload()
        except ConfigError as error:
            for problem in error.problems:
                log.warning("reload.refused", problem=problem)
        self._systemd.ready(time.monotonic())

    def handle_usr1(self) -> None:
        """Write down all stacks, our own and every process's, and how each process is."""
        log.warning("dump.supervisor", pid=os.getpid(), mood=self._mood.name)
        self._farm.report(time.monotonic())
        for side in self._sides:
            log.warning("dump.side", process=side.name, pid=side.pid)
        faulthandler.dump_traceback()
        # Stacks are written piece by piece, by all at once: our own lines come first, and whole.
        self._farm.dump_stacks()
        for side in self._sides:
            side.dump_stacks()

    def handle_chld(self) -> None:
        """Collect the processes that have ended."""
        now = time.monotonic()
        others = self._farm.reap(now)
        if self._checking in others:
            self._checking = 0
        for side in self._sides:
            if side.pid in others:
                side.reaped(now, others[side.pid])

    @property
    def _quiet(self) -> bool:
        return self._farm.quiet and not any(side.pid for side in self._sides)

    def _start_checks(self, subscriptions: Sequence[Subscription], check: Check) -> None:
        try:
            self._checking = child.fork(
                "leekfanout: checks", self._release, lambda: check(subscriptions)
            )
        except OSError as error:
            log.warning("check.fork", error=error.strerror)

    def _turn(self) -> None:
        now = time.monotonic()
        due = min(
            self._farm.due(),
            self._control.due() if self._control else math.inf,
            self._systemd.due,
            *(side.due for side in self._sides),
        )
        for key, _ in self._selector.select(None if due == math.inf else max(0.0, due - now)):
            key.data()
        now = time.monotonic()
        self._farm.tick(now)
        for side in self._sides:
            side.tick(now)
        if self._mood is Mood.RESTARTING and self._farm.quiet:
            self._start_again()
        if self._control is not None:
            self._control.tick(now)
        self._systemd.status(self._farm.summary())
        self._systemd.tick(now)

    def _receive_signals(self) -> None:
        for number in os.read(self._signals, 4_096):  # a byte for each, in order
            handler = getattr(self, "handle_" + signal.Signals(number).name[3:].lower())
            handler()

    def _look_at_file(self) -> None:
        if self._watch is not None and self._watch.changed():
            self.handle_hup()

    def _change(self, mood: Mood) -> None:
        log.info("supervisor.stopping", then=mood.name)
        self._mood = mood
        now = time.monotonic()
        self._farm.stop_all(now)
        if mood is Mood.SHUTDOWN:
            self._systemd.stopping()
            for side in self._sides:
                side.stop(now)

    def _start_again(self) -> None:
        self._mood = Mood.RUNNING
        self.handle_hup()
        self._farm.start_all(time.monotonic())

    def _reload(self) -> Difference:
        want, what = self._farm.read()
        log.info(
            "reload",
            added=" ".join(what.added),
            changed=" ".join(what.changed),
            removed=" ".join(what.removed),
        )
        self._farm.apply(want, what, time.monotonic())
        return what

    def _open_control(self, path: Path) -> ControlServer | None:
        rpc = Rpc(
            {
                "supervisor": SupervisorApi(self._farm, lambda: self._mood, self._change),
                "leekfanout": AgentApi(self._farm, lambda: self._mood, self._reload),
            }
        )
        try:
            return ControlServer(path, self._selector, rpc)
        except AgentRunsError:
            raise
        except LeekfanoutError as error:
            log.warning("control.unavailable", problem=error)
            return None

    def _release(self) -> None:
        self._selector.close()
        if self._control is not None:
            self._control.release()
        if self._watch is not None:
            self._watch.close()
        self._lock.close()
        for fd in (self._signals, self._signalled, self._lifeline_held):
            os.close(fd)


def _lock(state_dir: Path) -> ProcessLock:
    """Keep other agents out of the state folder for as long as this process lives.

    Its children are none: those of one that was killed drain, and each of ours waits until that is
    over (:func:`leekfanout.delivery.subscription.run`), so that the agent is back at once.
    """
    lock = ProcessLock(state_dir / FOLDER_LOCK)
    try:
        taken = lock.take()
    except OSError as error:
        log.warning("lock.unavailable", path=lock.path, error=error.strerror)
    else:
        if not taken:
            raise AgentRunsError(
                f"Another agent runs with the state folder {state_dir}: stop it first, or give this "
                "one a --state-dir of its own."
            )
    return lock


def _wake(_number: int, _frame: FrameType | None) -> None:
    """The interpreter has written the signal's number to the wake-up descriptor, which is all."""
