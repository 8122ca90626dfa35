"""What runs in a subscription's forked process: signals in, a pipeline, and an exit code out."""

import gc
import select
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

from leekfanout import logs
from leekfanout.configuration.config import Settings, Subscription
from leekfanout.delivery import allocator
from leekfanout.delivery.pipeline import Pipeline
from leekfanout.delivery.wake import Wake
from leekfanout.sources import Source
from leekfanout.sources.amqp import AmqpSource
from leekfanout.sources.redis import RedisSource
from leekfanout.status.stats import Stats
from leekfanout.stores.process_lock import FOLDER_LOCK, ProcessLock

log = logs.get("subscription")

FORERUNNER_POLL_S: Final = 0.1
"""How often to see whether the folder is free; a lock can't be waited for beside a descriptor."""

SWITCH_INTERVAL_S: Final = 0.001
"""A sender wakes up several times for a POST, and each time it waits so long for the main thread while
much arrives. With CPython's 5 ms that was 5 % of the rate with an API that takes 200 ms."""


def run(subscription: Subscription, settings: Settings, stats: Stats, lifeline_fd: int) -> int:
    """Deliver the subscription's events until SIGTERM or SIGINT; return the process's exit code.

    The first signal drains within ``settings.drain_timeout_s`` seconds, a second one ends at once,
    and so does the end of file on ``lifeline_fd``, by which the supervisor's death is known: it
    drains. Runs on the main thread of a process of its own, and starts threads.

    While another process uses the subscription's folder, this one waits. That is one whose supervisor
    was killed: it drains, and two would deliver what is in the spool twice.
    """
    lock = ProcessLock(settings.state_dir / subscription.name / FOLDER_LOCK)
    if not _wait_for(lock, stats, lifeline_fd):
        return 0
    allocator.map_large_blocks()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    wake = Wake()
    source = make_source(subscription, settings.state_dir / subscription.name)
    pipeline = Pipeline(
        subscription, settings, stats, source=source, wake=wake, lifeline_fd=lifeline_fd
    )

    def stop(_number: int, _frame: FrameType | None) -> None:
        pipeline.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    gc.freeze()
    pipeline.run()
    return 0


def _wait_for(lock: ProcessLock, stats: Stats, lifeline_fd: int) -> bool:
    """Return whether this process is the one that uses the folder now; False: it is to end.

    SIGTERM ends it here, as it has no handler yet.
    """
    waits = False
    try:
        while not lock.take():
            if not waits:
                waits = True
                log.warning("forerunner.drains", path=lock.path)
                stats.problem(
                    "A process of an agent that was killed still delivers what it has.",
                    "Wait: it ends within the drain time. If it hangs, kill it; ps shows its name.",
                )
            stats.set("turned_at", time.monotonic())
            # Nobody writes to the lifeline: it can be read when the supervisor is gone.
            if select.select([lifeline_fd], [], [], FORERUNNER_POLL_S)[0]:
                return False
    except OSError as error:  # no lock can be had there: delivering is more important
        log.warning("lock.unavailable", path=lock.path, error=error.strerror)
    return True


def make_source(subscription: Subscription, folder: Path | None = None) -> Source:
    """Return the source that reads the subscription's kind of broker.

    ``folder`` is where the subscription keeps its state, if it is an agent's.
    """
    if subscription.transport == "redis":
        return RedisSource(subscription, folder)
    return AmqpSource(subscription)
