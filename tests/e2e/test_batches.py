"""Batches close at the first of number, size and window, and prefetch bounds what is in flight."""

import time
from pathlib import Path

import pytest

from tests.accounting import assert_complete, of_documents, of_messages
from tests.agent import Alone, subscription
from tests.api_double import ApiDouble
from tests.api_exchange import Post, Reply
from tests.brokers import RabbitMQ
from tests.load import Load, many, one
from tests.publishers import publish_amqp, publish_redis

LONGEST_WINDOW_S = 20


def events_of(post: Post) -> int:
    return sum(document["events_count"] for document in post.documents)


@pytest.mark.parametrize("broker", ["amqp_url", "redis_url"])
def test_a_lone_event_leaves_after_the_window_and_not_when_the_next_one_comes(
    broker: str, request: pytest.FixtureRequest, api: ApiDouble, tmp_path: Path
) -> None:
    url = request.getfixturevalue(broker)
    publish = publish_amqp if broker == "amqp_url" else publish_redis
    window_s = 1.0
    with Alone(subscription(url, api, batch_max_window_in_seconds=window_s), tmp_path) as agent:
        agent.wait_until_connected()
        published_at = time.monotonic()
        publish(url, [one(Load().task()[0])])
        (post,) = api.wait_for_posts(1)
    waited_s = post.started_at - published_at
    assert waited_s >= window_s
    assert waited_s < window_s + 10.0  # what a busy machine may add


@pytest.mark.parametrize(("number", "batches"), [(1, 20), (1_000, 2), (10_000, 1)])
def test_a_batch_leaves_once_it_has_its_number_of_events(
    number: int, batches: int, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    keys = {
        "prefetch_count": max(1_000, number),
        "batch_max_number_of_messages": number,
        "batch_max_window_in_seconds": LONGEST_WINDOW_S,
        "batch_max_size_in_mb": 10,
    }
    load = Load()
    messages = [one(load.task()[0]) for _ in range(batches * number)]
    with Alone(subscription(amqp_url, api, **keys), tmp_path) as agent:
        agent.wait_until_connected()
        publish_amqp(amqp_url, messages)
        posts = api.wait_for_posts(batches, timeout_s=LONGEST_WINDOW_S - 1)
    assert [events_of(post) for post in posts] == [number] * batches
    assert_complete(of_messages(messages), of_documents(api.confirmed()))


def test_the_longest_batch_size_is_never_exceeded_but_by_a_single_document(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    keys = {"batch_max_size_in_mb": 0.02}
    small, large = Load(seed=1), Load(seed=2, padding=30_000)
    messages = []
    for _ in range(100):
        messages += [*small.messages(5), one(large.task()[0])]
    with Alone(subscription(amqp_url, api, **keys), tmp_path) as agent:
        agent.wait_until_connected()
        publish_amqp(amqp_url, messages)
        sent = of_messages(messages)
        api.wait_for_events(sent.total())
    assert_complete(sent, of_documents(api.confirmed()))
    for post in api.posts:
        assert len(post.body) <= 20_000 or len(post.documents) == 1


def test_lists_of_events_are_split_over_batches(
    amqp_url: str, redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    for url, publish in ((amqp_url, publish_amqp), (redis_url, publish_redis)):
        load = Load(seed=len(url))
        lists = []
        for _ in range(40):
            events = [event for _ in range(8) for event in load.task()[1]]
            lists.append(many(events))
        keys = {"batch_max_number_of_messages": 10}
        before = len(api.posts)
        with Alone(subscription(url, api, **keys), tmp_path / publish.__name__) as agent:
            agent.wait_until_connected()
            publish(url, lists)
            agent.wait_for_stat("events_delivered", 40 * 24)
            assert agent.stop() == 0
        posts = api.posts[before:]
        assert {events_of(post) for post in posts} == {10}
        documents = [document for post in posts for document in post.confirmed]
        assert_complete(of_messages(lists), of_documents(documents))


def test_prefetch_bounds_what_is_in_flight_and_all_of_it_is_delivered_in_the_end(
    rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.script(lambda _: Reply(201, silent=True))
    keys = {"prefetch_count": 1_000, "batch_max_number_of_messages": 400}
    with Alone(subscription(amqp_url, api, **keys), tmp_path) as agent:
        agent.wait_until_connected()
        load = Load()
        messages = [one(load.task()[0]) for _ in range(5_000)]
        publish_amqp(amqp_url, messages)
        agent.wait_for_stat("messages_received", 800)
        ready, unacked, _ = rabbitmq.queues(amqp_url)["leek.fanout"]
        assert ready + unacked == 5_000
        assert unacked <= 1_000
        assert agent.stats["messages_received"] <= 1_000
        # The answer was lost, though the API has the documents: they come again.
        api.behave()
        api.cut_connections()
        api.wait_for_events(5_000)
        assert agent.stop() == 0
    assert_complete(of_messages(messages), of_documents(api.confirmed()))
    assert rabbitmq.queues(amqp_url) == {"leek.fanout": (0, 0, 0)}


def test_a_full_prefetch_of_events_without_use_does_not_stop_the_consumer(
    rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    keys = {"batch_max_window_in_seconds": LONGEST_WINDOW_S}
    load = Load()
    foreign = one({**load.task()[0], "type": "shop-opened"})
    with Alone(subscription(amqp_url, api, **keys), tmp_path) as agent:
        agent.wait_until_connected()
        publish_amqp(amqp_url, [foreign] * 3_000)
        agent.wait_for_stat("events_ignored", 3_000)
        assert agent.stop() == 0
    assert api.posts == []
    assert rabbitmq.queues(amqp_url) == {"leek.fanout": (0, 0, 0)}
