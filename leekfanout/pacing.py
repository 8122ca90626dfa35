"""When to look at the broker's socket again: at once under load, in a while when little comes.

A process that wakes up for each single event spends most of its CPU on waking up. What comes in within
a moment goes into the same batch anyway, so few messages are gathered by the system's buffer first, as
network drivers do it (interrupt coalescing).
"""

from typing import Final

PAUSE_S: Final = 0.25
"""Far below the window of a batch, and below what a person notices."""
SLOW_PER_S: Final = 200.0
"""Below this rate reading pauses: a pause gathers no more than the 50 messages of BURST_MESSAGES."""
BURST_MESSAGES: Final = 50
"""So many at once are a burst: more may be on the way, and wait for it no longer."""
MEASURED_OVER_S: Final = 1.0


class Pacing:
    """When to read next, by the rate at which messages came lately. Pure; times are monotonic seconds.

    An event that comes alone, after a while of silence, is read at once.
    """

    __slots__ = ("_counted", "_counted_from", "_is_slow", "due")

    def __init__(self) -> None:
        self.due = 0.0
        """Reading before this time isn't worth waking up for."""
        self._counted_from = 0.0
        self._counted = 0
        self._is_slow = False

    def connected(self, now: float) -> None:
        """Note that a connection begins: a backlog may wait, so it isn't taken for slow at first."""
        self.due = now
        self._counted_from, self._counted = now, 0
        self._is_slow = False

    def took(self, now: float, messages: int, *, more: bool) -> None:
        """Note that a read took so many messages, and whether there may be more of them."""
        self._counted += messages
        measured_s = now - self._counted_from
        if measured_s >= MEASURED_OVER_S:
            self._is_slow = self._counted < SLOW_PER_S * measured_s
            self._counted_from, self._counted = now, 0
        if messages >= BURST_MESSAGES:
            self._is_slow = False
        if self._is_slow and messages and not more:
            self.due = now + PAUSE_S
