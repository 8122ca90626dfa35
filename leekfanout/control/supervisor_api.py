"""The methods of Supervisor's XML-RPC namespace ``supervisor``, on the farm.

``agent`` is the whole farm, ``agent:shop-prod`` a subscription (``shop-prod`` alone will do), and
``agent:*`` every subscription, with a result for each. Where Supervisor has one process group per
program, each subscription counts as one, so that ``reread`` and ``update`` apply differences only.
"""

import os
import signal
import time
import xmlrpc.client
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, Final

from leekfanout.configuration.config import Subscription
from leekfanout.control import log_files
from leekfanout.control.process_info import GROUP, farm_info, process_info
from leekfanout.control.rpc import Fault, Reply, fault
from leekfanout.errors import ConfigError, FixedConfigError
from leekfanout.supervision.farm import Difference, Farm
from leekfanout.supervision.lifecycle import UP, WAITING, State
from leekfanout.supervision.process import Process
from leekfanout.version import VERSION

API_VERSION: Final = "3.0"
"""The version of Supervisor's interface that this is; ``supervisorctl`` insists on it."""

IDENTIFICATION: Final = "leekfanout"


class Mood(IntEnum):
    """What the agent as a whole is doing, in Supervisor's words."""

    RUNNING = 1
    RESTARTING = 0
    SHUTDOWN = -1


