"""When to look at the broker's socket again: at once under load, in a while when little comes.

A process that wakes up for each single event spends most of its CPU on waking up. What comes in within
a moment goes into the same batch anyway, so few messages are gathered by the system's buffer first, as
network drivers do it (interrupt coalescing).
"""

from typing import Final

PAUSE_MAX_S: Final = 0.25
"""Far below the window of a batch, and below what a person notices."""
PAUSE_MESSAGES: Final = 50
"""How many messages a pause is to gather: one waking up for so many is a small part of their cost."""
SLOW_PER_S: Final = 2_000.0
"""From this rate on reading never pauses: it would gain little, and cost throughput."""
BURST_MESSAGES: Final = 200
"""So many at once are a burst, whatever the rate was."""
MEASURED_OVER_S: Final = 1.0


class Pacing:
    """When to read next, by the rate at which messages came lately. Pure; times are monotonic seconds.

    An event that comes alone, after a while of silence, is read at once.
    """

    __slots__ = ("_counted", "_counted_from", "_is_held_up", "_pause_s", "due")

    def __init__(self) -> None:
        self.due = 0.0
        """Reading before this time isn't worth waking up for."""
        self._begin(0.0)
        self._pause_s = 0.0

    def _begin(self, now: float) -> None:
        self._counted_from, self._counted = now, 0
        self._is_held_up = False

    def connected(self, now: float) -> None:
        """Note that a connection begins: a backlog may wait, so that there is no pause at first."""
        self.due = now
        self._begin(now)
        self._pause_s = 0.0

    def held_up(self) -> None:
        """Note that reading has to wait for deliveries, so that no pause helps."""
        self._is_held_up = True
        self._pause_s = 0.0

    def took(self, now: float, messages: int, *, more: bool) -> None:
        """Note that a read took so many messages, and whether there may be more of them."""
        self._counted += messages
        measured_s = now - self._counted_from
        if measured_s >= MEASURED_OVER_S:
            rate = max(self._counted, 1) / measured_s
            is_slow = rate < SLOW_PER_S and not self._is_held_up
            self._pause_s = min(PAUSE_MAX_S, PAUSE_MESSAGES / rate) if is_slow else 0.0
            self._begin(now)
        if messages >= BURST_MESSAGES:
            self._pause_s = 0.0
        if self._pause_s and messages and not more:
            self.due = now + self._pause_s
