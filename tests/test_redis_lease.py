"""The lease: what it is for, who holds it, and that two never think they do."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from leekfanout.errors import SourceError, SourceStandbyError
from leekfanout.sources import redis_holder, redis_lease
from leekfanout.sources.redis import RedisSource
from leekfanout.sources.redis_channels import channels
from leekfanout.sources.redis_holder import holder_in
from leekfanout.sources.redis_lease import (
    HELD_S,
    LEASE_S,
    RENEW_EVERY_S,
    Other,
    Tenure,
    is_answer,
    lease_key,
)
from tests.inbox import CollectingInbox
from tests.processes import free_ports
from tests.redis_sources import publish, receive, subscription
from tests.waiting import until

OTHER = f"{32 * '0'} host-b:7"
SECRET = "s3cret-and-long"


def key(database: int = 0, host: str = "host-a", **keys) -> str:
    wanted = replace(subscription("redis://broker"), api_url="http://leek:5000")
    wanted = replace(wanted, **keys)
    return lease_key(wanted, channels(wanted, database), host)


def test_the_lease_is_the_same_wherever_the_same_events_go_to_the_same_application():
    assert key().startswith("leekfanout.lease.acme/shop/qa.")
    assert key() == key(host="host-b", broker=("redis://:password@elsewhere",))
    assert key() == key(app_key="another", prefetch_count=2_000)
    assert key() == key(api_url=f"http://user:{SECRET}@leek:5000")
    assert SECRET not in key(api_url=f"http://user:{SECRET}@leek:5000", app_key=SECRET)


@pytest.mark.parametrize(
    "different",
    [
        {"database": 1},
        {"exchange": "other"},
        {"routing_key": "task.#"},
        {"org_name": "other"},
        {"app_name": "other"},
        {"app_env": "other"},
        {"api_url": "http://leek:5001"},
        {"api_url": "https://leek:5000"},
        {"api_url": "http://leek:5000/below"},
        {"transport_options": {"fanout_patterns": False}},
        {"transport_options": {"global_keyprefix": "shop:"}},
    ],
    ids=str,
)
def test_what_differs_in_events_or_application_has_a_lease_of_its_own(different):
    assert key(**different) != key()


@pytest.mark.parametrize(
    "url",
    ["http://localhost:5000", "http://127.0.0.1", "http://[::1]:5000", "http://0.0.0.0:5000"],
)
def test_an_api_on_this_host_is_another_one_on_each_host(url):
    assert key(api_url=url) == key(api_url=url)
    assert key(api_url=url) != key(api_url=url, host="host-b")


def test_a_prefix_of_kombus_keys_is_the_leases_too():
    assert key(transport_options={"global_keyprefix": "shop:"}).startswith("shop:leekfanout.lease.")


class Server:
    """The lease at Redis: whose it is, and until when."""

    def __init__(self) -> None:
        self.holder = ""
        self.until = 0.0

    def take(self, who: str, now: float) -> Other | None:
        if self.holder not in {"", who} and now < self.until:
            return Other(self.holder, self.until - now)
        self.holder, self.until = who, now + LEASE_S
        return None


DELAYS = st.floats(0, 3 * LEASE_S)


@given(
    st.lists(st.tuples(st.sampled_from("AB"), DELAYS, DELAYS, DELAYS), min_size=1, max_size=40),
)
def test_two_never_think_at_once_that_the_lease_is_theirs(rounds):
    """Whatever time questions and answers take, and however long a process stands still."""
    server = Server()
    tenures = {"A": Tenure(), "B": Tenure()}
    free_at = {"A": 0.0, "B": 0.0}
    steps = []
    for who, idle_s, there_s, back_s in rounds:
        asked_at = free_at[who] + idle_s
        free_at[who] = asked_at + there_s + back_s
        steps.append((asked_at + there_s, 0, who, asked_at))
        steps.append((free_at[who], 1, who, asked_at))
    answers = {}
    for at, kind, who, asked_at in sorted(steps):
        if kind == 0:
            answers[who, asked_at] = server.take(who, at)
        else:
            tenures[who].answered(asked_at, answers[who, asked_at])
        assert not (tenures["A"].lasts(at) and tenures["B"].lasts(at))


@given(st.lists(st.floats(0.1, HELD_S - 0.1), max_size=20))
def test_a_lease_that_is_renewed_in_time_lasts(pauses):
    tenure, now = Tenure(), 100.0
    tenure.answered(now, None)
    for pause in pauses:
        now += pause
        assert tenure.lasts(now)
        tenure.answered(now, None)
    assert not tenure.lasts(now + HELD_S)


def test_an_answer_to_an_older_question_takes_nothing_away():
    tenure = Tenure()
    tenure.answered(100.0, None)
    tenure.answered(99.0, None)
    assert tenure.lasts(100.0 + HELD_S - 0.1)


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (redis.exceptions.NoPermissionError("this user has no permissions"), True),
        (redis.ReadOnlyError("You can't write against a read only replica."), True),
        (redis.exceptions.OutOfMemoryError("command not allowed"), True),
        (redis.AuthenticationError("invalid password"), True),
        (redis.BusyLoadingError("Redis is loading the dataset in memory"), True),
        (redis.ConnectionError("max number of clients reached"), True),
        (redis.ConnectionError("Connection closed by server."), False),
        (redis.TimeoutError("Timeout reading from socket"), False),
        (ConnectionRefusedError(), False),
        (AttributeError(), False),
    ],
    ids=repr,
)
def test_a_no_of_redis_is_told_from_silence(error, answer):
    assert is_answer(error) is answer


def test_a_token_is_kept_and_never_shared(tmp_path, monkeypatch):
    folders = [tmp_path / name for name in "abc"]
    for folder in folders[:2]:
        folder.mkdir()
        kept = holder_in(folder)
        with monkeypatch.context() as later:
            later.setattr(redis_holder, "_RANDOM", "another run's")
            assert holder_in(folder) == kept
    assert (folders[0] / "lease").stat().st_mode & 0o777 == 0o600
    # There is no third folder, so nothing can be kept there.
    assert len({holder_in(each) for each in (*folders, None)}) == 3
    monkeypatch.setattr(redis_holder, "_HOST", "another")
    assert holder_in(folders[1]) != kept


@pytest.mark.parametrize("damage", [b"", b"short", b"\xff" * 32])
def test_a_damaged_token_is_replaced(tmp_path, damage):
    (tmp_path / "lease").write_bytes(damage)
    assert holder_in(tmp_path) == holder_in(tmp_path)
    assert (tmp_path / "lease").read_bytes() != damage


@pytest.fixture
def server(own_redis):
    with own_redis.client() as client:
        yield client


@pytest.fixture
def source(own_redis):
    source = RedisSource(subscription(own_redis.url()))
    yield source
    source.close()


def lease_of(client: redis.Redis) -> bytes | None:
    return next(client.scan_iter(f"leekfanout.lease.*.{16 * '[0-9a-f]'}"), None)


def stand_by(source: RedisSource, client: redis.Redis, milliseconds: int) -> bytes:
    """Let another agent hold the lease, and let the source find that out; return the key."""
    source.connect()
    name = lease_of(client)
    assert name is not None
    client.set(name, OTHER, px=milliseconds)
    with pytest.raises(SourceStandbyError) as caught:
        source.connect()
    assert caught.value.holder == "host-b:7"
    return name


def test_who_stands_by_hears_nothing_and_leaves_the_lease_alone(source, server):
    name = stand_by(source, server, 60_000)
    assert publish(server, 0, b"event") == 0
    assert server.get(name).decode() == OTHER
    assert server.pttl(name) > 50_000


def test_a_lease_that_is_over_is_taken(source, server):
    name = stand_by(source, server, 500)
    source.connect()
    assert server.get(name).decode() != OTHER
    assert publish(server, 0, b"event") == 1


@pytest.fixture
def second(own_redis, tmp_path):
    """Another agent's source."""
    source = RedisSource(subscription(own_redis.url()), tmp_path)
    yield source
    source.close()


