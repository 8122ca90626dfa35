"""One document on which the API fails again and again holds up none of what stands around it.

With Leek's defaults one batch is all that is in hand, so that a message which can't be acked beside it
would soon be all that the broker lets the agent have.
"""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tests.accounting import assert_complete, of_documents, of_messages
from tests.agent import Alone, subscription
from tests.api_double import ApiDouble
from tests.api_exchange import Reply
from tests.load import Load, Message, many, one
from tests.proxy import TcpProxy
from tests.publishers import publish_amqp

BATCH = 1_000
"""Leek's default, as the prefetch count is."""


def singles(load: Load, count: int) -> list[Message]:
    return [one(load.task()[0]) for _ in range(count)]


def fail_on(api: ApiDouble, message: Message) -> None:
    ((victim, _),) = message.events
    api.script(lambda request: Reply(500) if victim.encode() in request.body else None)


def wait_for_all_but(api: ApiDouble, published: Sequence[Message], victim: Message) -> None:
    others = of_messages(published) - of_messages([victim])
    api.wait_for_events(others.total(), timeout_s=60)
    assert_complete(others, of_documents(api.confirmed()))


def test_after_a_lost_connection_what_comes_again_beside_it_is_acked(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    load = Load(seed=91)
    published = singles(load, BATCH)
    victim = published[500]
    fail_on(api, victim)
    with (
        TcpProxy(urlsplit(amqp_url).port or 0) as proxy,
        Alone(subscription(proxy.url(amqp_url), api), tmp_path) as agent,
    ):
        agent.wait_until_connected()
        publish_amqp(amqp_url, published)
        wait_for_all_but(api, published, victim)
        proxy.go_down()
        agent.wait_for_line("broker.down")
        more = singles(load, 3 * BATCH)
        publish_amqp(amqp_url, more)
        published += more
        proxy.heal()
        wait_for_all_but(api, published, victim)


def test_a_batch_that_begins_with_the_rest_of_a_list_is_acked_beside_it(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    load = Load(seed=92)
    list_of_two = many([load.task()[0], load.task()[0]])
    published = [*singles(load, BATCH - 1), list_of_two, *singles(load, 4 * BATCH)]
    victim = published[BATCH + 500]
    fail_on(api, victim)
    with Alone(subscription(amqp_url, api, batch_max_window_in_seconds=5), tmp_path) as agent:
        agent.wait_until_connected()
        publish_amqp(amqp_url, published)
        wait_for_all_but(api, published, victim)


def test_a_workers_document_holds_up_none_of_its_tasks(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    load = Load(seed=93)
    worker = "celery@worker"
    victim = load.heartbeat(worker)
    tasks = [one(load.task()[1][0]) for _ in range(3 * BATCH)]
    published = [*tasks[:500], victim, *tasks[500:]]
    marker = f'"id":"{worker}"'.encode()
    api.script(lambda request: Reply(500) if marker in request.body else None)
    with Alone(subscription(amqp_url, api), tmp_path) as agent:
        agent.wait_until_connected()
        publish_amqp(amqp_url, published)
        wait_for_all_but(api, published, victim)
