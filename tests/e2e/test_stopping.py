"""Signals, crashes and absences in mid-stream: what is in hand is delivered or kept."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import accounting
from tests.accounting import assert_complete, assert_nothing_lost, of_documents, of_messages
from tests.agent import Agent, Alone, subscription
from tests.api_double import ApiDouble
from tests.brokers import RabbitMQ, Redis
from tests.load import Load, Message
from tests.proxy import TcpProxy
from tests.publishers import publish_amqp, publish_redis
from tests.waiting import until

QUEUE = "leek.fanout"


@contextmanager
def stream(
    publish: Callable[[str, Iterable[Message]], list[Message]], url: str
) -> Iterator[list[Message]]:
    """Publish in the background until left; what was published (and heard) is there then."""
    ending = threading.Event()

    def messages() -> Iterator[Message]:
        for number, message in enumerate(Load(seed=7).messages(100_000)):
            if number % 100 == 0 and ending.wait(0.02):
                return
            yield message

    published: list[Message] = []
    with ThreadPoolExecutor(1, thread_name_prefix="stream") as pool:
        publishing = pool.submit(publish, url, messages())
        try:
            yield published
        finally:
            ending.set()
        published += publishing.result(60)


def test_sigterm_in_mid_stream_leaves_the_rest_at_rabbitmq_and_repeats_nothing(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.delay_s = 0.02
    with Agent([subscription(amqp_url, api, concurrency_pool_size=4)], tmp_path) as agent:
        agent.wait_until_connected()
        with stream(publish_amqp, amqp_url) as published:
            api.wait_for_events(2_000)
            assert agent.stop() == 0
    sent = of_messages(published)
    left = accounting.at_broker(amqp_url)
    assert left.total() > 0
    assert_complete(sent, of_documents(api.confirmed()), left)


def break_off(proxy: TcpProxy, agent: Alone, state: str) -> None:
    """End the agent's connection so that it is without one, or waits for one that never comes."""
    if state == "connecting":
        proxy.black_hole = True
        proxy.cut()
    else:
        proxy.go_down()
    agent.wait_for_line("broker.down")
    if state == "connecting":
        until(lambda: proxy.connections_open, 20, "a connection that is swallowed")


