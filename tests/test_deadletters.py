"""The dead letters: kept whole, bounded, found again, and shared with other processes."""

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from leekfanout.stores.deadletters import DeadLetter, DeadLetters, LetterFilter
from tests.stores import stores_are_closed  # noqa: F401

pytestmark = pytest.mark.usefixtures("stores_are_closed")

MB = 1_000_000

FIRST_SCHEMA = """
    CREATE TABLE letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        reason TEXT NOT NULL,
        answer TEXT,
        payload BLOB NOT NULL
    );
    CREATE INDEX letters_at ON letters (at);
    PRAGMA user_version = 1
"""
"""How files were laid out at first: a copy, so that a change of the code's own shows."""


def letter(number: int = 0, *, payload: bytes | None = None, **changes: object) -> DeadLetter:
    plain = DeadLetter(
        kind="event",
        reason="it has no uuid",
        answer=None,
        payload=b"event %d" % number if payload is None else payload,
        at=1_700_000_000.0 + number,
    )
    return plain._replace(**changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop-prod" / "deadletters.sqlite3"


@pytest.fixture
def letters(path: Path) -> DeadLetters:
    return DeadLetters(path, "shop-prod", MB)


def test_a_letter_comes_back_as_it_was_put(letters: DeadLetters) -> None:
    put = [
        letter(0),
        letter(1, kind="document", answer='HTTP 400 {"failed": 1}', payload=b'{"id":"\xff\x00"}'),
        letter(2, kind="message", payload=b"", content_type="application/x-yaml"),
        letter(3, kind="message", content_type=""),
    ]
    assert letters.put(put) == 0
    assert [letters.get(number) for number in (1, 2, 3, 4)] == put
    assert letters.get(5) is None


@pytest.mark.parametrize("owner", [True, False])
def test_a_file_from_before_content_types_were_kept_is_read_and_written(
    path: Path, owner: bool
) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.executescript(FIRST_SCHEMA)
        connection.execute(
            "INSERT INTO letters VALUES (7, 5.0, 'message', 'no JSON', NULL, CAST('x' AS BLOB))"
        )
    connection.close()
    letters = DeadLetters(path, "shop-prod", MB, owner=owner)
    assert letters.get(7) == DeadLetter("message", "no JSON", None, b"x", 5.0)
    letters.put([letter(kind="message", content_type="text/plain")])
    letters.close()
    reopened = DeadLetters(path, "shop-prod", MB, owner=owner)
    assert [each.id for each in reopened.select()] == [7, 8]
    assert reopened.get(8) == letter(kind="message", content_type="text/plain")


def test_a_reason_that_has_no_utf8_is_kept_readable(letters: DeadLetters) -> None:
    letters.put([letter(reason="odd \ud800", answer="odd \udfff")])
    kept = letters.get(1)
    assert kept is not None
    assert (kept.reason, kept.answer) == ("odd ?", "odd ?")


def test_letters_are_on_disk_when_put_returns(path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from leekfanout.stores.deadletters import DeadLetter, DeadLetters\n"
        "letters = DeadLetters(Path(sys.argv[1]), 'shop-prod', 1_000_000)\n"
        "letters.put([DeadLetter('event', 'bad', None, b'kept', 0.0)] * 3)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=False, timeout=30)
    assert DeadLetters(path, "shop-prod", MB).count() == 3


def test_the_file_is_not_made_before_there_is_a_letter_for_it(
    letters: DeadLetters, path: Path
) -> None:
    assert not path.exists()
    letters.put([letter()])
    assert path.exists()


def test_the_oldest_are_evicted_for_the_bound_and_counted(letters: DeadLetters, path: Path) -> None:
    evicted = sum(
        letters.put([letter(number, payload=os.urandom(20_000))]) for number in range(100)
    )
    assert evicted > 0
    assert letters.count() == 100 - evicted
    assert [kept.id for kept in letters.select()] == list(range(evicted + 1, 101))
    assert letters.size_bytes() <= MB
    assert path.stat().st_size <= MB


def test_one_put_above_the_bound_keeps_its_last_letters(letters: DeadLetters) -> None:
    evicted = letters.put([letter(number, payload=os.urandom(20_000)) for number in range(100)])
    assert letters.count() == 100 - evicted > 0
    assert letters.select()[-1].id == 100


def test_small_letters_are_evicted_without_end(letters: DeadLetters) -> None:
    evicted = sum(
        letters.put([letter(number * 500 + index) for index in range(500)]) for number in range(30)
    )
    assert letters.count() + evicted == 15_000
    assert letters.size_bytes() <= MB


def test_a_letter_above_the_whole_bound_evicts_only_itself(letters: DeadLetters) -> None:
    letters.put([letter()])
    assert letters.put([letter(payload=b"x" * (MB + 1)), letter()]) == 1
    assert letters.count() == 2


def test_filters_narrow_what_is_selected(letters: DeadLetters) -> None:
    letters.put(
        [
            letter(0, kind="event", reason="it has no uuid"),
            letter(1, kind="document", reason="HTTP 409 Version Conflict"),
            letter(2, kind="document", reason="it has no UUID at all"),
        ]
    )

    def ids(**only: object) -> list[int]:
        return [kept.id for kept in letters.select(LetterFilter(**only))]  # type: ignore[arg-type]

    assert ids() == [1, 2, 3]
    assert ids(kind="document") == [2, 3]
    assert ids(reason="uuid") == [1, 3]
    assert ids(reason="%") == [], "it is text, no pattern"
    assert ids(since=1_700_000_001.0) == [2, 3]
    assert ids(kind="document", reason="uuid", since=1_700_000_002.0) == [3]
    assert [kept.id for kept in letters.select(after=1, limit=1)] == [2]


def test_removing_tells_how_many_there_were(letters: DeadLetters) -> None:
    letters.put([letter(number) for number in range(1_200)])
    assert letters.remove([1, 2, 2, 5_000]) == 2
    assert letters.remove(list(range(1, 1_101))) == 1_098
    assert letters.count() == 100


def test_purging_removes_what_the_filter_fits(letters: DeadLetters) -> None:
    letters.put(
        [letter(number, kind="event" if number % 2 else "document") for number in range(2_000)]
    )
    assert letters.purge(LetterFilter(kind="event")) == 1_000
    assert {kept.kind for kept in letters.select()} == {"document"}
    assert letters.purge() == 1_000
    assert letters.count() == 0


def test_a_purge_gives_the_disk_its_space_back(path: Path) -> None:
    letters = DeadLetters(path, "shop-prod", 50 * MB)
    letters.put([letter(number, payload=os.urandom(MB)) for number in range(20)])
    letters.purge()
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < MB


def test_the_count_follows_other_processes(letters: DeadLetters, path: Path) -> None:
    letters.put([letter(number) for number in range(10)])
    assert letters.count() == 10
    other = DeadLetters(path, "shop-prod", MB, owner=False)
    other.remove([1, 2, 3])
    assert letters.count() == 7
    assert letters.count() == 7
    letters.put([letter()])
    assert letters.count() == 8
    assert other.count() == 8


def test_threads_may_put_at_the_same_time(letters: DeadLetters) -> None:
    def put() -> None:
        for number in range(50):
            letters.put([letter(number)])

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert letters.count() == 200


def test_only_the_owner_can_read_the_file(letters: DeadLetters, path: Path) -> None:
    letters.put([letter()])
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
