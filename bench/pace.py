"""Publishing at a given rate."""

import time
from collections.abc import Callable, Iterable


def at_rate(chunks: Iterable[bytes], chunks_per_s: float, send: Callable[[bytes], object]) -> float:
    """Send one chunk after another, evenly; return the seconds it took.

    A chunk that is late, because the receiver was busy, is sent at once.
    """
    begun = time.monotonic()
    due = begun
    for chunk in chunks:
        wait_s = due - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        send(chunk)
        due += 1 / chunks_per_s
    return time.monotonic() - begun
