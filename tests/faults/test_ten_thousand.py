"""One malformed event or one refused document among 10,000 costs exactly itself, from end to end.

All of it: RabbitMQ, the agent's process and an API. ``tests/test_one_bad.py`` tries every position.
"""

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from tests.accounting import assert_complete, dead_lettered, of_documents, of_messages
from tests.agent import Alone, subscription
from tests.api_double import ApiDouble
from tests.api_exchange import Reply
from tests.load import Load, Message, many, one
from tests.publishers import publish_amqp

MANY = 10_000
BATCH = 1_000
"""Leek's default, as the prefetch count is: one body may be all that is in hand."""
# The first, both sides of a batch's border, in its midst, and the last.
POSITIONS = [0, BATCH - 1, BATCH, 5_432, MANY - 1]
everywhere = pytest.mark.parametrize("position", POSITIONS)


def ten_thousand(seed: int) -> list[Message]:
    """One event of one task in each message, so that each is a document."""
    load = Load(seed=seed)
    return [one(load.task()[0]) for _ in range(MANY)]


def malformed(message: Message) -> Message:
    return message._replace(body=message.body.replace(b'"pid":', b'"pid":"not" "a number",'))


@everywhere
def test_one_malformed_event_among_ten_thousand(
    position: int, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    published = ten_thousand(81)
    victim = published[position] = malformed(published[position])
    with Alone(subscription(amqp_url, api), tmp_path) as agent:
        agent.wait_until_connected()
        publish_amqp(amqp_url, published)
        api.wait_for_events(MANY - 1, timeout_s=90)
        agent.wait_for_stat("events_bad")
        assert agent.stop() == 0
        assert agent.stats["events_bad"] == 1
    assert victim.body in (agent.state_of() / "deadletters.sqlite3").read_bytes()
    assert_complete(of_messages(published) - of_messages([victim]), of_documents(api.confirmed()))


@pytest.mark.parametrize("status", [400, 409])
@everywhere
def test_one_refused_document_among_ten_thousand(
    status: int, position: int, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    published = ten_thousand(82)
    ((victim, _),) = published[position].events
    api.refuse(lambda document: document["id"] == victim, status)
    with Alone(subscription(amqp_url, api), tmp_path) as agent:
        agent.wait_until_connected()
        publish_amqp(amqp_url, published)
        api.wait_for_events(MANY - 1, timeout_s=90)
        agent.wait_for_stat("documents_refused")
        assert agent.stop() == 0
    dead = dead_lettered(agent.state_of())
    assert dead == Counter({(victim, "task-sent"): 1})
    assert_complete(of_messages(published), of_documents(api.confirmed()), dead)


@pytest.mark.parametrize("status", [403, 500])
def test_one_document_on_which_the_api_fails_holds_up_none_of_ten_thousand(
    status: int, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    published = ten_thousand(83)
    ((victim, _),) = published[5_432].events
    needle = victim.encode()
    api.script(lambda request: Reply(status) if needle in request.body else None)
    with Alone(subscription(amqp_url, api), tmp_path) as agent:
        agent.wait_until_connected()
        publish_amqp(amqp_url, published)
        # No other traffic comes to show that it is this document's fault.
        api.wait_for_events(MANY - 1, timeout_s=90)
        agent.kill()
    victims = Counter({(victim, "task-sent"): 1})
    assert_complete(of_messages(published), of_documents(api.confirmed()), victims)


@pytest.mark.parametrize("pool", [1, 10])
def test_some_documents_on_which_the_api_fails_hold_up_none_of_eight_thousand(
    pool: int, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    published = ten_thousand(85)[:8_000]
    bad = [published[position] for position in (20, 1_020, 2_020, 3_020)]
    needles = [uuid.encode() for message in bad for uuid, _ in message.events]
    api.script(
        lambda request: Reply(500) if any(uuid in request.body for uuid in needles) else None
    )
    with Alone(subscription(amqp_url, api, concurrency_pool_size=pool), tmp_path) as agent:
        agent.wait_until_connected()
        publish_amqp(amqp_url, published)
        api.wait_for_events(8_000 - len(bad), timeout_s=90)
        agent.kill()
    # They are still being tried: nothing came afterwards to show that it isn't the API.
    assert dead_lettered(agent.state_of()).total() == 0
    assert_complete(of_messages(published), of_documents(api.confirmed()), of_messages(bad))


@pytest.mark.parametrize("position", [0, 499, 500, 999])
def test_one_malformed_event_in_a_long_list(
    position: int, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    load = Load(seed=84)
    events = [sent for sent, _ in islice(iter(load.task, None), BATCH)]
    victim = events[position]["uuid"]
    events[position]["clock"] = None
    message = many(events)
    keys = subscription(amqp_url, api, batch_max_number_of_messages=500)
    with Alone(keys, tmp_path) as agent:
        agent.wait_until_connected()
        publish_amqp(amqp_url, [message])
        api.wait_for_events(BATCH - 1)
        agent.wait_for_stat("events_bad")
        assert agent.stop() == 0
    dead = dead_lettered(agent.state_of())
    assert dead == Counter({(victim, "task-sent"): 1})
    assert_complete(of_messages([message]), of_documents(api.confirmed()), dead)
