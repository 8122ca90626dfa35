"""The tests' own servers do what the other tests rely on."""

import pytest
import redis
from kombu import Connection, Exchange, Queue

from tests import brokers
from tests.brokers import RabbitMQ, Redis, SentinelSetup
from tests.waiting import until


def put(url: str, count: int, delivery_mode: int, **queue_options: object) -> None:
    queue = Queue("kept", Exchange("kept", type="direct"), routing_key="kept", **queue_options)
    # Without a confirm for each, a broker that is killed at once loses persistent messages too.
    confirmed = Connection(url, transport_options={"confirm_publish": True})
    with confirmed as connection, connection.Producer() as producer:
        for number in range(count):
            producer.publish(
                {"n": number},
                exchange=queue.exchange,
                routing_key="kept",
                delivery_mode=delivery_mode,
                declare=[queue],
            )


def test_each_test_gets_an_empty_vhost(rabbitmq: RabbitMQ, amqp_url: str) -> None:
    assert rabbitmq.queues(amqp_url) == {}
    put(amqp_url, 3, delivery_mode=2)
    assert rabbitmq.queues(amqp_url) == {"kept": (3, 0, 0)}
    second = rabbitmq.new_vhost()
    assert rabbitmq.queues(second) == {}
    rabbitmq.delete_vhost(second)


def test_a_killed_rabbitmq_comes_back_on_its_port_with_its_data(own_rabbitmq: RabbitMQ) -> None:
    put(own_rabbitmq.url(), 5, delivery_mode=2)
    port, pid = own_rabbitmq.port, own_rabbitmq.process.pid
    own_rabbitmq.kill()
    own_rabbitmq.start()
    assert own_rabbitmq.port == port
    assert own_rabbitmq.process.pid != pid
    assert own_rabbitmq.queues(own_rabbitmq.url()) == {"kept": (5, 0, 0)}


def test_a_stopped_redis_comes_back_on_its_port(own_redis: Redis) -> None:
    port = own_redis.port
    own_redis.restart()
    assert own_redis.port == port
    assert own_redis.client().ping()


def test_a_paused_redis_answers_nothing_until_it_is_resumed(own_redis: Redis) -> None:
    client = brokers.client(own_redis.port, timeout_s=0.2)
    own_redis.pause()
    with pytest.raises(redis.TimeoutError):
        client.ping()
    own_redis.resume()
    assert until(client.ping, 10, "the resumed server to answer")


def test_sentinel_promotes_the_replica_when_the_master_is_killed(sentinel: SentinelSetup) -> None:
    assert sentinel.sentinel is not None
    assert sentinel.replica is not None
    assert sentinel.sentinel.master_port() == sentinel.master.port
    sentinel.master.kill()
    replica_port = sentinel.replica.port
    until(
        lambda: sentinel.sentinel.master_port() == replica_port,
        60,
        "Sentinel to promote the replica",
    )
