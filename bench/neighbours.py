"""What the others notice while one of three subscriptions is restarted, stopped and changed."""

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial

from bench import amqp_load
from bench.agent import Figures
from bench.api_stub import ApiStub
from bench.fleet import Entry, Fleet, Status
from bench.fleet_measures import SETTLE_S, delete_queues, entry, wait_for_deliveries
from bench.forked import Answer, BenchError
from bench.rig import Rig

COUNT = 3
WINDOW_S = 0.1
"""Short beside a second, so that a second without a delivery is one that was missed."""
RUNNING_TIMEOUT_S = 30.0

Disturbance = Callable[[Fleet, list[Entry]], None]


def _restart(fleet: Fleet, entries: list[Entry]) -> None:
    fleet.call("leekfanout.restartProcesses", _name(entries[0]))


def _stop_and_start(fleet: Fleet, entries: list[Entry]) -> None:
    fleet.call("supervisor.stopProcess", _name(entries[0]))
    fleet.call("supervisor.startProcess", _name(entries[0]))


def _reload(fleet: Fleet, entries: list[Entry]) -> None:
    """Change the first one's window by next to nothing, which restarts it."""
    starts = _first(fleet, entries)["starts"]
    entries[0]["batch_max_window_in_seconds"] += 1e-6
    fleet.reload(entries)
    deadline = time.monotonic() + RUNNING_TIMEOUT_S
    while (status := _first(fleet, entries))["starts"] == starts or not _runs(status):
        if time.monotonic() > deadline:
            raise BenchError(f"{_name(entries[0])} doesn't come back.")
        time.sleep(0.05)


DISTURBANCES: tuple[Disturbance, ...] = (_restart, _stop_and_start, _reload)
"""They drain one subscription's process, and end once there is another that has lived for a second."""


def three_subscriptions(rig: Rig, rate_each: float, seconds: float, disturbed: bool) -> Figures:
    """Run three at ``rate_each`` events per second; disturb one of them again and again, or don't.

    Each has an API stub of its own, which tells the longest time without a POST.
    """
    rate, exchanges = COUNT * rate_each, [f"celeryev.{number}" for number in range(COUNT)]
    events = round(rate * (seconds + 2 * SETTLE_S))
    with contextlib.ExitStack() as stack:
        apis = [stack.enter_context(ApiStub()) for _ in exchanges]
        entries = [
            entry(
                rig.rabbitmq.url(),
                rig,
                number,
                exchange=exchange,
                queue=f"leek.fanout.{number}",
                api_url=api.url,
                batch_max_window_in_seconds=WINDOW_S,
            )
            for number, (exchange, api) in enumerate(zip(exchanges, apis, strict=True))
        ]
        fleet = stack.enter_context(Fleet(entries))
        fleet.connected()
        before = _pids(fleet)
        feed = partial(amqp_load.trickle, rig.rabbitmq.port, exchanges, rate, events)
        with Answer(feed) as feeding:
            time.sleep(SETTLE_S)
            times = _disturb(fleet, entries, seconds, DISTURBANCES if disturbed else ())
            feeding.get()
        missing = events - wait_for_deliveries(fleet, events)
        if _pids(fleet)[1:] != before[1:]:
            raise BenchError("The others were restarted too.")
        own_s, *others_s = [api.longest_silence_s for api in apis]
    delete_queues(rig, COUNT)
    return {
        "disturbances": times,
        "others_silence_ms": max(others_s) * 1e3,
        "own_silence_ms": own_s * 1e3,
        "missing": missing,
    }


def _disturb(
    fleet: Fleet, entries: list[Entry], seconds: float, disturbances: Sequence[Disturbance]
) -> int:
    """Do one thing after the other to the first subscription, and return how many that were."""
    ending, times = time.monotonic() + seconds, 0
    for disturb in itertools.cycle(disturbances):
        disturb(fleet, entries)
        times += 1
        if time.monotonic() > ending:
            break
    time.sleep(max(0.0, ending - time.monotonic()))
    return times


def _pids(fleet: Fleet) -> list[int]:
    return [status["pid"] for status in fleet.status()]


def _first(fleet: Fleet, entries: list[Entry]) -> Status:
    (status,) = [each for each in fleet.status() if each["name"] == _name(entries[0])]
    return status


def _runs(status: Status) -> bool:
    return bool(status["statename"] == "RUNNING")


def _name(subscription: Entry) -> str:
    return f"{subscription['app_name']}-{subscription['app_env']}"
