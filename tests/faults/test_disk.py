"""A state directory that is missing, full or damaged: delivery goes on, and what is wrong is said."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import accounting
from tests.accounting import assert_complete, of_documents, of_messages
from tests.agent import Alone, subscription
from tests.api_double import ApiDouble
from tests.brokers import RabbitMQ
from tests.load import Load, Message
from tests.publishers import publish_amqp, publish_redis
from tests.waiting import until

QUEUE = "leek.fanout"
PUBLISH = {"amqp_url": publish_amqp, "redis_url": publish_redis}
both_brokers = pytest.mark.parametrize("broker", list(PUBLISH))
IMPATIENT = {
    "delivery.unkept.STORE_RETRY_S": 0.3,
    "delivery.sender.STORE_RETRY_S": 0.3,
    "delivery.custody.LOAD_RETRY_S": 0.3,
}
RUBBISH = Message("task.sent", b"rubbish", ())


def block(folder: Path) -> None:
    """Put a file where the subscription's folder was: nothing can be written there, root or not."""
    folder.rename(folder.with_suffix(".away"))
    folder.write_text("in the way")


def unblock(folder: Path) -> None:
    folder.unlink()
    folder.with_suffix(".away").rename(folder)


@both_brokers
def test_delivery_goes_on_without_a_state_directory(
    broker: str, request: pytest.FixtureRequest, api: ApiDouble, tmp_path: Path
) -> None:
    url = request.getfixturevalue(broker)
    with Alone(subscription(url, api), tmp_path, constants=IMPATIENT) as agent:
        agent.wait_until_connected()
        block(agent.state_of())
        sent = of_messages(PUBLISH[broker](url, Load(seed=81).messages(500)))
        api.wait_for_events(sent.total())
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_a_bad_event_stays_at_the_broker_until_the_disk_can_keep_it(
    rabbitmq: RabbitMQ, amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    with Alone(subscription(amqp_url, api), tmp_path, constants=IMPATIENT) as agent:
        agent.wait_until_connected()
        block(agent.state_of())
        publish_amqp(amqp_url, [RUBBISH])
        until(
            lambda: "deadletters" in agent.stats.get("last_error", ""), 20, "the disk to be named"
        )
        assert "state directory" in agent.stats["advice"]
        sent = of_messages(publish_amqp(amqp_url, Load(seed=82).messages(500)))
        api.wait_for_events(sent.total())
        until(lambda: rabbitmq.queues(amqp_url) == {QUEUE: (0, 1, 1)}, 20, "one unacked message")
        unblock(agent.state_of())
        until(lambda: rabbitmq.queues(amqp_url) == {QUEUE: (0, 0, 1)}, 20, "the last ack")
        agent.wait_for_stat("dead_letters", 1)
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))


