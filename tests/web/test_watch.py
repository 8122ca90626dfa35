"""The looks at the agent go on, whatever one of them meets."""

import asyncio
import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from leekfanout.web.watch import Look, Watch
from tests.web.served import MadeUpAgent, made_up_agent

WAIT_S = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Troubled(MadeUpAgent):
    """An agent that answers with trouble as long as there is some left."""

    trouble: list[Any] = dataclasses.field(default_factory=list)

    def call(self, method: str, *params: Any) -> Any:
        if method == "leekfanout.getStatus" and self.trouble:
            trouble = self.trouble.pop(0)
            if isinstance(trouble, Exception):
                raise trouble
            return trouble
        # The base is named, since a dataclass with slots is another class than its body sees.
        return MadeUpAgent.call(self, method, *params)


async def looks(agent: MadeUpAgent, count: int) -> list[Look]:
    watch = Watch(agent)
    task = asyncio.create_task(watch.run())
    seen = []
    for number in range(count):
        look = await watch.next_after(number, WAIT_S)
        assert look is not None, f"look {number + 1} doesn't come"
        seen.append(look)
        watch.poke()
    task.cancel()
    return seen


@pytest.mark.parametrize(
    "trouble",
    [RuntimeError("amqp://u:s3cret@h"), [{"name": "of another version"}]],
    ids=["an unknown error", "a status that isn't understood"],
)
def test_a_look_that_fails_says_so_and_the_next_one_is_good(
    tmp_path: Path, trouble: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made_up = made_up_agent(tmp_path)
    agent = Troubled(made_up.settings, made_up.socket_path, made_up.config_file, trouble=[trouble])
    with caplog.at_level(logging.ERROR):
        first, second = asyncio.run(looks(agent, 2))
    assert "see the agent's log" in first.problem
    assert (first.rows, second.problem, second.state) == ([], "", "RUNNING")
    (record,) = [each for each in caplog.records if each.message == "web.look_failed"]
    assert record.fields["error"] in {"RuntimeError", "KeyError"}
    assert "s3cret" not in str(record.fields)
