"""Two agents on one Redis: one delivers, the other stands by and takes over."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import pytest
import redis

from leekfanout.status.stats import Condition
from tests.accounting import assert_complete, assert_nothing_lost, of_documents, of_messages
from tests.agent import Agent, Alone, subscription
from tests.api_double import ApiDouble
from tests.brokers import Redis, SentinelSetup
from tests.load import Event, Load, Message
from tests.publishers import publish_redis
from tests.waiting import until

SHORT_LEASES: Mapping[str, float] = {
    "sources.redis_lease.LEASE_S": 2.0,
    "sources.redis_lease.HELD_S": 1.5,
    "sources.redis_lease.RENEW_EVERY_S": 0.5,
}
"""Over in a fifth of the time."""


@contextmanager
def two_agents(
    url: str, api: ApiDouble, folder: Path, **keys: object
) -> Iterator[tuple[Alone, Alone]]:
    """One that delivers, and one that stands by."""
    entry = subscription(url, api, **keys)
    with Alone(entry, folder / "first", constants=SHORT_LEASES) as first:
        first.wait_until_connected()
        with Alone(entry, folder / "second", constants=SHORT_LEASES) as second:
            wait_for(second, Condition.STANDING_BY)
            yield first, second


def wait_for(agent: Alone, condition: Condition) -> None:
    until(lambda: agent.stats.get("condition") == condition, 30, f"an agent to be {condition!r}")


def hearers(url: str) -> int:
    """How many agents are subscribed at a Redis."""
    with redis.Redis.from_url(url, socket_timeout=10) as client:
        names = [each["name"] for each in client.client_list(_type="pubsub")]
    return names.count("leekfanout-shop-prod")


def is_standby_of(agent: Alone, other: Alone) -> bool:
    return agent.stats["lease_holder"] == f"{socket.gethostname()}:{other.process.pid}"


def test_of_two_agents_one_delivers_and_the_other_stands_by(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    with two_agents(redis_url, api, tmp_path) as (first, second):
        assert is_standby_of(second, first)
        assert hearers(redis_url) == 1
        sent = of_messages(publish_redis(redis_url, Load(seed=81).messages(500)))
        api.wait_for_events(sent.total())
        assert second.stats["events_received"] == 0
        assert second.stop() == 0  # a standby that is stopped gives nothing up
        wait_for(first, Condition.DELIVERING)
        assert first.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_when_the_one_is_killed_the_other_takes_over(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    with two_agents(redis_url, api, tmp_path) as (first, second):
        load = Load(seed=82)
        sent = of_messages(publish_redis(redis_url, load.messages(100)))
        api.wait_for_events(sent.total())
        first.kill()
        wait_for(second, Condition.DELIVERING)
        second.wait_for_line("lease.taken")
        sent += of_messages(publish_redis(redis_url, load.messages(100)))
        api.wait_for_events(sent.total())
        assert second.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


class Publisher:
    """Publishes a few hundred messages a second, on a thread, until it is left; a context manager."""

    def __init__(self, url: str, seed: int) -> None:
        self.published: list[Message] = []
        self.heard: list[Message] = []
        self._url = url
        self._messages = Load(seed=seed).messages(1_000_000)
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def _run(self) -> None:
        while not self._leave.wait(0.02):
            some = [next(self._messages) for _ in range(10)]
            self.published.extend(some)
            self.heard.extend(publish_redis(self._url, some))

    def wait_for_more(self) -> None:
        count = len(self.heard)
        until(lambda: len(self.heard) > count, 30, "more messages to be published")

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for_more()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join(30)


def hand_over_often(
    url: str, api: ApiDouble, folder: Path, *, waiting: int, times: int
) -> tuple[Counter[Event], list[Alone]]:
    """Let so many agents wait for one that delivers, and stop that one; and again.

    Return what was published meanwhile, all of it delivered, and the agents, all ended.
    """
    entry = subscription(url, api)
    agents: list[Alone] = []
    with ExitStack() as stack:

        def start() -> Alone:
            agent = Alone(entry, folder / str(len(agents)), constants=SHORT_LEASES)
            agents.append(stack.enter_context(agent))
            return agent

        start().wait_until_connected()
        with Publisher(url, 83) as publisher:
            for _ in range(times):
                while len(running := [agent for agent in agents if agent.running]) <= waiting:
                    wait_for(start(), Condition.STANDING_BY)
                publisher.wait_for_more()
                (holder,) = [agent for agent in running if delivers(agent)]
                assert holder.stop() == 0
                others = [agent for agent in running if agent is not holder]
                until(lambda others=others: any(map(delivers, others)), 30, "another to take over")
            publisher.wait_for_more()
        assert publisher.heard == publisher.published
        sent = of_messages(publisher.published)
        until(lambda: sent <= of_documents(api.confirmed()), 60, "all that was published")
        for agent in agents:
            assert not agent.running or agent.stop() == 0
    return sent, agents


def delivers(agent: Alone) -> bool:
    return agent.stats.get("condition") == Condition.DELIVERING


@pytest.mark.parametrize("waiting", [1, 3])
def test_when_the_one_is_stopped_the_other_takes_over_and_every_event_comes_once(
    redis_url: str, api: ApiDouble, tmp_path: Path, waiting: int
) -> None:
    sent, agents = hand_over_often(redis_url, api, tmp_path, waiting=waiting, times=5)
    assert_complete(sent, of_documents(api.confirmed()))
    assert [agent.lines("lease.overlap") for agent in agents] == [[]] * len(agents)


def test_without_the_lease_s_channel_a_hand_over_costs_no_event(
    own_redis: Redis, api: ApiDouble, tmp_path: Path
) -> None:
    with own_redis.client() as server:
        rules = ("+@all", "~*", "resetchannels", "&/0.celeryev/*")
        server.execute_command("ACL", "SETUSER", "narrow", "on", ">narrow", *rules)
    url = f"redis://narrow:narrow@127.0.0.1:{own_redis.port}/0"
    sent, agents = hand_over_often(url, api, tmp_path, waiting=1, times=2)
    assert_nothing_lost(sent, of_documents(api.confirmed()))
    assert [len(agent.lines("lease.overlap")) for agent in agents] == [0, 1, 1]


def test_one_that_was_frozen_past_its_lease_delivers_nothing_more_and_stands_by(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    with two_agents(redis_url, api, tmp_path) as (first, second):
        load = Load(seed=84)
        first.process.pause()
        wait_for(second, Condition.DELIVERING)
        # The frozen one is still subscribed, so these wait for it, too.
        sent = of_messages(publish_redis(redis_url, load.messages(100)))
        assert hearers(redis_url) == 2
        first.process.resume()
        wait_for(first, Condition.STANDING_BY)
        assert is_standby_of(first, second)
        sent += of_messages(publish_redis(redis_url, load.messages(100)))
        api.wait_for_events(sent.total())
        assert first.stop() == 0
        assert second.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_after_a_failover_one_delivers_and_the_other_stands_by(
    sentinel: SentinelSetup, api: ApiDouble, tmp_path: Path
) -> None:
    assert sentinel.sentinel is not None
    assert sentinel.replica is not None
    options = {"master_name": "mymaster"}
    url = sentinel.sentinel.url()
    with two_agents(url, api, tmp_path, transport_options=options) as agents:
        load = Load(seed=85)
        sent = of_messages(publish_redis(sentinel.master.url(), load.messages(100)))
        api.wait_for_events(sent.total())
        sentinel.master.kill()
        new = sentinel.replica

        def settled() -> bool:
            conditions = sorted(agent.stats["condition"] for agent in agents)
            return conditions == [Condition.DELIVERING, Condition.STANDING_BY] and (
                hearers(new.url()) == 1
            )

        until(settled, 60, "one to deliver, and one to stand by")
        sent += of_messages(publish_redis(new.url(), load.messages(100)))
        api.wait_for_events(sent.total())
        for agent in agents:
            assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_who_is_killed_and_restarted_goes_on_with_the_lease_that_was_left(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    with Agent([subscription(redis_url, api)], tmp_path) as agent:
        agent.wait_until_connected()
        agent.kill_child()
        agent.wait_until_connected(2)
        agent.close()
        agent.start()
        agent.wait_until_connected(3)
        assert agent.lines("lease.standby") == []
        assert agent.stop() == 0
