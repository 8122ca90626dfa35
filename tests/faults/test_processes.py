"""Processes killed at random moments: nothing lost, little twice, nobody orphaned."""

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests import accounting
from tests.accounting import assert_complete, assert_nothing_lost, of_documents, of_messages
from tests.agent import Agent, subscription
from tests.api_double import ApiDouble
from tests.brokers import RabbitMQ
from tests.load import Load, Message
from tests.publishers import publish_amqp
from tests.waiting import until

QUEUE = "leek.fanout"
PREFETCH = 1_000
SEED = random.randrange(1_000_000)


@contextmanager
def steady_load(url: str) -> Iterator[list[Message]]:
    """Publish in the background; what was published is there after leaving."""
    ending = threading.Event()

    def messages() -> Iterator[Message]:
        for number, message in enumerate(Load(seed=71).messages(100_000)):
            if number % 50 == 0 and ending.wait(0.02):
                return
            yield message

    published: list[Message] = []
    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(publish_amqp, url, messages())
        try:
            yield published
        finally:
            ending.set()
        published += publishing.result(60)


def test_kills_of_a_process_at_random_moments_lose_nothing_and_repeat_no_more_than_was_in_flight(
    rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    print("seed", SEED)
    rng, kills = random.Random(SEED), 3
    api.delay_s = 0.02
    keys = subscription(
        amqp_url,
        api,
        prefetch_count=PREFETCH,
        batch_max_number_of_messages=200,
        concurrency_pool_size=4,
    )
    with Agent([keys], tmp_path) as agent:
        agent.wait_until_connected()  # until then there may be no queue
        with steady_load(amqp_url) as published:
            for number in range(1, kills + 1):
                agent.wait_until_connected(number)
                api.wait_for_posts(len(api.posts) + 1)
                time.sleep(rng.uniform(0, 0.2))
                killed = agent.kill_child()
                agent.wait_for_child(other_than=killed)
        sent = of_messages(published)
        until(lambda: not sent - of_documents(api.confirmed()), 60, "every event to arrive")
        assert agent.stop() == 0
    surplus = assert_nothing_lost(sent, of_documents(api.confirmed()))
    most_in_flight = PREFETCH * max(len(message.events) for message in published)
    assert surplus <= kills * most_in_flight
    assert rabbitmq.queues(amqp_url) == {QUEUE: (0, 0, 0)}


def test_an_agent_that_is_started_again_after_its_supervisor_was_killed_goes_on(
    amqp_url: str, redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    keys = [
        subscription(amqp_url, api, batch_max_number_of_messages=100),
        subscription(redis_url, api, app_name="mail"),
    ]
    with Agent(keys, tmp_path) as agent:
        agent.wait_until_connected(2)
        with steady_load(amqp_url) as published:
            api.wait_for_events(1_000)
            agent.kill()
            # The orphans drain; new processes take over when they have ended: one state folder.
            agent.start()
            agent.wait_until_connected(4)
            api.wait_for_events(api.confirmed_events() + 1_000)
        sent = of_messages(published)
        until(lambda: not sent - of_documents(api.confirmed()), 60, "every event to arrive")
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_a_process_that_is_killed_while_the_api_is_away_leaves_everything_at_the_broker(
    rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.go_down()
    with Agent([subscription(amqp_url, api)], tmp_path) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_amqp(amqp_url, Load(seed=72).messages(500)))
        agent.wait_for_line("post.retry")
        agent.kill()
        for pid in agent.children().values():
            until(lambda pid=pid: pid not in agent.children().values(), 20, "the process to end")
        assert rabbitmq.queues(amqp_url) == {QUEUE: (500, 0, 0)}
    assert_complete(sent, accounting.at_broker(amqp_url))
