"""Where one agent ends and the next begins, when a lease is handed over.

Both listen for a moment, so that nothing is missed. Redis sends all that is published to each of them
in one and the same order, so a marker that the next one publishes on the lease's channel, once it hears
the events, divides them: what comes before it is the last one's, what comes after it the next one's.

The last one answers, on the same channel, when it has taken all that came before. Until then the next
one only holds what it hears; without an answer it keeps all of it: twice is better than not at all.
"""

import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from leekfanout import logs

log = logs.get("redis")

HAND_OVER_S: Final = 2.0
"""So long who leaves listens for a marker, where somebody waits for the lease."""
UNMARKED_S: Final = 0.5
"""And so long it goes on where it can't hear markers: enough for another one to subscribe."""
ANSWER_S: Final = 3.0
"""So long who takes over waits for the answer; well within the lease that it has just taken."""
HELD_BYTES_MAX: Final = 8_000_000
"""With more than this in hand it waits no longer."""

_ANSWER: Final = b"taken up to "


class HandOver:
    """One connection's part in it, first as the one that takes over, and later as the one that leaves.

    Pure.
    """

    def __init__(self, lease_key: str) -> None:
        self.channel = f"{lease_key}.hand_over".encode()
        self.marker = secrets.token_hex(16).encode()
        """Another one for each connection: an answer that comes late must not count for the next."""
        self.subscribed: bool | None = None
        """Whether we hear the channel; None: that isn't known yet."""
        self.hearers: int | None = None
        """How many have heard our marker, ourselves among them; None: it can't be published."""
        self.answered = False
        self.held: deque[Any] = deque()
        """Replies that came while it wasn't clear whose they are, and are ours: to be read first."""
        self._held_bytes = 0
        self._before_marker = 0

    @property
    def lasts_s(self) -> float:
        """How long to go on listening when we leave and no marker comes."""
        return HAND_OVER_S if self.subscribed else UNMARKED_S

    @property
    def holds_too_much(self) -> bool:
        """Whether it's time to stop waiting."""
        return self._held_bytes > HELD_BYTES_MAX

    @property
    def advice(self) -> str | None:
        """What to do if two may have taken the same events; None: they haven't."""
        if self.hearers is None:
            return "let the user publish on the lease's channel, as docs/scaling.md says"
        if self.hearers > 1 and not self.answered:
            return "none is needed if the other agent was killed or hung"
        return None

    def take(self, reply: Any) -> None:
        """Take a reply that came on the connection, in the order of coming."""
        if isinstance(reply, Exception):
            self.subscribed = False
        elif type(reply) is not list or reply[1] != self.channel:
            self.held.append(reply)
            self._held_bytes += len(reply[-1]) if type(reply) is list else 0
        elif reply[0] == b"subscribe":
            self.subscribed = True
        elif reply[-1] == self.marker:
            self._before_marker = len(self.held)
        elif reply[-1] == _ANSWER + self.marker:
            self.answered = True

    def settle(self) -> list[Any]:
        """Take what the other one has taken out of :attr:`held`, and return it."""
        if not self.answered:
            return []
        return [self.held.popleft() for _ in range(self._before_marker)]

    def answer_to(self, reply: Any) -> bytes | None:
        """Return what to publish if the reply is another agent's marker."""
        if type(reply) is not list or reply[0] != b"message" or reply[1] != self.channel:
            return None
        if reply[-1] == self.marker or reply[-1].startswith(_ANSWER):
            return None
        return _ANSWER + bytes(reply[-1])


def take_over(
    hand_over: HandOver,
    mark: Callable[[HandOver], int | None],
    wait_for_reply: Callable[[float], Any],
    *,
    stood_by: bool,
) -> list[Any]:
    """Agree with whoever leaves, if anybody does; return the replies that it has taken.

    The events are subscribed to, and SUBSCRIBE is sent for the channel. ``mark`` publishes the marker,
    and returns what :attr:`HandOver.hearers` is; ``wait_for_reply`` returns None at its deadline. Who
    ``stood_by`` is told if there may be an overlap. Blocks for three seconds at most.
    """
    deadline = time.monotonic() + ANSWER_S

    def hold(settled: Callable[[], bool]) -> None:
        while not settled() and not hand_over.holds_too_much:
            if (reply := wait_for_reply(deadline)) is None:
                return
            hand_over.take(reply)

    hold(lambda: hand_over.subscribed is not None)
    if hand_over.subscribed:
        hand_over.hearers = mark(hand_over)
    if hand_over.hearers is not None and hand_over.hearers > 1:
        hold(lambda: hand_over.answered)
    if stood_by and (advice := hand_over.advice) is not None:
        log.warning("lease.overlap", reason="some events may come twice", advice=advice)
    return hand_over.settle()
