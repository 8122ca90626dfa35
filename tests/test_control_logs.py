"""The log of a subscription's process, as Supervisor's clients ask for it."""

from pathlib import Path

import pytest

from leekfanout.control.control_client import RefusedError
from leekfanout.control.rpc import Fault
from tests.farming import Farm, entries
from tests.waiting import until


def test_logs_are_read_and_followed_over_the_socket(tmp_path: Path) -> None:
    with Farm(tmp_path, entries("shop-prod")) as farm:
        log = farm.state_dir / "shop-prod" / "agent.log"
        until(log.exists, 10, "the process to open its log")
        log.write_text("first\nsecond\n")

        def ask(method: str, *params: int) -> object:
            return farm.client.call(f"supervisor.{method}", "agent:shop-prod", *params)

        assert ask("readProcessStdoutLog", 0, 5) == "first"
        assert ask("readProcessStdoutLog", -7, 0) == "second\n"
        assert ask("tailProcessStdoutLog", 0, 100) == ["first\nsecond\n", 13, False]
        with log.open("a") as more:
            more.write("third\n")
        assert ask("tailProcessStdoutLog", 13, 6) == ["third\n", 19, False]
        assert ask("tailProcessStdoutLog", 0, 6) == ["third\n", 19, True]
        log.unlink()
        assert ask("tailProcessStdoutLog", 19, 6) == ["", 0, False]
        with pytest.raises(RefusedError) as raised:
            ask("readProcessStdoutLog", 0, 0)
        assert raised.value.code == Fault.NO_FILE
        assert farm.client.call("supervisor.getIdentification") == "leekfanout"
