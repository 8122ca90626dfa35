"""The Redis source against a real Redis."""

import json
import time
from urllib.parse import urlsplit

import kombu
import pytest
import redis

from leekfanout.errors import SourceError
from leekfanout.sources.redis import OVERRUN_BYTES, RedisSource
from tests.brokers import Redis
from tests.inbox import CollectingInbox
from tests.load import Load
from tests.publishers import publish_redis
from tests.redis_sources import payload, publish, receive, subscription
from tests.waiting import until


@pytest.fixture
def connect():
    sources = []

    def connect(*urls: str, **keys) -> RedisSource:
        source = RedisSource(subscription(*urls, **keys))
        sources.append(source)
        source.connect()
        return source

    yield connect
    for source in sources:
        source.close()


@pytest.fixture
def client(redis_server):
    with redis_server.client() as client:
        yield client


def database(url: str) -> int:
    return int(urlsplit(url).path[1:])


def test_what_is_published_is_received_in_order_with_tags_from_one(redis_url, client, connect):
    source, inbox = connect(redis_url), CollectingInbox()
    bodies = [b'{"n": %d}' % n for n in range(500)]
    publish(client, database(redis_url), *bodies)
    receive(source, inbox, 500)
    assert inbox.bodies == bodies
    assert inbox.tags == list(range(1, 501))
    assert {content_type for _, _, content_type in inbox.messages} == {"application/json"}


def test_bodies_of_any_size_come_through(redis_url, client, connect):
    source, inbox = connect(redis_url), CollectingInbox()
    bodies = [b"x" * size for size in (1, 32_767, 32_768, 32_769, 2, 3_000_000, 0)]
    publish(client, database(redis_url), *bodies)
    receive(source, inbox, len(bodies))
    assert inbox.bodies == bodies


def test_no_more_than_the_limit_is_given_at_once(redis_url, client, connect):
    source, inbox = connect(redis_url), CollectingInbox()
    publish(client, database(redis_url), *[b"{}"] * 30)
    receive(source, inbox, 1, limit=1)
    assert len(inbox.messages) == 1
    until(lambda: source.receive(inbox, 10) or len(inbox.messages) > 1, 10, "more messages")
    assert len(inbox.messages) <= 11
    receive(source, inbox, 30, limit=7)
    assert source.receive(inbox, 7) is False


def test_an_unusable_message_costs_only_itself(redis_url, client, connect):
    source, inbox = connect(redis_url), CollectingInbox()
    channel = f"/{database(redis_url)}.celeryev/task.sent"
    for each in (payload(b"1"), b"{", payload(b"2"), b"", payload(b"3")):
        client.publish(channel, each)
    receive(source, inbox, 3)
    assert [(tag, body) for tag, body, _ in inbox.messages] == [(1, b"1"), (3, b"2"), (5, b"3")]
    assert [(tag, payload) for tag, payload, _ in inbox.refused] == [(2, b"{"), (4, b"")]
    assert "not JSON" in inbox.refused[0][2]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"global_keyprefix": "shop:"},
        {"global_keyprefix": "[shop]*:"},
        {"fanout_prefix": False},
        {"fanout_prefix": "/events-{db}."},
        {"fanout_patterns": False},
        {"fanout_patterns": False, "fanout_prefix": False, "global_keyprefix": "shop:"},
    ],
    ids=str,
)
def test_what_kombu_publishes_with_the_same_options_is_heard(own_redis, connect, options):
    source, inbox = connect(own_redis.url(3), transport_options=options), CollectingInbox()
    exchange = kombu.Exchange("celeryev", type="fanout")
    with kombu.Connection(own_redis.url(3), transport_options=options) as connection:
        producer = kombu.Producer(connection, exchange, serializer="json")
        for number in range(3):
            producer.publish({"n": number}, routing_key="task.sent", declare=[exchange])
    receive(source, inbox, 3)
    assert [json.loads(body) for body in inbox.bodies] == [{"n": n} for n in range(3)]


def test_other_databases_exchanges_and_routing_keys_are_not_heard(redis_url, client, connect):
    source, inbox = connect(redis_url, routing_key="task.#"), CollectingInbox()
    mine = database(redis_url)
    for channel in (f"/{mine}0.celeryev/task.x", f"/{mine}.other/task.x", f"/{mine}.celeryev/x"):
        client.publish(channel, payload(b"not mine"))
    publish(client, mine, b"mine")
    receive(source, inbox, 1)
    assert inbox.bodies == [b"mine"]


