"""Redis that dies, hangs, is cut off, cuts us off or fails over; and a spool that outlives us."""

import signal
from pathlib import Path
from urllib.parse import urlsplit

from leekfanout.status.stats import Condition
from tests import accounting
from tests.accounting import assert_complete, of_documents, of_messages
from tests.agent import Agent, Alone, subscription
from tests.api_double import ApiDouble
from tests.brokers import Redis, SentinelSetup
from tests.load import Load
from tests.proxy import TcpProxy
from tests.publishers import envelope, publish_redis, subscribers
from tests.waiting import until

QUICK_PINGS = {"sources.redis.PING_EVERY_S": 0.5}
"""A dead connection is noticed within 1.5 s in place of 21."""


def test_a_connection_that_swallows_everything_is_noticed_by_its_unanswered_pings(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    with (
        TcpProxy(urlsplit(redis_url).port or 0) as proxy,
        Alone(subscription(proxy.url(redis_url), api), tmp_path, constants=QUICK_PINGS) as agent,
    ):
        agent.wait_until_connected()
        load = Load(seed=61)
        sent = of_messages(publish_redis(redis_url, load.messages(100)))
        api.wait_for_events(sent.total())
        proxy.black_hole = True
        (line,) = agent.wait_for_line("broker.down")
        assert "has answered nothing" in line["reason"]
        proxy.heal()
        (gap,) = agent.wait_for_line("broker.gap")
        # Nothing was heard since long before that was noticed.
        assert gap["seconds"] >= 1.0
        sent += of_messages(publish_redis(redis_url, load.messages(100)))
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_what_is_heard_in_the_moment_of_the_loss_is_delivered_while_redis_is_away(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    with (
        TcpProxy(urlsplit(redis_url).port or 0) as proxy,
        Alone(subscription(proxy.url(redis_url), api), tmp_path) as agent,
    ):
        agent.wait_until_connected()
        until(lambda: subscribers(redis_url), 20, "the subscriber")
        # Both the events and the end of the connection are there when it looks.
        agent.process.pause()
        try:
            forwarded = proxy.bytes_forwarded["down"]
            published = publish_redis(redis_url, Load(seed=67).messages(3))
            size = sum(len(message.body) for message in published)
            until(lambda: proxy.bytes_forwarded["down"] > forwarded + size, 20, "the events")
            proxy.go_down()
        finally:
            agent.process.resume()
        sent = of_messages(published)
        api.wait_for_events(sent.total())
        assert agent.lines("broker.down")
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_what_is_in_flight_is_told_over_a_loss_of_the_connection(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.hang_before_reading = True
    load = Load(seed=68)
    with TcpProxy(urlsplit(redis_url).port or 0) as proxy:
        keys = subscription(proxy.url(redis_url), api, concurrency_pool_size=1)
        with Alone(keys, tmp_path) as agent:
            agent.wait_until_connected()
            sent = of_messages(publish_redis(redis_url, load.messages(10)))
            until(lambda: api.posts_under_way, 20, "a POST")
            # The only sender is busy, so that these stand in an open batch.
            sent += of_messages(publish_redis(redis_url, load.messages(3)))
            agent.wait_for_stat("messages_in_flight", 13)
            proxy.cut()
            agent.wait_until_connected(2)
            until(lambda: subscribers(redis_url), 20, "the new subscriber")
            sent += of_messages(publish_redis(redis_url, load.messages(5)))
            agent.wait_for_stat("messages_received", 18)
            until(lambda: agent.stats["messages_in_flight"] == 18, 20, "all of them in flight")
            api.hang_before_reading = False
            api.wait_for_events(sent.total())
            until(lambda: agent.stats["messages_in_flight"] == 0, 20, "none of them in flight")
            assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_a_server_that_hangs_is_left_and_found_again(
    own_redis: Redis, api: ApiDouble, tmp_path: Path
) -> None:
    url = own_redis.new_database()
    with Alone(subscription(url, api), tmp_path, constants=QUICK_PINGS) as agent:
        agent.wait_until_connected()
        load = Load(seed=62)
        sent = of_messages(publish_redis(url, load.messages(100)))
        api.wait_for_events(sent.total())
        own_redis.pause()
        until(lambda: agent.stats["condition"] == Condition.CONNECTING, 20, "the loss")
        own_redis.resume()
        agent.wait_until_connected(2)
        sent += of_messages(publish_redis(url, load.messages(100)))
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_an_agent_that_redis_cut_off_for_reading_too_slowly_says_so_and_reads_on(
    api: ApiDouble, tmp_path: Path
) -> None:
    with Redis("--client-output-buffer-limit", "pubsub 1mb 0 0") as server:
        url = server.new_database()
        with Alone(subscription(url, api), tmp_path) as agent:
            agent.wait_until_connected()
            load = Load(seed=63, padding=2_000)
            published = list(load.messages(8_000))
            agent.process.pause()
            try:
                with server.client() as client:
                    database = urlsplit(url).path.strip("/")
                    for message in published:
                        channel = f"/{database}.celeryev/{message.routing_key}"
                        client.publish(channel, envelope(message))
                    assert not client.client_list(_type="pubsub")
            finally:
                agent.process.resume()
            (line,) = agent.wait_for_line("broker.down")
            assert "read too slowly" in line["reason"]
            agent.wait_until_connected(2)
            last = of_messages(publish_redis(url, load.messages(100)))
            agent.wait_for_stat("gap_seconds", 0.001)
            until(
                lambda: api.confirmed_events() >= agent.stats["events_received"],
                30,
                "all that was heard to be delivered",
            )
            until(lambda: last <= of_documents(api.confirmed()), 30, "what came afterwards")
            assert agent.stop() == 0
    confirmed = of_documents(api.confirmed())
    assert max(confirmed.values()) == 1
    assert confirmed <= of_messages(published) + last


def test_the_new_master_is_heard_after_a_failover(
    sentinel: SentinelSetup, api: ApiDouble, tmp_path: Path
) -> None:
    assert sentinel.sentinel is not None
    assert sentinel.replica is not None
    keys = subscription(sentinel.sentinel.url(), api, transport_options={"master_name": "mymaster"})
    with Alone(keys, tmp_path) as agent:
        agent.wait_until_connected()
        load = Load(seed=64)
        sent = of_messages(publish_redis(sentinel.master.url(), load.messages(100)))
        api.wait_for_events(sent.total())
        sentinel.master.kill()
        agent.wait_until_connected(2)
        url = sentinel.replica.url()
        until(lambda: subscribers(url), 20, "the new master to be subscribed to")
        sent += of_messages(publish_redis(url, load.messages(100)))
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_what_is_spooled_outlives_a_kill_and_is_delivered_once_by_the_next_process(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.go_down()
    keys = subscription(redis_url, api, batch_max_number_of_messages=100)
    with Agent([keys], tmp_path, env={"LEEKFANOUT_SPOOL_MEMORY_MAX_MB": "0.05"}) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_redis(redis_url, Load(seed=65).messages(2_000)))
        # All but what memory has.
        until(
            lambda: accounting.spooled(agent.state_of()).total() > sent.total() * 0.9,
            30,
            "the spool",
        )
        killed = agent.kill_child()
        in_spool = accounting.spooled(agent.state_of())
        api.come_up()
        agent.wait_for_child(other_than=killed)
        api.wait_for_events(in_spool.total())
        assert agent.stop() == 0
    assert_complete(in_spool, of_documents(api.confirmed()))


def test_a_kill_while_the_spool_is_delivered_costs_nothing_of_it(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.go_down()
    keys = subscription(redis_url, api, batch_max_number_of_messages=50)
    env = {"LEEKFANOUT_SPOOL_MEMORY_MAX_MB": "0.05"}
    with Agent([keys], tmp_path, env=env) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_redis(redis_url, Load(seed=66).messages(2_000)))
        until(
            lambda: accounting.spooled(agent.state_of()).total() > sent.total() * 0.9,
            30,
            "the spool",
        )
        in_spool = accounting.spooled(agent.state_of())
        api.delay_s = 0.05
        api.come_up()
        for posts in (5, 15):
            api.wait_for_posts(posts)
            killed = agent.kill_child()
            agent.wait_for_child(other_than=killed)
        until(lambda: not in_spool - of_documents(api.confirmed()), 60, "all that was spooled")
        agent.process.signal(signal.SIGTERM)
        assert agent.process.wait(30) == 0
    confirmed = of_documents(api.confirmed())
    # What was under way at a kill comes again: a body for each of the two, or what the disk lagged.
    assert (confirmed - sent).total() <= 2 * 50 * 6 * 4
