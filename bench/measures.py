"""What can be measured, each as a function of the rig that returns figures by name.

``cpu_us`` is microseconds of CPU time per event, ``rate`` events per second, ``rss_mb`` the highest
resident memory in MB (10**6 bytes; a forked process shares some of it with the harness), ``missing``
events that didn't arrive, ``api_cpu_share`` the cores that the API stub took meanwhile.
"""

import time
from functools import partial
from typing import Any

from bench import amqp_load, api_stub, documents, plain, redis_load, simple_agent
from bench.agent import Figures, delivery, subscribe
from bench.forked import Answer, BenchError, answer_of
from bench.rig import Rig
from leekfanout.configuration.config import Subscription

WINDOW_S = 1.0
"""For what is left at the end of a queue; under load other bounds close a batch long before."""
SUBSCRIBED_TIMEOUT_S = 10.0


def plain_amqp(rig: Rig, shape: str, events: int, prefetch_count: int) -> Figures:
    """Drain a filled queue with plain kombu."""
    messages = answer_of(partial(amqp_load.fill, rig.rabbitmq.port, shape, events))
    url = rig.rabbitmq.url()
    return answer_of(partial(plain.kombu_client, url, messages, events, prefetch_count))


def source_amqp(
    rig: Rig, shape: str, events: int, prefetch_count: int, ack_after_s: float = 0.0
) -> Figures:
    """Drain a filled queue with the agent's source alone."""
    messages = answer_of(partial(amqp_load.fill, rig.rabbitmq.port, shape, events))
    wanted = subscribe(rig.rabbitmq.url(), rig.api.url, prefetch_count=prefetch_count)
    return answer_of(partial(plain.source_alone, wanted, messages, events, ack_after_s))


def agent_amqp(rig: Rig, shape: str, events: int, delay_s: float = 0.0, **keys: Any) -> Figures:
    """Drain a filled queue with the agent, the API answering after ``delay_s``."""
    wanted = subscribe(
        rig.rabbitmq.url(), rig.api.url, **{"batch_max_window_in_seconds": WINDOW_S, **keys}
    )
    idle_s = rig.amqp_idle_s
    answer_of(partial(amqp_load.fill, rig.rabbitmq.port, shape, events))
    return _with_api(rig, delay_s, partial(delivery, wanted, events, idle_s=idle_s))


def trickle_amqp(rig: Rig, rate: float, seconds: float, **keys: Any) -> Figures:
    """Deliver events that come at a low rate, so that the window closes the batches."""
    events = round(rate * seconds)
    wanted = subscribe(rig.rabbitmq.url(), rig.api.url, **keys)
    idle_s = rig.amqp_idle_s
    exchanges = [amqp_load.EXCHANGE]
    feed = partial(amqp_load.trickle, rig.rabbitmq.port, exchanges, rate, events)
    figures = _with_api(rig, 0.0, partial(delivery, wanted, events, idle_s=idle_s, feed=feed))
    del figures["rate"]  # it is the publisher's
    return figures


def plain_redis(rig: Rig, events: int, share: float | None) -> Figures:
    """Receive with plain redis-py what is published at ``share`` of its own rate.

    None: as fast as it reads, which shows what its own rate is.
    """
    figures = _beside_publisher(
        rig, partial(plain.redis_client, rig.redis.port, events), events, share
    )
    if share is None:
        rig.redis_rates.append(figures["rate"])
    return figures


def source_redis(rig: Rig, events: int, share: float | None) -> Figures:
    """Receive with the agent's source alone."""
    work = partial(plain.source_alone, _redis_subscription(rig), events, events)
    return _beside_publisher(rig, work, events, share)


def agent_redis(rig: Rig, seconds: float, share: float) -> Figures:
    """Deliver for ``seconds`` what is published at ``share`` of plain redis-py's rate."""
    rate = share * rig.redis_rate
    events = _whole_chunks(rate * seconds)
    feed = partial(redis_load.publish, rig.redis.port, events, rate)
    wanted, idle_s = _redis_subscription(rig), rig.redis_idle_s
    return _with_api(rig, 0.0, partial(delivery, wanted, events, idle_s=idle_s, feed=feed))


def flat_out_redis(rig: Rig, events: int) -> Figures:
    """Deliver what is published as fast as the agent reads."""
    feed = partial(redis_load.publish, rig.redis.port, _whole_chunks(events), None)
    wanted, idle_s = _redis_subscription(rig), rig.redis_idle_s
    return _with_api(rig, 0.0, partial(delivery, wanted, events, idle_s=idle_s, feed=feed))


def simple_amqp(rig: Rig, shape: str, events: int, delay_s: float = 0.0) -> Figures:
    """Drain a filled queue with the agent that anyone would write first."""
    answer_of(partial(amqp_load.fill, rig.rabbitmq.port, shape, events))
    work = partial(simple_agent.deliver, rig.rabbitmq.url(), rig.api.url, events)
    return _with_api(rig, delay_s, partial(answer_of, work))


def simple_redis(rig: Rig, events: int) -> Figures:
    """Deliver with that agent what is published as fast as it reads."""
    work = partial(simple_agent.deliver, rig.redis.url(), rig.api.url, events)
    return _with_api(rig, 0.0, partial(_beside_publisher, rig, work, events, None))


def event_to_document(_: Rig, rounds: int) -> Figures:
    """Turn events into documents, without any broker or API, beside ``json.loads`` of them."""
    return answer_of(partial(documents.measure, rounds))


def stub_alone(rig: Rig, seconds: float) -> Figures:
    """See how much the API stub takes at most."""
    rig.api.delay_s = 0.0
    return api_stub.most(rig.api, 1_000_000, seconds)


def _redis_subscription(rig: Rig) -> Subscription:
    return subscribe(rig.redis.url(), rig.api.url, batch_max_window_in_seconds=WINDOW_S)


def _whole_chunks(events: float) -> int:
    return round(events / redis_load.CHUNK_MESSAGES) * redis_load.CHUNK_MESSAGES


def _beside_publisher(rig: Rig, work: Any, events: int, share: float | None) -> Figures:
    rate = None if share is None else share * rig.redis_rate
    with Answer(work) as receiving, rig.redis.client() as client:
        deadline = time.monotonic() + SUBSCRIBED_TIMEOUT_S
        while not client.pubsub_numpat():
            if time.monotonic() > deadline:
                raise BenchError("Nobody subscribes to the private Redis.")
            time.sleep(0.01)
        answer_of(partial(redis_load.publish, rig.redis.port, events, rate))
        figures: Figures = receiving.get()
    return figures


def _with_api(rig: Rig, delay_s: float, measure: Any) -> Figures:
    """Measure, and add what the API stub took meanwhile."""
    api = rig.api
    api.delay_s = delay_s
    begun, cpu_s, megabytes = time.monotonic(), api.cpu_s(), api.megabytes
    figures: Figures = measure()
    took_s = time.monotonic() - begun
    figures["api_cpu_share"] = (api.cpu_s() - cpu_s) / took_s
    figures["api_megabytes_per_s"] = (api.megabytes - megabytes) / took_s
    return figures
