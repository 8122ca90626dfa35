"""Orphans in Redis, made by the real kombu beside a live Celery: these go, all else stays as it was."""

import base64
import contextlib
import functools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import celery.events
import kombu
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from leekfanout.leftovers import redis_orphans_deletion
from leekfanout.leftovers.redis_orphans import Keys, Orphans, find, is_event
from leekfanout.leftovers.redis_orphans_deletion import delete
from tests.celeryapp import Client, Worker, make_app
from tests.waiting import until

KEYS = Keys()
EXCHANGE = kombu.Exchange("celeryev", type="fanout")


def event(number: int = 0) -> dict[str, Any]:
    return {
        "type": "task-sent", "uuid": f"uuid-{number}", "timestamp": 1.5, "hostname": "gen@host",
        "utcoffset": 0, "pid": 1, "clock": number, "args": "(" + "1, " * 50 + ")",
    }  # fmt: skip


class AckingConsumer:
    """An event consumer like the one that fills Redis servers: a fanout queue, with acks."""

    def __init__(self, url: str, queue: str = "leek.fanout", **options: Any) -> None:
        self.connection = kombu.Connection(url, transport_options=options)
        self.received: list[kombu.Message] = []
        self._consumer = kombu.Consumer(
            self.connection,
            queues=[kombu.Queue(queue, EXCHANGE, routing_key="#", durable=True)],
            callbacks=[lambda _, message: self.received.append(message)],
        )
        self._consumer.qos(prefetch_count=10_000)
        self._consumer.consume()
        self._drain_once()  # kombu subscribes when it first waits
        self._options = options
        self._url = url

    def take(self, count: int, priority: int = 0) -> None:
        """Publish ``count`` events and receive them, but ack none."""
        expected = len(self.received) + count
        with kombu.Connection(self._url, transport_options=self._options) as publisher:
            producer = kombu.Producer(publisher, EXCHANGE)
            for number in range(count):
                body = [event(number)] if number % 2 else event(number)
                producer.publish(body, routing_key="task.multi", priority=priority)
        until(lambda: self._drain_once() or len(self.received) >= expected, 20, "the events")

    def close(self) -> None:
        self.connection.close()

    def _drain_once(self) -> None:
        with contextlib.suppress(TimeoutError):
            self.connection.drain_events(timeout=0.05)


def leave_lists_behind(url: str, count: int, queues: tuple[str, ...], **options: Any) -> None:
    """Let a consumer go that hasn't acked ``count`` events, with ``queues`` bound."""
    for queue in queues[1:]:
        AckingConsumer(url, queue, **options).close()
    consumer = AckingConsumer(url, queues[0], **options)
    consumer.take(count)
    consumer.close()


CRASHING_CONSUMER = """
import os, signal, sys
from tests.test_redis_orphans import AckingConsumer
consumer = AckingConsumer(sys.argv[1])
consumer.take(int(sys.argv[2]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def leave_unacked_behind(url: str, count: int) -> None:
    """Let a consumer be killed that hasn't acked ``count`` events."""
    command = [sys.executable, "-c", CRASHING_CONSUMER, url, str(count)]
    finished = subprocess.run(command, check=False, timeout=60)
    assert finished.returncode == -signal.SIGKILL


def make_old(client: redis.Redis) -> None:
    """Let two hours go by for what is unacked."""
    for tag in client.zrange("unacked_index", 0, -1):
        client.zincrby("unacked_index", -7_200, tag)


def contents(client: redis.Redis) -> dict[bytes, Any]:
    """Everything in the database, by key."""
    read = {
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": lambda key: sorted(client.smembers(key)),
        b"hash": client.hgetall,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"string": client.get,
    }
    return {key: read[client.type(key)](key) for key in client.scan_iter()}


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as connected:
        yield connected


def by_name(orphans: Orphans) -> dict[bytes, int]:
    return {queue.name: queue.items for queue in orphans.queues}


