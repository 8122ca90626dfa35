"""The spool: order, bound, what is on its way, and the count of every event."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from leekfanout.stores.spool import Spool
from tests.stores import MEMORY_FOLDER, stores_are_closed  # noqa: F401

pytestmark = pytest.mark.usefixtures("stores_are_closed")

MB = 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop-prod" / "spool.sqlite3"


def test_batches_come_back_in_the_order_of_their_arrival(path: Path) -> None:
    spool = Spool(path, MB)
    for number in range(20):
        assert spool.append(b"batch %d" % number, events=number) == 0
    entries = spool.after(0, MB)
    assert [entry.body for entry in entries] == [b"batch %d" % number for number in range(20)]
    assert [entry.events for entry in entries] == list(range(20))


def test_the_order_is_kept_when_the_clock_jumps(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(path, MB)
    for moment in (2e9, 1e9, 0.0, 1.5e9):
        monkeypatch.setattr("time.time", lambda moment=moment: moment)
        spool.append(b"%d" % moment, events=1)
    assert [entry.body for entry in spool.after(0, MB)] == [
        b"2000000000", b"1000000000", b"0", b"1500000000",
    ]  # fmt: skip


def test_a_restart_finds_what_was_not_removed(path: Path) -> None:
    spool = Spool(path, MB)
    for number in range(5):
        spool.append(b"%d" % number, events=10)
    spool.remove([entry.id for entry in spool.after(0, MB)[:2]])
    spool.close()

    spool = Spool(path, MB)
    assert (spool.batches, spool.events) == (3, 30)
    assert [entry.body for entry in spool.after(0, MB)] == [b"2", b"3", b"4"]


def test_a_file_that_cant_be_opened_has_no_stock_until_it_can(path: Path) -> None:
    Spool(path, MB).append(b"kept", events=3)
    kept = path.rename(path.with_suffix(".kept"))
    path.mkdir()
    spool = Spool(path, MB)
    assert not spool.stock_taken
    path.rmdir()
    kept.rename(path)
    assert [entry.body for entry in spool.after(0, MB)] == [b"kept"]
    assert (spool.stock_taken, spool.events) == (True, 3)


def test_a_batch_is_on_disk_when_append_returns(path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from leekfanout.stores.spool import Spool\n"
        "Spool(Path(sys.argv[1]), 1_000_000).append(b'kept', 7)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=False, timeout=30)
    spool = Spool(path, MB)
    assert [(entry.body, entry.events) for entry in spool.after(0, MB)] == [(b"kept", 7)]


def test_a_refill_is_bounded_in_bytes_and_makes_progress_with_large_batches(path: Path) -> None:
    spool = Spool(path, MB)
    for _ in range(3):
        spool.append(b"x" * 1_000, events=1)
    assert [entry.id for entry in spool.after(0, 2_500)] == [1, 2]
    assert [entry.id for entry in spool.after(2, 2_500)] == [3]
    assert [entry.id for entry in spool.after(0, 10)] == [1]
    assert spool.after(3, 2_500) == []


def test_the_oldest_batch_makes_room_and_its_events_are_counted(path: Path) -> None:
    spool = Spool(path, 300_000)
    dropped = [spool.append(bytes([number]) * 50_000, events=number) for number in range(10)]
    assert sum(dropped) > 0
    kept = spool.after(0, MB)
    assert [entry.events for entry in kept] == list(range(10 - len(kept), 10))
    assert sum(dropped) + sum(entry.events for entry in kept) == sum(range(10))


def test_the_file_stays_within_the_bound(path: Path) -> None:
    spool = Spool(path, MB)
    for number in range(200):
        spool.append(os.urandom(1_000 + number * 137), events=1)
    assert spool.size_bytes <= MB
    assert path.stat().st_size <= MB


def test_a_batch_on_its_way_is_not_dropped_for_a_new_one(path: Path) -> None:
    spool = Spool(path, 300_000)
    for number in range(5):
        spool.append(bytes([number]) * 50_000, events=1)
    on_their_way = spool.after(0, 100_000)
    for number in range(5, 20):
        spool.append(bytes([number]) * 50_000, events=1)
    spool.close()

    bodies = [entry.body for entry in Spool(path, 300_000).after(0, MB)]
    assert bodies[:2] == [entry.body for entry in on_their_way]
    assert bodies[2:] == [bytes([number]) * 50_000 for number in (17, 18, 19)]


def test_a_batch_that_cannot_fit_drops_only_itself(path: Path) -> None:
    spool = Spool(path, 300_000)
    spool.append(b"small", events=3)
    assert spool.append(b"x" * 400_000, events=11) == 11
    assert spool.append(b"x" * 299_999, events=12) == 12, "there is no room for its pages either"
    assert [entry.body for entry in spool.after(0, MB)] == [b"small"]


def test_what_has_been_dropped_or_removed_may_be_removed_again(path: Path) -> None:
    spool = Spool(path, MB)
    spool.append(b"one", events=1)
    spool.append(b"two", events=2)
    spool.remove([1])
    spool.remove([1, 77])
    assert (spool.batches, spool.events) == (1, 2)


def test_no_id_comes_twice_even_after_everything_was_removed(path: Path) -> None:
    spool = Spool(path, MB)
    for _ in range(3):
        spool.append(b"x", events=1)
    spool.remove([1, 2, 3])
    spool.close()
    spool = Spool(path, MB)
    spool.append(b"y", events=1)
    assert [entry.id for entry in spool.after(0, MB)] == [4]


def test_an_emptied_spool_gives_the_disk_its_space_back(path: Path) -> None:
    spool = Spool(path, 50 * MB)
    for _ in range(20):
        spool.append(os.urandom(MB), events=1)
    spool.remove([entry.id for entry in spool.after(0, 50 * MB)])
    assert (spool.batches, spool.events, spool.size_bytes) == (0, 0, 0)
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < MB


def test_only_the_owner_can_read_the_files(path: Path) -> None:
    spool = Spool(path, MB)
    spool.append(b"x", events=1)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
        "spool.sqlite3": 0o600, "spool.sqlite3-wal": 0o600, "spool.sqlite3-shm": 0o600,
    }  # fmt: skip


class EveryEventIsCounted(RuleBasedStateMachine):
    """Whatever is done: appended events are on disk, removed, or were reported as dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY_FOLDER)
        self.path = Path(self.folder.name, "spool.sqlite3")
        self.spool = Spool(self.path, 120_000)
        self.appended = self.dropped = self.removed = 0
        self.in_hand: dict[int, int] = {}
        self.last_id = 0

    @rule(size=st.integers(1, 60_000), events=st.integers(1, 50))
    def append(self, size: int, events: int) -> None:
        self.dropped += self.spool.append(b"x" * size, events)
        self.appended += events

    @rule(limit=st.integers(1, 90_000))
    def refill(self, limit: int) -> None:
        for entry in self.spool.after(self.last_id, limit):
            assert entry.id > self.last_id
            self.last_id = entry.id
            self.in_hand[entry.id] = entry.events

    @rule(choice=st.randoms(use_true_random=False))
    def confirm(self, choice: object) -> None:
        ids = [entry_id for entry_id in self.in_hand if choice.random() < 0.5]  # type: ignore[attr-defined]
        self.spool.remove(ids)
        self.removed += sum(self.in_hand.pop(entry_id) for entry_id in ids)

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self.spool = Spool(self.path, 120_000)
        self.in_hand.clear()
        self.last_id = 0

    @rule()
    def delete_the_file(self) -> None:
        # What is in hand is not lost with the file: it is still delivered from memory.
        self.path.unlink()
        self.dropped += self.spool.append(b"x", 1)
        self.appended += 1
        self.removed += sum(self.in_hand.values())
        self.spool.remove(list(self.in_hand))
        self.in_hand.clear()

    @invariant()
    def the_sum_is_right(self) -> None:
        assert self.appended == self.spool.events + self.removed + self.dropped
        assert self.spool.size_bytes <= 120_000

    def teardown(self) -> None:
        self.spool.close()
        self.folder.cleanup()


EveryEventIsCounted.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None
)


TestEveryEventIsCounted = EveryEventIsCounted.TestCase