class SupervisorApi:
    """Supervisor's methods; their names, parameters and answers are its own."""

    def __init__(
        self, farm: Farm, mood: Callable[[], Mood], change: Callable[[Mood], None]
    ) -> None:
        """``change`` asks for a shutdown or a restart, which begins after the answer."""
        self._farm = farm
        self._mood = mood
        self._change = change

    def getAPIVersion(self) -> str:
        """Return the version of this interface."""
        return API_VERSION

    def getVersion(self) -> str:
        """Return the version of this interface, under the name it once had."""
        return API_VERSION

    def getSupervisorVersion(self) -> str:
        """Return leekfanout's version."""
        return VERSION

    def getIdentification(self) -> str:
        """Return the name of this program."""
        return IDENTIFICATION

    def getState(self) -> dict[str, Any]:
        """Return the agent's state as ``statecode`` and ``statename``."""
        mood = self._mood()
        return {"statecode": int(mood), "statename": mood.name}

    def getPID(self) -> int:
        """Return the process id of the agent's supervisor."""
        return os.getpid()

    def shutdown(self) -> bool:
        """Drain and stop every process, then end."""
        self._check_mood()
        self._change(Mood.SHUTDOWN)
        return True

    def restart(self) -> bool:
        """Drain and stop every process, read the subscriptions again, and start."""
        self._check_mood()
        self._change(Mood.RESTARTING)
        return True

    def getProcessInfo(self, name: str) -> dict[str, Any]:
        """Return how one process is, or the whole farm (``agent``)."""
        if name == GROUP:
            return farm_info(self._farm.processes.values(), time.time(), os.getpid())
        return process_info(self._one(name), time.time())

    def getAllProcessInfo(self) -> list[dict[str, Any]]:
        """Return how each subscription's process is."""
        now = time.time()
        return [process_info(process, now) for process in members(self._farm, GROUP)]

    def startProcess(self, name: str, wait: bool = True) -> Reply:
        """Start a process; with ``wait``, return once it has lived for a second."""
        self._check_mood()
        if name == GROUP:
            return (yield from self._start_farm(wait))
        if _is_group(name):
            return (yield from self.startProcessGroup(name, wait))
        return (yield from _start(self._one(name), wait))

    def startProcessGroup(self, name: str, wait: bool = True) -> Reply:
        """Start all processes of a group that don't run; return a result for each."""
        self._check_mood()
        idle = [process for process in members(self._farm, name) if not process.wanted]
        return (yield from for_each(idle, lambda process: _start(process, wait)))

    def startAllProcesses(self, wait: bool = True) -> Reply:
        """Start all processes that don't run; return a result for each."""
        return (yield from self.startProcessGroup(GROUP, wait))

    def stopProcess(self, name: str, wait: bool = True) -> Reply:
        """Drain and stop a process; with ``wait``, return once it has ended."""
        self._check_mood()
        if name == GROUP:
            return (yield from self._stop_farm(wait))
        if _is_group(name):
            return (yield from self.stopProcessGroup(name, wait))
        return (yield from _stop(self._one(name), wait))

    def stopProcessGroup(self, name: str, wait: bool = True) -> Reply:
        """Drain and stop all processes of a group that run; return a result for each."""
        self._check_mood()
        running = [process for process in members(self._farm, name) if process.wanted]
        return (yield from for_each(running, lambda process: _stop(process, wait)))

    def stopAllProcesses(self, wait: bool = True) -> Reply:
        """Drain and stop all processes that run; return a result for each."""
        return (yield from self.stopProcessGroup(GROUP, wait))

    def signalProcess(self, name: str, signal: str) -> Reply:
        """Send a signal, by name (``HUP``) or number (``1``)."""
        self._check_mood()
        number = _signal_number(signal)
        if not _is_group(name):
            return (yield from _signal(self._one(name), number))
        up = [process for process in members(self._farm, name) if process.state in UP]
        results = yield from for_each(up, lambda process: _signal(process, number))
        return True if name == GROUP else results

    def reloadConfig(self) -> list[list[list[str]]]:
        """Read the subscriptions again, change nothing, and return [[added, changed, removed]]."""
        self._check_mood()
        _, what = self._read()
        names = (what.added, what.changed, what.removed)
        return [[[f"{GROUP}:{name}" for name in each] for each in names]]

    def addProcessGroup(self, name: str) -> bool:
        """Start a subscription that has been added to the configuration."""
        self._check_mood()
        bare = _bare(name)
        if bare == GROUP or bare in self._farm.processes:
            raise fault(Fault.ALREADY_ADDED, name)
        found = [subscription for subscription in self._read()[0] if subscription.name == bare]
        if not found:
            raise fault(Fault.BAD_NAME, name)
        self._farm.open(found, time.monotonic())
        return True

    def removeProcessGroup(self, name: str) -> bool:
        """Forget a subscription whose process is stopped."""
        self._check_mood()
        for process in members(self._farm, name):
            if process.wanted or process.state in UP:
                raise fault(Fault.STILL_RUNNING, name)
            self._farm.remove(process.name, time.monotonic())
        return True

    def readProcessStdoutLog(self, name: str, offset: int, length: int) -> str:
        """Return ``length`` bytes of a process's log from ``offset``, or its last ``-offset``."""
        path = self._one(name).log_file
        try:
            return log_files.read(path, offset, length).decode("utf-8", "replace")
        except FileNotFoundError:
            raise fault(Fault.NO_FILE, str(path)) from None
        except ValueError as error:
            raise fault(Fault.BAD_ARGUMENTS, str(error)) from None
        except OSError as error:
            raise fault(Fault.FAILED, str(error.strerror)) from None

    def tailProcessStdoutLog(self, name: str, offset: int, length: int) -> list[Any]:
        """Return [the log's last bytes, its size, whether more than ``length`` are new]."""
        try:
            tail = log_files.tail(self._one(name).log_file, offset, length)
        except OSError:
            return ["", 0, False]
        return [tail.content.decode("utf-8", "replace"), tail.offset, tail.overflow]

    def _start_farm(self, wait: bool) -> Reply:
        if any(process.wanted for process in members(self._farm, GROUP)):
            raise fault(Fault.ALREADY_STARTED, GROUP)
        # Leek writes the file and then stops and starts the agent, so this is where it is read.
        try:
            want, what = self._farm.read()
            self._farm.apply(want, what, time.monotonic())
        except FixedConfigError:
            pass
        except ConfigError as error:
            raise fault(Fault.CANT_REREAD, str(error)) from None
        everyone = members(self._farm, GROUP)
        if not everyone:
            raise fault(Fault.SPAWN_ERROR, f"{GROUP} has no subscriptions")
        results = yield from for_each(everyone, lambda process: _start(process, wait))
        # What has been added runs already; one that fails doesn't make a failure of the others.
        if not {result["status"] for result in results} & {Fault.SUCCESS, Fault.ALREADY_STARTED}:
            raise fault(Fault(results[0]["status"]), GROUP)
        return True

    def _stop_farm(self, wait: bool) -> Reply:
        running = [process for process in members(self._farm, GROUP) if process.wanted]
        if not running:
            raise fault(Fault.NOT_RUNNING, GROUP)
        yield from for_each(running, lambda process: _stop(process, wait))
        return True

    def _read(self) -> tuple[list[Subscription], Difference]:
        try:
            return self._farm.read()
        except ConfigError as error:
            raise fault(Fault.CANT_REREAD, str(error)) from None

    def _one(self, name: str) -> Process:
        if _is_group(name):
            raise fault(Fault.BAD_NAME, name)
        return members(self._farm, name)[0]

    def _check_mood(self) -> None:
        refuse_unless_running(self._mood())


