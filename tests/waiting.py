"""Waiting for a condition, bounded, so that no test sleeps for a guessed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.02


def until(condition: Callable[[], T], timeout_s: float, what: str) -> T:
    """Return the condition's first true value; fail with ``what`` once ``timeout_s`` have passed.

    ``what`` completes the sentence "Timed out waiting for …", and may hold what was seen last.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"Timed out after {timeout_s:g} s waiting for {what}.")
        time.sleep(POLL_S)
