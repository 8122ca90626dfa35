"""Steady streams of events to brokers, published in the background of a test."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.load import Load, Message
from tests.publishers import publish_amqp, publish_redis


@contextmanager
def streams(
    urls: Sequence[str], messages_per_s: float, seed: int = 1
) -> Iterator[list[list[Message]]]:
    """Publish to each broker until this is left; what each got is in its list after that.

    A message holds two events on average.
    """
    ending = threading.Event()

    def messages(number: int) -> Iterator[Message]:
        for message in Load(seed=seed + number).messages(1_000_000):
            yield message
            if ending.wait(1 / messages_per_s):
                return

    published: list[list[Message]] = []
    with ThreadPoolExecutor(len(urls)) as pool:
        publishing = [
            pool.submit(_publish, url, messages(number)) for number, url in enumerate(urls)
        ]
        try:
            yield published
        finally:
            ending.set()
        published += [one.result(60) for one in publishing]


def _publish(url: str, messages: Iterator[Message]) -> list[Message]:
    if url.startswith("redis"):
        return publish_redis(url, messages, at_once=1)
    return publish_amqp(url, messages)