def test_a_refused_document_is_kept_in_hand_until_the_disk_can_keep_it(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    published = list(Load(seed=83).messages(300))
    victim = published[120].events[0][0]
    api.refuse(lambda document: document["id"] == victim)
    with Alone(subscription(amqp_url, api), tmp_path, constants=IMPATIENT) as agent:
        agent.wait_until_connected()
        block(agent.state_of())
        sent = of_messages(publish_amqp(amqp_url, published))
        until(
            lambda: "deadletters" in agent.stats.get("last_error", ""), 20, "the disk to be named"
        )
        unblock(agent.state_of())
        agent.wait_for_stat("dead_letters", 1)
        until(lambda: agent.stats["messages_in_flight"] == 0, 20, "everything to be settled")
        assert agent.stop() == 0
    dead = accounting.dead_lettered(agent.state_of())
    assert {uuid for uuid, _ in dead} == {victim}
    assert_complete(sent, of_documents(api.confirmed()), dead)


def test_redis_events_that_no_disk_can_keep_are_dropped_counted_and_told(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.go_down()
    keys = subscription(redis_url, api, batch_max_number_of_messages=100)
    with Alone(keys, tmp_path, constants=IMPATIENT, spool_memory_max_mb=0.1) as agent:
        agent.wait_until_connected()
        block(agent.state_of())
        sent = of_messages(publish_redis(redis_url, Load(seed=84).messages(2_000)))
        agent.wait_for_stat("events_received", sent.total())
        agent.wait_for_stat("events_dropped_by_disk")
        (line,) = agent.wait_for_line("spool.dropped")
        assert line["by"] == "disk"
        assert "spool.sqlite3" in line["reason"]
        unblock(agent.state_of())
        api.come_up()
        until(
            lambda: api.confirmed_events() + agent.stats["events_dropped_by_disk"] == sent.total(),
            30,
            "every event to be delivered or counted",
        )
        # The disk is there again, and used again.
        api.go_down()
        sent_later = of_messages(publish_redis(redis_url, Load(seed=85).messages(2_000)))
        agent.wait_for_stat("events_received", (sent + sent_later).total())
        api.come_up()
        until(lambda: not sent_later - of_documents(api.confirmed()), 30, "the later ones")
        assert agent.stop() == 0
    assert max(of_documents(api.confirmed()).values()) == 1


def heard_while_the_disk_refuses(agent: Alone, url: str) -> None:
    """Let a bad event be heard whose dead letter can't be written, for more seconds to come."""
    agent.wait_until_connected()
    block(agent.state_of())
    publish_redis(url, [RUBBISH])
    until(lambda: "deadletters" in agent.stats.get("last_error", ""), 20, "the disk to be named")


def test_a_bad_event_that_waits_for_the_disk_has_a_last_chance_at_the_end(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    with Alone(subscription(redis_url, api), tmp_path) as agent:
        heard_while_the_disk_refuses(agent, redis_url)
        unblock(agent.state_of())
        assert agent.stop() == 0
        assert agent.stats["dead_letters"] == 1
        assert agent.stats["events_dropped_by_disk"] == 0


def test_a_bad_event_that_the_disk_refuses_to_the_end_is_dropped_counted_and_told(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    with Alone(subscription(redis_url, api), tmp_path) as agent:
        heard_while_the_disk_refuses(agent, redis_url)
        assert agent.stop() == 0
        assert agent.stats["events_dropped_by_disk"] == 1
        (line,) = agent.lines("deadletters.dropped")
        assert line["events"] == 1
        assert "deadletters.sqlite3" in line["reason"]


def test_a_spool_that_is_out_of_reach_at_the_start_is_delivered_once_it_is_back(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    api.go_down()
    keys = subscription(redis_url, api)
    with Alone(keys, tmp_path) as agent:
        agent.wait_until_connected()
        sent = of_messages(publish_redis(redis_url, Load(seed=88).messages(300)))
        agent.wait_for_stat("events_received", sent.total())
        assert agent.stop() == 0
    assert_complete(sent, accounting.spooled(agent.state_of()))
    api.come_up()
    spool = agent.state_of() / "spool.sqlite3"
    away = spool.rename(spool.with_suffix(".away"))
    spool.mkdir()
    with Alone(keys, tmp_path, constants=IMPATIENT) as agent:
        agent.wait_for_line("spool.unusable")
        agent.wait_until_connected()
        sent_later = of_messages(publish_redis(redis_url, Load(seed=89).messages(300)))
        api.wait_for_events(sent_later.total())
        spool.rmdir()
        away.rename(spool)
        api.wait_for_events((sent + sent_later).total())
        assert agent.stop() == 0
    assert_complete(sent + sent_later, of_documents(api.confirmed()))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_drops_redis_events_counted_and_keeps_those_that_it_has(
    redis_url: str, small_disk: Path, api: ApiDouble, tmp_path: Path
) -> None:
    api.go_down()
    keys = subscription(redis_url, api, batch_max_number_of_messages=100)
    agent = Alone(keys, tmp_path, constants=IMPATIENT, spool_memory_max_mb=0.1)
    agent.state_dir = small_disk
    with agent:
        agent.wait_until_connected()
        sent = of_messages(publish_redis(redis_url, Load(seed=86, padding=1_500).messages(3_000)))
        agent.wait_for_stat("events_received", sent.total())
        agent.wait_for_stat("events_dropped_by_disk")
        (line,) = agent.wait_for_line("spool.dropped")
        assert "full" in line["reason"]
        api.come_up()
        until(
            lambda: api.confirmed_events() + agent.stats["events_dropped_by_disk"] == sent.total(),
            30,
            "every event to be delivered or counted",
        )
        assert agent.stop() == 0
    confirmed = of_documents(api.confirmed())
    assert confirmed <= sent
    assert max(confirmed.values()) == 1


@pytest.mark.parametrize("name", ["deadletters.sqlite3", "spool.sqlite3"])
def test_a_damaged_file_is_set_aside_at_the_start_and_delivery_goes_on(
    name: str, redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    agent = Alone(subscription(redis_url, api), tmp_path, constants=IMPATIENT)
    agent.state_of().mkdir(parents=True)
    (agent.state_of() / name).write_bytes(b"SQLite format 3\0" + os.urandom(20_000))
    with agent:
        agent.wait_until_connected()
        publish_redis(redis_url, [RUBBISH])
        sent = of_messages(publish_redis(redis_url, Load(seed=87).messages(300)))
        api.wait_for_events(sent.total())
        agent.wait_for_stat("dead_letters", 1)
        (line,) = agent.wait_for_line("store.damaged")
        assert name in line["path"]
        assert agent.stop() == 0
    assert list(agent.state_of().glob(f"{name}.damaged-*"))
    assert_complete(sent, of_documents(api.confirmed()))
