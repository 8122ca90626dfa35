"""Connections that say nothing: half open, or in the wrong place."""

import threading
import time

import pytest

from leekfanout.errors import SourceError
from leekfanout.sources import redis_lease, redis_silence
from leekfanout.sources.redis import PING_EVERY_S, RedisSource
from leekfanout.sources.redis_silence import SilenceWatch, diagnose, explain
from tests.inbox import CollectingInbox
from tests.proxy import TcpProxy
from tests.redis_sources import payload, publish, receive, subscription
from tests.waiting import until


@pytest.fixture
def proxy(redis_server):
    with TcpProxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _lease_for_ever(monkeypatch):
    """Let the lease outlast the clocks of these tests, which are none of Redis'."""
    for constant in ("HELD_S", "RENEW_EVERY_S"):
        monkeypatch.setattr(redis_lease, constant, 1_000_000.0)


@pytest.fixture
def source(proxy):
    source = RedisSource(subscription(f"redis://127.0.0.1:{proxy.port}/0"))
    source.connect()
    yield source
    source.close()


def seconds_until_given_up(source: RedisSource) -> float:
    """Turn as the main loop does, on a clock of our own, until the source gives up."""
    now = begun = 1_000.0
    while now < begun + 300:
        source.receive(CollectingInbox(), 10)
        try:
            now = source.tick(now)
        except SourceError:
            return now - begun
    raise AssertionError("The dead connection was kept.")


def test_a_half_open_connection_is_noticed_within_half_a_minute(source, proxy):
    proxy.black_hole = True
    # Up to one interval passes between the last PONG and the first PING that goes nowhere, and
    # connecting again may take some seconds.
    assert seconds_until_given_up(source) + PING_EVERY_S < 26


def test_a_connection_that_answers_its_pings_is_kept(source, proxy):
    now = 1_000.0
    for _ in range(10):
        before = proxy.bytes_forwarded["down"]
        now = source.tick(now)
        until(lambda seen=before: proxy.bytes_forwarded["down"] > seen, 10, "a PONG")
        source.receive(CollectingInbox(), 10)


def test_what_waits_to_be_read_counts_as_an_answer(source, proxy, redis_server):
    """A loop that stood still for long must not give up a connection that is well."""
    now = 1_000.0
    for number in range(5):
        before = proxy.bytes_forwarded["down"]
        with redis_server.client() as client:
            publish(client, 0, b"%d" % number)
        until(lambda seen=before: proxy.bytes_forwarded["down"] > seen, 10, "the message")
        now = source.tick(now)
    inbox = CollectingInbox()
    receive(source, inbox, 5)
    assert inbox.bodies == [b"0", b"1", b"2", b"3", b"4"]


def test_a_tick_before_its_time_changes_nothing(source):
    due = source.tick(1_000.0)
    assert due == pytest.approx(1_000.0 + PING_EVERY_S)
    for _ in range(10):
        assert source.tick(due - 0.001) == due


@pytest.mark.parametrize(("asked", "used"), [(0, PING_EVERY_S), (3, 3), (60, PING_EVERY_S)])
def test_pings_come_as_often_as_asked_for_but_not_less_often_than_needed(redis_url, asked, used):
    source = RedisSource(
        subscription(redis_url, transport_options={"health_check_interval": asked})
    )
    source.connect()
    assert source.tick(time.monotonic()) - time.monotonic() == pytest.approx(used, abs=1)
    source.close()


HEARTBEAT, TASK = "/0.celeryev/worker.heartbeat", "/0.celeryev/task.multi"


@pytest.mark.parametrize(
    ("expected", "heard", "patterns", "words"),
    [
        ("/0.celeryev/*", {HEARTBEAT}, 3, "no task events: start them with -E"),
        ("/1.celeryev/*", {HEARTBEAT}, 3, "published on /0.celeryev/worker.heartbeat, but"),
        ("/0.celeryev/*", {"shop:/0.celeryev/x", "/2.celeryev"}, 3, "global_keyprefix"),
        ("/0.celeryev/*", set(), 5, "5 subscribed patterns"),
        ("/0.celeryev/*", set(), 1, "no worker is connected"),
    ],
)
def test_what_was_heard_is_explained(expected, heard, patterns, words):
    assert words in explain((expected,), heard, patterns)


@pytest.mark.parametrize(
    ("expected", "heard"),
    [("/0.celeryev/*", {HEARTBEAT, TASK}), ("/0.celeryev", {"/0.celeryev"})],
)
def test_where_task_events_arrive_nothing_is_wrong(expected, heard):
    assert explain((expected,), heard, 3) is None


def test_silence_is_looked_into_after_a_minute_and_again_much_later(monkeypatch):
    looked, now = [], 1_000.0
    monkeypatch.setattr(redis_silence, "diagnose", looked.append)
    watch = SilenceWatch(subscription("redis://h/0"))
    for messages, passed_s, looks in (
        *((0, 0, 0), (0, 59, 0), (7, 1, 0), (7, 59, 0), (7, 1, 1)),
        *((7, 599, 1), (7, 1, 2), (8, 1, 2), (8, 60, 3)),
    ):
        now += passed_s
        watch.tick(now, messages)
        until(lambda wanted=looks: len(looked) == wanted, 10, f"{looks} looks")


def test_silence_is_no_symptom_where_heartbeats_are_not_subscribed_to(monkeypatch):
    monkeypatch.setattr(redis_silence, "diagnose", lambda _: pytest.fail("looked"))
    watch = SilenceWatch(subscription("redis://h/0", routing_key="task.#"))
    for now in (0.0, 100.0, 1_000.0):
        watch.tick(now, 0)
    assert "silence" not in {thread.name for thread in threading.enumerate()}


def test_a_wrong_database_is_found_by_listening_more_widely(own_redis, monkeypatch):
    monkeypatch.setattr(redis_silence, "CHANNELS_MAX", 1)
    monkeypatch.setattr(redis_silence, "LISTEN_S", 30.0)
    found = []

    def listen() -> None:
        found.append(diagnose(subscription(own_redis.url(4))))

    thread = threading.Thread(target=listen)
    thread.start()
    with own_redis.client() as client:
        until(
            lambda: client.publish("/5.celeryev/worker.heartbeat", payload(b"{}")), 20, "a listener"
        )
    thread.join(20)
    assert "published on /5.celeryev/worker.heartbeat" in found[0]
    assert "listens to /4.celeryev/*" in found[0]


def test_a_server_without_celery_is_told(own_redis, monkeypatch):
    monkeypatch.setattr(redis_silence, "LISTEN_S", 0.1)
    assert "no worker is connected" in diagnose(subscription(own_redis.url()))


def test_a_diagnosis_of_a_server_that_is_away_says_so(own_redis):
    own_redis.kill()
    with pytest.raises(SourceError, match="refuses connections"):
        diagnose(subscription(own_redis.url()))
