"""The AMQP source against a real RabbitMQ."""

import select
import time
from urllib.parse import unquote, urlsplit

import amqp
import pytest

from leekfanout.configuration.config import Subscription
from leekfanout.errors import SourceError, SourceRefusedError
from leekfanout.sources import Ack
from leekfanout.sources.amqp import AmqpSource
from tests.brokers import RabbitMQ
from tests.inbox import CollectingInbox
from tests.waiting import until


def subscription(*urls: str, **keys) -> Subscription:
    return Subscription(
        org_name="acme",
        app_name="shop",
        app_env="qa",
        broker=urls,
        app_key="key",
        api_url="http://127.0.0.1:1",
        **keys,
    )


class Publisher:
    """A plain connection to the same virtual host."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = amqp.Connection(
            f"{parts.hostname}:{parts.port}",
            parts.username,
            parts.password,
            virtual_host=unquote(parts.path[1:]),
        )
        self._connection.connect()
        self.channel = self._connection.channel()

    def publish(self, *bodies: bytes, routing_key: str = "task.multi") -> None:
        for body in bodies:
            message = amqp.Message(body, content_type="application/json", delivery_mode=1)
            self.channel.basic_publish(message, "celeryev", routing_key)

    def depth(self, queue: str = "leek.fanout") -> int:
        return self.channel.queue_declare(queue, passive=True).message_count

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def publisher(amqp_url):
    publisher = Publisher(amqp_url)
    yield publisher
    publisher.close()


@pytest.fixture
def connect():
    sources = []

    def connect(url: str, **keys) -> AmqpSource:
        source = AmqpSource(subscription(url, **keys))
        sources.append(source)
        source.connect()
        return source

    yield connect
    for source in sources:
        source.close()


def receive(source: AmqpSource, inbox: CollectingInbox, count: int, limit: int = 1_000) -> None:
    """Wait until ``count`` messages are in the inbox."""
    deadline = time.monotonic() + 20
    while len(inbox.messages) < count:
        assert time.monotonic() < deadline, f"only {len(inbox.messages)} of {count} messages came"
        if not source.receive(inbox, limit):
            select.select([source], [], [], 1.0)


def test_what_is_published_is_received_in_order_with_tags_from_one(amqp_url, publisher, connect):
    source, inbox = connect(amqp_url), CollectingInbox()
    bodies = [b'{"n": %d}' % n for n in range(500)]
    publisher.publish(*bodies)
    receive(source, inbox, 500)
    assert inbox.bodies == bodies
    assert inbox.tags == list(range(1, 501))
    assert {content_type for _, _, content_type in inbox.messages} == {"application/json"}


def test_a_message_of_several_frames_is_received_whole(amqp_url, publisher, connect):
    source, inbox = connect(amqp_url), CollectingInbox()
    bodies = [b"small", bytes(range(256)) * 4_000, b"", b"small again"]
    publisher.publish(*bodies)
    receive(source, inbox, 4)
    assert inbox.bodies == bodies


def test_no_more_than_the_prefetch_count_is_delivered_before_an_ack(amqp_url, publisher, connect):
    source, inbox = connect(amqp_url, prefetch_count=1_000), CollectingInbox()
    publisher.publish(*[b"{}"] * 1_500)
    receive(source, inbox, 1_000)
    assert not select.select([source], [], [], 0.2)[0]
    source.ack([Ack(1_000, multiple=True)])
    receive(source, inbox, 1_500)


def test_acks_reach_the_broker_before_the_barrier_does(amqp_url, publisher, connect):
    source, inbox = connect(amqp_url), CollectingInbox()
    publisher.publish(*[b"{}"] * 10)
    receive(source, inbox, 10)
    reached = []
    source.ack([Ack(4, multiple=True), Ack(7, multiple=False)])
    source.barrier(lambda: reached.append(True))
    until(lambda: source.receive(inbox, 10) or reached, 10, "the barrier")
    source.close()
    until(lambda: publisher.depth() == 5, 10, "the unacked messages to return")


def test_handing_back_returns_all_unacked_messages_and_resuming_gets_them_again(
    amqp_url, publisher, connect
):
    source, inbox = connect(amqp_url), CollectingInbox()
    bodies = [b"%d" % n for n in range(50)]
    publisher.publish(*bodies)
    receive(source, inbox, 50)
    source.ack([Ack(10, multiple=True)])
    source.hand_back()
    until(lambda: publisher.depth() == 40, 10, "the messages to be back in the queue")
    source.tick(time.monotonic())  # the connection stays, and so do its heartbeats
    source.resume()
    inbox.messages.clear()
    receive(source, inbox, 40)
    assert inbox.bodies == bodies[10:]
    assert inbox.tags == list(range(1, 41))


def test_handing_back_works_while_messages_are_pouring_in(amqp_url, publisher, connect):
    source, inbox = connect(amqp_url, prefetch_count=5_000), CollectingInbox()
    publisher.publish(*[bytes(2_000)] * 5_000)
    receive(source, inbox, 1, limit=1)
    source.hand_back()
    until(lambda: publisher.depth() == 5_000, 10, "the messages to be back in the queue")


def test_after_stop_consuming_acks_still_arrive_and_closing_confirms_them(
    amqp_url, publisher, connect
):
    source, inbox = connect(amqp_url), CollectingInbox()
    publisher.publish(*[b"{}"] * 30)
    receive(source, inbox, 30)
    source.stop_consuming()
    publisher.publish(*[b"{}"] * 5)
    source.ack([Ack(20, multiple=True)])
    source.close(wait_s=5.0)
    until(lambda: publisher.depth() == 15, 10, "the unacked messages to return")


def test_the_depth_is_what_is_ready_in_the_queue(amqp_url, publisher, connect):
    source, inbox = connect(amqp_url), CollectingInbox()
    publisher.publish(*[b"{}"] * 1_300)
    receive(source, inbox, 1_000)
    assert source.depth == 0  # as it was when it connected

    def is_told() -> bool:
        # Asked again each time: the broker may still be taking in what was published.
        source.ask_depth()
        source.receive(inbox, 1_000)
        return source.depth == 300

    until(is_told, 10, "the depth")


def test_the_queue_is_durable_and_bound_to_a_durable_topic_exchange(
    amqp_url, rabbitmq, publisher, connect
):
    connect(amqp_url, queue="other.queue", routing_key="task.*")
    vhost = amqp_url.rpartition("/")[2]
    queue = rabbitmq.call("GET", f"/api/queues/{vhost}/other.queue")
    exchange = rabbitmq.call("GET", f"/api/exchanges/{vhost}/celeryev")
    bindings = rabbitmq.call("GET", f"/api/exchanges/{vhost}/celeryev/bindings/source")
    assert (queue["durable"], queue["auto_delete"], queue["exclusive"]) == (True, False, False)
    assert (exchange["type"], exchange["durable"]) == ("topic", True)
    assert [(b["destination"], b["routing_key"]) for b in bindings] == [("other.queue", "task.*")]


def test_a_quorum_queue_is_declared_where_it_is_asked_for(amqp_url, rabbitmq, connect):
    connect(amqp_url, queue_type="quorum")
    vhost = amqp_url.rpartition("/")[2]
    queue = rabbitmq.call("GET", f"/api/queues/{vhost}/leek.fanout")
    assert queue["arguments"] == {"x-queue-type": "quorum"}


def test_a_queue_with_other_arguments_is_used_as_it_is_with_one_warning(
    amqp_url, publisher, connect, caplog
):
    publisher.channel.exchange_declare("celeryev", "topic", durable=True, auto_delete=False)
    publisher.channel.queue_declare(
        "leek.fanout", durable=True, auto_delete=False, arguments={"x-max-length": 10_000}
    )
    source, inbox = connect(amqp_url), CollectingInbox()
    publisher.publish(b"{}")
    receive(source, inbox, 1)
    source.connect()
    warnings = [r for r in caplog.records if r.message == "queue.used_as_it_is"]
    assert len(warnings) == 1


def test_an_exchange_of_another_kind_is_used_as_it_is(amqp_url, publisher, connect, caplog):
    publisher.channel.exchange_declare("celeryev", "fanout", durable=False, auto_delete=False)
    source, inbox = connect(amqp_url), CollectingInbox()
    publisher.publish(b"{}")
    receive(source, inbox, 1)
    assert "exchange.used_as_it_is" in [r.message for r in caplog.records]


def test_a_deleted_queue_is_told_in_plain_words_and_made_again(amqp_url, publisher, connect):
    source, inbox = connect(amqp_url), CollectingInbox()
    publisher.channel.queue_delete("leek.fanout")
    with pytest.raises(SourceError, match=r"the queue leek\.fanout was deleted"):
        receive(source, inbox, 1)
    source.connect()
    publisher.publish(b"{}")
    receive(source, inbox, 1)


def test_a_wrong_password_is_refused_in_plain_words_without_the_password(rabbitmq):
    source = AmqpSource(subscription(rabbitmq.url(password="s3cret")))
    with pytest.raises(SourceRefusedError, match="refuses the credentials") as caught:
        source.connect()
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_virtual_host_is_refused_in_plain_words(rabbitmq):
    source = AmqpSource(subscription(rabbitmq.url("nowhere")))
    with pytest.raises(SourceRefusedError, match="refuses the virtual host"):
        source.connect()


def test_missing_permissions_are_refused_in_plain_words(amqp_url, rabbitmq: RabbitMQ):
    vhost = amqp_url.rpartition("/")[2]
    rabbitmq.call("PUT", "/api/users/weak", {"password": "weak", "tags": ""})
    nothing = {"configure": "^$", "write": "^$", "read": "^$"}
    rabbitmq.call("PUT", f"/api/permissions/{vhost}/weak", nothing)
    source = AmqpSource(subscription(rabbitmq.url(vhost, "weak", "weak")))
    with pytest.raises(SourceRefusedError, match=r"refuses access: .*\. Give the user"):
        source.connect()


def test_a_queue_that_may_not_be_made_is_told_as_a_lack_of_permission(amqp_url, rabbitmq):
    vhost = amqp_url.rpartition("/")[2]
    rabbitmq.call("PUT", "/api/users/reader", {"password": "reader", "tags": ""})
    reads = {"configure": "^$", "write": "^$", "read": ".*"}
    rabbitmq.call("PUT", f"/api/permissions/{vhost}/reader", reads)
    source = AmqpSource(subscription(rabbitmq.url(vhost, "reader", "reader")))
    with pytest.raises(
        SourceRefusedError, match=r"refuses access: .*leek\.fanout.*\. Give the user"
    ):
        source.connect()


def test_a_user_who_may_only_read_uses_what_there_is(amqp_url, rabbitmq, publisher, connect):
    connect(amqp_url).close()
    vhost = amqp_url.rpartition("/")[2]
    rabbitmq.call("PUT", "/api/users/reader", {"password": "reader", "tags": ""})
    reads = {"configure": "^$", "write": "^$", "read": ".*"}
    rabbitmq.call("PUT", f"/api/permissions/{vhost}/reader", reads)
    source, inbox = connect(rabbitmq.url(vhost, "reader", "reader")), CollectingInbox()
    publisher.publish(b"{}")
    receive(source, inbox, 1)


def test_no_broker_is_told_in_plain_words():
    source = AmqpSource(subscription("amqp://guest:guest@127.0.0.1:1//"))
    with pytest.raises(SourceError, match="refuses connections") as caught:
        source.connect()
    assert not isinstance(caught.value, SourceRefusedError)


def test_failover_addresses_are_tried_in_turn(amqp_url):
    source = AmqpSource(subscription("amqp://guest:pw@127.0.0.1:1//", amqp_url))
    with pytest.raises(SourceError):
        source.connect()
    source.connect()
    assert "pw" not in source.address
    source.close()