def members(farm: Farm, name: str) -> list[Process]:
    """Return the process of this name, or for the group's name all, in the order of their names.

    Raises the fault BAD_NAME where there is none.
    """
    if _is_group(name):
        return [process for _, process in sorted(farm.processes.items())]
    process = farm.processes.get(_bare(name))
    if process is None:
        raise fault(Fault.BAD_NAME, name)
    return [process]


def refuse_unless_running(mood: Mood) -> None:
    """Raise a fault if the agent is about to stop: nothing may be changed any more."""
    if mood is not Mood.RUNNING:
        raise fault(Fault.SHUTDOWN_STATE)


def _bare(name: str) -> str:
    return name.removeprefix(f"{GROUP}:")


def _is_group(name: str) -> bool:
    return name in {GROUP, f"{GROUP}:*", f"{GROUP}:"}


def _start(process: Process, wait: bool) -> Reply:
    if process.wanted:
        raise fault(Fault.ALREADY_STARTED, process.name)
    process.start(time.monotonic())
    if process.state is State.BACKOFF:
        raise fault(Fault.SPAWN_ERROR, f"{process.name}: {process.reason}")
    return (yield from running(process, wait))


def _stop(process: Process, wait: bool) -> Reply:
    if not process.wanted:
        raise fault(Fault.NOT_RUNNING, process.name)
    process.stop(time.monotonic())
    while wait and process.state in UP and not process.wanted:
        yield
    return True


def _signal(process: Process, number: int) -> Reply:
    if process.state not in UP:
        raise fault(Fault.NOT_RUNNING, process.name)
    process.signal(number)
    return True
    yield  # a generator like the others, though it never waits


def running(process: Process, wait: bool) -> Reply:
    """With ``wait``, wait until a process that was started is RUNNING, or raise a fault."""
    while wait and process.state is not State.RUNNING:
        if not process.wanted or process.state in WAITING:
            raise fault(Fault.ABNORMAL_TERMINATION, f"{process.name}: {process.reason}")
        yield
    return True


def for_each(processes: Iterable[Process], begin: Callable[[Process], Reply]) -> Reply:
    """Do the same with several processes at once, and return a result for each."""
    replies = {process: begin(process) for process in processes}
    results: list[dict[str, Any]] = []
    while True:
        for process, reply in list(replies.items()):
            status, description = Fault.SUCCESS, "OK"
            try:
                next(reply)
                continue
            except StopIteration:
                pass
            except xmlrpc.client.Fault as error:
                status, description = Fault(error.faultCode), error.faultString
            del replies[process]
            results.append(
                {
                    "name": process.name,
                    "group": GROUP,
                    "status": int(status),
                    "description": description,
                }
            )
        if not replies:
            return results
        yield


def _signal_number(name: str) -> int:
    known = {number.name: int(number) for number in signal.Signals}
    text = name.strip().upper()
    digits = text.isascii() and text.isdigit()
    number = int(text[:4]) if digits else known.get(f"SIG{text.removeprefix('SIG')}")
    if number is None or number not in known.values():
        raise fault(Fault.BAD_SIGNAL, name)
    return number
