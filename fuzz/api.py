"""The control socket's methods, in front of an agent without a subscription."""

from typing import Any, cast

from leekfanout.control.agent_api import AgentApi
from leekfanout.control.rpc import Rpc
from leekfanout.control.supervisor_api import Mood, SupervisorApi
from leekfanout.supervision.farm import Difference, Farm


class EmptyFarm:
    """All of a farm that the methods use."""

    def __init__(self) -> None:
        self.processes: dict[str, Any] = {}

    def read(self) -> tuple[list[Any], Difference]:
        return [], Difference()

    def apply(self, want: list[Any], what: Difference, now: float) -> None:
        assert not want


def methods() -> Rpc:
    """Return all methods of an agent that runs, but for its subscriptions."""
    farm = cast(Farm, EmptyFarm())

    def mood() -> Mood:
        return Mood.RUNNING

    return Rpc(
        {
            "supervisor": SupervisorApi(farm, mood, lambda _: None),
            "leekfanout": AgentApi(farm, mood, Difference),
        }
    )
