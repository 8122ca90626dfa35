"""A fixture for tests that leave files of the state directory open."""

from collections.abc import Iterator

import pytest

from leekfanout.sqlite_store import SqliteStore


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
