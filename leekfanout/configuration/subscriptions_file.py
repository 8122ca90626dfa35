"""The file of subscriptions: read, and changed so that nobody ever sees half a change.

Entries are kept as they stand in the JSON text, valid or not, so that keys which a newer version
wrote survive an older one's change.
"""

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from leekfanout.configuration.config import parse_entries, read_subscriptions_file
from leekfanout.configuration.validation import name_of
from leekfanout.errors import LeekfanoutError, SubscriptionExistsError, SubscriptionUnknownError
from leekfanout.stores.whole_file import replace_file

LOCK_TIMEOUT_S: Final = 10.0
"""Whoever holds the lock has a file of some kilobytes to write."""

_LOCK_POLL_S: Final = 0.02

Entry = dict[str, Any]


class SubscriptionsFile:
    """Subscriptions in a JSON file; any thread or process may use it at the same time."""

    def __init__(self, path: Path) -> None:
        # A link stays a link: what it points to is replaced.
        self.path = path.resolve()

    def entries(self) -> list[Any]:
        """Return what the file holds, nothing if it isn't there. Raises ConfigError."""
        try:
            self.path.stat()
        except FileNotFoundError:
            return []
        except OSError:
            pass  # reading it says in words what the matter is
        return parse_entries(read_subscriptions_file(self.path), str(self.path))

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append an entry that is known to be valid.

        Raises SubscriptionExistsError, and LeekfanoutError where the file can't be read or written.
        """
        name = name_of(entry)
        with self._locked():
            entries = self.entries()
            if name in map(name_of, entries):
                raise SubscriptionExistsError(f"{self.path} has a subscription {name} already.")
            self._write([*entries, dict(entry)])

    def remove(self, name: str, before: Callable[[Entry], None] | None = None) -> Entry:
        """Take the entry of this name out, and return it.

        ``before`` is called with the entry while nothing is changed yet; what it raises leaves all as
        it is. Raises SubscriptionUnknownError, otherwise as :meth:`add`.
        """
        with self._locked():
            entries = self.entries()
            found = next((entry for entry in entries if name_of(entry) == name), None)
            if found is None:
                raise SubscriptionUnknownError(f"{self.path} has no subscription {name}.")
            if before is not None:
                before(found)
            self._write([entry for entry in entries if name_of(entry) != name])
        return dict(found)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock beside the file: the file itself is another one after each change."""
        lock = self.path.with_name(f"{self.path.name}.lock")
        with self._plain_words(lock):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._share(descriptor)
        try:
            deadline = time.monotonic() + LOCK_TIMEOUT_S
            while not _try_lock(descriptor):
                if time.monotonic() > deadline:
                    raise LeekfanoutError(
                        f"Another process has held {lock} for {LOCK_TIMEOUT_S:g} seconds; "
                        "nothing was changed. Look for one that hangs."
                    )
                time.sleep(_LOCK_POLL_S)
            yield
        finally:
            os.close(descriptor)

    def _write(self, entries: list[Any]) -> None:
        with self._plain_words(self.path):
            replace_file(self.path, json.dumps(entries, indent=2) + "\n", self._keep_access)

    def _keep_access(self, descriptor: int) -> None:
        self._share(descriptor)
        self._keep_mode(descriptor)

    def _share(self, descriptor: int) -> None:
        """Give a file that root makes to the owner of what was there: its agent needn't be root."""
        with suppress(OSError):
            there = self.path if self.path.exists() else self.path.parent
            owner = there.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)

    def _keep_mode(self, descriptor: int) -> None:
        """Let who could read the old file read the new one; a first one is the owner's alone."""
        with suppress(FileNotFoundError):
            os.fchmod(descriptor, stat.S_IMODE(self.path.stat().st_mode))

    @contextmanager
    def _plain_words(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            advice = ""
            if error.errno == errno.EBUSY:
                advice = " It is a mount of its own: mount its folder instead."
            elif error.errno == errno.ENOENT:
                advice = " Make the folder first."
            raise LeekfanoutError(
                f"{path} can't be written: {error.strerror}.{advice} Nothing was changed."
            ) from None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
