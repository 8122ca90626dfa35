"""Looking at the agent every two seconds, and remembering ten minutes of rates for the charts."""

import asyncio
import time
import traceback
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starlette.concurrency import run_in_threadpool

from leekfanout import logs
from leekfanout.control.control_client import RefusedError
from leekfanout.errors import LeekfanoutError
from leekfanout.web.agent import Agent
from leekfanout.web.view import Status, overview, steady

EVERY_S: Final = 2.0
HISTORY: Final = 300
"""Rates of each subscription: ten minutes of them."""

FAILURE_LOG_S: Final = 60.0
"""A look that fails for a reason that nobody thought of is logged once in this time."""

log = logs.get("web")


@dataclass(frozen=True, slots=True)
class Look:
    """How the agent was at one moment; ``at`` is epoch seconds."""

    number: int
    at: float
    regular: bool
    """Whether it is one of those every two seconds, which the charts are made of."""
    state: str
    """Supervisor's word for the whole agent; empty if it didn't answer."""
    problem: str
    """Why it didn't answer."""
    rows: Sequence[dict[str, Any]]
    pending: str
    """What the subscriptions' file says that the agent hasn't taken up yet, in words."""


class Watch:
    """Looks at the agent, and wakes whoever waits for the next look; used on the event loop."""

    def __init__(self, agent: Agent) -> None:
        self.latest = Look(0, time.time(), False, "", "Nothing is known of the agent yet.", [], "")
        self._agent = agent
        self._history: dict[str, deque[float]] = {}
        self._before: tuple[Sequence[Status], float] = ([], 0.0)
        self._pending = ""
        self._file_seen: tuple[int, int, int] | None = None
        self._changed = asyncio.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poked = asyncio.Event()
        self._failures = logs.RateLimit(FAILURE_LOG_S)

    def history(self) -> dict[str, list[float]]:
        """Return events per second of each subscription, the oldest first."""
        return {name: list(rates) for name, rates in self._history.items()}

    async def next_after(self, number: int, timeout_s: float) -> Look | None:
        """Return the latest look once it is another one than ``number``; None: it takes too long."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self.latest.number != number)
        except TimeoutError:
            return None
        return self.latest

    def poke(self) -> None:
        """Look soon, since something has just been changed; any thread may call it."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._poked.set)

    async def run(self) -> None:
        """Look until cancelled."""
        self._loop = asyncio.get_running_loop()
        due = self._loop.time()
        while True:
            self._poked.clear()
            regular = self._loop.time() >= due
            if regular:
                due = self._loop.time() + EVERY_S
            await self._look(regular)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._poked.wait()

    async def _look(self, regular: bool) -> None:
        state, problem = "", ""
        rows: Sequence[dict[str, Any]] = []
        now = time.time()
        try:
            state, statuses = await run_in_threadpool(self._ask)
            rows = self._rows(statuses, regular, now)
        except LeekfanoutError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001  # whatever it is, the next look may go well
            self._tell_failure(error)
            problem = "The agent page can't make out how the agent is: see the agent's log."
        number = self.latest.number + 1
        self.latest = Look(number, now, regular, state, problem, rows, self._pending)
        async with self._changed:
            self._changed.notify_all()

    def _rows(
        self, statuses: Sequence[Status], regular: bool, now: float
    ) -> Sequence[dict[str, Any]]:
        before, at = self._before
        moment = time.monotonic()
        rows = overview(statuses, before, moment - at, now)
        if not regular:
            return steady(rows, self.latest.rows)
        self._before = statuses, moment
        self._remember(rows)
        return rows

    def _tell_failure(self, error: Exception) -> None:
        """Log what kind of error it is, and where; its message may quote anything."""
        if (held_back := self._failures.allow()) is not None:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno}"
            log.error(
                "web.look_failed", error=type(error).__name__, where=where, held_back=held_back
            )

    def _ask(self) -> tuple[str, list[Status]]:
        statuses: list[Status] = self._agent.call("leekfanout.getStatus")
        state: str = self._agent.info()["statename"]
        self._look_at_file()
        return state, statuses

    def _look_at_file(self) -> None:
        """Find out whether the file differs from what runs; asked only where that may have changed.

        Only then is a hint needed: what the page itself changes is taken up at once.
        """
        if self._agent.fixed is not None:
            return
        try:
            stat = self._agent.config_file.stat()
        except OSError:
            return
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen == self._file_seen and not self._pending:
            return
        try:
            self._pending = pending_words(*self._agent.call("supervisor.reloadConfig")[0])
        except RefusedError as error:
            self._pending = str(error)
        self._file_seen = seen

    def _remember(self, rows: Sequence[dict[str, Any]]) -> None:
        names = {row["name"] for row in rows}
        for name in self._history.keys() - names:
            del self._history[name]
        for row in rows:
            rates = self._history.setdefault(row["name"], deque(maxlen=HISTORY))
            rates.append(round(row["events_per_s"], 2))


def pending_words(added: Sequence[str], changed: Sequence[str], removed: Sequence[str]) -> str:
    """Say how the subscriptions' file differs from what runs; empty if it doesn't.

    >>> pending_words(["agent:shop-prod"], [], [])
    "The subscriptions' file has changed, and the agent hasn't taken it up: new: shop-prod."
    """
    parts = [
        f"{word}: {', '.join(name.partition(':')[2] for name in names)}"
        for word, names in (("new", added), ("changed", changed), ("removed", removed))
        if names
    ]
    if not parts:
        return ""
    return (
        "The subscriptions' file has changed, and the agent hasn't taken it up: "
        f"{'; '.join(parts)}."
    )
