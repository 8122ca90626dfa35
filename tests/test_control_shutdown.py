"""What may still be asked of an agent that is about to stop."""

import signal
from pathlib import Path

import pytest

from leekfanout.control.control_client import RefusedError
from leekfanout.control.rpc import Fault
from leekfanout.supervision.lifecycle import State
from tests.farming import Farm, entries
from tests.waiting import until

CHANGES = [
    ("supervisor.startProcess", "shop-prod"),
    ("supervisor.stopProcess", "shop-prod"),
    ("supervisor.startProcessGroup", "agent"),
    ("supervisor.stopProcessGroup", "agent"),
    ("supervisor.startAllProcesses",),
    ("supervisor.stopAllProcesses",),
    ("supervisor.signalProcess", "shop-prod", "HUP"),
    ("supervisor.reloadConfig",),
    ("supervisor.addProcessGroup", "agent:docs-prod"),
    ("supervisor.removeProcessGroup", "agent:shop-prod"),
    ("supervisor.shutdown",),
    ("supervisor.restart",),
    ("leekfanout.reload",),
    ("leekfanout.restartProcesses", "shop-prod"),
]


@pytest.mark.parametrize(
    ("ending", "state"), [("supervisor.shutdown", "SHUTDOWN"), ("supervisor.restart", "RESTARTING")]
)
def test_an_agent_that_stops_tells_how_it_is_and_takes_no_more_orders(
    tmp_path: Path, ending: str, state: str
) -> None:
    with Farm(tmp_path, entries("shop-prod", behaviour="stubborn"), DRAIN_S="600") as farm:
        farm.wait_for_states(shop_prod=State.RUNNING)
        assert farm.client.call(ending) is True
        assert farm.client.call("supervisor.getState")["statename"] == state
        assert farm.status()["shop-prod"]["state"] == State.STOPPING
        farm.write(entries("docs-prod"))
        for method, *params in CHANGES:
            with pytest.raises(RefusedError) as raised:
                farm.client.call(method, *params)
            assert raised.value.code == Fault.SHUTDOWN_STATE, method
        farm.signal(signal.SIGHUP)
        assert farm.client.call("supervisor.getState")["statename"] == state
        assert set(farm.status()) == {"shop-prod"}
        assert not farm.lines("reload")


def test_a_signal_ends_an_agent_that_was_about_to_restart(tmp_path: Path) -> None:
    with Farm(tmp_path, entries("shop-prod", behaviour="stubborn"), DRAIN_S="600") as farm:
        farm.wait_for_states(shop_prod=State.RUNNING)
        farm.client.call("supervisor.restart")
        farm.signal(signal.SIGTERM)
        until(lambda: farm.lines("supervisor.stopping", then="SHUTDOWN"), 10, "the first signal")
        assert farm.status()["shop-prod"]["state"] == State.STOPPING  # it drains all the same
        farm.signal(signal.SIGTERM)
        assert farm.wait() == 0
        assert len(farm.lines("process.started")) == 1
