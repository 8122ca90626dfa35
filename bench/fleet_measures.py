"""What is measured of the whole agent: many subscriptions, idle ones, and memory."""

import itertools
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import psutil

from bench import amqp_load
from bench.agent import Figures
from bench.api_stub import STALLED
from bench.fleet import Fleet, over, resident_mb
from bench.forked import Answer, answer_of
from bench.rig import Rig

STEADY_S = 2.0
"""Memory that hasn't grown for so long has reached its height."""
SETTLE_S = 3.0
FILL_TIMEOUT_S = 30.0


def subscriptions_at_work(rig: Rig, count: int, rate_each: float, seconds: float) -> Figures:
    """Run ``count`` subscriptions, each with an exchange and a queue, ``rate_each`` events/s."""
    exchanges = [f"celeryev.{number}" for number in range(count)]
    wanted = [
        entry(rig.rabbitmq.url(), rig, number, exchange=name, queue=f"leek.fanout.{number}")
        for number, name in enumerate(exchanges)
    ]
    rig.api.delay_s = 0.0
    rate = count * rate_each
    with Fleet(wanted) as fleet:
        fleet.connected()
        events = round(rate * (seconds + 2 * SETTLE_S))
        feed = partial(amqp_load.trickle, rig.rabbitmq.port, exchanges, rate, events)
        with Answer(feed) as feeding:
            time.sleep(SETTLE_S)
            figures = _cost_of(fleet, seconds)
            memory_mb = fleet.memory_mb()
            feeding.get()
        delivered = wait_for_deliveries(fleet, events)
    delete_queues(rig, count)
    return {
        **figures,
        "cpu_us": figures["cores"] / rate * 1e6,
        "memory_mb": memory_mb,
        "missing": events - delivered,
    }


def idle_subscriptions(rig: Rig, count: int, seconds: float) -> Figures:
    """Run half as many subscriptions on RabbitMQ as on Redis, and nothing happens."""
    amqp = itertools.repeat(rig.rabbitmq.url(), count // 2)
    redis = itertools.repeat(rig.redis.url(), count - count // 2)
    wanted = [
        entry(url, rig, number, exchange=f"celeryev.{number}", queue=f"leek.fanout.{number}")
        for number, url in enumerate(itertools.chain(amqp, redis))
    ]
    with Fleet(wanted) as fleet:
        fleet.connected()
        time.sleep(SETTLE_S)
        figures = _cost_of(fleet, seconds)
    delete_queues(rig, count)
    return figures


def start_of_many(rig: Rig, count: int, seconds: float) -> Figures:
    """Start an agent with ``count`` subscriptions: when all run and consume, and what each takes."""
    wanted = [
        entry(rig.rabbitmq.url(), rig, number, queue=f"leek.fanout.{number}")
        for number in range(count)
    ]
    with Fleet(wanted) as fleet:
        fleet.connected()
        time.sleep(SETTLE_S)
        statuses = fleet.status()
        figures = {
            "started_s": max(status["started_at"] for status in statuses) - fleet.begun_at,
            "connected_s": max(s["gauges"]["connected_at"] for s in statuses) - fleet.begun_at,
        }
        figures |= _of_each(fleet.children()) | _cost_of(fleet, seconds)
    delete_queues(rig, count)
    return figures


def _of_each(children: Sequence[psutil.Process]) -> Figures:
    """Return the most that any of the processes has."""
    return {
        "own_memory_mb": max(child.memory_full_info().uss for child in children) / 1e6,
        "rss_mb": max(child.memory_info().rss for child in children) / 1e6,
        "threads": max(child.num_threads() for child in children),
        "descriptors": max(child.num_fds() for child in children),
    }


def stalled_api_memory(
    rig: Rig, shape: str, events: int, in_flight_max_mb: float, **keys: Any
) -> Figures:
    """See how much memory a subscription takes whose API takes bodies and never answers."""
    answer_of(partial(amqp_load.fill, rig.rabbitmq.port, shape, events))
    rig.api.delay_s = STALLED
    wanted = entry(rig.rabbitmq.url(), rig, 0, in_flight_max_mb=in_flight_max_mb, **keys)
    # No read timeout may pass meanwhile, after which the body would be sent again.
    wanted["api_read_timeout_in_seconds"] = 2 * FILL_TIMEOUT_S
    with Fleet([wanted]) as fleet:
        fleet.connected()
        (child,) = fleet.children()
        status = _full(fleet)
        figures = {
            "rss_mb": resident_mb(child.pid),
            "in_flight_mb": status["gauges"]["bytes_in_flight"] / 1e6,
            "messages_in_flight": status["gauges"]["messages_in_flight"],
        }
        child.kill()  # it would wait for its answers, and then for as long as a drain may take
    rig.api.delay_s = 0.0
    return figures


def _full(fleet: Fleet) -> dict[str, Any]:
    """Wait until nothing more comes into flight, and return the status then."""
    deadline = time.monotonic() + FILL_TIMEOUT_S
    in_flight, grew_at = -1.0, time.monotonic()
    while time.monotonic() < min(deadline, grew_at + STEADY_S):
        (status,) = fleet.status()
        if status["gauges"]["bytes_in_flight"] != in_flight:
            in_flight, grew_at = status["gauges"]["bytes_in_flight"], time.monotonic()
        time.sleep(0.2)
    return status


def entry(url: str, rig: Rig, number: int, **keys: Any) -> dict[str, Any]:
    # Names hold lower-case letters only, so that its digits become letters.
    name = "".join(chr(ord("a") + int(digit)) for digit in str(number))
    return {
        "broker": url,
        "org_name": "mono",
        "app_name": f"shop{name}",
        "app_env": "bench",
        "app_key": "bench",
        "api_url": rig.api.url,
        **keys,
    }


def _cost_of(fleet: Fleet, seconds: float) -> Figures:
    before, began = fleet.cost(), time.monotonic()
    time.sleep(seconds)
    after, took_s = fleet.cost(), time.monotonic() - began
    return over(before, after, took_s)


def wait_for_deliveries(fleet: Fleet, events: int) -> float:
    deadline = time.monotonic() + FILL_TIMEOUT_S
    while (delivered := _delivered(fleet)) < events and time.monotonic() < deadline:
        time.sleep(0.5)
    return delivered


def _delivered(fleet: Fleet) -> float:
    return sum(status["counters"]["events_delivered"] for status in fleet.status())


def delete_queues(rig: Rig, count: int) -> None:
    """A durable queue stays bound, and fills for ever after."""
    with amqp_load.channel_of(rig.rabbitmq.port) as channel:
        for number in range(count):
            channel.queue_delete(f"leek.fanout.{number}")
            channel.exchange_delete(f"celeryev.{number}")
