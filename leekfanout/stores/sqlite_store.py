"""One SQLite file of the state directory: opened when needed, set aside when damaged.

What the spool and the dead letters have in common: write-ahead log, transactions, a bound in bytes
that the file really takes, and one error for all that a disk can do to them.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, NamedTuple, TypeVar

from leekfanout import logs
from leekfanout.errors import StoreError

log = logs.get("store")

T = TypeVar("T")

BUSY_TIMEOUT_S: Final = 5.0
"""How long to wait for another process's transaction; all of ours are far shorter."""

WAL_MAX_BYTES: Final = 4_000_000
"""What a checkpoint cuts the write-ahead log back to; a large transaction may exceed it."""

SHRINK_ABOVE_FREE_BYTES: Final = 8_000_000
SHRINK_BELOW_USED_BYTES: Final = 1_000_000
"""A file this empty and this hollow is rewritten: cheap then, and the disk gets its space back."""

LAST_ID_MAX: Final = 2**62

SCHEMA_VERSION: Final = 1
SCHEMA_VERSION_MAX: Final = 1_000
"""A number beyond is no later version, but damage to the place where it stands."""

# SQLITE_ERROR is a statement that can't be compiled. Ours are constant, so the schema isn't ours.
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
_NOT_WRITABLE = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM})


class DamagedError(sqlite3.DatabaseError):
    """The file holds something that we haven't written, though SQLite doesn't mind it."""


class Column(NamedTuple):
    """A column that came later than its table."""

    table: str
    name: str
    declared_type: str


class SqliteStore:
    """Runs transactions on one SQLite file; any thread may call any method.

    The ``owner`` is the process whose data it is: it creates a missing file, and replaces one that
    is damaged or was deleted under it. Anybody else only uses what is there, for a file created by
    root would be closed to the agent.

    ``synchronous`` is SQLite's: with a write-ahead log, a transaction outlives a crash of the
    process under both; FULL also outlives a power cut
    (https://www.sqlite.org/pragma.html#pragma_synchronous).

    ``on_open`` is called with each new connection, for what is to be read from the file first.

    ``later_columns`` are added to a file that lacks them. Earlier versions don't mind them, so that
    the schema's version stays what it is, and one may go back to them.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        *,
        synchronous: Literal["NORMAL", "FULL"],
        owner: bool = True,
        on_open: Callable[[sqlite3.Connection], None] | None = None,
        later_columns: Sequence[Column] = (),
    ) -> None:
        self.path = path
        self.lock = threading.RLock()
        """Held during each transaction; whoever keeps figures about the file holds it too."""
        self._schema = schema
        self._synchronous = synchronous
        self._owner = owner
        self._on_open = on_open
        self._later_columns = later_columns
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``work`` returns, run in a transaction that sees one moment of the file.

        Raises StoreError when the file can't be read. ``work`` may run again, on a new file.
        """
        return self._run(work, "BEGIN")

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``work`` returns, run in a transaction that is committed before this returns.

        Raises StoreError when it can't be kept; then nothing of it is. ``work`` may run again, on
        a new file. An exception of its own rolls back and is passed on.
        """
        # IMMEDIATE: a lock taken at the first write would fail at once, not wait, if another
        # process had written since our first read.
        return self._run(work, "BEGIN IMMEDIATE")

    def shrink(self) -> None:
        """Give the disk its space back if hardly anything is left in a large file; never raises."""
        with self.lock:
            try:
                connection = self._opened()
                if (
                    free_bytes(connection) >= SHRINK_ABOVE_FREE_BYTES
                    and used_bytes(connection) <= SHRINK_BELOW_USED_BYTES
                ):
                    connection.execute("VACUUM")
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except (sqlite3.Error, UnicodeDecodeError, OSError, StoreError) as error:
                log.debug("store.not_shrunk", path=self.path, error=error)

    def close(self) -> None:
        """Close the file; the next transaction opens it again."""
        with self.lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()

    def _run(self, work: Callable[[sqlite3.Connection], T], begin: str) -> T:
        with self.lock:
            try:
                try:
                    return self._transact(work, begin)
                except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                    if not (self._owner and _is_damage(error)):
                        raise
                    self._set_aside(error)
                    return self._transact(work, begin)
            except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
                # A connection that has failed may hold a half-done state: begin with a new one.
                self.close()
                raise StoreError(f"{self.path} can't be used: {_why(error)}.") from error

    def _transact(self, work: Callable[[sqlite3.Connection], T], begin: str) -> T:
        connection = self._opened()
        connection.execute(begin)
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite itself rolls back on a full disk, for one
                try:
                    connection.execute("ROLLBACK")
                except sqlite3.Error:
                    self.close()  # BEGIN would fail on it, and that must not pass for damage
            raise
        return result

    def _opened(self) -> sqlite3.Connection:
        """Return the connection; a new one if the file at our path isn't the one that we opened.

        SQLite goes on writing into a deleted file, whose content ends with the process.
        """
        if self._connection is not None:
            if self._identity_on_disk() == self._identity:
                return self._connection
            log.error("store.vanished", path=self.path)
            self.close()
        if self._owner:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Its -wal and -shm files take over this mode. They hold what tasks were called with.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        elif not self.path.exists():
            raise StoreError(f"{self.path} doesn't exist.")
        self._identity = self._identity_on_disk()
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # A flipped bit in a text is no reason to lose the row.
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if SCHEMA_VERSION < version < SCHEMA_VERSION_MAX:
            raise StoreError(
                f"{self.path} was written by a later version of leekfanout; use that version,"
                " or move the file away."
            )
        is_new = version == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        if not is_new and version != SCHEMA_VERSION:
            raise DamagedError("it is not a file of leekfanout")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_MAX_BYTES}")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        # Debian's SQLite overwrites whatever it frees with zeros, a second write for each byte.
        connection.execute("PRAGMA secure_delete = FAST")
        if is_new:
            if not self._owner:
                raise StoreError(f"{self.path} is empty.")
            connection.executescript(
                f"BEGIN IMMEDIATE; {self._schema}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
            )
        self._add_later_columns(connection)
        if self._on_open is not None:
            self._on_open(connection)

    def _add_later_columns(self, connection: sqlite3.Connection) -> None:
        if all(_has_column(connection, column) for column in self._later_columns):
            return
        connection.execute("BEGIN IMMEDIATE")
        for column in self._later_columns:
            if not _has_column(connection, column):  # another process may have added it meanwhile
                table, name, declared_type = column
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {declared_type}")
        connection.execute("COMMIT")

    def _set_aside(self, error: Exception) -> None:
        """Rename a damaged file: a new one can be begun, and a person can look at the old one."""
        self.close()
        if self._identity_on_disk() != self._identity:
            return  # somebody else did it
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        aside = self.path.with_name(f"{self.path.name}.damaged-{moment}")
        # Damage that comes back must not fill the disk: only the last damaged file is kept.
        for earlier in self.path.parent.glob(f"{self.path.name}.damaged-*"):
            earlier.unlink(missing_ok=True)
        # The file goes first: SQLite deletes a write-ahead log that it finds beside an empty file.
        self.path.rename(aside)
        with contextlib.suppress(FileNotFoundError):
            _beside(self.path, "-wal").rename(_beside(aside, "-wal"))
        _beside(self.path, "-shm").unlink(missing_ok=True)
        log.error("store.damaged", path=self.path, set_aside_as=aside.name, error=error)

    def _identity_on_disk(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino


def _has_column(connection: sqlite3.Connection, column: Column) -> bool:
    found = connection.execute(
        "SELECT 1 FROM pragma_table_info(?) WHERE name = ?", (column.table, column.name)
    )
    return found.fetchone() is not None


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the bytes of the file's pages that hold something, as the transaction sees it.

    The file itself doesn't shrink with them, but free pages are used again before it grows.
    """
    used_pages = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
    return used_pages * _pragma(connection, "page_size")


