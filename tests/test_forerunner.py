"""Two processes that would use one state folder, one after the other: the first ends before."""

from collections.abc import Callable
from pathlib import Path

import pytest

from leekfanout.supervision.lifecycle import State
from tests.accounting import assert_complete, of_documents, of_messages
from tests.agent import Agent, subscription
from tests.api_double import ApiDouble
from tests.farming import Farm, entries
from tests.load import Load
from tests.publishers import publish_redis
from tests.waiting import until

SHOP = entries("shop-prod", behaviour="stubborn")


def lives(farm: Farm) -> list[str]:
    """Return what has begun and ended, in order."""
    lines = (line for event in ("process.started", "process.stopped") for line in farm.lines(event))
    return [line["event"] for line in sorted(lines, key=lambda line: str(line["timestamp"]))]


def follow(farm: Farm) -> None:
    """Remove the subscription and add it again."""
    for wanted in ([], SHOP):
        farm.write(wanted)
        farm.client.call("leekfanout.reload")


def restart(farm: Farm) -> None:
    farm.client.call("leekfanout.restartProcesses", "shop-prod")


def stop_and_start(farm: Farm) -> None:
    farm.client.call("supervisor.stopProcess", "shop-prod")
    farm.client.call("supervisor.startProcess", "shop-prod")


@pytest.mark.parametrize("ask", [restart, stop_and_start, follow])
def test_whatever_is_asked_a_follower_starts_when_its_forerunner_has_ended(
    tmp_path: Path, ask: Callable[[Farm], None]
) -> None:
    with Farm(tmp_path, SHOP, DRAIN_S="1") as farm:
        farm.wait_for_states(shop_prod=State.RUNNING)
        follow(farm)
        ask(farm)
        farm.wait_for_states(shop_prod=State.RUNNING)
        assert lives(farm) == ["process.started", "process.stopped", "process.started"]
        assert farm.status()["shop-prod"]["starts"] == 1


def test_a_follower_that_is_stopped_meanwhile_stays_so(tmp_path: Path) -> None:
    with Farm(tmp_path, SHOP, DRAIN_S="1") as farm:
        farm.wait_for_states(shop_prod=State.RUNNING)
        follow(farm)
        farm.client.call("supervisor.stopProcess", "shop-prod")
        assert farm.stop() == 0
        assert lives(farm) == ["process.started", "process.stopped"]


def test_an_agent_that_follows_a_killed_one_delivers_nothing_twice_from_its_spool(
    redis_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    with Agent([subscription(redis_url, api)], tmp_path) as agent:
        agent.wait_until_connected()
        api.go_down()
        sent = of_messages(publish_redis(redis_url, Load(seed=91).messages(50)))
        until(
            lambda: agent.call("leekfanout.getStatus")[0]["counters"]["events_received"] > 0,
            20,
            "the events to come",
        )
        assert agent.stop() == 0  # which puts them into the spool
        api.come_up()
        api.delay_s = 3.0
        agent.start()
        until(lambda: api.posts_under_way, 20, "a POST of what is in the spool")
        agent.kill()
        agent.start()
        # The agent is there at once; what it delivers waits until the other's process has ended.
        agent.wait_for_line("forerunner.drains")
        agent.wait_until_connected(3)
        assert agent.stop() == 0
    assert_complete(sent, of_documents(api.confirmed()))
