"""What waits for another attempt, and what of it goes next. Pure: time is passed in.

Documents that are known to be to blame for their failures wait apart from the rest. They go one at a
time, with pauses, so that neither their number nor the time that the API takes over them holds up
anything that it would take.
"""

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Final

from leekfanout.delivery.parcel import Parcel

BLAMED_REST_S: Final = 1.0
"""How long no blamed parcel is tried, at least, after one has failed. It is as long as that took, if
that is longer: an API that hangs over them would else have a lone sender do nothing but wait."""

_Entry = tuple[float, int, Parcel]
"""When it is due (monotonic seconds), and what keeps the order of those that are due together."""


class Retries:
    """Parcels by the time they are due. Its owner guards it."""

    def __init__(self) -> None:
        self._waiting: list[_Entry] = []
        self._blamed: list[_Entry] = []
        self._serial = itertools.count()
        self._blamed_rest_until = 0.0
        """Infinite while one of them is under way."""

    def add(self, parcel: Parcel, due: float) -> None:
        """Let a parcel wait until ``due``."""
        entry = (due, next(self._serial), parcel)
        heapq.heappush(self._blamed if parcel.blamed else self._waiting, entry)

    def take(self, now: float) -> Parcel | None:
        """Return what is due and has waited longest, a blamed parcel first if it may go at all."""
        if (blamed := self._take_blamed(now)) is not None:
            return blamed
        if self._waiting and self._waiting[0][0] <= now:
            return heapq.heappop(self._waiting)[2]
        return None

    def take_trial(self, now: float, fresh: Parcel | None) -> Parcel | None:
        """Return what shows best whether the API is back; ``fresh`` itself if that does.

        That is what it may well take: what hasn't been tried, the smaller the better, then what has
        failed least often. A single document that failed by itself comes last.
        """
        due = [entry for entry in self._waiting if entry[0] <= now]
        best = min(due, key=lambda entry: (_doubt(entry[2]), *entry[:2]), default=None)
        if best is not None and (fresh is None or _doubt(best[2]) < _doubt(fresh)):
            self._waiting.remove(best)
            heapq.heapify(self._waiting)
            return best[2]
        return fresh or self._take_blamed(now)

    def _take_blamed(self, now: float) -> Parcel | None:
        if not self._blamed or now < max(self._blamed[0][0], self._blamed_rest_until):
            return None
        self._blamed_rest_until = math.inf
        return heapq.heappop(self._blamed)[2]

    def rest_blamed(self, until: float) -> None:
        """Try no blamed parcel before ``until``; what was under way of them is back."""
        self._blamed_rest_until = until

    def next_due(self, now: float) -> float | None:
        """Return when something will be due, if that is in the future."""
        times = [self._waiting[0][0]] if self._waiting else []
        if self._blamed:
            times.append(max(self._blamed[0][0], self._blamed_rest_until))
        return min((time for time in times if now < time < math.inf), default=None)

    def hasten(self, due: float) -> None:
        """Let nothing that waits for the API wait for longer than until ``due``: it is back."""
        for entries in (self._waiting, self._blamed):
            entries[:] = [
                (min(old_due, max(due, parcel.not_before)), serial, parcel)
                for old_due, serial, parcel in entries
            ]
            heapq.heapify(entries)

    def keep(self, wanted: Callable[[Parcel], bool]) -> None:
        """Forget all others."""
        for entries in (self._waiting, self._blamed):
            entries[:] = [entry for entry in entries if wanted(entry[2])]
            heapq.heapify(entries)


def _doubt(parcel: Parcel) -> tuple[bool, int, int]:
    """Order parcels by how likely it is that the API doesn't take one though it is back."""
    alone = len(parcel.body) == 1 and parcel.suspect and parcel.attempts > 0
    return alone, parcel.attempts, len(parcel.body)
