"""Whatever the API answers, or doesn't: every event is accounted for, and nothing comes twice."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import accounting
from tests.accounting import assert_complete, assert_nothing_lost, of_documents, of_messages
from tests.agent import Alone, Resources, subscription
from tests.api_double import ApiDouble
from tests.api_exchange import Reply, Request
from tests.load import Load, Message, one
from tests.publishers import publish_amqp, publish_redis
from tests.waiting import until

PUBLISH = {"amqp_url": publish_amqp, "redis_url": publish_redis}
both_brokers = pytest.mark.parametrize("broker", list(PUBLISH))

# Small batches in many POSTs, so that a fault meets many of them.
KEYS: dict[str, Any] = {
    "batch_max_number_of_messages": 100,
    "concurrency_pool_size": 4,
    "api_read_timeout_in_seconds": 1,
}


def flapping(seed: int, *replies: Reply) -> Callable[[Request], Reply | None]:
    """Answer about every other POST with one of ``replies``, the others as the contract says."""
    rng = random.Random(seed)
    return lambda _: rng.choice([None, rng.choice(replies)])


FAULTS = {
    "overload": (Reply(429), Reply(503), Reply(500), Reply(408), Reply(425), Reply(502)),
    "retry-after": (Reply(503, headers={"Retry-After": "0"}), Reply(429, headers={"Retry-After": "1"})),
    "no-confirmation": (Reply(200, {"success": 100}), Reply(202), Reply(204), Reply(302)),
    "wrong-application": (Reply(401), Reply(403), Reply(404)),
    "cut-before-the-answer": (Reply(201, takes=False, cut_after_bytes=0),),
    "reset-before-the-answer": (Reply(201, takes=False, cut_after_bytes=0, reset=True),),
    "silent": (Reply(201, takes=False, silent=True),),
    "rubbish": (Reply(500, b"<html>" + b"x" * 100_000), Reply(503, {"error": []}), Reply(599)),
}  # fmt: skip


@pytest.mark.parametrize("fault", list(FAULTS))
@both_brokers
def test_a_flapping_api_costs_no_event_and_causes_no_duplicate(
    fault: str, broker: str, request: pytest.FixtureRequest, api: ApiDouble, tmp_path: Path
) -> None:
    url = request.getfixturevalue(broker)
    api.script(flapping(7, *FAULTS[fault]))
    with Alone(subscription(url, api, **KEYS), tmp_path) as agent:
        agent.wait_until_connected()
        sent = of_messages(PUBLISH[broker](url, Load(seed=3).messages(1_000)))
        # Enough POSTs have met the fault; what is left must not take the test's time.
        until(lambda: len(api.posts) > 12, 60, "POSTs that meet the fault")
        api.behave()
        api.wait_for_events(sent.total(), timeout_s=60)
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))
    assert api.most_probes_at_once <= 1


@both_brokers
def test_an_api_that_is_away_gets_everything_when_it_is_back(
    broker: str, request: pytest.FixtureRequest, api: ApiDouble, tmp_path: Path
) -> None:
    url = request.getfixturevalue(broker)
    with Alone(subscription(url, api, **KEYS), tmp_path) as agent:
        agent.wait_until_connected()
        load = Load(seed=4)
        sent = of_messages(PUBLISH[broker](url, load.messages(200)))
        api.wait_for_events(sent.total())
        before = Resources.of(agent.process.pid)
        api.go_down()
        sent += of_messages(PUBLISH[broker](url, load.messages(1_500)))
        agent.wait_for_stat("breaker_open")
        assert "API" in agent.stats["last_error"]
        api.come_up()
        # A probe runs at least every 10 seconds.
        api.wait_for_events(sent.total(), timeout_s=25)
        until(
            lambda: Resources.of(agent.process.pid).threads <= before.threads, 20, "threads to end"
        )
        # One line each for those who read the log, however long it takes.
        (away,) = agent.wait_for_line("api.away")
        (back,) = agent.wait_for_line("api.back")
        assert away["reason"]
        assert back["after_s"] > 0
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))
    assert api.most_probes_at_once <= 1


@both_brokers
def test_half_an_answer_is_no_confirmation(
    broker: str, request: pytest.FixtureRequest, api: ApiDouble, tmp_path: Path
) -> None:
    url = request.getfixturevalue(broker)
    half = Reply(201, {"success": 100, "padding": "x" * 1_000}, cut_after_bytes=300)
    api.script([half, None, half])
    with Alone(subscription(url, api, **KEYS), tmp_path) as agent:
        agent.wait_until_connected()
        sent = of_messages(PUBLISH[broker](url, Load(seed=5).messages(500)))
        api.wait_for_events(sent.total(), timeout_s=60)
        assert agent.stop() == 0
    # The API had taken those documents, and nobody could know: at least once.
    taken = [document for post in api.posts for document in post.taken]
    assert_nothing_lost(sent, of_documents(taken))
    assert_complete(sent, of_documents(api.confirmed()))


def test_a_connection_that_is_closed_under_the_client_causes_no_loss(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.script(lambda request: Reply(201, close=True) if request.number % 2 else None)
    with Alone(subscription(amqp_url, api, **KEYS), tmp_path) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_amqp(amqp_url, Load(seed=6).messages(1_000)))
        api.wait_for_events(sent.total(), timeout_s=60)
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


@pytest.mark.parametrize("status", [400, 409, 422])
@pytest.mark.parametrize("position", [0, 57, 99])
def test_one_refused_document_costs_exactly_itself(
    status: int, position: int, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    load = Load(seed=8)
    published = list(_single_task_messages(load, 300))
    victim = published[100 + position].events[0][0]
    api.refuse(lambda document: document["id"] == victim, status)
    with Alone(subscription(amqp_url, api, **KEYS), tmp_path) as agent:
        agent.wait_until_connected()
        publish_amqp(amqp_url, published)
        sent = of_messages(published)
        api.wait_for_events(sent.total() - 1, timeout_s=60)
        agent.wait_for_stat("documents_refused")
        assert agent.stop() == 0
    dead = accounting.dead_lettered(agent.state_of())
    assert dead == Counter({(victim, "task-sent"): 1})
    assert_complete(sent, of_documents(api.confirmed()), dead)


def test_a_body_that_is_too_large_is_cut_until_it_fits(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    load = Load(seed=9)
    api.script(lambda request: Reply(413) if len(request.body) > 20_000 else None)
    with Alone(subscription(amqp_url, api, **KEYS), tmp_path) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_amqp(amqp_url, load.messages(500)))
        api.wait_for_events(sent.total(), timeout_s=60)
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_a_document_that_a_firewall_forbids_holds_up_nobody(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    published = list(_single_task_messages(Load(seed=10), 300))
    victim = published[150].events[0][0].encode()
    api.script(lambda request: Reply(403) if victim in request.body else None)
    keys = {**KEYS, "batch_max_number_of_messages": 20}
    with Alone(subscription(amqp_url, api, **keys), tmp_path) as agent:
        agent.wait_until_connected()
        publish_amqp(amqp_url, published)
        api.wait_for_events(280, timeout_s=60)
        # Only while others are confirmed can it be known that it isn't the application.
        load = Load(seed=17)
        for _ in range(60):
            published += (more := list(_single_task_messages(load, 10)))
            publish_amqp(amqp_url, more)
            api.wait_for_events(len(published) - 20, timeout_s=60)
            if api.confirmed_events() == len(published) - 1:
                break
        sent = of_messages(published)
        api.wait_for_events(sent.total() - 1, timeout_s=60)
        assert agent.stop() == 0
    # It is retried for a long time before it is given up, since this may be a bad moment.
    left = accounting.at_broker(amqp_url) + accounting.dead_lettered(agent.state_of())
    assert left == Counter({(victim.decode(), "task-sent"): 1})
    assert_complete(sent, of_documents(api.confirmed()), left)


def test_redirects_are_not_followed_with_the_key(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    with ApiDouble() as elsewhere:
        to = {"Location": f"{elsewhere.url}/v1/events/process"}
        api.script([Reply(307, headers=to), Reply(302, headers=to), Reply(301, headers=to)])
        with Alone(subscription(amqp_url, api, **KEYS), tmp_path) as agent:
            agent.wait_until_connected()
            sent = of_messages(publish_amqp(amqp_url, Load(seed=11).messages(50)))
            api.wait_for_events(sent.total(), timeout_s=60)
            assert agent.stop() == 0
        assert elsewhere.connections_accepted == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_a_slow_api_gets_bodies_that_take_longer_than_any_timeout(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.read_bytes_per_s = 100_000
    keys = {"api_connect_timeout_in_seconds": 1, "api_read_timeout_in_seconds": 1}
    with Alone(subscription(amqp_url, api, **keys), tmp_path) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_amqp(amqp_url, Load(seed=12, padding=2_000).messages(120)))
        api.wait_for_events(sent.total(), timeout_s=60)
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_stopping_while_the_api_is_away_leaves_amqp_events_at_the_broker(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.go_down()
    with Alone(subscription(amqp_url, api, **KEYS), tmp_path) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_amqp(amqp_url, Load(seed=13).messages(500)))
        agent.wait_for_stat("breaker_open")
        assert agent.stop() == 0
    assert_complete(sent, accounting.at_broker(amqp_url))


def test_stopping_while_the_api_is_away_spools_redis_events_and_the_next_start_delivers_them(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.go_down()
    keys = subscription(redis_url, api, **KEYS)
    with Alone(keys, tmp_path) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_redis(redis_url, Load(seed=14).messages(500)))
        agent.wait_for_stat("events_received", sent.total())
        assert agent.stop() == 0
    assert_complete(sent, accounting.spooled(agent.state_of()))
    api.come_up()
    with Alone(keys, tmp_path) as agent:
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))
    assert not accounting.spooled(agent.state_of())


def test_redis_events_beyond_the_memory_bound_wait_on_disk_and_come_in_order(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.go_down()
    with Alone(
        subscription(redis_url, api, **{**KEYS, "concurrency_pool_size": 1}),
        tmp_path,
        spool_memory_max_mb=0.2,
    ) as agent:
        agent.wait_until_connected()
        published = list(_single_task_messages(Load(seed=15), 3_000))
        publish_redis(redis_url, published)
        agent.wait_for_stat("events_received", 3_000)
        agent.wait_for_stat("events_spooled", 2_000)
        api.come_up()
        sent = of_messages(published)
        api.wait_for_events(sent.total(), timeout_s=60)
        assert agent.stop() == 0
    confirmed = api.confirmed()
    assert_complete(sent, of_documents(confirmed))
    # Three batches may have been tried before the breaker opened; each has a retry to wait for.
    untried = [message.events[0][0] for message in published[300:]]
    kept = set(untried)
    assert [d["id"] for d in confirmed if d["id"] in kept] == untried


def test_a_full_spool_drops_the_oldest_counted(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.go_down()
    with Alone(
        subscription(redis_url, api, **KEYS),
        tmp_path,
        spool_memory_max_mb=0.1,
        spool_max_mb=0.5,
    ) as agent:
        agent.wait_until_connected()
        published = list(_single_task_messages(Load(seed=16), 3_000))
        publish_redis(redis_url, published)
        agent.wait_for_stat("events_received", 3_000)
        agent.wait_for_stat("events_dropped_by_bound")
        api.come_up()
        until(
            lambda: api.confirmed_events() + agent.stats["events_dropped_by_bound"] >= 3_000,
            60,
            "every event to be delivered or counted as dropped",
        )
        dropped = agent.stats["events_dropped_by_bound"]
        assert agent.stop() == 0
        assert agent.lines("spool.dropped")
    confirmed = of_documents(api.confirmed())
    missing = of_messages(published) - confirmed
    assert missing.total() == dropped
    # What is kept is what is newest.
    newest = of_messages(published[-200:])
    assert newest <= confirmed


def _single_task_messages(load: Load, count: int) -> Iterator[Message]:
    return (one(load.task()[0]) for _ in range(count))