def reasons(orphans: Orphans) -> dict[bytes, str | None]:
    return {queue.name: queue.kept_because for queue in orphans.kept}


def test_an_untouched_broker_has_no_orphans(redis_url: str, client: redis.Redis) -> None:
    assert not find(client, KEYS)
    with kombu.Connection(redis_url) as connection:
        connection.SimpleQueue("celery").put({"task": 1})
    assert not find(client, KEYS)


def test_what_an_acking_consumer_leaves_is_found_and_deleted(
    redis_url: str, client: redis.Redis
) -> None:
    leave_lists_behind(redis_url, 30, ("leek.fanout", "dead-1", "dead-2"))
    orphans = find(client, KEYS)
    assert by_name(orphans) == {b"leek.fanout": 30, b"dead-1": 30, b"dead-2": 30}
    assert orphans.size_bytes == pytest.approx(
        sum(client.memory_usage(queue) for queue in by_name(orphans)), rel=0.1
    )

    deleted = delete(client, KEYS, orphans)
    assert (deleted.items, deleted.bindings, deleted.kept) == (90, 3, {})
    assert contents(client) == {}
    assert not find(client, KEYS)


def test_looking_changes_nothing(redis_url: str, client: redis.Redis) -> None:
    leave_lists_behind(redis_url, 5, ("leek.fanout", "dead"))
    before = contents(client)
    find(client, KEYS)
    assert contents(client) == before


def test_lists_of_every_priority_are_found(redis_url: str, client: redis.Redis) -> None:
    consumer = AckingConsumer(redis_url)
    for priority in (0, 3, 6, 9):
        consumer.take(2, priority)
    consumer.close()
    assert by_name(find(client, KEYS)) == {b"leek.fanout": 8}
    assert delete(client, KEYS, find(client, KEYS)).items == 8
    assert contents(client) == {}


def test_a_global_key_prefix_is_kept_to(redis_url: str, client: redis.Redis) -> None:
    leave_lists_behind(redis_url, 4, ("leek.fanout",), global_keyprefix="shop:")
    leave_lists_behind(redis_url, 6, ("leek.fanout",))
    plain = {key: value for key, value in contents(client).items() if b"shop:" not in key}
    keys = Keys(global_keyprefix="shop:")
    assert by_name(find(client, keys)) == {b"leek.fanout": 4}
    assert delete(client, keys, find(client, keys)).items == 4
    assert contents(client) == plain


def test_a_key_prefix_is_no_pattern(client: redis.Redis) -> None:
    member = b"#\x06\x16\x06\x16dead"
    client.sadd("s?[a]\\:_kombu.binding.celeryev", member)
    client.sadd("s?[a]\\:_kombu.binding.other", member)
    client.sadd("s?a:_kombu.binding.celeryev", member)
    client.sadd("sxa:_kombu.binding.other", member)
    assert reasons(find(client, Keys(global_keyprefix="s?[a]\\:"))) == {
        b"dead": "it is bound to the exchange other too"
    }
    assert by_name(find(client, Keys(global_keyprefix="s?a:"))) == {b"dead": 0}


def test_unacked_events_are_found_once_they_are_old(redis_url: str, client: redis.Redis) -> None:
    leave_unacked_behind(redis_url, 7)
    assert client.hlen("unacked") == 7
    assert find(client, KEYS).unacked == 0, "their consumer may still be alive"

    make_old(client)
    orphans = find(client, KEYS)
    assert orphans.unacked == 7
    assert orphans.unacked_bytes > 7 * 200
    assert delete(client, KEYS, orphans).unacked == 7
    assert contents(client) == {}


def test_unacked_events_that_no_index_knows_are_found(redis_url: str, client: redis.Redis) -> None:
    leave_unacked_behind(redis_url, 3)
    client.delete("unacked_index")
    assert find(client, KEYS).unacked == 3


