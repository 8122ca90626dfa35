"""Agents that share a queue on RabbitMQ, each with a state folder of its own, as on several hosts.

``MANY_AGENTS_EVENTS=100000`` makes it as large as that.
"""

import os
from contextlib import ExitStack
from pathlib import Path

from tests.accounting import assert_nothing_lost, dead_lettered, of_documents, of_messages
from tests.agent import Alone, subscription
from tests.api_double import ApiDouble
from tests.brokers import RabbitMQ
from tests.load import Load
from tests.publishers import publish_amqp
from tests.waiting import until

EVENTS = int(os.environ.get("MANY_AGENTS_EVENTS", "20000"))
PREFETCH = 1_000
LONGEST_LIST = 6
POST_S = 0.05
"""Slows the agents down, so that there is a middle in which one can be killed."""


def test_three_agents_on_one_queue_lose_nothing_when_one_is_killed_and_one_joins(
    rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    entry = subscription(
        amqp_url, api, prefetch_count=PREFETCH, batch_max_number_of_messages=PREFETCH // 4
    )
    api.delay_s = POST_S
    with ExitStack() as agents:
        first = [agents.enter_context(Alone(entry, tmp_path / f"agent{n}")) for n in range(3)]
        for agent in first:
            agent.wait_until_connected()
        load = Load(seed=8)
        # Messages hold 1 to 6 events; what is published decides, so that there are enough.
        messages = publish_amqp(amqp_url, load.messages(EVENTS // 2, LONGEST_LIST))
        sent = of_messages(messages)
        victim = first[1]
        victim.wait_for_stat("events_delivered")
        until(lambda: sent.total() // 4 < api.confirmed_events(), 120, "a quarter to be delivered")
        victim.kill()
        fourth = agents.enter_context(Alone(entry, tmp_path / "agent3"))
        fourth.wait_until_connected()
        more = publish_amqp(amqp_url, load.messages(EVENTS // 4, LONGEST_LIST))
        sent += of_messages(more)
        api.wait_for_events(sent.total(), timeout_s=300)
        until(lambda: rabbitmq.queues(amqp_url)["leek.fanout"] == (0, 0, 3), 60, "an empty queue")
        for agent in (first[0], first[2], fourth):
            assert agent.stop() == 0
            assert agent.stats["events_delivered"] > 0  # all of them have had their part
        folders = [tmp_path / f"agent{n}" / "state" / "shop-prod" for n in range(4)]
    surplus = assert_nothing_lost(
        sent, of_documents(api.confirmed()), *(dead_lettered(folder) for folder in folders)
    )
    # Twice is at most what the killed one had in hand.
    assert surplus <= PREFETCH * LONGEST_LIST
    assert sent.total() >= EVENTS
