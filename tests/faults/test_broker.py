"""RabbitMQ that dies, hangs, is cut off, blocks, forgets or refuses: nothing lost, nothing twice."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from leekfanout.status.stats import Condition
from tests.accounting import assert_complete, of_documents, of_messages
from tests.agent import Alone, Resources, subscription
from tests.api_double import ApiDouble
from tests.brokers import RabbitMQ
from tests.load import Event, Load
from tests.proxy import Direction, TcpProxy
from tests.publishers import amqp_channel, publish_amqp
from tests.waiting import until

QUEUE = "leek.fanout"

EAGER = {"delivery.link.DELAY_MAX_S": 0.5, "delivery.link.REFUSED_DELAY_MAX_S": 0.5}
"""Many losses in a row, without the pauses that grow."""


@pytest.fixture(scope="module")
def fragile() -> Iterator[RabbitMQ]:
    """A RabbitMQ that tests may stop, kill and freeze, if they leave it running."""
    with RabbitMQ(management=True, config="heartbeat = 2\n") as server:
        yield server


@pytest.fixture
def fragile_url(fragile: RabbitMQ) -> Iterator[str]:
    url = fragile.new_vhost()
    yield url
    fragile.delete_vhost(url)


@pytest.fixture
def proxy(amqp_url: str) -> Iterator[TcpProxy]:
    """Stands before the shared broker."""
    with TcpProxy(urlsplit(amqp_url).port or 0) as between:
        yield between


# The connection


@pytest.mark.parametrize(
    ("queue_type", "reset"),
    [("classic", True), ("quorum", False)],
    ids=["classic-rst", "quorum-fin"],
)
def test_messages_whose_acks_are_lost_with_the_connection_are_not_posted_again(
    queue_type: str, reset: bool, *, amqp_url: str, proxy: TcpProxy, api: ApiDouble, tmp_path: Path
) -> None:
    keys = subscription(proxy.url(amqp_url), api, queue_type=queue_type, concurrency_pool_size=4)
    with Alone(keys, tmp_path) as agent:
        agent.wait_until_connected()
        load = Load(seed=31)
        sent: Counter[Event] = Counter()
        for _ in range(2):
            # What the agent has taken by now is confirmed, but no ack gets through.
            api.hang_before_reading = True
            # What a quorum queue hasn't confirmed may be missing when a consumer goes meanwhile.
            published = publish_amqp(amqp_url, load.messages(1_200), confirm=True)
            sent += of_messages(published)
            until(lambda: api.posts_under_way, 20, "a POST")
            proxy.pause()
            confirmed = len(api.posts)
            api.hang_before_reading = False
            api.wait_for_posts(confirmed + 1)
            proxy.cut(reset)
            proxy.resume()
            api.wait_for_events(sent.total())
        assert agent.stop() == 0
        assert agent.stats["redeliveries_recognised"] > 0
        assert agent.stats["reconnects"] == 2
    assert_complete(sent, of_documents(api.confirmed()))


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
def test_a_stream_that_is_cut_at_any_byte_goes_on_after_it(
    reset: bool, amqp_url: str, proxy: TcpProxy, api: ApiDouble, tmp_path: Path
) -> None:
    keys = subscription(proxy.url(amqp_url), api, batch_max_number_of_messages=50)
    with Alone(keys, tmp_path, constants=EAGER) as agent:
        agent.wait_until_connected()
        opening = proxy.bytes_forwarded["up"]
        proxy.refuse()
        proxy.cut()
        sent = of_messages(publish_amqp(amqp_url, Load(seed=32).messages(2_000)))
        cuts: tuple[tuple[Direction, int], ...] = (
            ("down", 300),  # during the handshake
            ("up", 900),
            ("down", 4_000),
            ("up", opening + 10),  # within the first frame behind it, an ack
            ("down", 123_457),
        )
        for direction, byte in cuts:
            proxy.cut_at(direction, byte, reset)
            seen = proxy.connections_accepted
            proxy.accept()
            until(
                lambda seen=seen: proxy.connections_accepted > seen and not proxy.connections_open,
                20,
                f"a cut {direction} at byte {byte}",
            )
            proxy.refuse()
            proxy.cut_at(direction, None)
        proxy.accept()
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_a_connection_that_swallows_everything_is_noticed_by_the_missing_heartbeats(
    fragile_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    with (
        TcpProxy(urlsplit(fragile_url).port or 0) as proxy,
        Alone(subscription(proxy.url(fragile_url), api), tmp_path) as agent,
    ):
        agent.wait_until_connected()
        load = Load(seed=33)
        sent = of_messages(publish_amqp(fragile_url, load.messages(100)))
        api.wait_for_events(sent.total())
        proxy.black_hole = True
        sent += of_messages(publish_amqp(fragile_url, load.messages(100)))
        (line,) = agent.wait_for_line("broker.down")
        assert "heartbeat" in line["reason"] or "in time" in line["reason"]
        proxy.heal()
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_asking_for_the_depth_of_the_queue_over_a_thin_line_holds_up_no_delivery(
    amqp_url: str, proxy: TcpProxy, api: ApiDouble, tmp_path: Path
) -> None:
    keys = subscription(proxy.url(amqp_url), api)
    with Alone(keys, tmp_path, constants={"delivery.pipeline.DEPTH_EVERY_S": 0.2}) as agent:
        agent.wait_until_connected()
        proxy.bytes_per_s = 50_000
        published = publish_amqp(amqp_url, Load(seed=34, padding=1_000).messages(500))
        api.wait_for_posts(3)
        assert proxy.bytes_forwarded["down"] < sum(len(message.body) for message in published) / 2
        proxy.bytes_per_s = None
        sent = of_messages(published)
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
        assert agent.stats["reconnects"] == 0
    assert_complete(sent, of_documents(api.confirmed()))


# The broker itself


@pytest.mark.parametrize(
    ("end", "queue_type"), [("kill", "classic"), ("kill", "quorum"), ("stop", "classic")]
)
def test_what_the_broker_keeps_over_its_end_is_delivered_once(
    end: str,
    queue_type: str,
    *,
    fragile: RabbitMQ,
    fragile_url: str,
    api: ApiDouble,
    tmp_path: Path,
) -> None:
    # Small batches that take a while: it ends with some delivered, some under way, some not taken.
    api.delay_s = 0.05
    keys = subscription(fragile_url, api, queue_type=queue_type, batch_max_number_of_messages=50)
    with Alone(keys, tmp_path) as agent:
        agent.wait_until_connected()
        load = Load(seed=35)
        sent = of_messages(
            publish_amqp(fragile_url, load.messages(1_500), persistent=True, confirm=True)
        )
        api.wait_for_posts(3)
        getattr(fragile, end)()
        agent.wait_for_line("broker.down")
        fragile.start()
        agent.wait_until_connected(2)
        api.wait_for_events(sent.total(), timeout_s=60)
        # Confirmed: a quorum queue that has just recovered may drop what it hasn't confirmed.
        sent += of_messages(publish_amqp(fragile_url, load.messages(100), confirm=True))
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_a_broker_that_hangs_is_left_and_found_again(
    fragile: RabbitMQ, fragile_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.delay_s = 0.05
    keys = subscription(fragile_url, api, batch_max_number_of_messages=50)
    with Alone(keys, tmp_path) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_amqp(fragile_url, Load(seed=36).messages(1_000)))
        before = Resources.of(agent.process.pid)
        api.wait_for_posts(3)
        fragile.pause()
        try:
            agent.wait_for_line("broker.down")
        finally:
            fragile.resume()
        api.wait_for_events(sent.total(), timeout_s=60)
        assert Resources.of(agent.process.pid).threads <= before.threads + 1
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_a_memory_alarm_stops_no_delivery_and_passes(
    fragile: RabbitMQ, fragile_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    load = Load(seed=37)
    with Alone(subscription(fragile_url, api), tmp_path) as agent:
        agent.wait_until_connected()
        api.hang_before_reading = True
        sent = of_messages(publish_amqp(fragile_url, load.messages(1_500)))
        until(lambda: api.posts_under_way, 20, "a POST")
        fragile.alarm(True)
        try:
            # Acks aren't blocked, so that the queue can be emptied.
            api.hang_before_reading = False
            api.wait_for_events(sent.total())
            until(lambda: fragile.queues(fragile_url) == {QUEUE: (0, 0, 1)}, 20, "all acks")
        finally:
            fragile.alarm(False)
        sent += of_messages(publish_amqp(fragile_url, load.messages(100)))
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
        assert agent.stats["reconnects"] == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_a_consumer_timeout_of_the_broker_costs_nothing(
    fragile: RabbitMQ, fragile_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    fragile.ctl("eval", "application:set_env(rabbit, channel_tick_interval, 500).")
    fragile.ctl("eval", "application:set_env(rabbit, consumer_timeout, 1000).")
    try:
        api.hang_before_reading = True
        with Alone(subscription(fragile_url, api), tmp_path) as agent:
            agent.wait_until_connected()
            sent = of_messages(publish_amqp(fragile_url, Load(seed=38).messages(500)))
            (line,) = agent.wait_for_line("broker.down")
            assert "timeout" in line["reason"].lower()
            api.hang_before_reading = False
            api.wait_for_events(sent.total())
            assert agent.stop() == 0
    finally:
        fragile.ctl("eval", "application:set_env(rabbit, consumer_timeout, 1800000).")
        fragile.ctl("eval", "application:set_env(rabbit, channel_tick_interval, 60000).")
    assert_complete(sent, of_documents(api.confirmed()))


# What a person has to do


def test_a_queue_that_is_deleted_is_made_again(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    load = Load(seed=39)
    with Alone(subscription(amqp_url, api), tmp_path) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_amqp(amqp_url, load.messages(100)))
        api.wait_for_events(sent.total())
        with amqp_channel(amqp_url) as channel:
            channel.queue_delete(QUEUE)
        (line,) = agent.wait_for_line("broker.down")
        assert f"the queue {QUEUE} was deleted" in line["reason"]
        agent.wait_until_connected(2)
        sent += of_messages(publish_amqp(amqp_url, load.messages(100)))
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


@pytest.mark.parametrize("missing", ["vhost", "user", "permissions", "one permission"])
def test_a_refusal_is_told_as_such_and_passes_when_its_cause_is_gone(
    missing: str, rabbitmq: RabbitMQ, api: ApiDouble, tmp_path: Path
) -> None:
    vhost, user = f"refusal-{missing}".replace(" ", "-"), f"anna-{missing}".replace(" ", "-")
    create_vhost = ("PUT", f"/api/vhosts/{vhost}", None)
    create_user = ("PUT", f"/api/users/{user}", {"password": "s3cret", "tags": ""})
    permissions = {"configure": ".*", "write": ".*", "read": ".*"}
    permit = ("PUT", f"/api/permissions/{vhost}/{user}", permissions)
    permit_guest = ("PUT", f"/api/permissions/{vhost}/guest", permissions)
    may_not_read = ("PUT", f"/api/permissions/{vhost}/{user}", {**permissions, "read": "^$"})
    before, after = {
        "vhost": ([create_user], [create_vhost, permit]),
        "user": ([create_vhost], [create_user, permit]),
        "permissions": ([create_vhost, create_user], [permit]),
        "one permission": ([create_vhost, create_user, may_not_read], [permit]),
    }[missing]
    for call in before:
        rabbitmq.call(*call)
    url = rabbitmq.url(vhost, user, "s3cret")
    with Alone(subscription(url, api), tmp_path, constants=EAGER) as agent:
        agent.wait_for_stat("condition", Condition.REFUSED)
        (line,) = agent.wait_for_line("broker.down")
        assert "refuses" in line["reason"]
        assert agent.stats["last_error"] == line["reason"]
        for call in (*after, permit_guest):
            rabbitmq.call(*call)
        agent.wait_until_connected()
        sent = of_messages(publish_amqp(rabbitmq.url(vhost), Load(seed=40).messages(100)))
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
        assert "s3cret" not in agent.log.read_text()
    assert_complete(sent, of_documents(api.confirmed()))


def test_of_two_addresses_the_one_that_answers_is_used_and_nothing_comes_twice(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    port = urlsplit(amqp_url).port or 0
    with TcpProxy(port) as first, TcpProxy(port) as second:
        both = f"{first.url(amqp_url)};{second.url(amqp_url)}"
        keys = subscription(both, api, batch_max_number_of_messages=50)
        api.delay_s = 0.02
        with Alone(keys, tmp_path, constants=EAGER) as agent:
            agent.wait_until_connected()
            load = Load(seed=41)
            sent: Counter[Event] = Counter()
            for down, up in ((first, second), (second, first)):
                sent += of_messages(publish_amqp(amqp_url, load.messages(500)))
                api.wait_for_posts(len(api.posts) + 2)
                up.heal()
                down.go_down()
                until(lambda up=up: up.connections_open, 20, "the other address to be used")
            api.wait_for_events(sent.total())
            assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))
