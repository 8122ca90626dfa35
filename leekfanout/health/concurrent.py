"""Checks side by side, bounded in number and in time."""

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final

from leekfanout.health.check import Check, Kind, trouble

THREADS_MAX: Final = 16
DEADLINE_S: Final = 30.0
"""For one check. A name server alone may keep a thread for long, and can't be interrupted."""


def run_checks(
    checks: Sequence[Callable[[], Check]],
    threads: int = THREADS_MAX,
    deadline_s: float = DEADLINE_S,
) -> list[Check]:
    """Run ``checks`` in threads and return their results in order.

    What hasn't ended ``deadline_s`` after the last result is reported as a timeout. Its thread is
    left behind, and doesn't keep the process from ending.
    """
    waiting: SimpleQueue[tuple[int, Callable[[], Check]]] = SimpleQueue()
    done: SimpleQueue[tuple[int, Check]] = SimpleQueue()
    for item in enumerate(checks):
        waiting.put(item)

    def work() -> None:
        while True:
            try:
                index, check = waiting.get_nowait()
            except Empty:
                return
            done.put((index, _safely(check)))

    for number in range(min(threads, len(checks))):
        threading.Thread(target=work, name=f"check-{number}", daemon=True).start()
    results: dict[int, Check] = {}
    deadline = time.monotonic() + deadline_s
    while len(results) < len(checks):
        try:
            index, result = done.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            break
        results[index] = result
        deadline = time.monotonic() + deadline_s
    late = trouble(Kind.TIMEOUT, f"The check has not ended within {deadline_s:g} seconds.")
    return [results.get(index, late) for index in range(len(checks))]


def _safely(check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:  # noqa: BLE001  # one check must not take the others with it
        # The text of an unknown error may quote a URL with its password.
        return trouble(Kind.UNEXPECTED, f"The check failed with {type(error).__name__}.")