def tick(source: RedisSource) -> None:
    source.tick(time.monotonic())


def leave(source: RedisSource) -> None:
    """Do what the pipeline does with a source that it has told to stop."""
    tick(source)
    source.receive(CollectingInbox(), 10)


def test_a_lease_that_is_given_back_is_taken_at_once(source, second, server, tmp_path):
    source.connect()
    with pytest.raises(SourceStandbyError):
        second.connect()
    server.persist(lease_of(server))  # it isn't its end that is waited for
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(second.connect)
        until(lambda: server.info("clients")["blocked_clients"] == 1, 10, "the second to wait")
        source.stop_consuming()
        until(lambda: leave(source) or taking.done(), 10, "the second to take over")
        taking.result()
    assert server.get(lease_of(server)).decode() == holder_in(tmp_path)
    until(lambda: publish(server, 0, b"event") == 1, 10, "the first to leave")


def test_while_one_hands_over_to_another_somebody_always_hears(source, second, server):
    source.connect()
    with pytest.raises(SourceStandbyError):
        second.connect()
    heard = []
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(second.connect)
        until(lambda: server.info("clients")["blocked_clients"] == 1, 10, "the second to wait")
        source.stop_consuming()

        def handed_over() -> bool:
            leave(source)
            heard.append(publish(server, 0, b"event"))
            return taking.done() and heard[-1] == 1

        until(handed_over, 10, "the first to leave")
        taking.result()
    assert min(heard) >= 1


