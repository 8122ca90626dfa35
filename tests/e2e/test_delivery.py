"""Events travel the whole way, from a broker through the agent to the API, and none is missing."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests import accounting
from tests.accounting import assert_complete, of_documents, of_messages
from tests.agent import Agent, Alone, subscription
from tests.api_double import ApiDouble
from tests.api_exchange import Reply
from tests.brokers import RabbitMQ
from tests.load import Load, Message, one
from tests.processes import free_ports
from tests.publishers import publish_amqp, publish_redis
from tests.waiting import until

QUEUE = "leek.fanout"

Publish = Callable[[str, Iterable[Message]], list[Message]]
PUBLISH: dict[str, Publish] = {"amqp_url": publish_amqp, "redis_url": publish_redis}
both_brokers = pytest.mark.parametrize("broker", list(PUBLISH))


@both_brokers
def test_fifty_thousand_messages_arrive_complete(
    broker: str, request: pytest.FixtureRequest, api: ApiDouble, tmp_path: Path
) -> None:
    url = request.getfixturevalue(broker)
    with Agent([subscription(url, api, concurrency_pool_size=2)], tmp_path) as agent:
        agent.wait_until_connected()
        published = PUBLISH[broker](url, Load(seed=50).messages(50_000))
        assert len(published) == 50_000
        sent = of_messages(published)
        api.wait_for_events(sent.total(), timeout_s=120)
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))
    if broker == "amqp_url":
        rabbitmq: RabbitMQ = request.getfixturevalue("rabbitmq")
        assert rabbitmq.queues(url) == {QUEUE: (0, 0, 0)}


def test_up_to_ten_posts_are_under_way_at_once(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    keys = {"concurrency_pool_size": 10, "batch_max_number_of_messages": 50}
    api.delay_s = 0.2
    with Alone(subscription(amqp_url, api, **keys), tmp_path) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_amqp(amqp_url, Load(seed=10).messages(2_000)))
        api.wait_for_events(sent.total())
    assert api.most_posts_at_once == 10
    assert_complete(sent, of_documents(api.confirmed()))


def test_several_subscriptions_on_both_brokers_run_at_once(
    rabbitmq: RabbitMQ, amqp_url: str, redis_url: str, tmp_path: Path
) -> None:
    second_vhost = rabbitmq.new_vhost()
    brokers = {"shop": amqp_url, "bank": second_vhost, "mail": redis_url}
    with ApiDouble("key-one") as one_api, ApiDouble("key-two") as other_api:
        apis = {"shop": one_api, "bank": other_api, "mail": other_api}
        subscriptions = [
            subscription(url, apis[name], app_name=name, app_env="qa")
            for name, url in brokers.items()
        ]
        with Agent(subscriptions, tmp_path) as agent:
            agent.wait_until_connected(3)
            sent = {}
            for seed, (name, url) in enumerate(brokers.items(), start=1):
                publish = publish_redis if name == "mail" else publish_amqp
                load = [m for m in Load(seed).messages(1_000) if m.routing_key.startswith("task")]
                sent[name] = of_messages(publish(url, load))
            one_api.wait_for_events(sent["shop"].total())
            other_api.wait_for_events(sent["bank"].total() + sent["mail"].total())
            assert agent.stop() == 0
        for name, counted in sent.items():
            posts = [
                post for post in apis[name].posts if post.request.headers["x-leek-app-name"] == name
            ]
            documents = [document for post in posts for document in post.confirmed]
            assert_complete(counted, of_documents(documents))
            assert {document["app_env"] for document in documents} == {"qa"}
    rabbitmq.delete_vhost(second_vhost)


def test_a_subscription_whose_broker_and_api_are_away_leaves_the_others_alone(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    nowhere, nobody = free_ports(2)
    subscriptions = [
        subscription(f"amqp://127.0.0.1:{nowhere}//", api, app_name="lost"),
        subscription(
            amqp_url, api, app_name="mute", queue="other", api_url=f"http://127.0.0.1:{nobody}"
        ),
        subscription(amqp_url, api),
    ]
    with Agent(subscriptions, tmp_path) as agent:
        agent.wait_until_connected(2)
        sent = of_messages(publish_amqp(amqp_url, Load().messages(200)))
        api.wait_for_events(sent.total())
        assert set(agent.children()) == {"lost-prod", "mute-prod", "shop-prod"}
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))
    assert_complete(sent, accounting.at_broker(amqp_url, "other"))


def test_nothing_is_acked_before_the_api_has_confirmed_it(
    rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.script(lambda _: Reply(503))
    with Alone(subscription(amqp_url, api), tmp_path) as agent:
        agent.wait_until_connected()
        published = publish_amqp(amqp_url, Load().messages(200))
        agent.wait_for_stat("messages_received", 200)
        api.wait_for_posts(2)
        assert rabbitmq.queues(amqp_url) == {QUEUE: (0, 200, 1)}
        api.behave()
        sent = of_messages(published)
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))
    assert rabbitmq.queues(amqp_url) == {QUEUE: (0, 0, 0)}


@both_brokers
def test_an_event_that_cannot_be_used_is_set_aside_alone(
    broker: str, request: pytest.FixtureRequest, api: ApiDouble, tmp_path: Path
) -> None:
    url = request.getfixturevalue(broker)
    load = Load()
    good = list(load.messages(300))
    no_uuid, no_clock = load.task()[0], load.task()[0]
    del no_uuid["uuid"], no_clock["clock"]
    # Ids by which the accounting could tell what has become of them.
    bad = [
        Message("task.sent", b'{"type": "task-sent", "hostname": "gen1@client"', ()),
        Message("task.sent", b"[]]", ()),
        Message("task.multi", one(good_event(load)).body[:-1] + b', "pid": "many"}', ()),
        Message("task.sent", one({**no_uuid, "uuid": None, "hostname": "x"}).body, ()),
        one(no_clock),
    ]
    mixed = [message for pair in zip(good, bad * 60, strict=True) for message in pair]
    with Alone(subscription(url, api), tmp_path) as agent:
        agent.wait_until_connected()
        PUBLISH[broker](url, mixed)
        sent = of_messages(good)
        api.wait_for_events(sent.total())
        agent.wait_for_stat("events_bad", 300)
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))
    assert accounting.dead_lettered(agent.state_of())[no_clock["uuid"], "task-sent"] == 60


def good_event(load: Load) -> dict[str, Any]:
    return load.task()[0]


@pytest.mark.parametrize("broker", ["amqp_url", "redis_url"])
def test_the_next_broker_address_is_tried_when_one_is_away(
    broker: str, request: pytest.FixtureRequest, api: ApiDouble, tmp_path: Path
) -> None:
    url = request.getfixturevalue(broker)
    (nowhere,) = free_ports(1)
    away = f"{url.partition(':')[0]}://127.0.0.1:{nowhere}/0"
    with Alone(subscription(f"{away};{url}", api), tmp_path) as agent:
        agent.wait_until_connected()
        sent = of_messages(PUBLISH[broker](url, Load().messages(20)))
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_a_queue_with_other_arguments_is_used_as_it_is_with_one_warning(
    rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    vhost = amqp_url.rpartition("/")[2]
    limited = {"durable": True, "arguments": {"x-max-length": 1_000_000}}
    rabbitmq.call("PUT", f"/api/queues/{vhost}/{QUEUE}", limited)
    with Alone(subscription(amqp_url, api), tmp_path) as agent:
        agent.wait_until_connected()
        cut_connections(rabbitmq, vhost)
        agent.wait_until_connected(2)
        sent = of_messages(publish_amqp(amqp_url, Load().messages(20)))
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))
    assert len(agent.lines("queue.used_as_it_is")) == 1


def cut_connections(rabbitmq: RabbitMQ, vhost: str) -> None:
    """Have the broker close all connections to a virtual host."""

    def names() -> list[str]:
        connections = rabbitmq.call("GET", f"/api/vhosts/{vhost}/connections")
        assert isinstance(connections, list)
        return [connection["name"] for connection in connections]

    for name in until(names, 10, "the broker to list the agent's connection"):
        rabbitmq.call("DELETE", f"/api/connections/{quote(name, safe='')}")
