"""One subscription's process, as the supervisor forks it, and what it costs.

Its CPU time is the operating system's count of all its threads, from its first to its last moment,
less that of the same process without any event to deliver.
"""

import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.forked import Answer, BenchError, Forked, Usage
from leekfanout import logs
from leekfanout.configuration.config import Settings, Subscription
from leekfanout.delivery import subscription
from leekfanout.status.stats import Stats

LOOK_EVERY_S = 0.005
START_TIMEOUT_S = 20.0
QUIET_S = 5.0
"""Without a delivery for so long, beyond the window, whatever is missing doesn't come any more."""
STEADY = 0.95
"""The share of the events up to which the rate is measured: what is left at the end waits for the
window, as nothing comes to fill the last batch."""

Figures = dict[str, float]


def subscribe(broker: str, api_url: str, **keys: Any) -> Subscription:
    """Return a subscription with Leek's defaults, but for ``keys``."""
    fixed: dict[str, Any] = {
        "org_name": "mono",
        "app_name": "shop",
        "app_env": "bench",
        "app_key": "bench",
    }
    prefetch_count = keys.get("prefetch_count", 1_000)
    keys.setdefault("batch_max_number_of_messages", prefetch_count)
    return Subscription(broker=(broker,), api_url=api_url, **fixed, **keys)


class Agent:
    """The process of ``subscription``; a context manager that kills it if it still runs."""

    def __init__(self, wanted: Subscription) -> None:
        self.stats = Stats()
        self._folder = tempfile.TemporaryDirectory(prefix="leekfanout-bench-")
        folder = Path(self._folder.name)
        (folder / wanted.name).mkdir(mode=0o700)
        self._log = folder / "log"
        read_end, self._lifeline = os.pipe()
        settings = Settings(state_dir=folder)

        def work() -> None:
            os.close(self._lifeline)
            logs.configure("WARNING", "text")
            subscription.run(wanted, settings, self.stats, read_end)

        self._process = Forked(work, self._log)
        os.close(read_end)

    def connected(self) -> None:
        """Wait until it consumes."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.stats.get("connected_at"):
            if self._process.ended() or time.monotonic() > deadline:
                raise BenchError(f"The agent doesn't connect:\n{self._log.read_text()}")
            time.sleep(LOOK_EVERY_S)

    def deliveries(self, events: int, quiet_s: float) -> list[tuple[float, float]]:
        """Wait until ``events`` are delivered; return each moment and how many there were by then.

        Returns sooner where there was no delivery for ``quiet_s``.
        """
        points = [(time.monotonic(), 0.0)]
        while points[-1][1] < events and time.monotonic() - points[-1][0] < quiet_s:
            time.sleep(LOOK_EVERY_S)
            delivered = self.stats.get("events_delivered")
            if delivered > points[-1][1]:
                points.append((time.monotonic(), delivered))
            elif self._process.ended():
                raise BenchError(f"The agent has ended:\n{self._log.read_text()}")
        return points[1:]

    def stop(self) -> Usage:
        """Let it drain, and return what it has used in its life."""
        self._process.signal(signal.SIGTERM)
        usage = self._process.wait()
        if usage.exit_code:
            raise BenchError(f"The agent failed:\n{self._log.read_text()}")
        return usage

    def __enter__(self) -> "Agent":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.__exit__()
        os.close(self._lifeline)
        self._folder.cleanup()


def idle_cost(wanted: Subscription) -> float:
    """Return the CPU seconds that a process takes which connects, delivers nothing, and stops."""
    with Agent(wanted) as agent:
        agent.connected()
        return agent.stop().cpu_s


def delivery(
    wanted: Subscription,
    events: int,
    *,
    idle_s: float,
    feed: Callable[[], object] = lambda: None,
) -> Figures:
    """Let an agent deliver ``events`` events, and return what that took.

    They wait at the broker already, or ``feed`` publishes them, in a process of its own, once the
    agent is connected. ``idle_s`` is the :func:`idle_cost`. Raises BenchError where events are missing
    that RabbitMQ keeps; PUB/SUB keeps none, and there it is a figure.
    """
    with Agent(wanted) as agent:
        agent.connected()
        with Answer(feed) as feeding:
            points = agent.deliveries(events, wanted.batch_max_window_in_seconds + QUIET_S)
            feeding.get()
        usage = agent.stop()
        told = agent.stats.snapshot()
    missing = events - told["events_delivered"]
    if missing and wanted.transport == "amqp":
        raise BenchError(f"{missing:.0f} of {events} events were not delivered.")
    posts = told["posts_confirmed"] or 1
    return {
        "cpu_us": (usage.cpu_s - idle_s) / max(told["events_delivered"], 1) * 1e6,
        "rate": steady_rate(points, events),
        "rss_mb": usage.rss_mb,
        "events_per_post": told["events_delivered"] / posts,
        "megabytes_per_post": told["bytes_delivered"] / posts / 1e6,
        "missing": missing,
    }


def steady_rate(points: list[tuple[float, float]], events: int) -> float:
    """Return the events delivered per second between the first delivery and nearly the last.

    0 where all came at once: then there is no telling.
    """
    reached = [point for point in points if point[1] >= STEADY * events]
    if not reached or reached[0] is points[0]:
        return 0.0
    (begun, first), (ended, last) = points[0], reached[0]
    return (last - first) / (ended - begun)
