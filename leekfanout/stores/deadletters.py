"""Dead letters on disk: what the API refuses and what can't become a document, with the reasons."""

import operator
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

from leekfanout import logs
from leekfanout.errors import StoreError
from leekfanout.stores.sqlite_store import (
    Column,
    DamagedError,
    SqliteStore,
    checked,
    has_room,
    last_id,
    used_bytes,
)

log = logs.get("deadletters")

FILE_NAME: Final = "deadletters.sqlite3"

Kind = Literal["message", "event", "document"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

PAGE_ROWS: Final = 500
"""Rows that are read or deleted in one transaction, so that the agent's own get their turn."""

_SCHEMA: Final = """
    CREATE TABLE letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        reason TEXT NOT NULL,
        answer TEXT,
        payload BLOB NOT NULL
    );
    CREATE INDEX letters_at ON letters (at)
"""
_LATER_COLUMNS: Final = (Column("letters", "content_type", "TEXT"),)


class DeadLetter(NamedTuple):
    """Something that can't be delivered as it is."""

    kind: Kind
    """``message``: a broker's message that can't be read at all; ``event``: one event that can't
    become a document; ``document``: one document that the API refuses."""
    reason: str
    answer: str | None
    """What the API said, where it was the API that refused."""
    payload: bytes
    """The bytes of the message, the event or the document, as they came or would have gone."""
    at: float
    """When it was set aside, in epoch seconds."""
    content_type: str | None = None
    """What a ``message`` was said to be; empty if it said nothing. None where that isn't known: in a
    message whose envelope can't be read, one that an earlier version has kept, and other kinds."""


class StoredLetter(NamedTuple):
    """A dead letter as it is listed: everything but the payload, of which only the size."""

    id: int
    at: float
    kind: Kind
    reason: str
    answer: str | None
    size_bytes: int


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters are meant; each part narrows, and None leaves it open."""

    kind: Kind | None = None
    reason: str | None = None
    """Text that the reason contains, in whatever case."""
    since: float | None = None
    """Epoch seconds: only letters set aside then or later."""

    def sql(self) -> tuple[str, list[Any]]:
        """Return a condition in SQL, with its parameters."""
        conditions, parameters = ["1"], list[Any]()
        if self.kind is not None:
            conditions.append("kind = ?")
            parameters.append(self.kind)
        if self.reason is not None:
            conditions.append("instr(lower(reason), lower(?)) > 0")
            parameters.append(self.reason)
        if self.since is not None:
            conditions.append("at >= ?")
            parameters.append(self.since)
        return " AND ".join(conditions), parameters


EVERYTHING: Final = LetterFilter()


class DeadLetters:
    """The dead letters of one subscription, bounded in bytes: the oldest make room for new ones.

    Any thread may use it, and other processes may use the same file at the same time. The file is
    opened when it is first needed; ``owner`` is as for
    :class:`~leekfanout.stores.sqlite_store.SqliteStore`. What reads or writes letters raises StoreError
    where the disk doesn't do as it should.

    What is kept outlives a power cut too, since nobody else has it any more: the broker forgets a
    message as soon as its events are here.
    """

    def __init__(
        self, path: Path, subscription: str, max_bytes: int, *, owner: bool = True
    ) -> None:
        self.subscription = subscription
        self._max_bytes = max_bytes
        self._complaint = logs.RateLimit(60.0)
        self._counted: tuple[int, int, int] | None = None
        """The file's version (as other processes change it), and its letters and bytes then."""
        self._last_counted = (0, 0)
        self._store = SqliteStore(
            path,
            _SCHEMA,
            later_columns=_LATER_COLUMNS,
            synchronous="FULL",
            owner=owner,
            on_open=self._take_stock,
        )

    def put(self, letters: Sequence[DeadLetter]) -> int:
        """Keep all of ``letters`` or none, and return how many others were evicted for them.

        A letter that is larger than the whole bound counts as evicted itself: nothing that is tried
        later would make it fit. When this returns, the letters are on the disk.
        """
        with self._store.lock:
            self._counted = None
            return self._store.write(lambda db: sum(self._insert(db, letter) for letter in letters))

    @property
    def changed(self) -> bool:
        """Whether this process has added or removed letters since they were last counted."""
        return self._counted is None

    def count(self) -> int:
        """How many letters there are, as of the last time that the file could be read."""
        return self.stock()[0]

    def size_bytes(self) -> int:
        """What the letters take on disk; the write-ahead log takes some megabytes more."""
        return self.stock()[1]

    def select(
        self, only: LetterFilter = EVERYTHING, *, after: int = 0, limit: int = PAGE_ROWS
    ) -> list[StoredLetter]:
        """Return the oldest letters beyond id ``after`` that ``only`` fits, at most ``limit``."""
        condition, parameters = only.sql()
        statement = (
            "SELECT id, at, kind, reason, answer, length(payload) FROM letters"  # noqa: S608
            f" WHERE id > ? AND {condition} ORDER BY id LIMIT ?"
        )

        def select(db: sqlite3.Connection) -> list[StoredLetter]:
            letters = [
                StoredLetter._make(checked(row, int, float, str, str, str | None, int))
                for row in db.execute(statement, (after, *parameters, limit))
            ]
            ids = [after, *(letter.id for letter in letters)]
            if any(map(operator.ge, ids, ids[1:])):
                raise DamagedError("its rows are out of order")
            return letters

        return self._store.read(select)

    def newest_id(self) -> int:
        """Return the id of the letter that came last, or 0."""
        return self._store.read(lambda db: last_id(db, "letters"))

    def get(self, letter_id: int) -> DeadLetter | None:
        """Return a letter with its payload, or None if there is none of that id."""

        def get(db: sqlite3.Connection) -> DeadLetter | None:
            row = db.execute(
                "SELECT kind, reason, answer, payload, at, content_type FROM letters WHERE id = ?",
                (letter_id,),
            ).fetchone()
            if row is None:
                return None
            return DeadLetter._make(checked(row, str, str, str | None, bytes, float, str | None))

        return self._store.read(get)

    def remove(self, ids: Sequence[int]) -> int:
        """Remove letters by id; return how many of them there were."""
        removed = 0
        for start in range(0, len(ids), PAGE_ROWS):
            removed += self._delete(ids[start : start + PAGE_ROWS])
        self._store.shrink()
        return removed

    def purge(self, only: LetterFilter = EVERYTHING) -> int:
        """Remove the letters that ``only`` fits, none that come in meanwhile; return how many."""
        newest = self.newest_id()
        purged = last = 0
        while page := [
            letter.id for letter in self.select(only, after=last) if letter.id <= newest
        ]:
            purged += self._delete(page)
            last = page[-1]
        self._store.shrink()
        return purged

    def close(self) -> None:
        """Close the file; what is in it stays."""
        self._store.close()

    def _insert(self, db: sqlite3.Connection, letter: DeadLetter) -> int:
        texts = (letter.reason, letter.answer or "", letter.content_type or "")
        size_bytes = len(letter.payload) + sum(map(len, texts))
        if size_bytes > self._max_bytes:
            if (held_back := self._complaint.allow()) is not None:
                log.error(
                    "deadletters.too_large",
                    kind=letter.kind,
                    reason=letter.reason,
                    size_bytes=size_bytes,
                    max_bytes=self._max_bytes,
                    held_back=held_back,
                )
            return 1
        evicted = 0
        while not has_room(db, size_bytes, self._max_bytes):
            if not db.execute(
                "DELETE FROM letters WHERE id = (SELECT min(id) FROM letters)"
            ).rowcount:
                break  # nothing is left, and the bound is smaller than an empty file
            evicted += 1
        db.execute(
            "INSERT INTO letters (at, kind, reason, answer, payload, content_type)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                letter.at,
                letter.kind,
                _storable(letter.reason),
                None if letter.answer is None else _storable(letter.answer),
                letter.payload,
                None if letter.content_type is None else _storable(letter.content_type),
            ),
        )
        return evicted

    def _delete(self, ids: Sequence[int]) -> int:
        def delete(db: sqlite3.Connection) -> int:
            return sum(
                db.execute("DELETE FROM letters WHERE id = ?", (letter_id,)).rowcount
                for letter_id in ids
            )

        with self._store.lock:
            self._counted = None
            return self._store.write(delete)

    def stock(self) -> tuple[int, int]:
        """Return :meth:`count` and :meth:`size_bytes`, counted again only if letters have changed."""

        def count(db: sqlite3.Connection) -> tuple[int, int, int]:
            (version,) = db.execute("PRAGMA data_version").fetchone()
            if self._counted is not None and self._counted[0] == version:
                return self._counted
            (letters,) = db.execute("SELECT count(*) FROM letters").fetchone()
            return version, letters, used_bytes(db) if letters else 0

        with self._store.lock:
            try:
                self._counted = self._store.read(count)
            except StoreError as error:
                log.debug("deadletters.not_counted", error=error)
            else:
                self._last_counted = self._counted[1:]
            return self._last_counted

    def _take_stock(self, db: sqlite3.Connection) -> None:
        # A version is comparable only with others of the same connection.
        self._counted = None
        last_id(db, "letters")  # so that damage to it shows now


def _storable(text: str) -> str:
    """Return ``text`` without lone surrogates, which have no UTF-8; reasons quote what was sent."""
    return text.encode("utf-8", "replace").decode()
