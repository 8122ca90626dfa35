"""Dead letters that the disk refuses: their batches wait, and none is lost without being counted."""

from collections.abc import Sequence

import pytest

from leekfanout.delivery.batcher import Batch, ClosedBy
from leekfanout.delivery.unkept import Unkept
from leekfanout.errors import StoreError
from leekfanout.status.stats import Stats
from leekfanout.stores.deadletters import DeadLetter


def batch(*payloads: bytes) -> Batch:
    letters = [DeadLetter("event", "It is bad.", None, payload, 0.0) for payload in payloads]
    return Batch(1, 1, [], [], letters, ClosedBy.WINDOW, 0, continues=False)


class Disk:
    """Stands for the dead letters' file."""

    def __init__(self) -> None:
        self.full = True
        self.attempts = 0
        self.payloads: list[bytes] = []

    def put(self, letters: Sequence[DeadLetter]) -> int:
        self.attempts += 1
        if self.full:
            raise StoreError("The disk is full.")
        self.payloads += (letter.payload for letter in letters)
        return 0


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def unkept(disk: Disk) -> Unkept:
    return Unkept(disk, Stats())  # type: ignore[arg-type]


def test_a_batch_waits_until_the_disk_has_its_dead_letters(disk: Disk, unkept: Unkept) -> None:
    unkept.keep(waiting := batch(b"bad"))
    assert unkept.settle([waiting, other := batch()], unkept.due - 1.0) == [other]
    disk.full = False
    assert unkept.settle([], unkept.due) == [waiting]
    assert disk.payloads == [b"bad"]
    assert not unkept.waiting


def test_of_many_that_wait_one_is_tried_at_a_time_while_the_disk_refuses(
    disk: Disk, unkept: Unkept
) -> None:
    for _ in range(20):
        unkept.keep(batch(b"bad"))
    disk.attempts = 0
    unkept.settle([], unkept.due)
    assert disk.attempts == 1
    disk.full = False
    unkept.settle([], unkept.due)
    assert len(disk.payloads) == 20
    assert not unkept.waiting


def test_what_is_given_up_is_counted_and_holds_up_nothing(disk: Disk) -> None:
    unkept = Unkept(disk, stats := Stats())  # type: ignore[arg-type]
    unkept.keep(done := batch(b"bad", b"worse"))
    unkept.keep(batch(b"bad too"))
    unkept.settle([done], unkept.due - 1.0)
    assert unkept.drop() == [done]
    assert stats.get("events_dropped_by_disk") == 3
    assert not unkept.waiting
