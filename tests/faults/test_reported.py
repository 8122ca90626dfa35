"""What users of systems like this one have reported, each as the opposite claim."""

import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from leekfanout.status.stats import Condition
from tests import accounting
from tests.accounting import assert_complete, of_documents, of_messages
from tests.agent import Alone, Resources, subscription
from tests.api_double import ApiDouble
from tests.api_exchange import Reply
from tests.brokers import RabbitMQ, Redis
from tests.load import Event, Load, Message
from tests.proxy import TcpProxy
from tests.publishers import publish_amqp, publish_redis
from tests.waiting import until

QUEUE = "leek.fanout"


def test_more_unusable_messages_than_the_prefetch_do_not_stop_the_consumer(
    rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    """telegraf#5285: it stopped for good once prefetch_count unusable messages were in hand."""
    rubbish = [Message("task.sent", b"rubbish %d" % number, ()) for number in range(2_500)]
    with Alone(subscription(amqp_url, api, prefetch_count=1_000), tmp_path) as agent:
        agent.wait_until_connected()
        publish_amqp(amqp_url, rubbish)
        sent = of_messages(publish_amqp(amqp_url, Load(seed=51).messages(100)))
        api.wait_for_events(sent.total())
        agent.wait_for_stat("dead_letters", 2_500)
        until(lambda: rabbitmq.queues(amqp_url) == {QUEUE: (0, 0, 1)}, 20, "all acks")
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_what_does_not_fit_into_memory_stays_at_the_broker(
    rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    """telegraf#10244: messages were taken and dropped because a local buffer was full."""
    api.go_down()
    keys = subscription(amqp_url, api, prefetch_count=1_000)
    with Alone(keys, tmp_path) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_amqp(amqp_url, Load(seed=52).messages(4_000)))
        agent.wait_for_stat("breaker_open")
        (ready, unacked, _) = rabbitmq.queues(amqp_url)[QUEUE]
        assert unacked <= 1_000
        assert ready + unacked == 4_000
        api.come_up()
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_after_a_reconnect_messages_come_and_are_acked(
    rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    """fedora-messaging#208: it said connected and got nothing.

    graylog2-server#4474: it got messages and acked none.
    """
    with (
        TcpProxy(urlsplit(amqp_url).port or 0) as proxy,
        Alone(subscription(proxy.url(amqp_url), api), tmp_path) as agent,
    ):
        agent.wait_until_connected()
        load = Load(seed=53)
        sent: Counter[Event] = Counter()
        for reconnects, disturb in enumerate((proxy.cut, proxy.go_down), start=1):
            disturb()
            sent += of_messages(publish_amqp(amqp_url, load.messages(300)))
            proxy.heal()
            agent.wait_for_stat("reconnects", reconnects)
            api.wait_for_events(sent.total())
            until(lambda: rabbitmq.queues(amqp_url) == {QUEUE: (0, 0, 1)}, 20, "all acks")
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_a_broker_that_ends_every_connection_at_once_is_not_asked_ten_times_a_second(
    amqp_url: str, redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    """graylog2-server#4474: it reconnected ten times a second."""
    for url in (amqp_url, redis_url):
        with TcpProxy(urlsplit(url).port or 0) as proxy:
            proxy.cut_at("down", 1)
            with Alone(subscription(proxy.url(url), api), tmp_path / str(proxy.port)) as agent:
                until(lambda proxy=proxy: proxy.connections_accepted >= 2, 30, "two attempts")
                first, begun_at = proxy.connections_accepted, time.monotonic()
                until(lambda n=first: proxy.connections_accepted >= n + 2, 30, "two more")
                # The pause between two attempts is a quarter of a second at least, and growing.
                assert time.monotonic() - begun_at >= 0.25
                assert agent.running


def test_the_pause_before_a_reconnect_does_not_grow_over_connections_that_held(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    """flower#321: the delay kept growing although connections succeeded in between."""
    with TcpProxy(urlsplit(amqp_url).port or 0) as proxy:
        keys = subscription(proxy.url(amqp_url), api)
        with Alone(keys, tmp_path, constants={"delivery.link.HEALTHY_AFTER_S": 0.0}) as agent:
            agent.wait_until_connected()
            begun_at = time.monotonic()
            for reconnects in range(1, 9):
                proxy.cut()
                agent.wait_for_stat("reconnects", reconnects)
            # Eight pauses that grow from half a second to eight are 20 s at least.
            assert time.monotonic() - begun_at < 18


def test_reconnects_leave_no_connection_and_no_thread_behind(
    amqp_url: str, redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    """telegraf#4921: each reconnect leaked a connection."""
    for url in (amqp_url, redis_url):
        with TcpProxy(urlsplit(url).port or 0) as proxy:
            keys = subscription(proxy.url(url), api)
            folder = tmp_path / str(proxy.port)
            with Alone(keys, folder, constants={"delivery.link.HEALTHY_AFTER_S": 0.0}) as agent:
                agent.wait_until_connected()
                proxy.cut()
                agent.wait_for_stat("reconnects", 1)
                before = Resources.of(agent.process.pid)
                for reconnects in range(2, 10):
                    proxy.cut(reset=reconnects % 2 == 0)
                    agent.wait_for_stat("reconnects", reconnects)
                until(
                    lambda was=before, pid=agent.process.pid: (
                        (now := Resources.of(pid)).threads <= was.threads and now.fds <= was.fds
                    ),
                    10,
                    "threads and descriptors to be as before",
                )
                # Of the source of Redis one is the lease's.
                assert proxy.connections_open == (1 if url == amqp_url else 2)


def test_a_batch_that_the_api_does_not_take_stays_in_the_spool(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    """vector#12145: a disk buffer counted refused batches as delivered."""
    api.script(lambda request: Reply((503, 429, 500, 200)[request.number % 4]))
    api.script(lambda request: Reply((503, 429, 500, 200)[request.number % 4]))
    keys = subscription(redis_url, api, batch_max_number_of_messages=100, concurrency_pool_size=4)
    with Alone(keys, tmp_path, spool_memory_max_mb=0.0001) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_redis(redis_url, Load(seed=54).messages(1_000)))
        agent.wait_for_stat("events_received", sent.total())
        api.wait_for_posts(5)
        in_spool = accounting.spooled(agent.state_of())
        assert in_spool.total() > sent.total() / 2
        api.behave()
        api.wait_for_events(sent.total())
        until(lambda: not accounting.spooled(agent.state_of()), 10, "the spool to be emptied")
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_after_a_restart_of_redis_the_subscriber_hears_again_and_tells_of_the_gap(
    own_redis: Redis, api: ApiDouble, tmp_path: Path
) -> None:
    """celery#10502: after a Redis restart the subscriber was deaf but looked alive."""
    url = own_redis.new_database()
    with Alone(subscription(url, api), tmp_path) as agent:
        agent.wait_until_connected()
        load = Load(seed=55)
        sent = of_messages(publish_redis(url, load.messages(200)))
        api.wait_for_events(sent.total())
        for reconnects, end in enumerate((own_redis.kill, own_redis.stop), start=1):
            end()
            until(lambda: agent.stats["condition"] == Condition.CONNECTING, 20, "the loss")
            own_redis.start()
            agent.wait_until_connected(reconnects + 1)
            sent += of_messages(publish_redis(url, load.messages(200)))
            api.wait_for_events(sent.total())
        gaps = agent.wait_for_line("broker.gap", 2)
        assert agent.stop() == 0
        assert agent.stats["gap_seconds"] >= sum(gap["seconds"] for gap in gaps) - 0.01 > 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_an_outage_of_the_api_costs_redis_no_memory(
    own_redis: Redis, api: ApiDouble, tmp_path: Path
) -> None:
    """leek#82, leek#46: an outage of the API made the broker's memory explode."""
    url = own_redis.new_database()
    api.hang_before_reading = True
    with Alone(subscription(url, api), tmp_path) as agent:
        agent.wait_until_connected()
        with own_redis.client() as client:
            used_before = client.info("memory")["used_memory"]
            load = Load(seed=56, padding=1_000)
            sent = of_messages(publish_redis(url, load.messages(8_000)))
            agent.wait_for_stat("events_received", sent.total())
            until(lambda: api.posts_under_way, 20, "a POST that hangs")
            (subscriber,) = client.client_list(_type="pubsub")
            assert int(subscriber["omem"]) == 0
            assert client.dbsize() == 1  # the lease
            assert client.info("memory")["used_memory"] - used_before < 5_000_000
        api.hang_before_reading = False
        api.wait_for_events(sent.total(), timeout_s=60)
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))
