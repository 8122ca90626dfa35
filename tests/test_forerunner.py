"""Two processes that would use one state folder, one after the other: the first ends before."""

from collections.abc import Callable
from pathlib import Path

import pytest

from leekfanout.supervision.lifecycle import State
from tests.farming import Farm, entries

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
