"""The load, the publishers, the recorder and the counting agree with Celery and with each other."""

import itertools

import orjson
import pytest
import redis
from kombu import Connection, Exchange, Queue

from tests import accounting
from tests.accounting import Recorder, assert_complete, assert_nothing_lost, balance, of_documents
from tests.load import Load, many, one
from tests.publishers import publish_amqp, publish_redis


def document(uuid: str, *states: str, hidden: int = 0) -> dict[str, object]:
    return {
        "id": uuid,
        "kind": "task",
        "events": list(states),
        "events_count": len(states) + hidden,
    }


@pytest.mark.parametrize("count", [1, 2, 3, 10, 97, 1_000])
def test_a_load_has_exactly_so_many_messages_and_every_event_once(count: int) -> None:
    messages = list(Load(seed=count).messages(count))
    assert len(messages) == count
    events = accounting.of_messages(messages)
    assert set(events.values()) == {1}
    assert events == accounting.of_bodies(message.body for message in messages)
    if count >= 97:
        assert {kind for _, kind in events} >= {"task-sent", "task-received", "task-succeeded"}
        assert max(len(message.events) for message in messages) > 1


def test_two_loads_share_no_task() -> None:
    first = accounting.of_messages(Load(seed=1).messages(50))
    second = accounting.of_messages(Load(seed=2).messages(50))
    tasks = [{uuid for uuid, kind in each if kind != "worker"} for each in (first, second)]
    assert not tasks[0] & tasks[1]


def test_merged_documents_count_as_the_events_they_were_made_of() -> None:
    sent, worker = Load(failing=0).task()
    events = accounting.of_messages([one(sent), many(worker)])
    uuid = sent["uuid"]
    merged = of_documents([document(uuid, "SUCCEEDED", "STARTED", "RECEIVED", "QUEUED")])
    assert_complete(events, merged)
    apart = of_documents([document(uuid, "QUEUED"), document(uuid, "SUCCEEDED", "STARTED")])
    assert dict(balance(events, apart).lost) == {(uuid, "task-received"): 1}
    with pytest.raises(AssertionError, match="lost 1"):
        assert_complete(events, apart)
    twice = of_documents([document(uuid, "QUEUED")])
    assert assert_nothing_lost(events, merged, twice) == 1
    with pytest.raises(AssertionError, match="surplus 1"):
        assert_complete(events, merged, twice)
    with pytest.raises(AssertionError, match="never sent"):
        assert_nothing_lost(events, merged, of_documents([document("stranger", "QUEUED")]))


def test_events_that_a_document_no_longer_lists_are_counted_all_the_same() -> None:
    sent, _ = Load().task()
    retried = [one({**sent, "type": "task-retried"}) for _ in range(25)]
    events = accounting.of_messages(retried)
    listed = of_documents([document(sent["uuid"], *["RETRY"] * 21, hidden=4)])
    assert_complete(events, listed)
    short = of_documents([document(sent["uuid"], *["RETRY"] * 21, hidden=3)])
    assert balance(events, short).lost.total() == 1
    long = of_documents([document(sent["uuid"], *["RETRY"] * 21, hidden=5)])
    assert balance(events, long).surplus.total() == 1


def test_a_recorder_on_rabbitmq_hears_all_that_is_published(amqp_url: str) -> None:
    with Recorder(amqp_url) as recorder:
        published = publish_amqp(amqp_url, Load().messages(500))
    assert_complete(accounting.of_messages(published), recorder.counted())


def test_a_recorder_on_redis_hears_all_that_is_published(redis_url: str) -> None:
    with Recorder(redis_url) as recorder:
        published = publish_redis(redis_url, Load().messages(500))
    assert len(published) == 500
    assert_complete(accounting.of_messages(published), recorder.counted())


def test_the_envelope_is_what_kombu_publishes(redis_url: str) -> None:
    message = one(Load().task()[0])
    with redis.Redis.from_url(redis_url) as client, client.pubsub() as pubsub:
        pubsub.psubscribe("*")
        assert pubsub.get_message(timeout=10)["type"] == "psubscribe"
        publish_redis(redis_url, [message])
        exchange = Exchange("celeryev", type="fanout")
        with Connection(redis_url) as connection, connection.Producer() as producer:
            producer.publish(
                message.body,
                exchange=exchange,
                declare=[exchange],
                routing_key=message.routing_key,
                delivery_mode=1,
                headers={"hostname": "celery@worker"},
                content_type="application/json",
                content_encoding="utf-8",
            )
        ours, kombus = (pubsub.get_message(timeout=10) for _ in range(2))
    assert ours["channel"] == kombus["channel"]
    envelopes = [orjson.loads(each["data"]) for each in (ours, kombus)]
    for each in envelopes:
        each["properties"].pop("delivery_tag")
    assert envelopes[0] == envelopes[1]


def test_what_nobody_hears_on_redis_is_not_counted_as_published(redis_url: str) -> None:
    assert publish_redis(redis_url, Load().messages(3)) == []


def test_confirmed_messages_wait_in_a_queue_and_can_be_counted_there(amqp_url: str) -> None:
    exchange = Exchange("celeryev", type="topic", durable=True)
    with Connection(amqp_url) as connection:
        Queue("leek.fanout", exchange, routing_key="#")(connection.default_channel).declare()
    published = publish_amqp(amqp_url, Load().messages(20), persistent=True, confirm=True)
    assert_complete(accounting.of_messages(published), accounting.at_broker(amqp_url))
    assert accounting.at_broker(amqp_url).total() == 0


def test_the_events_of_a_task_are_in_the_shape_that_celery_gives_them() -> None:
    sent, worker = Load().task()
    assert set(sent) == {
        *("hostname", "utcoffset", "pid", "clock", "uuid", "root_id", "parent_id", "name", "args"),
        *("kwargs", "retries", "eta", "expires", "queue", "exchange", "routing_key"),
        *("timestamp", "type"),
    }
    clocks = [event["clock"] for event in (sent, *worker)]
    assert all(earlier < later for earlier, later in itertools.pairwise(clocks))
    assert orjson.loads(one(sent).body) == sent
