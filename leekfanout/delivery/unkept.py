"""Batches whose dead letters the disk hasn't taken yet: they can't be done before."""

import math
import time
from collections.abc import Iterable
from typing import Final

from leekfanout.delivery.batcher import Batch
from leekfanout.errors import StoreError
from leekfanout.status.stats import Stats
from leekfanout.stores.deadletters import DeadLetters

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

    @property
    def waiting(self) -> bool:
        """Whether any batch is held back."""
        return bool(self._batches)

    def keep(self, batch: Batch) -> bool:
        """Put the batch's dead letters on disk; False if it didn't take them, and the batch waits."""
        try:
            evicted = self._dead_letters.put(batch.dead_letters)
        except StoreError as error:
            self._stats.problem(
                str(error), "Make room in the state directory, or make it writable."
            )
            if batch not in self._batches:
                self._batches.append(batch)
            self.due = time.monotonic() + STORE_RETRY_S
            return False
        self._stats.add("dead_letters_evicted", evicted)
        batch.dead_letters = []
        return True

    def settle(self, done: Iterable[Batch], now: float) -> list[Batch]:
        """Return those of ``done``, and of the ones before, that nothing holds back any more."""
        self._done.update(batch for batch in done if batch.dead_letters)
        settled = [batch for batch in done if not batch.dead_letters]
        if now < self.due:
            return settled
        self.due = math.inf
        self._batches = [batch for batch in self._batches if not self.keep(batch)]
        settled += (batch for batch in self._done if not batch.dead_letters)
        self._done = {batch for batch in self._done if batch.dead_letters}
        return settled

    def forget(self, dropped: set[Batch]) -> None:
        """Forget batches whose messages are the broker's again."""
        self._batches = [batch for batch in self._batches if batch not in dropped]
        self._done -= dropped
