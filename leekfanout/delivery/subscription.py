"""What runs in a subscription's forked process: signals in, a pipeline, and an exit code out."""

import gc
import signal
import sys
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

log = logs.get("subscription")

SWITCH_INTERVAL_S: Final = 0.001
"""A sender wakes up several times for a POST, and each time it waits so long for the main thread while
much arrives. With CPython's 5 ms that was 5 % of the rate with an API that takes 200 ms."""


def run(subscription: Subscription, settings: Settings, stats: Stats, lifeline_fd: int) -> int:
    """Deliver the subscription's events until SIGTERM or SIGINT; return the process's exit code.

    The first signal drains within ``settings.drain_timeout_s`` seconds, a second one ends at once,
    and so does the end of file on ``lifeline_fd``, by which the supervisor's death is known: it
    drains. Runs on the main thread of a process of its own, and starts threads.
    """
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


def make_source(subscription: Subscription, folder: Path | None = None) -> Source:
    """Return the source that reads the subscription's kind of broker.

    ``folder`` is where the subscription keeps its state, if it is an agent's.
    """
    if subscription.transport == "redis":
        return RedisSource(subscription, folder)
    return AmqpSource(subscription)
