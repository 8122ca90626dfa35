"""How long one bad event or document among 10,000 holds up the other 9,999.

Each event is a document of its own, Leek's defaults hold: batches of 1,000, as many in hand, one POST
at a time. So one body is all that the broker lets the agent have, and what holds that up holds up all.
"""

import json
import os
import signal
import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import Self

from bench import amqp_load
from bench.agent import LOOK_EVERY_S, Agent, Figures, subscribe
from bench.forked import BenchError, Forked, answer_of
from bench.load import UUID, Message, messages
from bench.rig import Rig
from tests.api_double import ApiDouble
from tests.api_exchange import Reply, Request

EVENTS = 10_000
POSITION = 5_432
"""In the midst of the sixth batch."""
VICTIM = "0badbad0-0000-4000-8000-000000000000"
CAPTURED = 1_000
"""So many of the captured events are looked through for such."""
WINDOW_S = 0.1
"""Short: that the last batch is a whole one only where none is bad isn't what is asked."""
TIMEOUT_S = 60.0
REFUSAL = {"update": {"_id": VICTIM, "status": 400, "error": {"type": "mapper_parsing_exception"}}}
ANSWERS = {
    "refused by name (400)": Reply(400, {"success": 999, "failed": 1, "errors": [REFUSAL]}),
    "refused without a name (422)": Reply(422, "No"),
    "a conflict that stays (409)": Reply(409, "Conflict"),
    "the API forbids it (403)": Reply(403),
    "the API fails on it (500)": Reply(500),
}
MALFORMED = "malformed"


class _Api:
    """An API in a process of its own that answers bodies which hold the victim with ``answer``."""

    def __init__(self, answer: Reply) -> None:
        read_end, write_end = os.pipe()
        self._process = Forked(partial(_serve, answer, write_end))
        os.close(write_end)
        with os.fdopen(read_end, "rb") as told:
            self.url = f"http://127.0.0.1:{int(told.read())}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.__exit__()


def _serve(answer: Reply, write_end: int) -> None:
    victim, taken = VICTIM.encode(), Reply(201, {"success": 1})

    def judge(request: Request) -> Reply:
        return answer if victim in request.body else taken

    with ApiDouble(app_key="bench") as api:
        api.script(judge)
        os.write(write_end, b"%d" % api.port)
        os.close(write_end)
        signal.pause()


def load(bad: str | None) -> Iterator[Message]:
    """Yield 10,000 tasks' first events, of which one is the victim's, or malformed."""
    captured = [m for m in messages("single", CAPTURED) if m.routing_key == "task.sent"]
    for position in range(EVENTS):
        message = captured[position % len(captured)]
        is_victim = position == POSITION and bad and bad != MALFORMED
        # A task that is retried is sent again, so the captured ids aren't unique.
        uuid = VICTIM.encode() if is_victim else b"%08x-0000-4000-8000-%012x" % (position, position)
        body = UUID.sub(uuid, message.body)
        if position == POSITION and bad == MALFORMED:
            body = json.dumps({**json.loads(body), "pid": "none"}).encode()
        yield message._replace(body=body)


def all_others(rig: Rig, bad: str | None, runs: int) -> Figures:
    """Measure the time from the connection to the last delivery of the others: the median of runs."""
    return {"others_s": statistics.median(_once(rig, bad) for _ in range(runs))}


def _once(rig: Rig, bad: str | None) -> float:
    others = EVENTS - 1 if bad else EVENTS
    answer_of(partial(amqp_load.fill_with, rig.rabbitmq.port, partial(load, bad)))
    with _Api(ANSWERS.get(bad or "", Reply(201))) as api:
        wanted = subscribe(rig.rabbitmq.url(), api.url, batch_max_window_in_seconds=WINDOW_S)
        with Agent(wanted) as agent:
            agent.connected()
            deadline = time.monotonic() + TIMEOUT_S
            while agent.stats.get("documents_delivered") < others:
                if time.monotonic() > deadline:
                    raise BenchError(f"The others were not delivered in {TIMEOUT_S:g} s.")
                time.sleep(LOOK_EVERY_S)
            return time.time() - agent.stats.get("connected_at")
