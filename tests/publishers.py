"""Publishing to the event exchange as Celery does, only faster, and with a say in what is kept."""

import base64
import contextlib
import itertools
import uuid
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

import amqp
import orjson
import redis
from kombu import Connection

from tests.load import Message
from tests.waiting import until

EXCHANGE = "celeryev"
SLOW_READER_BYTES = 4_000_000
"""Redis cuts off a PUB/SUB subscriber that has left 8 MB unread for a minute, or 32 MB at all."""


def publish_amqp(
    url: str,
    messages: Iterable[Message],
    *,
    exchange: str = EXCHANGE,
    persistent: bool = False,
    confirm: bool = False,
) -> list[Message]:
    """Publish all of them and return them; the broker has them all when this returns.

    Celery's events are transient: ``persistent`` sets delivery mode 2. With ``confirm`` the broker
    confirms each one, which is slower; without, a last declare tells that it has read all.
    """
    published = []
    with amqp_channel(url, confirm=confirm) as channel:
        channel.exchange_declare(exchange, "topic", durable=True, auto_delete=False)
        for message in messages:
            channel.basic_publish(amqp_message(message, persistent), exchange, message.routing_key)
            published.append(message)
        channel.exchange_declare(exchange, "topic", passive=True)
    return published


@contextlib.contextmanager
def amqp_channel(url: str, confirm: bool = False) -> Iterator[amqp.Channel]:
    """Open a channel of py-amqp itself to the broker of a kombu URL."""
    parts = Connection(url)
    connection = amqp.Connection(
        f"{parts.hostname}:{parts.port or 5672}",
        userid=parts.userid,
        password=parts.password,
        virtual_host=parts.virtual_host,
        confirm_publish=confirm,
    )
    connection.connect()
    try:
        yield connection.channel()
    finally:
        with contextlib.suppress(Exception):
            connection.close()


def amqp_message(message: Message, persistent: bool = False) -> amqp.Message:
    return amqp.Message(
        message.body,
        content_type="application/json",
        content_encoding="utf-8",
        delivery_mode=2 if persistent else 1,
        priority=0,
        application_headers={"hostname": "celery@worker"},
    )


def envelope(
    message: Message, exchange: str = EXCHANGE, content_type: str = "application/json"
) -> bytes:
    """Return what kombu's Redis transport publishes for a message."""
    return orjson.dumps(
        {
            "body": base64.b64encode(message.body).decode(),
            "content-encoding": "utf-8",
            "content-type": content_type,
            "headers": {"hostname": "celery@worker"},
            "properties": {
                "delivery_mode": 1,
                "delivery_info": {"exchange": exchange, "routing_key": message.routing_key},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )


def publish_redis(
    url: str,
    messages: Iterable[Message],
    *,
    exchange: str = EXCHANGE,
    key_prefix: str = "",
    at_once: int = 250,
) -> list[Message]:
    """Publish all of them, so many at once; return those that somebody was subscribed to.

    Waits while a subscriber is far behind: Redis would cut it off, and that is a test of its own.
    """
    database = urlsplit(url).path.strip("/") or "0"
    heard = []
    with redis.Redis.from_url(url, socket_timeout=10) as client:
        for chunk in _chunks(messages, at_once):
            pipeline = client.pipeline(transaction=False)
            for message in chunk:
                channel = f"{key_prefix}/{database}.{exchange}/{message.routing_key}"
                pipeline.publish(channel, envelope(message, exchange))
            heard += [m for m, n in zip(chunk, pipeline.execute(), strict=True) if n]
            until(lambda: _unread_bytes(client) < SLOW_READER_BYTES, 60, "a slow subscriber")
    return heard


def _chunks(messages: Iterable[Message], size: int) -> Iterator[list[Message]]:
    iterator = iter(messages)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _unread_bytes(client: redis.Redis) -> int:
    return max(
        (int(peer["tot-mem"]) for peer in client.client_list(_type="pubsub")),
        default=0,
    )


def subscribers(url: str) -> int:
    """How many patterns are subscribed to at a Redis, by anybody."""
    with redis.Redis.from_url(url, socket_timeout=10) as client:
        return int(client.pubsub_numpat())