def test_a_monitors_binding_goes_and_the_live_monitor_hears_on(
    redis_url: str, client: redis.Redis
) -> None:
    # Celery's own receiver, as monitors use it. It is not closed in good order by a crash.
    app = make_app(redis_url)
    heard: list[str] = []
    with app.connection_for_read() as connection:
        receiver = celery.events.EventReceiver(
            connection, app=app, handlers={"*": lambda seen: heard.append(seen["uuid"])}
        )
        make_consumer = functools.partial(kombu.Consumer, connection.default_channel)
        [consumer] = receiver.get_consumers(make_consumer, connection.default_channel)
        with consumer:

            def publish_and_hear(name: str) -> None:
                def step() -> bool:
                    with kombu.Connection(redis_url) as publisher:
                        producer = kombu.Producer(publisher, EXCHANGE)
                        producer.publish({**event(), "uuid": name}, routing_key="task.sent")
                    with contextlib.suppress(TimeoutError):
                        connection.drain_events(timeout=0.2)
                    return name in heard

                until(step, 20, "the monitor to hear")

            publish_and_hear("before")
            assert len(find(client, KEYS).queues) == 1
            delete(client, KEYS, find(client, KEYS))
            assert not client.exists(KEYS.bindings)
            publish_and_hear("after")
    app.close()


