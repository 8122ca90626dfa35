"""Batches whose dead letters the disk hasn't taken yet: they can't be done before."""

import math
import time
from collections.abc import Iterable
from typing import Final

from leekfanout import logs
from leekfanout.delivery.batcher import Batch
from leekfanout.errors import StoreError
from leekfanout.status.stats import Stats
from leekfanout.stores.deadletters import DeadLetters

log = logs.get("unkept")

STORE_RETRY_S: Final = 10.0


class Unkept:
    """Puts batches' dead letters on disk, and holds back the batches where that fails.

    Else a message would be acked whose bad event is nowhere. The main thread's.
    """

    def __init__(self, dead_letters: DeadLetters, stats: Stats) -> None:
        self.due = math.inf
        """When to try the disk again, in monotonic seconds."""
        self._dead_letters = dead_letters
        self._stats = stats
        self._batches: list[Batch] = []
        self._done: set[Batch] = set()
        """Those that are done but for their dead letters."""
        self._refusal = ""

    @property
    def waiting(self) -> bool:
        """Whether any batch is held back."""
        return bool(self._batches)

    def keep(self, batch: Batch) -> None:
        """Put the batch's dead letters on disk; if it doesn't take them, the batch waits."""
        try:
            evicted = self._dead_letters.put(batch.dead_letters)
        except StoreError as error:
            self._refusal = str(error)
            self._stats.problem(
                self._refusal, "Make room in the state directory, or make it writable."
            )
            self._batches.append(batch)
            self.due = time.monotonic() + STORE_RETRY_S
        else:
            self._stats.add("dead_letters_evicted", evicted)
            batch.dead_letters = []

    def settle(self, done: Iterable[Batch], now: float) -> list[Batch]:
        """Return those of ``done``, and of the ones before, that nothing holds back any more."""
        self._done.update(batch for batch in done if batch.dead_letters)
        settled = [batch for batch in done if not batch.dead_letters]
        if now < self.due:
            return settled
        self._try_again()
        return settled + self._take_settled()

    def _try_again(self) -> None:
        """Try the disk again until it refuses: each refusal may take it seconds."""
        self.due = math.inf
        waiting, self._batches = self._batches, []
        for batch in waiting:
            if self._batches:
                self._batches.append(batch)
            else:
                self.keep(batch)

    def _take_settled(self) -> list[Batch]:
        settled = [batch for batch in self._done if not batch.dead_letters]
        self._done.difference_update(settled)
        return settled

    def drop(self) -> list[Batch]:
        """Give up the dead letters that wait, counted; return the batches that are done by that.

        For the end of a process whose events nobody else keeps.
        """
        events = sum(len(batch.dead_letters) for batch in self._batches)
        if events:
            self._stats.add("events_dropped_by_disk", events)
            log.error("deadletters.dropped", events=events, reason=self._refusal)
        for batch in self._batches:
            batch.dead_letters = []
        self._batches = []
        return self._take_settled()

    def forget(self, dropped: set[Batch]) -> None:
        """Forget batches whose messages are the broker's again."""
        self._batches = [batch for batch in self._batches if batch not in dropped]
        self._done -= dropped
