"""Reading parts of a log file by Supervisor's rules for offsets and lengths, within a bound."""

import os
from pathlib import Path
from typing import Final, NamedTuple

READ_MAX_BYTES: Final = 1_000_000
"""No call returns more, whatever it asks for."""


class Tail(NamedTuple):
    """The end of a log file, as a client that follows it asks for."""

    content: bytes
    offset: int
    """Where the file ends now: the offset to ask for next."""
    overflow: bool
    """Whether the file has grown by more than was asked for, so that something was left out."""


def read(path: Path, offset: int, length: int) -> bytes:
    """Return ``length`` bytes from ``offset`` on (0: all that follow), or the last ``-offset``.

    Raises ValueError where the two don't go together, and OSError.
    """
    if length < 0 or (offset < 0 and length != 0):
        raise ValueError("a negative offset goes with a length of 0, a positive one with 0 or more")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = max(0, size + offset) if offset < 0 else offset
        file.seek(start)
        return file.read(min(length or READ_MAX_BYTES, READ_MAX_BYTES))


def tail(path: Path, offset: int, length: int) -> Tail:
    """Return the last ``length`` bytes if the file has grown beyond ``offset``; raises OSError."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        wanted = min(max(length, 0), READ_MAX_BYTES, size) if offset < size else 0
        file.seek(size - wanted)
        return Tail(file.read(wanted), size, size > offset + length)
