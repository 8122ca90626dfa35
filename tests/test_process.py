"""Processes as the supervisor sees them, where the system has no room for one."""

import errno
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from leekfanout.configuration.config import Settings
from leekfanout.status.stats import GAUGES, Condition
from leekfanout.supervision import child
from leekfanout.supervision.lifecycle import State
from leekfanout.supervision.process import Process, Surroundings
from leekfanout.supervision.side_process import SideProcess
from tests.farm_agent import subscription_from


def full(*_: object) -> NoReturn:
    raise OSError(errno.EAGAIN, "Resource temporarily unavailable")


def forked(*_: object) -> int:
    return 4_321


@pytest.fixture
def fork(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., int]], None]:
    """Return what puts a function in place of :func:`leekfanout.child.fork`."""
    return lambda instead: monkeypatch.setattr(child, "fork", instead)


@pytest.fixture
def process(tmp_path: Path) -> Process:
    around = Surroundings(Settings(state_dir=tmp_path), lambda *_: 0, -1, lambda: None)
    return Process(subscription_from({"name": "shop-prod"}), around)


def test_a_process_that_the_system_has_no_room_for_is_tried_again_and_says_why(
    fork: Callable[[Callable[..., int]], None], process: Process
) -> None:
    fork(full)
    process.start(100.0)
    assert (process.state, process.pid, process.starts) == (State.BACKOFF, 0, 0)
    assert process.reason == (
        "The system can't start another process: Resource temporarily unavailable."
    )
    assert 101.0 <= process.due <= 101.5
    process.tick(process.due)
    assert process.state is State.BACKOFF
    assert process.due >= 103.0
    fork(forked)
    process.tick(process.due)
    assert (process.state, process.pid, process.starts) == (State.STARTING, 4_321, 1)


def test_a_stopped_process_is_not_tried_again(
    fork: Callable[[Callable[..., int]], None], process: Process
) -> None:
    fork(full)
    process.start(100.0)
    process.stop(100.5)
    assert (process.state, process.due, process.reason) == (State.STOPPED, math.inf, "")


def test_what_a_process_told_of_itself_is_gone_with_it(
    fork: Callable[[Callable[..., int]], None], process: Process
) -> None:
    fork(forked)
    process.start(100.0)
    for gauge in GAUGES:
        process.stats.set(gauge, 7)
    process.reaped(101.0, signal.SIGKILL, oom_killed=False)
    kept = {gauge for gauge in GAUGES if process.stats.get(gauge) == 7}
    assert kept == {
        *("turned_at", "started_at", "spool_batches", "spool_bytes"),
        *("dead_letters", "dead_letters_bytes", "last_event_at", "last_task_event_at"),
        *("last_delivery_at", "last_error_at"),
    }
    assert process.stats.get("condition") == Condition.STOPPED
    # Nothing is known of a broker that nobody asks; all others are nothing, so no age grows.
    assert process.stats.get("broker_backlog") == -1
    for gauge in GAUGES:
        if gauge not in {*kept, "condition", "broker_backlog"}:
            assert process.stats.get(gauge) == 0, gauge


def test_a_side_process_that_the_system_has_no_room_for_is_tried_again(
    fork: Callable[[Callable[..., int]], None],
) -> None:
    side = SideProcess("page", lambda _: 0, -1, lambda: None)
    fork(full)
    side.start(100.0)
    assert side.pid == 0
    assert 101.0 <= side.due <= 101.5
    fork(forked)
    side.tick(side.due)
    assert (side.pid, side.due) == (4_321, math.inf)
