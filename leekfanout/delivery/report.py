"""What the main loop tells of its subscription, once a second while there is news.

Counting is done where things happen; here it is copied to the shared
:class:`~leekfanout.status.stats.Stats`, so that an event doesn't pay for it.
"""

import math
import time
from collections.abc import Sequence
from typing import Final

from leekfanout import logs
from leekfanout.delivery.batcher import Batcher
from leekfanout.delivery.outbox import Outbox
from leekfanout.delivery.outcome import BreakerState
from leekfanout.status.stats import Condition, Stats
from leekfanout.stores.deadletters import DeadLetter, DeadLetters
from leekfanout.stores.spool import Spool

log = logs.get("report")

EVERY_S: Final = 1.0
REASON_EVERY_S: Final = 60.0
"""How often a new reason for an outage is logged, at most: an hour of it fills tens of lines."""
DEAD_LETTERS_EVERY_S: Final = 10.0
"""The others cost nothing to know, but these are read from a file, which other processes change."""


class Report:
    """Copies counts and gauges to the stats; the main thread's."""

    def __init__(
        self,
        stats: Stats,
        batcher: Batcher,
        outbox: Outbox,
        dead_letters: DeadLetters,
        spool: Spool | None,
    ) -> None:
        self._stats = stats
        self._batcher = batcher
        self._outbox = outbox
        self._dead_letters = dead_letters
        self._spool = spool
        self.refused = False
        """Whether the broker's last word was a refusal."""
        self.standing_by = False
        """Whether the broker's last word was that another agent holds the lease."""
        self._due = self._dead_letters_due = 0.0
        self._told = (0, 0, 0)
        """Messages taken, and messages and bytes in flight, as of the last time."""
        self._messages = self._events = self._task_events = self._ignored = 0
        self._log_bad = logs.RateLimit(10.0)
        self._api_away_since: float | None = None
        self._told_of_api = False
        self._told_reason = ""
        self._tell_reason_due = 0.0
        self._log_api = logs.RateLimit(10.0)

    def turn(
        self, now: float, condition: Condition, messages_in_flight: int, bytes_in_flight: int
    ) -> float:
        """Tell what is new, at most once a second; return when there may be more to tell."""
        self._stats.set("condition", condition)
        self._tell_of_api(now)
        news = (self._batcher.messages_taken, messages_in_flight, bytes_in_flight)
        if now < self._due:
            return self._due if news != self._told else math.inf
        self._told = news
        self._due = now + EVERY_S
        self._copy(messages_in_flight, bytes_in_flight)
        if self._dead_letters.changed or now >= self._dead_letters_due:
            self._dead_letters_due = now + DEAD_LETTERS_EVERY_S
            self._count_dead_letters()
        return math.inf

    def _tell_of_api(self, now: float) -> None:
        """Log once that POSTs wait until the API is ready again, and once that it is.

        In between it is logged again when the reason has become another.
        """
        opened_at = self._outbox.breaker_opened_at
        reason = self._outbox.evidence.failure_reason
        if (opened_at is None) is (self._api_away_since is None):
            changed = opened_at is not None and reason != self._told_reason
            if changed and self._told_of_api and now >= self._tell_reason_due:
                self._log_away(reason, now, 0)
            return
        if opened_at is not None:
            held_back = self._log_api.allow()
            self._told_of_api = held_back is not None
            if held_back is not None:
                self._log_away(reason, now, held_back)
        elif self._told_of_api and self._api_away_since is not None:
            log.info("api.back", after_s=now - self._api_away_since)
        self._api_away_since = opened_at

    def _log_away(self, reason: str, now: float, held_back: int) -> None:
        log.warning("api.away", reason=reason, held_back=held_back)
        self._told_reason = reason
        self._tell_reason_due = now + REASON_EVERY_S

    def _copy(self, messages_in_flight: int, bytes_in_flight: int) -> None:
        stats, outbox, tally = self._stats, self._outbox, self._batcher.tally
        if self._batcher.messages_taken != self._messages:
            stats.add("messages_received", self._batcher.messages_taken - self._messages)
            stats.set("last_event_at", time.time())
            self._messages = self._batcher.messages_taken
        stats.add("events_received", tally.events - self._events)
        self._events = tally.events
        ignored = sum(tally.ignored.values())
        stats.add("events_ignored", ignored - self._ignored)
        self._ignored = ignored
        if tally.task_events != self._task_events:
            stats.add("task_events_received", tally.task_events - self._task_events)
            stats.set("last_task_event_at", time.time())
            self._task_events = tally.task_events
        stats.set("messages_in_flight", messages_in_flight)
        stats.set("bytes_in_flight", bytes_in_flight)
        stats.set("batches_queued", outbox.batches_held)
        stats.set("oldest_batch_at", outbox.oldest_put_at)
        stats.set("posts_under_way", outbox.posts_under_way)
        stats.set("breaker_open", outbox.breaker_state is BreakerState.OPEN)
        if self._spool is not None:
            stats.set("spool_batches", self._spool.batches)
            stats.set("spool_bytes", self._spool.size_bytes)

    def _count_dead_letters(self) -> None:
        letters, size_bytes = self._dead_letters.stock()
        self._stats.set("dead_letters", letters)
        self._stats.set("dead_letters_bytes", size_bytes)

    def bad_events(self, letters: Sequence[DeadLetter]) -> None:
        """Tell of events that were set aside."""
        if (held_back := self._log_bad.allow()) is not None:
            log.warning(
                "events.bad", events=len(letters), reason=letters[0].reason, held_back=held_back
            )

    def end(self, messages_in_flight: int, bytes_in_flight: int) -> None:
        """Tell the last news."""
        self._copy(messages_in_flight, bytes_in_flight)
        self._count_dead_letters()
        self._stats.set("condition", Condition.STOPPED)
        self._stats.set("connected_at", 0)
