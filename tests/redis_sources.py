"""What the tests of the Redis source share: subscriptions, receiving, publishing."""

import select
import time
from typing import Any

import redis

from leekfanout.configuration.config import Subscription
from leekfanout.sources.redis import RedisSource
from tests.inbox import CollectingInbox
from tests.load import Message
from tests.publishers import envelope

CHANNEL = "/{}.celeryev/task.sent"


def subscription(*urls: str, **keys: Any) -> Subscription:
    return Subscription(
        org_name="acme",
        app_name="shop",
        app_env="qa",
        broker=urls,
        app_key="key",
        api_url="http://127.0.0.1:1",
        **keys,
    )


def payload(body: bytes) -> bytes:
    """Return what kombu publishes for a body."""
    return envelope(Message("task.sent", body, ()))


def publish(client: redis.Redis, database: int | str, *bodies: bytes) -> int:
    """Publish events' bodies as kombu does; return how many subscribers heard them all."""
    pipeline = client.pipeline(transaction=False)
    for body in bodies:
        pipeline.publish(CHANNEL.format(database), payload(body))
    return min(pipeline.execute())


def receive(source: RedisSource, inbox: CollectingInbox, count: int, limit: int = 1_000) -> None:
    """Wait until ``count`` messages are in the inbox."""
    deadline = time.monotonic() + 20
    while len(inbox.messages) < count:
        assert time.monotonic() < deadline, f"only {len(inbox.messages)} of {count} messages came"
        if not source.receive(inbox, limit) and len(inbox.messages) < count:
            select.select([source], [], [], 1.0)
