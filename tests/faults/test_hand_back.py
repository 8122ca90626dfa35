"""Long outages of the API on RabbitMQ: messages go back to the broker, and come once in the end."""

from pathlib import Path
from typing import Any

from tests.accounting import assert_complete, of_documents, of_messages
from tests.agent import Alone, subscription
from tests.api_double import ApiDouble
from tests.brokers import RabbitMQ
from tests.load import Load
from tests.publishers import publish_amqp
from tests.waiting import until

QUEUE = "leek.fanout"
SOON = {"pipeline.HAND_BACK_AFTER_S": 0.5}


def test_messages_return_to_the_queue_while_the_api_is_away_and_come_once_when_it_is_back(
    rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    with Alone(subscription(amqp_url, api), tmp_path, constants=SOON) as agent:
        agent.wait_until_connected()
        api.go_down()
        sent = of_messages(publish_amqp(amqp_url, Load(seed=21).messages(1_500)))
        agent.wait_for_stat("hand_backs")
        assert rabbitmq.queues(amqp_url) == {QUEUE: (1_500, 0, 0)}
        assert agent.stats["messages_in_flight"] == 0
        api.come_up()
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
        assert agent.stats["hand_backs"] <= 2
        print(agent.lines())
    assert_complete(sent, of_documents(api.confirmed()))
    assert api.most_probes_at_once == 1
