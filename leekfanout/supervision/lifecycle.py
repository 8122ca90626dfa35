"""A process's states and the moves between them, and how long to wait before a restart: pure.

The states' names and numbers are Supervisor's, since its clients read them.
"""

import random
from enum import Enum, IntEnum, auto
from typing import Final


class State(IntEnum):
    """Where a subscription's process is in its life."""

    STOPPED = 0
    STARTING = 10
    """Forked, and not yet up for :data:`STEADY_AFTER_S`."""
    RUNNING = 20
    BACKOFF = 30
    """Ended unexpectedly; starts again when the delay is over."""
    STOPPING = 40
    """Asked to stop, and draining."""
    EXITED = 100
    """Ended in order, though nobody asked here; starts again when the delay is over."""
    FATAL = 200
    """Supervisor's word for having given up, which never happens here."""


class Move(Enum):
    """What can happen to a process."""

    SPAWN = auto()
    STEADY = auto()
    STOP = auto()
    END = auto()
    """It ended with exit code 0."""
    CRASH = auto()
    """It ended in any other way, or couldn't be forked."""


STEADY_AFTER_S: Final = 1.0
"""A process that has lived for so long is RUNNING (Supervisor's ``startsecs``)."""

UP: Final = frozenset({State.STARTING, State.RUNNING, State.STOPPING})
"""The states that have a process."""

WAITING: Final = frozenset({State.BACKOFF, State.EXITED})
"""The states that have none, but will have one soon."""

_MOVES: Final = {
    (State.STOPPED, Move.SPAWN): State.STARTING,
    (State.BACKOFF, Move.SPAWN): State.STARTING,
    (State.EXITED, Move.SPAWN): State.STARTING,
    (State.STARTING, Move.STEADY): State.RUNNING,
    (State.STARTING, Move.STOP): State.STOPPING,
    (State.RUNNING, Move.STOP): State.STOPPING,
    (State.BACKOFF, Move.STOP): State.STOPPED,
    (State.EXITED, Move.STOP): State.STOPPED,
    (State.STARTING, Move.END): State.EXITED,
    (State.RUNNING, Move.END): State.EXITED,
    (State.STOPPING, Move.END): State.STOPPED,
    (State.STARTING, Move.CRASH): State.BACKOFF,
    (State.RUNNING, Move.CRASH): State.BACKOFF,
    (State.STOPPING, Move.CRASH): State.STOPPED,
}


def after(state: State, move: Move) -> State:
    """Return the state that ``move`` leads to; ValueError: no process can do that."""
    try:
        return _MOVES[state, move]
    except KeyError:
        raise ValueError(f"{move.name} is no move for a process that is {state.name}") from None


class Backoff:
    """How long a process that ended by itself waits before it starts again.

    Doubles from 1 s to 60 s with each short life, plus up to a half at random so that processes
    which died together don't return together. A minute of health makes it begin anew.
    """

    FIRST_S: Final = 1.0
    LONGEST_S: Final = 60.0
    HEALTHY_AFTER_S: Final = 60.0

    __slots__ = ("_random", "_short_lives")

    def __init__(self, rng: random.Random | None = None) -> None:
        self._random = rng or random.Random()  # noqa: S311
        self._short_lives = 0

    def delay(self, lived_s: float) -> float:
        """Take note of a life of ``lived_s`` seconds, and return the seconds to wait."""
        if lived_s >= self.HEALTHY_AFTER_S:
            self._short_lives = 0
        base = min(self.FIRST_S * (1 << min(self._short_lives, 10)), self.LONGEST_S / 1.5)
        self._short_lives += 1
        return base * self._random.uniform(1.0, 1.5)

    def reset(self) -> None:
        """Begin anew: somebody asked for a start."""
        self._short_lives = 0
