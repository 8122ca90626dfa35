"""What is in flight is bounded in bytes as well as in messages."""

from collections.abc import Iterator
from pathlib import Path

from tests.accounting import assert_complete, of_documents, of_messages
from tests.agent import Alone, Resources, subscription
from tests.api_double import ApiDouble
from tests.load import Load, Message, one
from tests.publishers import publish_amqp
from tests.waiting import until

MB = 1_000_000


def large_messages(seed: int, size: int, count: int) -> Iterator[Message]:
    # In the result, whose text goes to the API as it is, so that documents are as large.
    load = Load(seed=seed)
    for _ in range(count):
        _, (*_, last) = load.task()
        yield one({**last, "type": "task-succeeded", "result": "r" * size})


def test_a_large_prefetch_of_large_messages_does_not_take_the_memory_that_it_might(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    keys = subscription(
        amqp_url, api, prefetch_count=10_000, in_flight_max_mb=32, concurrency_pool_size=20
    )
    with Alone(keys, tmp_path) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_amqp(amqp_url, large_messages(91, 1_000, 50)))
        api.wait_for_events(sent.total())
        before = Resources.of(agent.process.pid)
        api.hang_before_reading = True
        sent += of_messages(publish_amqp(amqp_url, large_messages(92, MB, 200)))
        until(lambda: api.posts_under_way, 20, "a POST that hangs")
        agent.wait_for_stat("bytes_in_flight", 24 * MB)
        most_bytes = 0

        def all_delivered() -> bool:
            nonlocal most_bytes
            most_bytes = max(most_bytes, Resources.of(agent.process.pid).rss_bytes)
            return api.confirmed_events() >= sent.total()

        api.hang_before_reading = False
        until(all_delivered, 60, "all events")
        # Twice the bound and what a body takes while it is made and sent; not the 200 MB there are.
        assert most_bytes - before.rss_bytes < 100 * MB
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_a_message_that_is_larger_than_a_batch_may_be_travels_alone(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    keys = subscription(amqp_url, api, batch_max_size_in_mb=0.5)
    with Alone(keys, tmp_path) as agent:
        agent.wait_until_connected()
        small, large = Load(seed=93), large_messages(94, MB, 5)
        published: list[Message] = []
        for message in large:
            published += [*(one(small.task()[0]) for _ in range(20)), message]
        sent = of_messages(publish_amqp(amqp_url, published))
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))
    for post in api.posts:
        assert len(post.body) <= MB / 2 or len(post.documents) == 1
