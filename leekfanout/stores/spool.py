"""Batches on disk: what a Redis subscription keeps while its API is away and its memory is full."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from leekfanout import logs
from leekfanout.errors import StoreError
from leekfanout.stores.sqlite_store import (
    DamagedError,
    SqliteStore,
    checked,
    has_room,
    last_id,
    used_bytes,
)

log = logs.get("spool")

T = TypeVar("T")

# AUTOINCREMENT: ids tell the order of arrival whatever the clock does, and none comes twice. The
# index lets SQLite count the events without reading the pages that the bodies are in.
_SCHEMA: Final = """
    CREATE TABLE batches (
        id INTEGER PRIMARY KEY AUTOINCREMENT, events INTEGER NOT NULL, body BLOB NOT NULL
    );
    CREATE INDEX batches_events ON batches (events)
"""


class SpoolEntry(NamedTuple):
    """A batch on disk: the body as it is posted, and how many events it holds."""

    id: int
    body: bytes
    events: int


class _NoRoomError(Exception):
    """The batch can't be kept within the bound."""


class Spool:
    """The batches of one subscription, oldest first, bounded in bytes; any thread may use it.

    An entry stays on disk until :meth:`remove` says that it is confirmed. Those that :meth:`after`
    has handed out are on their way and may be confirmed at any moment: the bound never drops them,
    but the oldest of those that are only on disk.

    A kept batch outlives a crash of the process. A power cut may cost the last seconds' batches, or
    bring back confirmed ones: what waits in memory is lost then anyway, and the reading of PUB/SUB,
    which must never wait for long, is saved an fsync for each batch.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._batches = self._events = self._used_bytes = 0
        self._next_id = 1
        self._handed_out_to = 0
        self._on_their_way: dict[int, int] = {}
        """Entries handed out and not confirmed, each with its number of events."""
        self._confirmed: dict[int, int] = {}
        """Entries confirmed but still on disk, likewise."""
        self._lost_events = 0
        self._stock_taken = False
        self._complaint = logs.RateLimit(60.0)
        self._store = SqliteStore(path, _SCHEMA, synchronous="NORMAL", on_open=self._take_stock)
        try:
            self._write(lambda _: None)
        except StoreError as error:
            log.warning("spool.unusable", error=error)

    @property
    def stock_taken(self) -> bool:
        """Whether the file could be opened so far, so that the figures below mean something."""
        return self._stock_taken

    @property
    def batches(self) -> int:
        """How many batches are on disk, as of the last time that it could be read."""
        return self._batches

    @property
    def events(self) -> int:
        """How many events those batches hold."""
        return self._events

    @property
    def size_bytes(self) -> int:
        """What those batches take on disk; the write-ahead log takes some megabytes more."""
        return self._used_bytes if self._batches else 0

    def append(self, body: bytes, events: int) -> int:
        """Keep a batch, and return how many *events* were dropped to stay within the bound.

        The batch's own events are dropped where it is too large, or where all others are on their
        way. Events that went with a damaged or deleted file are counted here too, once.
        Raises StoreError when the disk can't keep the batch.
        """
        with self._store.lock:
            try:
                dropped = self._write(lambda db: self._insert(db, body, events))
            except _NoRoomError:
                dropped = [events]
            else:
                self._next_id += 1
                self._batches += 1 - len(dropped)
                self._events += events - sum(dropped)
            lost, self._lost_events = self._lost_events, 0
            return sum(dropped) + lost

    def after(self, entry_id: int, limit_bytes: int) -> list[SpoolEntry]:
        """Return the oldest entries beyond ``entry_id``: at least one, ``limit_bytes`` at most.

        Begin with 0, go on with the last id received. Raises StoreError.
        """

        def load(db: sqlite3.Connection) -> list[SpoolEntry]:
            entries: list[SpoolEntry] = []
            loaded_bytes = 0
            for row in db.execute(
                "SELECT id, body, events FROM batches WHERE id > ? ORDER BY id", (entry_id,)
            ):
                entry = SpoolEntry._make(checked(row, int, bytes, int))
                if entry.id <= (entries[-1].id if entries else entry_id):
                    raise DamagedError("its rows are out of order")
                if entry.id in self._confirmed:
                    continue
                loaded_bytes += len(entry.body)
                if entries and loaded_bytes > limit_bytes:
                    break
                entries.append(entry)
            return entries

        with self._store.lock:
            entries = self._store.read(load)
            for entry in entries:
                self._on_their_way[entry.id] = entry.events
                self._handed_out_to = max(self._handed_out_to, entry.id)
            return entries

    def remove(self, ids: Sequence[int]) -> None:
        """Forget confirmed entries; what the disk refuses now is removed with a later call."""
        with self._store.lock:
            for entry_id in ids:
                self._confirmed[entry_id] = self._on_their_way.pop(entry_id, 0)
            try:
                self._write(lambda _: None)
            except StoreError as error:
                if (held_back := self._complaint.allow()) is not None:
                    waiting = len(self._confirmed)
                    log.warning(
                        "spool.not_removed", entries=waiting, error=error, held_back=held_back
                    )
                return
            if self._batches == 0:
                self._store.shrink()

    def close(self) -> None:
        """Close the file; what is in it stays."""
        self._store.close()

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in a transaction that also removes the entries confirmed so far."""

        def both(db: sqlite3.Connection) -> tuple[list[int], T, int]:
            removed = [
                events
                for entry_id in self._confirmed
                if (events := _delete(db, entry_id)) is not None
            ]
            return removed, work(db), used_bytes(db)

        with self._store.lock:
            removed, result, self._used_bytes = self._store.write(both)
            self._confirmed.clear()
            self._batches -= len(removed)
            self._events -= sum(removed)
            return result

    def _insert(self, db: sqlite3.Connection, body: bytes, events: int) -> list[int]:
        """Insert a batch; return the events of each batch that had to go for it."""
        dropped: list[int] = []
        if len(body) > self._max_bytes:
            raise _NoRoomError
        while not has_room(db, len(body), self._max_bytes):
            oldest = db.execute(
                "SELECT id FROM batches WHERE id > ? ORDER BY id LIMIT 1",
                (self._handed_out_to,),
            ).fetchone()
            if oldest is None:
                raise _NoRoomError
            events_gone = _delete(db, oldest[0])
            if events_gone is None:
                raise DamagedError("a batch can be found but not removed")
            dropped.append(events_gone)
        db.execute("INSERT INTO batches VALUES (?, ?, ?)", (self._next_id, events, body))
        return dropped

    def _take_stock(self, db: sqlite3.Connection) -> None:
        """Count what a newly opened file holds; what should be in it and isn't is lost."""
        expected = self._events - sum(self._on_their_way.values()) - sum(self._confirmed.values())
        self._batches, self._events = checked(
            db.execute("SELECT count(*), coalesce(sum(events), 0) FROM batches").fetchone(),
            *(int, int),
        )
        self._lost_events += max(0, expected - self._events)
        self._used_bytes = used_bytes(db)
        self._stock_taken = True
        if self._batches == 0:  # those handed out are in memory alone now
            self._on_their_way.clear()
            self._confirmed.clear()
        # Ids go on in a new file: one of the old file's may still be on its way.
        self._next_id = max(self._next_id, last_id(db, "batches") + 1)


def _delete(db: sqlite3.Connection, entry_id: int) -> int | None:
    """Delete a batch and return its number of events; None where it isn't there any more."""
    row = db.execute("SELECT events FROM batches WHERE id = ?", (entry_id,)).fetchone()
    if row is None:
        return None
    (events,) = checked(row, int)
    db.execute("DELETE FROM batches WHERE id = ?", (entry_id,))
    return int(events)
