"""Sentinel: the master is found, and followed when another server becomes it."""

import time

import pytest

from leekfanout.configuration.addresses import parse_address
from leekfanout.errors import SourceError, SourceRefusedError
from leekfanout.sources import redis_sentinel
from leekfanout.sources.redis import RedisSource
from leekfanout.sources.redis_sentinel import MasterWatch
from tests.brokers import SentinelSetup, client
from tests.inbox import CollectingInbox
from tests.processes import free_ports
from tests.redis_sources import publish, receive, subscription
from tests.waiting import until

PASSWORD = "s3cret-and-long"


def sentinel_source(setup: SentinelSetup, url: str | None = None, **options) -> RedisSource:
    (nobody,) = free_ports(1)  # a sentinel that is away must not matter
    urls = (url or setup.sentinel.url(2), f"sentinel://127.0.0.1:{nobody}")
    return RedisSource(
        subscription(*urls, transport_options={"master_name": "mymaster", **options})
    )


@pytest.fixture
def source(sentinel):
    source = sentinel_source(sentinel)
    source.connect()
    yield source
    source.close()


def hears(source: RedisSource, port: int) -> None:
    """Check that what is published at the server on ``port`` arrives."""
    inbox = CollectingInbox()
    with client(port) as publisher:
        assert publish(publisher, 2, b"event") >= 1
    receive(source, inbox, 1)
    assert inbox.bodies == [b"event"]


def lost(source: RedisSource) -> bool:
    try:
        source.receive(CollectingInbox(), 100)
        source.tick(time.monotonic())
    except SourceError:
        return True
    return False


def connects(source: RedisSource) -> bool:
    try:
        source.connect()
    except SourceError:
        return False
    return True


def test_the_masters_messages_are_heard_in_the_first_urls_database(source, sentinel):
    assert f"master redis://127.0.0.1:{sentinel.master.port}" in source.address
    hears(source, sentinel.master.port)


def test_after_the_masters_death_the_new_one_is_heard(source, sentinel):
    sentinel.master.kill()
    until(lambda: lost(source), 20, "the loss to be noticed")
    until(lambda: connects(source), 60, "the new master")
    assert sentinel.sentinel.master_port() == sentinel.replica.port
    hears(source, sentinel.replica.port)


def test_a_failover_that_was_ordered_is_followed(source, sentinel):
    with client(sentinel.sentinel.port) as asked:
        until(lambda: sentinel.replica.client().info()["master_link_status"] == "up", 30, "a link")
        asked.execute_command("SENTINEL", "FAILOVER", "mymaster")
    until(lambda: lost(source), 60, "the old master to be left")
    until(lambda: connects(source), 60, "the new master")
    assert str(sentinel.replica.port) in source.address
    hears(source, sentinel.replica.port)


def test_a_server_that_sentinel_wrongly_holds_for_the_master_is_not_used(sentinel, monkeypatch):
    source = sentinel_source(sentinel)
    replica = parse_address(f"redis://127.0.0.1:{sentinel.replica.port}/0")
    monkeypatch.setattr("leekfanout.sources.redis.find_master", lambda *_: replica)
    with pytest.raises(SourceError, match="no longer the master"):
        source.connect()


def test_a_master_that_the_sentinels_have_replaced_is_left(monkeypatch):
    old, new = parse_address("redis://10.0.0.1:1/0"), parse_address("redis://10.0.0.2:2/0")
    answers = [SourceError("no sentinel answers"), old, new]

    def find_master(*_):
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, SourceError):
            raise answer
        return answer

    monkeypatch.setattr(redis_sentinel, "find_master", find_master)
    watch = MasterWatch(subscription("sentinel://h"), (), old)
    now, said = 0.0, ""
    deadline = time.monotonic() + 10
    while not said and time.monotonic() < deadline:
        try:
            watch.tick(now)
        except SourceError as error:
            said = str(error)
        now += redis_sentinel.ASK_EVERY_S
        time.sleep(0.001)
    assert "Sentinel has made 10.0.0.2:2 the master" in said


def test_a_name_that_no_sentinel_knows_is_told(sentinel):
    source = sentinel_source(sentinel, master_name="othermaster")
    with pytest.raises(SourceError, match="none knows a master othermaster"):
        source.connect()


def test_the_urls_password_is_the_masters_and_sentinels_have_their_own(sentinel):
    with client(sentinel.sentinel.port) as asked, sentinel.master.client() as master:
        asked.execute_command("SENTINEL", "SET", "mymaster", "auth-pass", PASSWORD)
        rules = ("on", "resetpass", f">{PASSWORD}-of-sentinel")
        asked.execute_command("ACL", "SETUSER", "default", *rules)
        master.config_set("requirepass", PASSWORD)
    port = sentinel.sentinel.port
    kwargs = {"sentinel_kwargs": {"password": f"{PASSWORD}-of-sentinel"}}
    source = sentinel_source(sentinel, f"sentinel://:{PASSWORD}@127.0.0.1:{port}/2", **kwargs)
    source.connect()
    assert PASSWORD not in source.address
    source.close()
    with pytest.raises(SourceRefusedError, match="asks for a password"):
        sentinel_source(sentinel, f"sentinel://127.0.0.1:{port}/2", **kwargs).connect()
    with pytest.raises(SourceError) as caught:
        sentinel_source(sentinel, f"sentinel://:{PASSWORD}@127.0.0.1:{port}/2").connect()
    assert PASSWORD not in str(caught.value)