def test_a_live_celery_stays_as_it_was(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    leave_lists_behind(redis_url, 20, ("leek.fanout", "dead"))
    app = make_app(redis_url)
    pay = app.tasks["shop.tasks.pay"]
    with Worker(redis_url, tmp_path):
        for number in range(4):
            pay.apply_async((number,), queue="nobody-consumes")
            pay.apply_async((number,), queue="nobody-consumes", priority=9)
        for number in range(6):  # the worker takes these and keeps them unacked
            pay.apply_async((number,), countdown=3_600)
        until(lambda: client.zcount("unacked_index", time.time() - 60, "+inf") == 6, 20, "tasks")
        leave_unacked_behind(redis_url, 5)
        make_old(client)
        before = contents(client)

        deleted = delete(client, KEYS, find(client, KEYS))
        after = contents(client)

        assert (deleted.items, deleted.unacked, deleted.kept) == (40, 5, {})
        gone = before.keys() - after.keys()
        permanent = {KEYS.permanent_bindings} & before.keys()  # kombu has them since 5.7
        assert gone == {b"leek.fanout", b"dead", KEYS.bindings} | permanent
        for key in after.keys() - {b"unacked", b"unacked_index"}:
            assert after[key] == before[key], key
        tasks = {tag: value for tag, value in before[b"unacked"].items() if b"shop.tasks" in value}
        assert after[b"unacked"] == tasks
        assert after[b"unacked_index"] == [
            entry for entry in before[b"unacked_index"] if entry[0] in tasks
        ]
        assert len(tasks) == 6
        shoppers = Client(redis_url)
        shoppers.send_all_kinds()
        until(lambda: client.llen("celery") == 0, 20, "the worker to go on")
        shoppers.close()
    app.close()


def task_envelope(url: str, client: redis.Redis, queue: str) -> bytes:
    app = make_app(url)
    app.tasks["shop.tasks.pay"].apply_async((1,), queue=queue)
    app.close()
    item = client.lpop(queue)
    assert isinstance(item, bytes)
    return item


@pytest.mark.parametrize("position", ["first", "last"])
def test_a_queue_that_holds_a_task_is_left_alone(
    redis_url: str, client: redis.Redis, position: str
) -> None:
    leave_lists_behind(redis_url, 10, ("leek.fanout", "dead"))
    task = task_envelope(redis_url, client, "tasks")
    (client.lpush if position == "first" else client.rpush)("dead", task)
    before = client.lrange("dead", 0, -1)

    orphans = find(client, KEYS)
    assert by_name(orphans) == {b"leek.fanout": 10}
    assert reasons(orphans) == {b"dead": "it holds items that are no events"}
    delete(client, KEYS, orphans)
    assert client.lrange("dead", 0, -1) == before
    assert client.scard(KEYS.bindings) == 1


def test_a_task_in_the_middle_stops_the_deletion(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_orphans_deletion, "STEP_MAX_ITEMS", 3)
    leave_lists_behind(redis_url, 20, ("dead",))
    task = task_envelope(redis_url, client, "tasks")
    client.linsert("dead", "BEFORE", client.lindex("dead", 10), task)
    before = client.lrange("dead", 0, -1)

    deleted = delete(client, KEYS, find(client, KEYS))
    assert deleted.kept == {b"dead": "it holds items that are no events"}
    left = client.lrange("dead", 0, -1)
    assert left == before[: len(left)]
    assert task in left
    assert deleted.items == len(before) - len(left) > 0
    assert client.scard(KEYS.bindings) == 1


def test_a_queue_of_another_exchange_too_is_left_alone(redis_url: str, client: redis.Redis) -> None:
    leave_lists_behind(redis_url, 3, ("leek.fanout", "shared", "permanent"))
    with kombu.Connection(redis_url) as connection:
        kombu.Queue("shared", kombu.Exchange("shop", type="direct"), "shared")(connection).declare()
    client.sadd("_kombu.binding_permanent.other", "permanent\x06\x16\x06\x16permanent")
    orphans = find(client, KEYS)
    assert by_name(orphans) == {b"leek.fanout": 3}
    assert reasons(orphans) == {
        b"shared": "it is bound to the exchange shop too",
        b"permanent": "it is bound to the exchange other too",
    }


def test_a_queue_bound_with_a_pattern_is_left_alone(redis_url: str, client: redis.Redis) -> None:
    with kombu.Connection(redis_url) as connection:
        topic = kombu.Exchange("celeryev", type="topic")
        kombu.Queue("topical", topic, "task.#")(connection).declare()
    orphans = find(client, KEYS)
    assert not orphans
    assert "pattern" in str(reasons(orphans)[b"topical"])


def test_a_key_that_is_no_list_is_left_alone(redis_url: str, client: redis.Redis) -> None:
    AckingConsumer(redis_url, "unacked").close()
    client.hset("unacked", "tag", "value")
    assert reasons(find(client, KEYS)) == {b"unacked": "its key holds a hash, no list"}


def test_a_queue_that_is_bound_elsewhere_while_the_question_is_asked_is_left_alone(
    redis_url: str, client: redis.Redis
) -> None:
    leave_lists_behind(redis_url, 3, ("dead",))
    orphans = find(client, KEYS)
    with kombu.Connection(redis_url) as connection:
        kombu.Queue("dead", kombu.Exchange("shop"), "dead")(connection).declare()
    deleted = delete(client, KEYS, orphans)
    assert deleted.items == 0
    assert "another exchange" in deleted.kept[b"dead"]
    assert client.llen("dead") == 3


def test_a_list_that_somebody_reads_is_left_alone(redis_url: str, client: redis.Redis) -> None:
    leave_lists_behind(redis_url, 10, ("dead",))
    orphans = find(client, KEYS)
    client.brpop(["dead"])
    deleted = delete(client, KEYS, orphans)
    assert deleted.kept == {b"dead": "somebody takes items from it"}
    assert client.llen("dead") == 9


class Meddler:
    """Stands between the deletion and Redis: acts once just before a transaction is executed."""

    def __init__(self, client: redis.Redis, *acts: Callable[[], object]) -> None:
        self._client = client
        self._acts = iter(acts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def pipeline(self, **options: Any) -> Any:
        pipe = self._client.pipeline(**options)
        execute = pipe.execute

        def meddle_and_execute(*args: Any, **kwargs: Any) -> Any:
            if pipe.explicit_transaction:
                next(self._acts, lambda: None)()
            return execute(*args, **kwargs)

        pipe.execute = meddle_and_execute
        return pipe


def test_a_task_that_comes_between_look_and_deletion_survives(
    redis_url: str, client: redis.Redis
) -> None:
    leave_lists_behind(redis_url, 10, ("dead",))
    task = task_envelope(redis_url, client, "tasks")
    meddler = Meddler(client, lambda: client.rpush("dead", task))
    deleted = delete(meddler, KEYS, find(client, KEYS))
    assert deleted.kept == {b"dead": "it holds items that are no events"}
    assert client.llen("dead") == 11


def test_a_list_that_comes_back_keeps_its_binding(redis_url: str, client: redis.Redis) -> None:
    leave_lists_behind(redis_url, 2, ("dead", "gone"))
    item = client.lindex("dead", 0)
    orphans = find(client, KEYS)
    client.delete("dead", "gone")
    deleted = delete(Meddler(client, lambda: client.rpush("dead", item)), KEYS, orphans)
    assert deleted.bindings == 1
    assert deleted.kept == {b"dead": "it has new items: run the command again"}
    assert by_name(find(client, KEYS)) == {b"dead": 1}


def test_a_list_that_changes_all_the_time_is_given_up(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_orphans_deletion, "STEP_ATTEMPTS", 3)
    leave_lists_behind(redis_url, 2, ("dead",))
    item = client.lindex("dead", 0)
    meddler = Meddler(client, *[lambda: client.rpush("dead", item)] * 10)
    assert delete(meddler, KEYS, find(client, KEYS)).kept == {b"dead": "it changes all the time"}


def test_a_user_who_may_not_ask_for_memory_gets_an_estimate(
    redis_url: str, client: redis.Redis
) -> None:
    leave_lists_behind(redis_url, 20, ("dead",))
    client.execute_command(
        "ACL", "SETUSER", "limited", "on", "nopass", "~*", "&*", "+@all", "-memory"
    )
    try:
        with redis.Redis.from_url(redis_url, username="limited", password="any") as limited:
            [queue] = find(limited, KEYS).queues
    finally:
        client.acl_deluser("limited")
    bodies = client.lrange("dead", 0, -1)
    assert queue.size_bytes == pytest.approx(sum(map(len, bodies)), rel=0.2)


values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(
    body=values, headers=st.dictionaries(st.text(max_size=5), values), exchange=st.just("celeryev")
)
def test_nothing_with_a_tasks_header_is_an_event(
    body: Any, headers: dict[str, Any], exchange: str
) -> None:
    envelope = {
        "body": json.dumps(body),
        "headers": {**headers, "task": "shop.tasks.pay"},
        "properties": {"delivery_info": {"exchange": exchange}},
    }
    assert not is_event(envelope, exchange)


@given(envelope=values)
def test_whatever_is_in_a_list_can_be_judged(envelope: Any) -> None:
    assert not is_event(envelope, "celeryev")


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, True),
        ({"body": [event(), event()]}, True),
        ({"body": {**event(), "type": "shop-sale"}}, True),
        ({"body": []}, False),
        ({"body": {"id": "1", "task": "t", "args": [], "kwargs": {}}}, False),
        ({"body": [[1], {"type": "x", "timestamp": 1}, {}]}, False),
        ({"body": {**event(), "type": None}}, False),
        ({"exchange": "celery"}, False),
        ({"exchange": ""}, False),
        ({"headers": {"hostname": "h", "task": "shop.tasks.pay"}}, False),
        ({"text": b"\x80\x02}q\x00."}, False),
    ],
)
def test_only_what_is_certainly_an_event_counts_as_one(
    change: dict[str, Any], verdict: bool
) -> None:
    text = change.get("text", json.dumps(change.get("body", event())).encode())
    envelope = {
        "body": base64.b64encode(text).decode(),
        "headers": change.get("headers", {"hostname": "h"}),
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": change.get("exchange", "celeryev")},
        },
    }
    assert is_event(envelope, "celeryev") is verdict
