"""What a subscription's process tells of itself, in memory that it shares with the supervisor.

One :class:`Stats` block per subscription, mapped by the supervisor before it forks: the child writes,
anybody else reads. There is no lock and no message: a counter is one aligned 8-byte store by the one
thread named beside it, and the block outlives the process, so counters survive restarts.
"""

import mmap
import struct
import threading
import time
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

POST_SECONDS_BUCKETS: Final[tuple[float, ...]] = (
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Upper bounds, in seconds, of the histogram of POST durations; a last bucket takes the rest."""


ANSWERS: Final[tuple[str, ...]] = ("2xx", "3xx", "4xx", "5xx", "none")
"""Classes of answers to a POST; ``none`` where there was no answer."""


def bucket_counter(answer: str, bound_s: float | None) -> str:
    """Return the name of the counter of POSTs that took no longer than ``bound_s``; None: any time."""
    return f"post_seconds_{answer}_le_{'inf' if bound_s is None else f'{bound_s:g}'}"


class Condition(IntEnum):
    """What the subscription's process is doing, the word that a person reads first."""

    STARTING = 0
    CONNECTING = 1
    """The broker is being connected, or can't be reached."""
    REFUSED = 2
    """The broker refuses the credentials, the virtual host or the permissions."""
    DELIVERING = 3
    WAITING_FOR_API = 4
    """The breaker is open: the API is away, overloaded or refuses the application."""
    DRAINING = 5
    STOPPED = 6
    STANDING_BY = 7
    """Redis: another agent hears the events, and this one takes over when that one stops."""


COUNTERS: Final[tuple[str, ...]] = (
    # main thread
    "messages_received",  # messages taken from the broker
    "events_received",  # events in them
    "task_events_received",
    "events_ignored",  # known to be no use to Leek (contract, section 2)
    "events_bad",  # set aside: they can't become documents
    "events_dropped_by_disk",  # lost because neither memory nor disk could keep them
    "events_dropped_by_bound",  # lost because the spool was full
    "redeliveries_recognised",  # came again after a reconnect, were not posted again
    "batches_closed_by_number",
    "batches_closed_by_size",
    "batches_closed_by_window",
    "batches_closed_by_prefetch",  # nothing more could come before an ack
    "batches_closed_by_drain",
    "reconnects",
    "hand_backs",  # messages returned to the broker because the API was away
    "gap_seconds",  # Redis: seconds without a subscription, whose events nobody kept
    # guarded by the stats' lock: sender threads
    "events_delivered",
    "documents_delivered",
    "bytes_delivered",
    "posts",
    "posts_confirmed",
    "posts_retried",
    "documents_refused",  # dead-lettered because the API refuses them
    "dead_letters_evicted",
    "events_spooled",
    *(
        bucket_counter(answer, bound)
        for answer in ANSWERS
        for bound in (*POST_SECONDS_BUCKETS, None)
    ),
    *(f"post_seconds_{answer}_sum" for answer in ANSWERS),
)

GAUGES: Final[tuple[str, ...]] = (
    "turned_at",  # monotonic seconds of the main loop's last turn
    "condition",
    "started_at",  # epoch seconds
    "messages_in_flight",
    "bytes_in_flight",
    "batches_queued",
    "oldest_batch_at",  # epoch seconds when the oldest undelivered batch was closed; 0: none
    "posts_under_way",
    "breaker_open",  # 0 or 1
    "spool_batches",
    "spool_bytes",
    "dead_letters",
    "dead_letters_bytes",
    "last_event_at",  # epoch seconds; 0: never
    "last_task_event_at",
    "last_delivery_at",
    "last_error_at",
    "connected_at",  # epoch seconds; 0: not connected
    "broker_backlog",  # messages that wait at the broker; -1: not known
)

TEXTS: Final[tuple[str, ...]] = ("last_error", "advice", "lease_holder")
"""``last_error`` in plain words, and what to do about it; the agent for which a standby waits."""

TEXT_BYTES: Final = 512
_SLOTS = {name: index for index, name in enumerate((*COUNTERS, *GAUGES))}
_TEXT_OFFSETS = {
    name: len(_SLOTS) * 8 + index * (TEXT_BYTES + 4) for index, name in enumerate(TEXTS)
}
_SIZE = len(_SLOTS) * 8 + len(TEXTS) * (TEXT_BYTES + 4)


class Stats:
    """One subscription's counters, gauges and texts in anonymous shared memory.

    Created by the supervisor, inherited by fork. :meth:`set` and :meth:`text` belong to the child;
    :meth:`add` may be called by any of its threads, and takes a lock.
    """

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, _SIZE)
        self._values = memoryview(self._map)[: len(_SLOTS) * 8].cast("d")
        self._lock = threading.Lock()

    def add(self, name: str, amount: float = 1) -> None:
        """Add ``amount`` to a counter."""
        index = _SLOTS[name]
        with self._lock:
            self._values[index] += amount

    def set(self, name: str, value: float) -> None:
        """Store a gauge."""
        self._values[_SLOTS[name]] = value

    def get(self, name: str) -> float:
        """Read a counter or a gauge."""
        return self._values[_SLOTS[name]]

    def observe_post(self, seconds: float, status: int | None) -> None:
        """Count one POST of ``seconds`` in the histogram (buckets are not cumulative here)."""
        answer = "none" if status is None else f"{status // 100}xx"
        if answer not in ANSWERS:
            answer = "none"
        bound = next((bound for bound in POST_SECONDS_BUCKETS if seconds <= bound), None)
        self.add(bucket_counter(answer, bound))
        self.add(f"post_seconds_{answer}_sum", seconds)

    def text(self, name: str, value: str) -> None:
        """Store a text, cut to :data:`TEXT_BYTES` bytes of UTF-8."""
        encoded = value.encode("utf-8", "replace")[:TEXT_BYTES]
        offset = _TEXT_OFFSETS[name]
        with self._lock:
            # The length goes to zero first, so that a reader sees no text rather than two mixed.
            struct.pack_into("=I", self._map, offset, 0)
            self._map[offset + 4 : offset + 4 + len(encoded)] = encoded
            struct.pack_into("=I", self._map, offset, len(encoded))

    def read_text(self, name: str) -> str:
        """Read a text."""
        offset = _TEXT_OFFSETS[name]
        (length,) = struct.unpack_from("=I", self._map, offset)
        return self._map[offset + 4 : offset + 4 + min(length, TEXT_BYTES)].decode(
            "utf-8", "replace"
        )

    def problem(self, error: str, advice: str) -> None:
        """Record what went wrong, and what to do about it, for the status."""
        self.text("last_error", error)
        self.text("advice", advice)
        self.set("last_error_at", time.time())

    def snapshot(self, names: Sequence[str] = (*COUNTERS, *GAUGES)) -> dict[str, float]:
        """Return counters and gauges by name, as they are now."""
        return {name: self._values[_SLOTS[name]] for name in names}