@pytest.mark.parametrize("state", ["down", "connecting"])
def test_sigterm_while_rabbitmq_is_away_posts_nothing_that_could_not_be_acked(
    state: str, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.hang_before_reading = True
    with TcpProxy(urlsplit(amqp_url).port or 0) as proxy:
        keys = subscription(
            *(proxy.url(amqp_url), api),
            batch_max_number_of_messages=50,
            concurrency_pool_size=2,
        )
        # While nothing may be read, the loss is noticed when the depth is asked for.
        often = {"delivery.pipeline.DEPTH_EVERY_S": 0.2}
        with Alone(keys, tmp_path, constants=often) as agent:
            agent.wait_until_connected()
            sent = of_messages(publish_amqp(amqp_url, Load(seed=8).messages(1_000)))
            agent.wait_for_stat("batches_queued", 4)
            until(lambda: api.posts_under_way == 2, 20, "two POSTs")
            break_off(proxy, agent, state)
            agent.process.signal(signal.SIGTERM)
            agent.wait_for_line("drain.begun")
            api.hang_before_reading = False
            assert agent.process.wait(20) == 0
        under_way = of_documents(api.confirmed())
        assert len(api.posts) == 2
        proxy.heal()
        with Alone(keys, tmp_path) as agent:
            api.wait_for_events((sent + under_way).total())
            assert agent.stop() == 0
    assert of_documents(api.confirmed()) == sent + under_way


@pytest.mark.parametrize("state", ["down", "connecting"])
def test_sigterm_while_redis_is_away_delivers_all_that_was_heard(
    state: str, redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.hang_before_reading = True
    with TcpProxy(urlsplit(redis_url).port or 0) as proxy:
        keys = subscription(proxy.url(redis_url), api, batch_max_number_of_messages=50)
        with Alone(keys, tmp_path) as agent:
            agent.wait_until_connected()
            heard = of_messages(publish_redis(redis_url, Load(seed=9).messages(1_000)))
            agent.wait_for_stat("events_received", heard.total())
            break_off(proxy, agent, state)
            agent.process.signal(signal.SIGTERM)
            agent.wait_for_line("drain.begun")
            api.hang_before_reading = False
            assert agent.process.wait(20) == 0
    assert_complete(heard, of_documents(api.confirmed()))


def test_sigterm_while_rabbitmq_has_the_messages_back_repeats_none(
    rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    keys = subscription(amqp_url, api, batch_max_number_of_messages=50)
    soon = {"delivery.hand_backs.HAND_BACK_AFTER_S": 0.5}
    with Alone(keys, tmp_path, constants=soon) as agent:
        agent.wait_until_connected()
        first = of_messages(publish_amqp(amqp_url, Load(seed=10).messages(100)))
        api.wait_for_events(first.total())
        api.go_down()
        rest = of_messages(publish_amqp(amqp_url, Load(seed=11).messages(500)))
        agent.wait_for_stat("hand_backs")
        assert agent.stop() == 0
    assert rabbitmq.queues(amqp_url) == {QUEUE: (500, 0, 0)}
    assert_complete(first + rest, of_documents(api.confirmed()), accounting.at_broker(amqp_url))


def test_sigterm_in_mid_stream_delivers_all_that_was_heard_on_redis(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    with Agent([subscription(redis_url, api)], tmp_path) as agent:
        agent.wait_until_connected()
        with stream(publish_redis, redis_url) as heard:
            api.wait_for_events(2_000)
            assert agent.stop() == 0
    assert_complete(
        of_messages(heard), of_documents(api.confirmed()), accounting.spooled(agent.state_of())
    )


def test_sigterm_while_the_api_is_down_keeps_redis_events_for_the_next_start(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.go_down()
    keys = subscription(redis_url, api)
    with Alone(keys, tmp_path) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_redis(redis_url, Load().messages(1_000)))
        agent.wait_for_stat("messages_received", 1_000)
        assert agent.stop() == 0
        assert_complete(sent, accounting.spooled(agent.state_of()))
    api.come_up()
    with Alone(keys, tmp_path) as agent:
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))
    assert accounting.spooled(agent.state_of()).total() == 0


def test_a_killed_child_comes_back_and_nothing_is_missing_on_rabbitmq(
    rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.delay_s = 0.02
    with Agent([subscription(amqp_url, api, concurrency_pool_size=4)], tmp_path) as agent:
        agent.wait_until_connected()
        with stream(publish_amqp, amqp_url) as published:
            api.wait_for_events(1_000)
            killed = agent.kill_child()
            agent.wait_for_child(other_than=killed)
        sent = of_messages(published)
        until(
            lambda: not (sent - of_documents(api.confirmed())).total(), 60, "every event to arrive"
        )
        assert agent.stop() == 0
    assert_nothing_lost(sent, of_documents(api.confirmed()))
    assert rabbitmq.queues(amqp_url) == {QUEUE: (0, 0, 0)}


def test_the_children_of_a_killed_supervisor_drain_and_end(
    amqp_url: str, redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    subscriptions = [
        subscription(amqp_url, api),
        subscription(redis_url, api, app_name="mail"),
    ]
    with Agent(subscriptions, tmp_path) as agent:
        agent.wait_until_connected(2)
        sent = of_messages(publish_amqp(amqp_url, Load(seed=1).messages(500)))
        sent += of_messages(publish_redis(redis_url, Load(seed=2).messages(500)))
        agent.kill()
        until(lambda: not agent.children(), 15, "the orphaned processes to end")
        places = [of_documents(api.confirmed()), accounting.at_broker(amqp_url)]
        places += [accounting.spooled(agent.state_of("mail-prod"))]
        assert_complete(sent, *places)


def test_brokers_that_come_up_after_the_agent_are_found(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    late_rabbitmq, late_redis = RabbitMQ(), Redis()
    subscriptions = [
        subscription(amqp_url, api, app_name="early"),
        subscription(late_rabbitmq.url(), api, app_name="late"),
        subscription(late_redis.url(), api, app_name="later"),
    ]
    try:
        with Agent(subscriptions, tmp_path) as agent:
            agent.wait_for_line("broker.down", subscription="late-prod")
            agent.wait_for_line("broker.down", subscription="later-prod")
            agent.wait_until_connected(subscription="early-prod")
            sent = of_messages(publish_amqp(amqp_url, Load(seed=1).messages(100)))
            api.wait_for_events(sent.total())
            late_redis.start()
            agent.wait_until_connected(subscription="later-prod")
            sent += of_messages(publish_redis(late_redis.url(), Load(seed=2).messages(100)))
            late_rabbitmq.start()
            agent.wait_until_connected(subscription="late-prod")
            sent += of_messages(publish_amqp(late_rabbitmq.url(), Load(seed=3).messages(100)))
            api.wait_for_events(sent.total())
            assert agent.stop() == 0
    finally:
        late_rabbitmq.close()
        late_redis.close()
    assert_complete(sent, of_documents(api.confirmed()))


@pytest.mark.parametrize("ending", ["stop", "close_lifeline"])
def test_a_process_ends_within_the_drain_time_though_the_api_hangs(
    ending: str, rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.hang_before_reading = True
    with Alone(subscription(amqp_url, api), tmp_path, drain_timeout_s=2.0) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_amqp(amqp_url, Load().messages(50)))
        until(lambda: api.posts_under_way, 20, "a POST that hangs")
        if ending == "stop":
            agent.stop(timeout_s=20)
        else:
            agent.close_lifeline()
            agent.process.wait(20)
        assert agent.process.returncode == 0
    assert rabbitmq.queues(amqp_url) == {QUEUE: (50, 0, 0)}
    assert_complete(sent, accounting.at_broker(amqp_url))
