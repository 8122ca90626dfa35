"""Filling queues of RabbitMQ, as fast as it takes messages, or at a given rate.

py-amqp connects; the frames of the messages are written here, at a tenth of what py-amqp needs for
them (AMQP 0-9-1, 4.2), so that the load is ready soon and costs the machine little.
"""

import contextlib
import itertools
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial

import amqp

from bench.forked import BenchError
from bench.load import Message, messages
from bench.pace import at_rate

EXCHANGE = "celeryev"
QUEUE = "leek.fanout"
CHUNK_MESSAGES = 500
CHUNKS_PER_S = 200
_PUBLISH = b"\x00\x3c\x00\x28\x00\x00"
_END = b"\xce"
_HEADERS = b"\x08hostnameS" + struct.pack(">L", 9) + b"celery@vm"
_PROPERTIES = (
    struct.pack(">H", 0b1111_1000_0000_0000)  # all but what follows are left out
    + b"\x10application/json"
    + b"\x05utf-8"
    + struct.pack(">L", len(_HEADERS))
    + _HEADERS
    + b"\x01\x00"  # transient as Celery's events are, priority 0
)


def _short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHL", kind, 1, len(payload)) + payload + _END


def frames(message: Message, exchange: str) -> bytes:
    """Return the frames that publish a message, as Celery does, on channel 1."""
    method = _PUBLISH + _short(exchange) + _short(message.routing_key) + b"\x00"
    header = struct.pack(">HHQ", 60, 0, len(message.body)) + _PROPERTIES
    return _frame(1, method) + _frame(2, header) + _frame(3, message.body)


@contextlib.contextmanager
def channel_of(port: int) -> Iterator[amqp.Channel]:
    """Open channel 1 of a connection to a private RabbitMQ."""
    connection = amqp.Connection(f"127.0.0.1:{port}", userid="guest", password="guest")
    connection.connect()
    try:
        yield connection.channel()
    finally:
        with contextlib.suppress(Exception):
            connection.close()


def declare(channel: amqp.Channel, exchange: str = EXCHANGE, queue: str = QUEUE) -> None:
    """Declare exchange and queue as the agent does, and empty the queue."""
    channel.exchange_declare(exchange, "topic", durable=True, auto_delete=False)
    channel.queue_declare(queue, durable=True, auto_delete=False)
    channel.queue_bind(queue, exchange, "#")
    channel.queue_purge(queue)


def fill(port: int, shape: str, events: int) -> int:
    """Put ``events`` events into the empty queue; return how many messages that are, all of them in."""
    return fill_with(port, partial(messages, shape, events))


def fill_with(port: int, load_of: Callable[[], Iterator[Message]]) -> int:
    """Put a load into the empty queue; return how many messages that are, all of them in."""
    published = 0
    load = load_of()
    with channel_of(port) as channel:
        declare(channel)
        while chunk := list(itertools.islice(load, CHUNK_MESSAGES)):
            channel.connection.transport.write(b"".join(frames(m, EXCHANGE) for m in chunk))
            published += len(chunk)
        deadline = time.monotonic() + 60
        while channel.queue_declare(QUEUE, passive=True).message_count < published:
            if time.monotonic() > deadline:
                raise BenchError("RabbitMQ has not queued what was published to it.")
            time.sleep(0.05)
    return published


def trickle(port: int, exchanges: list[str], rate: float, events: int) -> float:
    """Publish ``events`` single events, ``rate`` per second in all, to the exchanges in turn."""
    size = max(1, round(rate / CHUNKS_PER_S))
    framed = [
        frames(m, ex) for m, ex in zip(messages("single", events), itertools.cycle(exchanges))
    ]
    chunks = [b"".join(framed[at : at + size]) for at in range(0, len(framed), size)]
    with channel_of(port) as channel:
        return at_rate(chunks, rate / size, channel.connection.transport.write)
