"""The soak's faults: what can be done to an API, a broker with its network, and the processes."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from leekfanout.control.control_client import NoAgentError, RefusedError
from tests.agent import Agent
from tests.api_double import ApiDouble
from tests.api_exchange import Reply
from tests.brokers import Server
from tests.proxy import TcpProxy


class Fault(NamedTuple):
    """Something to do, and how it is undone."""

    name: str
    begin: Callable[[], object]
    end: Callable[[], object]
    crash: bool = False
    """Whether it makes duplicates unavoidable: what was delivered isn't acked."""


Group = tuple[str, Sequence[Fault], tuple[int, ...]]
"""A name, faults of which one is there at a time, and the sides that they disturb."""


class Faults:
    """Lets faults come at random, one at a time in each group, all groups independently."""

    SHORTEST_S, LONGEST_S = 0.2, 12.0
    QUIET_S = (4.0, 25.0)

    def __init__(self, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.crashes = 0
        self._seed = seed
        self._active: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._failures: list[BaseException] = []
        self._closed = threading.Event()

    def disturbs(self, side: int) -> bool:
        """Whether some fault disturbs that side just now."""
        return self._active[side] > 0

    def run(self, groups: Sequence[Group], seconds: float) -> None:
        """Let them come for so long; all are over when this returns.

        The threads live until :meth:`close`: Linux counts a thread that started a process as its
        parent, with which the process would end (see :class:`tests.processes.ChildProcess`).
        """
        until = time.monotonic() + seconds
        over = [threading.Event() for _ in groups]
        for number, (group, event) in enumerate(zip(groups, over, strict=True)):
            arguments = (number, group, until, event)
            thread = threading.Thread(target=self._run, args=arguments, name=group[0], daemon=True)
            thread.start()
        for event in over:
            event.wait()
        if self._failures:
            raise self._failures[0]

    def close(self) -> None:
        """Let the threads end, when everything that they have started has ended."""
        self._closed.set()

    def _run(self, number: int, group: Group, until: float, over: threading.Event) -> None:
        name, faults, sides = group
        rng = random.Random(self._seed * 100 + number)
        try:
            while (
                quiet_s := rng.uniform(*self.QUIET_S)
            ) + self.LONGEST_S < until - time.monotonic():
                time.sleep(quiet_s)
                fault = rng.choice(faults)
                # Short ones are as likely as long ones.
                lasts_s = self.SHORTEST_S * (self.LONGEST_S / self.SHORTEST_S) ** rng.random()
                self._mark(sides, 1)
                print(
                    f"{time.strftime('%H:%M:%S')} {name}: {fault.name} for {lasts_s:.1f} s",
                    flush=True,
                )
                fault.begin()
                time.sleep(lasts_s)
                fault.end()
                self._mark(sides, -1)
                with self._lock:
                    self.counts[f"{name}: {fault.name}"] += 1
                    self.crashes += fault.crash
        except BaseException as error:
            self._failures.append(error)
        over.set()
        self._closed.wait()

    def _mark(self, sides: Sequence[int], change: int) -> None:
        with self._lock:
            for side in sides:
                self._active[side] += change


def api_faults(api: ApiDouble, is_poisoned: Callable[[dict[str, Any]], bool]) -> list[Fault]:
    def heal() -> None:
        api.behave()
        api.refuse(is_poisoned)

    def answers(*replies: Reply) -> Callable[[], object]:
        return lambda: api.script(lambda request: replies[request.number % len(replies)])

    def sets(name: str, value: object) -> Callable[[], None]:
        return lambda: setattr(api, name, value)

    return [
        Fault("away", api.go_down, api.come_up),
        Fault("503", lambda: api.always(Reply(503)), heal),
        Fault(
            "429 with Retry-After",
            lambda: api.always(Reply(429, headers={"Retry-After": "2"})),
            heal,
        ),
        Fault("500 and 502 now and then", answers(Reply(500), Reply(502)), heal),
        Fault("401", lambda: api.always(Reply(401)), heal),
        Fault("reads nothing", sets("hang_before_reading", True), heal),
        Fault("reads 20 kB/s", sets("read_bytes_per_s", 20_000.0), heal),
        Fault("answers after 2 s", sets("delay_s", 2.0), heal),
        Fault(
            "connections cut before the answer",
            answers(Reply(takes=False, cut_after_bytes=0)),
            heal,
        ),
        Fault(
            "connections reset before the answer",
            answers(Reply(takes=False, cut_after_bytes=0, reset=True)),
            heal,
        ),
        Fault("idle connections closed", lambda: api.cut_connections(idle_only=True), lambda: None),
    ]


def broker_faults(server: Server, proxy: TcpProxy) -> list[Fault]:
    def sets(name: str, value: object) -> Callable[[], None]:
        return lambda: setattr(proxy, name, value)

    return [
        Fault("killed with -9", server.kill, server.start),
        Fault("stopped", server.stop, server.start),
        Fault("frozen", server.pause, server.resume),
        Fault("cut off", proxy.go_down, proxy.heal),
        Fault("connection cut with FIN", proxy.cut, lambda: None),
        Fault("connection cut with RST", lambda: proxy.cut(reset=True), lambda: None),
        Fault("connections cut after 20 kB", lambda: proxy.cut_at("down", 20_000), proxy.heal),
        Fault("black hole", sets("black_hole", True), proxy.heal),
        Fault("network stands still", proxy.pause, proxy.resume),
        Fault("100 kB/s", sets("bytes_per_s", 100_000.0), proxy.heal),
        Fault("latency 0.2 s", sets("latency_s", 0.2), proxy.heal),
    ]


def process_faults(agent: Agent, *, killed: bool) -> list[Fault]:
    """``killed``: with -9 as well; without acks that costs what memory has, so only with them."""

    def restart() -> None:
        with suppress(NoAgentError, RefusedError):
            agent.call("leekfanout.restartProcesses", "shop-prod")

    def kill_child() -> None:
        with suppress(KeyError, ProcessLookupError):
            agent.kill_child()

    def signal_child(number: int) -> Callable[[], None]:
        def send() -> None:
            with suppress(KeyError, ProcessLookupError):
                os.kill(agent.children()["shop-prod"], number)

        return send

    graceful = [
        Fault("process restarted", restart, lambda: None),
        Fault("process frozen", signal_child(signal.SIGSTOP), signal_child(signal.SIGCONT)),
    ]
    if not killed:
        return graceful
    return [
        *graceful,
        Fault("process killed with -9", kill_child, lambda: None, crash=True),
        Fault("supervisor killed with -9", agent.kill, lambda: agent.start(wait=False), crash=True),
    ]