def test_nobody_waits_so_the_end_isnt_put_off(source, server, monkeypatch):
    monkeypatch.setattr("leekfanout.sources.redis_hand_over.HAND_OVER_S", 1_000_000.0)
    source.connect()
    source.stop_consuming()
    until(lambda: tick(source) or publish(server, 0, b"late") == 0, 10, "the end of consuming")
    source.close(wait_s=1)
    until(lambda: not server.keys(), 10, "nothing to be left")


def test_who_has_lost_the_lease_stands_by(source, server):
    source.connect()
    server.set(lease_of(server), OTHER, px=60_000)

    def told() -> bool:
        try:
            source.tick(time.monotonic() + RENEW_EVERY_S)
        except SourceStandbyError:
            return True
        return False

    until(told, 10, "the loss to be noticed")


def test_what_comes_while_the_lease_is_in_doubt_waits_and_is_heard_if_it_is_ours(source, server):
    inbox = CollectingInbox()
    source.connect()
    source.tick(time.monotonic() + LEASE_S)
    assert source.fileno() == -1
    publish(server, 0, b"event")
    assert not source.receive(inbox, 10)
    assert inbox.messages == []
    until(lambda: tick(source) or source.fileno() >= 0, 10, "the lease to be renewed")
    receive(source, inbox, 1)
    assert inbox.bodies == [b"event"]


def test_who_cannot_subscribe_leaves_the_lease_to_others(own_redis, server):
    rules = ("+@all", "~*", "resetchannels", "on", f">{SECRET}")
    server.execute_command("ACL", "SETUSER", "deaf", *rules)
    source = RedisSource(subscription(f"redis://deaf:{SECRET}@127.0.0.1:{own_redis.port}/0"))
    with pytest.raises(SourceError, match="subscribe"):
        source.connect()
    assert server.keys("leekfanout.lease.*") == server.keys("*.released")


def test_the_permissions_that_the_docs_name_suffice(own_redis, server):
    text = " ".join((Path(__file__).parents[1] / "docs" / "scaling.md").read_text().split())
    keys, channels, commands = re.findall(r"`([~&+][^`]*)`", text)
    rules = (
        *(keys, *commands.split(), "+auth", "+ping", "+psubscribe", "+punsubscribe"),
        *("resetchannels", channels, "&/0.celeryev/*"),
    )
    server.execute_command("ACL", "SETUSER", "leek", "reset", "on", f">{SECRET}", *rules)
    source = RedisSource(subscription(f"redis://leek:{SECRET}@127.0.0.1:{own_redis.port}/0"))
    name = stand_by(source, server, 500)
    source.connect()
    source.tick(time.monotonic() + RENEW_EVERY_S)
    source.stop_consuming()
    until(lambda: leave(source) or not source.still_arriving, 10, "the end of consuming")
    source.close(wait_s=1)
    assert not server.exists(name)
    assert {entry["object"] for entry in server.acl_log()} <= {"client|setname"}


def may_not(server: redis.Redis) -> None:
    server.execute_command("ACL", "SETUSER", "default", "-eval")


def is_a_replica(server: redis.Redis) -> None:
    server.replicaof("127.0.0.1", free_ports(1)[0])


def has_no_memory(server: redis.Redis) -> None:
    server.config_set("maxmemory", 1)


@pytest.mark.parametrize("trouble", [may_not, is_a_replica, has_no_memory])
def test_a_redis_that_grants_no_lease_is_heard_all_the_same(source, server, trouble, caplog):
    trouble(server)
    inbox = CollectingInbox()
    with caplog.at_level("WARNING", "leekfanout"):
        source.connect()
        for _ in range(3):
            source.tick(time.monotonic() + RENEW_EVERY_S)
        publish(server, 0, b"event")
        receive(source, inbox, 1)
        source.connect()
    assert inbox.bodies == [b"event"]
    assert [record.message for record in caplog.records].count("lease.unavailable") == 1


def test_who_may_not_wait_asks_again(source, server, monkeypatch):
    monkeypatch.setattr(redis_lease, "RENEW_EVERY_S", 0.1)
    server.execute_command("ACL", "SETUSER", "default", "-blpop")
    stand_by(source, server, 300)

    def taken() -> bool:
        try:
            source.connect()
        except SourceStandbyError:
            return False
        return True

    until(taken, 10, "the lease")
