"""The link to the broker: connecting in the background, and when to try again.

Connecting may take seconds, and the main loop must not stand still for it: a thread connects, and
hands the source over once it is done. The source is used by one thread at a time all the same.
"""

import math
import random
import threading
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from leekfanout.errors import SourceError, SourceRefusedError, SourceStandbyError
from leekfanout.sources import Source

DELAY_MIN_S: Final = 0.5
DELAY_MAX_S: Final = 5.0
"""A broker that is back is noticed after two seconds on the average, however long it was away."""
REFUSED_DELAY_MAX_S: Final = 30.0
"""A refusal lasts until a person has done something, so it is asked about less often."""
HEALTHY_AFTER_S: Final = 10.0
"""A connection that has lasted for this long was a good one: the next loss begins anew."""


class Retries:
    """When to connect again: all addresses at once, then with growing pauses. Pure."""

    def __init__(self, addresses: int, randomness: random.Random) -> None:
        self._addresses = addresses
        self._random = randomness
        self._failures = 0

    def failed(self, *, refused: bool) -> float:
        """Return the pause, in seconds, after an attempt that failed."""
        self._failures += 1
        rounds, within = divmod(self._failures, self._addresses)
        if within and not refused:
            return 0.0
        cap = min(
            REFUSED_DELAY_MAX_S if refused else DELAY_MAX_S, DELAY_MIN_S * 2.0 ** min(rounds, 8)
        )
        return self._random.uniform(cap / 2, cap)

    def lost(self, lasted_s: float) -> float:
        """Return the pause after a connection was lost that had lasted for ``lasted_s``."""
        if lasted_s >= HEALTHY_AFTER_S:
            self._failures = 0
            return self._random.uniform(0.0, DELAY_MIN_S)
        # The next address may be as quick to break: without this they'd be gone round in no time.
        return max(self.failed(refused=False), self._random.uniform(DELAY_MIN_S / 2, DELAY_MIN_S))


class LinkState(Enum):
    """Where the link stands."""

    DOWN = auto()
    CONNECTING = auto()
    UP = auto()
    HANDED_BACK = auto()
    """Connected, but not consuming: the broker has all messages."""


class Link:
    """A source and the state of its connection; the main thread's, but for the connecting itself."""

    def __init__(self, source: Source, addresses: int, notify: Callable[[], None]) -> None:
        self.source = source
        self.state = LinkState.DOWN
        self.connected_at = 0.0
        self.due = 0.0
        """When to connect, in monotonic seconds; never while that is under way."""
        self._retries = Retries(addresses, random.Random())  # noqa: S311
        self._notify = notify
        self._result: SourceError | bool = False

    def connect(self) -> None:
        """Begin to connect."""
        self.state = LinkState.CONNECTING
        self.due = math.inf
        self._result = False
        threading.Thread(target=self._connect, name="connect", daemon=True).start()

    def _connect(self) -> None:
        try:
            self.source.connect()
        except SourceError as error:
            self._result = error
        except Exception as error:  # noqa: BLE001  # or nobody would ever connect again
            # Not its message, which may quote a URL with a password.
            self._result = SourceError(f"Connecting failed unexpectedly ({type(error).__name__}).")
        else:
            self._result = True
        self._notify()

    def connected(self, now: float) -> bool:
        """Whether the connecting that was begun has succeeded, just now. Raises SourceError if not.

        The link is down again then, with a time when to try next.
        """
        result = self._result
        if result is False:
            return False
        if isinstance(result, SourceError):
            self.state = LinkState.DOWN
            # A standby waits at the broker, while it connects, for its turn.
            self.due = now
            if not isinstance(result, SourceStandbyError):
                refused = isinstance(result, SourceRefusedError)
                self.due += self._retries.failed(refused=refused)
            raise result
        self.state = LinkState.UP
        self.connected_at = now
        return True

    def lost(self, now: float) -> None:
        """Close the connection, and set when to connect again."""
        self.source.close()
        self.state = LinkState.DOWN
        self.due = now + self._retries.lost(now - self.connected_at)
