"""When messages are handed back to RabbitMQ while the API is away. Pure.

Unacked messages sit in the broker's memory, and RabbitMQ closes channels that hold them for longer than
its consumer_timeout ("Delivery Acknowledgement Timeout"). Each time takes twice as long as the one
before, since a quorum queue counts how often a message was returned.
"""

import math
from typing import Final

HAND_BACK_AFTER_S: Final = 60.0
HAND_BACK_AFTER_MAX_S: Final = 1200.0
"""Below RabbitMQ's consumer_timeout of 30 minutes, whatever the doubling."""


class HandBacks:
    """The times of one outage of the API after the other, in monotonic seconds."""

    def __init__(self) -> None:
        self._after_s = HAND_BACK_AFTER_S
        self._due = math.inf

    def due(self, opened_at: float) -> float:
        """Return when to hand back, the breaker having opened at ``opened_at``."""
        if self._due == math.inf:
            self._due = opened_at + HAND_BACK_AFTER_S
        return self._due

    def handed_back(self) -> None:
        """Note that it was done: the next time is later."""
        self._after_s = min(self._after_s * 2, HAND_BACK_AFTER_MAX_S)
        self._due = math.inf

    def resumed(self, now: float) -> None:
        """Note that messages come again, for a trial: if it fails, they go back after a while."""
        self._due = now + self._after_s

    def api_is_back(self) -> None:
        """Note that the outage is over."""
        self._after_s = HAND_BACK_AFTER_S
        self._due = math.inf