def free_bytes(connection: sqlite3.Connection) -> int:
    """Return the bytes of the file's pages that hold nothing."""
    return _pragma(connection, "freelist_count") * _pragma(connection, "page_size")


def has_room(connection: sqlite3.Connection, payload_bytes: int, max_bytes: int) -> bool:
    """Whether a row with that payload fits into a file of ``max_bytes``; two pages of slack."""
    slack_bytes = 2 * _pragma(connection, "page_size")
    return used_bytes(connection) + payload_bytes + slack_bytes <= max_bytes


def checked(row: Sequence[Any], *types: type | UnionType) -> Sequence[Any]:
    """Return a row as it was read; DamagedError if it has other types than were written.

    SQLite reads whatever the bytes say, for it has no checksums.
    """
    if all(map(isinstance, row, types)):
        return row
    raise DamagedError("a row has values of wrong types")


def last_id(connection: sqlite3.Connection, table: str) -> int:
    """Return the last id that AUTOINCREMENT has given in ``table``, or 0."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    if row is None:
        return 0
    (sequence,) = checked(row, int)
    if not 0 <= sequence < LAST_ID_MAX:
        raise DamagedError("its ids have come to an end")
    return int(sequence)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _primary_code(error: Exception) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)  # absent where the module itself complains
    return None if code is None else code & 0xFF


def _is_damage(error: Exception) -> bool:
    # Python's module raises UnicodeDecodeError where SQLite quotes a damaged schema.
    return isinstance(error, DamagedError | UnicodeDecodeError) or _primary_code(error) in _DAMAGE


def _why(error: Exception) -> str:
    """Say what went wrong and what to do, as the end of a sentence."""
    if isinstance(error, OSError):
        return f"{error.strerror}; check that its folder exists and is writable for this user"
    code = _primary_code(error)
    name = getattr(error, "sqlite_errorname", "no code")
    if code == sqlite3.SQLITE_FULL:
        return "the disk is full; free some space"
    if code == sqlite3.SQLITE_IOERR:
        return f"the disk refused it ({name}); it is full, over a quota, or failing"
    if code in _NOT_WRITABLE:
        return f"{error} ({name}); check its owner, its mode and its folder's"
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return f"another process has kept it locked for {BUSY_TIMEOUT_S:g} s; find and end that one"
    if _is_damage(error):
        return f"it is damaged ({error}); the agent sets it aside when it next writes"
    return f"{error} ({name})"
