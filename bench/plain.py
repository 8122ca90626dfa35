"""The yardstick: what the client libraries take to receive the same messages and do little else.

Each function runs to its end in a process of its own (``forked.answer_of``). Connecting is not
counted, and so it isn't for the agent.
"""

import base64
import resource
import select
import time
from collections import deque

import kombu
import orjson
import redis

from bench.agent import Figures
from bench.amqp_load import QUEUE
from bench.forked import BenchError
from leekfanout.configuration.config import Subscription
from leekfanout.delivery.subscription import make_source
from leekfanout.sources import Ack

ACK_EVERY = 1_000
READ_MAX_MESSAGES = 500
QUIET_S = 5.0
REDIS_PATTERN = "/0.celeryev/*"


class Stopwatch:
    """Times this process's work from its making to :meth:`figures`."""

    def __init__(self) -> None:
        self._cpu_s, self._began = time.process_time(), time.monotonic()

    def figures(self, events: int, quiet_s: float = 0.0) -> Figures:
        """Return the figures; for the last ``quiet_s`` nothing came."""
        cpu_s, took_s = time.process_time() - self._cpu_s, time.monotonic() - self._began
        return {
            "cpu_us": cpu_s / max(events, 1) * 1e6,
            "rate": events / (took_s - quiet_s),
            "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        }


def kombu_client(url: str, messages: int, events: int, prefetch_count: int) -> Figures:
    """Drain the queue with kombu: ``on_message``, the body parsed, one ack for 1,000 messages."""
    got = 0

    def on_message(message: kombu.Message) -> None:
        nonlocal got
        orjson.loads(message.body)
        got += 1
        if got % ACK_EVERY == 0 or got == messages:
            message.channel.basic_ack(message.delivery_tag, multiple=True)

    with kombu.Connection(url) as connection, connection.channel() as channel:
        queue = kombu.Queue(QUEUE, no_declare=True)
        consumer = kombu.Consumer(channel, [queue], on_message=on_message)
        consumer.qos(prefetch_count=prefetch_count)
        watch = Stopwatch()
        consumer.consume()
        while got < messages:
            connection.drain_events()  # a timeout would cost a poll(2) before each recv(2)
        return watch.figures(events)


def redis_client(port: int, events: int) -> Figures:
    """Receive with redis-py and hiredis: ``get_message``, envelope and body decoded."""
    with redis.Redis(port=port) as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.psubscribe(REDIS_PATTERN)
        watch, got, quiet_s = None, 0, 0.0
        while got < events and not quiet_s:
            message = pubsub.get_message(timeout=QUIET_S)
            if message is None:  # a confirmation, or nothing for so long
                quiet_s = QUIET_S if watch else 0.0
                continue
            watch = watch or Stopwatch()
            envelope = orjson.loads(message["data"])
            orjson.loads(base64.b64decode(envelope["body"]))
            got += 1
        if watch is None:
            raise BenchError("Nothing was published.")
        return {**watch.figures(got, quiet_s), "missing": events - got}


class _Parser:
    """An inbox that parses bodies and forgets them."""

    def __init__(self) -> None:
        self.got = 0

    def message(self, delivery_tag: int, body: bytes, content_type: str | None) -> None:
        orjson.loads(body)
        self.got = delivery_tag

    def unusable(self, delivery_tag: int, payload: bytes, reason: str) -> None:
        raise BenchError(reason)


def source_alone(
    wanted: Subscription, messages: int, events: int, ack_after_s: float = 0.0
) -> Figures:
    """Receive with leekfanout's own source: the body parsed, one ack for 1,000 messages.

    No agent on top of this source can cost less. ``ack_after_s`` is what an API would take: with
    that, and the same prefetch, no agent that posts 1,000 messages at a time can be faster, either.
    """
    source, inbox = make_source(wanted), _Parser()
    acks: deque[tuple[float, int]] = deque()
    """When to send each, in monotonic seconds, and up to which delivery tag."""
    source.connect()
    poll = select.poll()
    poll.register(source.fileno(), select.POLLIN)
    poll.poll(QUIET_S * 1000)
    watch, read_up_to, quiet_s = Stopwatch(), 0, 0.0
    while (inbox.got < messages or acks) and not quiet_s:
        while source.receive(inbox, READ_MAX_MESSAGES) and not _is_due(acks):
            pass
        if inbox.got - read_up_to >= ACK_EVERY or inbox.got == messages > read_up_to:
            read_up_to = inbox.got
            acks.append((time.monotonic() + ack_after_s, read_up_to))
        while _is_due(acks):
            source.ack([Ack(acks.popleft()[1], multiple=True)])
        if acks:
            poll.poll(max(0.0, acks[0][0] - time.monotonic()) * 1000)
        elif inbox.got < messages and not poll.poll(QUIET_S * 1000):
            quiet_s = QUIET_S
    figures = watch.figures(events, quiet_s)
    source.close()
    return {**figures, "missing": messages - inbox.got}


def _is_due(acks: deque[tuple[float, int]]) -> bool:
    return bool(acks) and acks[0][0] <= time.monotonic()
