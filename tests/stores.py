"""What tests of files in the state directory share."""

import os
from collections.abc import Iterator
from typing import Final

import pytest

from leekfanout.stores.sqlite_store import SqliteStore

MEMORY_FOLDER: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where property tests make their files: thousands of fsyncs take a minute on a busy disk."""


@pytest.fixture
def stores_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close every store that the test has made."""
    made: list[SqliteStore] = []
    make = SqliteStore.__init__

    def remember(self: SqliteStore, *args: object, **options: object) -> None:
        made.append(self)
        make(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(SqliteStore, "__init__", remember)
    yield
    for store in made:
        store.close()
