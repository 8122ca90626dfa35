"""Several processes for one subscription of RabbitMQ."""

import json
from pathlib import Path
from typing import Any

import pytest

from leekfanout.configuration import config
from leekfanout.control.control_client import Client
from leekfanout.errors import ConfigError
from leekfanout.supervision.farm import Difference, difference
from tests.accounting import assert_complete, of_documents, of_messages
from tests.agent import Agent, run_leekfanout, subscription
from tests.api_double import ApiDouble
from tests.brokers import RabbitMQ
from tests.load import Load, Message
from tests.publishers import publish_amqp
from tests.waiting import until

ENTRY = {
    "broker": "amqp://rabbit//",
    "org_name": "mono",
    "app_name": "shop",
    "app_env": "prod",
    "app_key": "key",
    "api_url": "http://leek:5000",
}


def loaded(**keys: Any) -> list[config.Subscription]:
    return config.for_processes(config.subscriptions_of([{**ENTRY, **keys}], {}))


def test_each_process_has_a_name_of_its_own_and_is_the_same_otherwise() -> None:
    first, second, third = loaded(processes=3)
    assert [each.name for each in (first, second, third)] == [
        *("shop-prod", "shop-prod-2", "shop-prod-3")
    ]
    assert first == loaded()[0]
    assert config.for_processes([first, second, third]) == [first, second, third]


def test_a_change_of_their_number_restarts_none_of_those_that_stay() -> None:
    assert difference(loaded(processes=2), loaded(processes=3)) == Difference(
        added=("shop-prod-3",)
    )
    assert difference(loaded(processes=2), loaded()) == Difference(removed=("shop-prod-2",))


@pytest.mark.parametrize("broker", ["redis://r/0", "sentinel://s"])
def test_redis_has_one_and_the_reason_is_said(broker: str) -> None:
    options = {"transport_options": {"master_name": "m"}} if "sentinel" in broker else {}
    with pytest.raises(ConfigError) as raised:
        loaded(broker=broker, processes=2, **options)
    assert raised.value.problems == [
        "subscription shop-prod: processes: 2: must be 1 for Redis, whose PUB/SUB would give "
        "every event to each process"
    ]
    assert len(loaded(broker=broker, processes=1, **options)) == 1


def test_processes_share_the_queue_and_deliver_everything_once(
    rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    file = tmp_path / "subscriptions.json"
    entry = subscription(amqp_url, api, processes=3, batch_max_number_of_messages=100)
    file.write_text(json.dumps([entry]))
    env = {"LEEK_AGENT_SUBSCRIPTIONS": "", "LEEK_AGENT_SUBSCRIPTIONS_FILE": str(file)}
    api.delay_s = 0.02
    with Agent([entry], tmp_path, env=env) as agent:
        agent.wait_until_connected(3)
        assert set(agent.children()) == {"shop-prod", "shop-prod-2", "shop-prod-3"}
        bad = Message("task.sent", b"no JSON", ())
        publish_amqp(amqp_url, [bad] * 30)
        sent = of_messages(publish_amqp(amqp_url, Load(seed=3).messages(5_000)))
        api.wait_for_events(sent.total(), timeout_s=90)
        client = Client(agent.state_dir / "control.sock")
        statuses = {each["name"]: each for each in client.call("leekfanout.getStatus")}
        for status in statuses.values():
            assert status["counters"]["events_delivered"] > 0
        until(lambda: rabbitmq.queues(amqp_url)["leek.fanout"] == (0, 0, 3), 30, "an empty queue")
        listed = run_leekfanout("deadletters", "list", "--state-dir", str(agent.state_dir))
        assert "shop-prod-2:1" in listed.stdout
        replayed = run_leekfanout(
            *("deadletters", "replay", "shop-prod-2:1", "--state-dir", str(agent.state_dir)),
            env=env,
        )
        assert "no subscription" not in replayed.stderr
        file.write_text(json.dumps([{**entry, "processes": 1}]))
        assert client.call("leekfanout.reload")["removed"] == ["shop-prod-2", "shop-prod-3"]
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))