def test_what_comes_on_the_old_channel_too_is_taken_once(redis_url, client, connect):
    options = {"sentinel_fanout_compat": True}
    source, inbox = connect(redis_url, transport_options=options), CollectingInbox()
    both, new, old = payload(b"both"), payload(b"new"), payload(b"old")
    numbered, literal = f"/{database(redis_url)}.celeryev/x", "/{db}.celeryev/x"
    for channel, each in ((numbered, both), (literal, both), (numbered, new), (literal, old)):
        client.publish(channel, each)
    receive(source, inbox, 3)
    assert inbox.bodies == [b"both", b"new", b"old"]
    assert inbox.tags == [1, 2, 3]


def test_nothing_but_a_lease_is_stored_and_the_connection_has_a_name(own_redis, connect):
    connect(own_redis.url())
    with own_redis.client() as client:
        (lease,) = client.keys()
        assert lease.startswith(b"leekfanout.lease.acme/shop/qa.")
        assert 0 < client.pttl(lease) <= 10_000
        assert "leekfanout-shop-qa" in [each["name"] for each in client.client_list()]


def test_after_stop_consuming_what_was_sent_still_arrives_and_no_more(redis_url, client, connect):
    source, inbox = connect(redis_url), CollectingInbox()
    publish(client, database(redis_url), *[b"before"] * 100)
    source.stop_consuming()

    def nobody_listens() -> bool:
        source.tick(time.monotonic())
        return publish(client, database(redis_url), b"late") == 0

    until(nobody_listens, 10, "the end of consuming")
    assert source.still_arriving
    until(lambda: source.receive(inbox, 1_000) or not source.still_arriving, 10, "the end")
    assert inbox.bodies.count(b"before") == 100
    source.tick(time.monotonic())  # the connection is still there


def test_a_server_that_goes_is_noticed_and_one_that_is_back_is_heard(own_redis, connect):
    source, inbox = connect(own_redis.url()), CollectingInbox()
    with own_redis.client() as client:
        publish(client, 0, b"1", b"2")
    receive(source, inbox, 2)
    own_redis.kill()
    with pytest.raises(SourceError, match="closed the connection"):
        receive(source, inbox, 3)
    with pytest.raises(SourceError, match="refuses connections: is the broker running"):
        source.connect()
    own_redis.start()
    source.connect()
    with own_redis.client() as client:
        publish(client, 0, b"3")
    receive(source, inbox, 3)
    assert inbox.tags == [1, 2, 1]


def test_failover_addresses_are_tried_in_turn_from_the_one_that_worked(own_redis, redis_server):
    own_redis.kill()
    source = RedisSource(subscription(own_redis.url(), redis_server.url(), own_redis.url()))
    with pytest.raises(SourceError, match=str(own_redis.port)):
        source.connect()
    source.connect()
    assert str(redis_server.port) in source.address
    source.connect()
    assert str(redis_server.port) in source.address
    source.close()


def test_a_subscriber_that_redis_cuts_off_for_reading_too_slowly_is_told_why(connect):
    with Redis("--client-output-buffer-limit", "pubsub 1mb 0 0") as server:
        source, inbox = connect(server.url()), CollectingInbox()
        with server.client() as client:
            flood = [b"x" * 100_000] * 20
            until(lambda: publish(client, 0, *flood) == 0, 60, "Redis to cut the subscriber off")
        with pytest.raises(SourceError, match="client-output-buffer-limit"):
            receive(source, inbox, 1_000_000)
        assert sum(map(len, inbox.bodies)) > OVERRUN_BYTES / 2


def test_fifty_thousand_messages_arrive_complete(redis_url, connect):
    source, inbox = connect(redis_url), CollectingInbox()
    published = []
    messages = Load().messages(50_000)
    for _ in range(100):
        published += publish_redis(redis_url, [next(messages) for _ in range(500)])
        receive(source, inbox, len(published))
    assert inbox.bodies == [message.body for message in published]
    assert len(published) == 50_000


def test_closing_is_quiet_whatever_the_state(redis_url):
    source = RedisSource(subscription(redis_url))
    source.close()
    source.connect()
    source.close()
    source.close(wait_s=1)


def test_no_database_is_selected(redis_server, connect):
    source, inbox = connect(redis_server.url(123_456_789)), CollectingInbox()
    with redis_server.client() as client:
        publish(client, 123_456_789, b"{}")
    receive(source, inbox, 1)
    with pytest.raises(redis.ResponseError), redis_server.client() as client:
        client.select(123_456_789)
