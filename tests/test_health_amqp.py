"""Health checks of AMQP brokers tell what is wrong, and change nothing."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue

from leekfanout.configuration.config import Subscription
from leekfanout.health import Kind, check_broker
from tests.brokers import RabbitMQ
from tests.processes import free_ports
from tests.silent import SilentServer
from tests.test_config import load_one

EXCHANGE = Exchange("celeryev", type="topic")
QUEUE = Queue("leek.fanout", EXCHANGE, routing_key="#")


def subscription(*urls: str, **keys: Any) -> Subscription:
    return load_one(broker=";".join(urls), **keys)


def refused_port() -> int:
    (port,) = free_ports(1)
    return port


def test_a_broker_that_is_well_is_told_so_and_left_as_it_was(
    rabbitmq: RabbitMQ, amqp_url: str
) -> None:
    check = check_broker(subscription(amqp_url))
    assert check.ok
    assert not check.refused
    assert f"127.0.0.1:{rabbitmq.port}" in check.words
    assert rabbitmq.queues(amqp_url) == {}
    exchanges = rabbitmq.call("GET", f"/api/exchanges/{amqp_url.rpartition('/')[2]}")
    assert "celeryev" not in {each["name"] for each in exchanges}


def test_waiting_messages_are_not_touched(rabbitmq: RabbitMQ, amqp_url: str) -> None:
    with Connection(amqp_url, transport_options={"confirm_publish": True}) as connection:
        producer = connection.Producer()
        for number in range(3):
            producer.publish({"n": number}, "task.sent", exchange=EXCHANGE, declare=[QUEUE])
        assert check_broker(subscription(amqp_url)).ok
        bound = QUEUE(connection.default_channel)
        messages = [bound.get(no_ack=True) for _ in range(4)]
    assert [each and each.payload["n"] for each in messages] == [0, 1, 2, None]
    assert not any(each.delivery_info["redelivered"] for each in messages[:3])


def test_credentials_and_virtual_hosts_are_told_apart(rabbitmq: RabbitMQ) -> None:
    check = check_broker(subscription(rabbitmq.url(password="wrong-password")))
    assert check.kind is Kind.CREDENTIALS
    assert check.refused
    assert "wrong-password" not in str(check)
    check = check_broker(subscription(rabbitmq.url("nowhere")))
    assert check.kind is Kind.VIRTUAL_HOST
    assert check.refused
    assert "nowhere" in check.words


@contextlib.contextmanager
def user(rabbitmq: RabbitMQ, url: str, configure: str, write: str, read: str) -> Iterator[str]:
    vhost = url.rpartition("/")[2]
    rabbitmq.call("PUT", "/api/users/limited", {"password": "limited-pw", "tags": ""})
    rabbitmq.call(
        "PUT",
        f"/api/permissions/{vhost}/limited",
        {"configure": configure, "write": write, "read": read},
    )
    yield url.replace("guest:guest", "limited:limited-pw")
    rabbitmq.call("DELETE", "/api/users/limited")


@pytest.mark.parametrize(
    ("permissions", "missing"),
    [
        (("^$", "^$", "^$"), "read the queue leek.fanout"),
        ((".*", ".*", "^celeryev$"), "read the queue leek.fanout"),
        (("^celeryev$", ".*", ".*"), "configure the queue leek.fanout"),
        ((r"^leek\.fanout$", ".*", ".*"), "configure the exchange celeryev"),
        ((".*", "^$", ".*"), "bind the queue leek.fanout to the exchange celeryev"),
        ((".*", ".*", r"^leek\.fanout$"), "bind the queue leek.fanout to the exchange celeryev"),
    ],
)
def test_a_missing_permission_is_named(
    rabbitmq: RabbitMQ, amqp_url: str, permissions: tuple[str, str, str], missing: str
) -> None:
    with user(rabbitmq, amqp_url, *permissions) as url:
        check = check_broker(subscription(url))
    assert check.kind is Kind.PERMISSIONS
    assert missing in check.words
    assert "set_permissions" in check.advice
    assert rabbitmq.queues(amqp_url) == {}


def test_just_the_needed_permissions_suffice(rabbitmq: RabbitMQ, amqp_url: str) -> None:
    names = r"^(leek\.fanout|celeryev)$"
    with user(rabbitmq, amqp_url, names, names, names) as url:
        assert check_broker(subscription(url)).ok
    assert rabbitmq.queues(amqp_url) == {}


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_queue_that_exists_needs_nothing_but_reading(
    rabbitmq: RabbitMQ, amqp_url: str, queue_type: str
) -> None:
    arguments = {"x-queue-type": queue_type, "x-max-length": 1_000_000}
    with Connection(amqp_url) as connection:
        Queue("leek.fanout", EXCHANGE, routing_key="#", queue_arguments=arguments)(
            connection.default_channel
        ).declare()
    with user(rabbitmq, amqp_url, "^$", "^$", r"^leek\.fanout$") as url:
        check = check_broker(subscription(url))
    assert check.ok, check
    assert rabbitmq.queues(amqp_url) == {"leek.fanout": (0, 0, 0)}


def test_a_port_where_nobody_listens_refuses() -> None:
    check = check_broker(subscription(f"amqp://u:pw@127.0.0.1:{refused_port()}"))
    assert check.kind is Kind.CONNECTION_REFUSED
    assert not check.ok
    assert not check.refused


def test_a_host_that_does_not_exist_is_named() -> None:
    check = check_broker(subscription("amqp://u:pw@nowhere.invalid"))
    assert check.kind is Kind.HOST_UNKNOWN
    assert "nowhere.invalid" in check.words


def test_a_server_that_stays_silent_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leekfanout.health.amqp.TIMEOUT_S", 0.2)
    with SilentServer() as port:
        check = check_broker(subscription(f"amqp://u:pw@127.0.0.1:{port}"))
    assert check.kind is Kind.TIMEOUT


def test_another_kind_of_server_is_recognised() -> None:
    with SilentServer(b"HTTP/1.1 400 Bad Request\r\n\r\n", closes=True) as port:
        check = check_broker(subscription(f"amqp://u:pw@127.0.0.1:{port}"))
    assert check.kind is Kind.PROTOCOL


def test_tls_on_a_plain_port_is_told(rabbitmq: RabbitMQ) -> None:
    check = check_broker(subscription(f"amqps://guest:guest@127.0.0.1:{rabbitmq.port}"))
    assert check.kind is Kind.TLS


def test_one_address_that_is_well_suffices_and_the_others_are_named(amqp_url: str) -> None:
    dead = f"amqp://u:other-pw@127.0.0.1:{refused_port()}"
    for urls in ([dead, amqp_url], [amqp_url, dead]):
        check = check_broker(subscription(*urls))
        assert check.ok
        assert f"But: {dead.replace('u:other-pw@', '')} refuses connections." in check.advice
        assert "other-pw" not in str(check)


def test_of_addresses_that_fail_a_refusal_weighs_most(rabbitmq: RabbitMQ) -> None:
    dead = f"amqp://127.0.0.1:{refused_port()}"
    check = check_broker(subscription(dead, rabbitmq.url(password="wrong")))
    assert check.kind is Kind.CREDENTIALS
    assert f"{dead} refuses connections." in check.words
