"""Who keeps what isn't delivered yet: the broker until it is acked, or memory and then the disk."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from leekfanout.delivery.batcher import Batch, ClosedBy, join_documents
from leekfanout.delivery.custody import (
    ACK_HELD_AT_LIMIT_S,
    ACK_HELD_MAX_S,
    BARRIER_EVERY_BYTES,
    BARRIER_EVERY_S,
    LOAD_RETRY_S,
    BrokerCustody,
    DiskCustody,
)
from leekfanout.delivery.outbox import Outbox
from leekfanout.delivery.outcome import Breaker
from leekfanout.delivery.parcel import Parcel
from leekfanout.errors import SourceError, StoreError
from leekfanout.sources import Ack
from leekfanout.status.stats import Stats
from leekfanout.stores.spool import Spool

MB = 1_000_000


def message(name: str, padding: int = 0) -> bytes:
    return json.dumps([{"uuid": name, "hostname": "h", "padding": "p" * padding}]).encode()


def document(name: str) -> bytes:
    return json.dumps({"id": name}).encode()


def batch(first_tag: int, *bodies: Sequence[str], padding: int = 0, continues=False) -> Batch:
    """A batch with a body for each list of names, and a message for each name."""
    names = [name for body in bodies for name in body]
    return Batch(
        first_tag,
        first_tag + len(names) - 1,
        [message(name, padding) for name in names],
        [join_documents([document(name) for name in body]) for body in bodies],
        [],
        ClosedBy.NUMBER,
        len(names),
        continues,
    )


class FakeSource:
    """Writes down what is asked of it."""

    def __init__(self) -> None:
        self.acks: list[Ack] = []
        self.barriers: list[Callable[[], None]] = []
        self.handed_back = 0
        self.lost = False

    def ack(self, acks: Sequence[Ack]) -> None:
        if self.lost:
            raise SourceError("The connection was lost.")
        self.acks += acks

    def barrier(self, reached: Callable[[], None]) -> None:
        self.barriers.append(reached)

    def hand_back(self) -> None:
        self.handed_back += 1


def outbox(capacity: int = 100) -> Outbox:
    return Outbox(capacity, Breaker(random.Random(1)), lambda: None, lambda: 0.0)


def take(from_outbox: Outbox) -> Parcel:
    parcel = from_outbox.take_now()
    assert isinstance(parcel, Parcel)
    return parcel


class BrokerBench:
    def __init__(self, capacity: int = 100) -> None:
        self.source = FakeSource()
        self.outbox = outbox(capacity)
        self.custody = BrokerCustody(
            self.source, self.outbox, Stats(), prefetch_count=10, in_flight_max_bytes=2 * MB
        )
        self.custody.connection_begun()

    def deliver(self, now: float, count: int = 1) -> None:
        """Let the next bodies be confirmed, and tell the custody."""
        for _ in range(count):
            self.outbox.settled(take(self.outbox), confirmed=True)
        self.custody.done(self.outbox.take_done(), now)


@pytest.fixture
def broker() -> BrokerBench:
    return BrokerBench()


def test_delivered_messages_are_acked_at_once(broker):
    broker.custody.take(batch(1, ["a", "b"], ["c"]))
    broker.deliver(1.0)
    assert broker.source.acks == []
    broker.deliver(1.0)
    assert broker.source.acks == [Ack(3, multiple=True)]


def test_a_document_that_fails_takes_one_place_of_the_prefetch_and_not_its_batchs(broker):
    names = list("abcdefghij")
    broker.custody.take(batch(1, names))
    assert not broker.custody.may_read(10, 0)
    halves = [join_documents([document(name) for name in half]) for half in (names[:9], ["j"])]
    broker.outbox.replaced(take(broker.outbox), halves, suspect=True)
    broker.deliver(1.0)
    broker.outbox.failed(take(broker.outbox), 5.0, breaks=True)
    broker.custody.turn(1.0)
    assert broker.source.acks == [Ack(tag, multiple=False) for tag in range(1, 10)]
    assert broker.custody.may_read(10, 0)
    broker.custody.turn(2.0)
    assert len(broker.source.acks) == 9


def test_beyond_a_gap_the_loop_is_asked_to_come_back(broker):
    broker.custody.take(batch(1, ["a"]))
    broker.custody.take(batch(2, ["b"]))
    broker.outbox.failed(take(broker.outbox), 100.0, breaks=False)
    broker.deliver(1.0)
    assert broker.custody.turn(1.0) == 1.0 + ACK_HELD_MAX_S
    assert broker.source.acks == []
    broker.custody.turn(1.0 + ACK_HELD_MAX_S)
    assert broker.source.acks == [Ack(2, multiple=False)]


def test_an_ack_beyond_a_gap_is_held_for_less_while_prefetch_is_used_up(broker):
    broker.custody.take(batch(1, ["a"]))
    broker.custody.take(batch(2, list("bcdefghij")))
    broker.outbox.failed(take(broker.outbox), 100.0, breaks=False)
    assert not broker.custody.may_read(10, 0)
    broker.deliver(1.0)
    assert broker.custody.turn(1.0) == 1.0 + ACK_HELD_AT_LIMIT_S
    broker.custody.turn(1.0 + ACK_HELD_AT_LIMIT_S)
    assert broker.source.acks == [Ack(tag, multiple=False) for tag in range(2, 11)]
    assert broker.custody.may_read(10, 0)


def test_prefetch_and_bytes_bound_what_is_read(broker):
    assert broker.custody.may_read(9, 0)
    assert not broker.custody.all_have_come(9)
    assert not broker.custody.may_read(10, 0)
    assert broker.custody.all_have_come(10)
    broker.custody.take(batch(1, ["a"], padding=2 * MB))
    assert not broker.custody.may_read(1, 0)
    assert not broker.custody.all_have_come(1)
    broker.deliver(1.0)
    # The ack was sent. That it has arrived is told by an answer that only reading finds.
    assert broker.custody.bytes_in_flight > 2 * MB
    assert broker.custody.may_read(1, 0)
    assert not broker.custody.may_read(1, 2 * MB)


def test_a_full_outbox_bounds_what_is_read_unless_the_api_is_away():
    broker = BrokerBench(capacity=1)
    broker.custody.take(batch(1, ["a"]))
    broker.custody.take(batch(2, ["b"]))
    assert not broker.custody.may_read(2, 0)
    broker.outbox.failed(take(broker.outbox), 5.0, breaks=True, at_once=True)
    assert broker.outbox.is_full
    assert broker.custody.may_read(2, 0)
    assert not broker.custody.may_read(10, 0)


def test_a_full_outbox_bounds_nothing_while_messages_may_come_again():
    broker = BrokerBench(capacity=1)
    broker.custody.take(batch(1, ["a"]))
    assert not broker.custody.may_read(1, 0)
    broker.custody.connection_lost(1.0)
    broker.custody.connection_begun()
    assert broker.custody.may_read(0, 0)
    broker.custody.ledger.recognise(message("a"))
    assert not broker.custody.may_read(1, 0)


def test_the_broker_is_asked_from_time_to_time_whether_it_has_the_acks(broker):
    broker.custody.take(batch(1, ["a"]))
    broker.deliver(100.0)
    broker.custody.turn(100.0)
    assert len(broker.source.barriers) == 1
    broker.custody.take(batch(2, ["b"]))
    broker.deliver(100.1)
    broker.custody.turn(100.1)
    assert len(broker.source.barriers) == 1  # one at a time
    broker.source.barriers[0]()
    assert broker.custody.turn(100.2) == 100.0 + BARRIER_EVERY_S
    assert len(broker.source.barriers) == 1  # and not too often
    broker.custody.turn(100.0 + BARRIER_EVERY_S)
    assert len(broker.source.barriers) == 2
    broker.source.barriers[1]()
    assert broker.custody.bytes_in_flight == 0
    assert broker.custody.turn(200.0) == float("inf")


def test_many_bytes_are_asked_about_at_once(broker):
    broker.custody.take(batch(1, ["a"]))
    broker.deliver(100.0)
    broker.custody.turn(100.0)
    broker.source.barriers[0]()
    broker.custody.take(batch(2, ["b"], padding=BARRIER_EVERY_BYTES))
    broker.deliver(100.1)
    broker.custody.turn(100.1)
    assert len(broker.source.barriers) == 2


def test_while_disconnected_nothing_is_sent(broker):
    broker.custody.take(batch(1, ["a"]))
    broker.custody.connection_lost(1.0)
    broker.deliver(1.0)
    assert broker.custody.turn(99.0) == float("inf")
    assert broker.source.acks == broker.source.barriers == []


def test_a_handed_back_batch_leaves_the_outbox(broker):
    broker.custody.take(first := batch(1, ["a"]))
    broker.custody.take(batch(2, ["b"]))
    under_way = take(broker.outbox)
    assert [b.first_tag for b in broker.custody.hand_back(1.0)] == [2]
    assert broker.source.handed_back == 1
    assert broker.outbox.batches_held == 1
    broker.outbox.settled(under_way, confirmed=True)
    assert broker.outbox.take_done() == [first]


def test_at_the_end_the_messages_that_are_done_are_acked_one_by_one(broker):
    broker.custody.take(batch(1, ["a", "b"], ["c"], ["d"]))
    broker.custody.take(batch(5, ["e"]))
    first, _, third = take(broker.outbox), take(broker.outbox), take(broker.outbox)
    broker.outbox.settled(first, confirmed=True)
    broker.outbox.settled(third, confirmed=True)
    broker.custody.leave(1.0)
    assert broker.source.acks == [Ack(tag, multiple=False) for tag in (1, 2, 4)]
    assert broker.outbox.batches_held == 0


def test_at_the_end_a_message_that_was_split_is_left_to_the_broker(broker):
    broker.custody.take(batch(1, ["a"], ["b"], continues=True))
    broker.custody.take(batch(2, ["b2"], ["c"]))
    parcels = [take(broker.outbox) for _ in range(4)]
    broker.outbox.settled(parcels[0], confirmed=True)
    broker.outbox.settled(parcels[3], confirmed=True)
    broker.custody.leave(1.0)
    assert broker.source.acks == [Ack(1, multiple=False), Ack(3, multiple=False)]


def test_what_is_delivered_in_the_last_moment_is_acked(broker):
    broker.custody.take(batch(1, ["a"]))
    broker.outbox.settled(take(broker.outbox), confirmed=True)
    broker.custody.leave(1.0)
    assert broker.source.acks == [Ack(1, multiple=True)]


class DiskBench:
    def __init__(self, folder: Path, memory_max_bytes: int = 100) -> None:
        self.outbox = outbox()
        self.spool = Spool(folder / "spool.sqlite3", 100 * MB)
        self.stats = Stats()
        self.custody = DiskCustody(
            self.outbox, self.spool, self.stats, memory_max_bytes=memory_max_bytes
        )

    def put(self, *names: str) -> None:
        for name in names:
            new = batch(1, [name], padding=60)
            new.drop_messages()
            self.custody.take(new)

    def deliver_all(self) -> list[str]:
        """Deliver all there is, and return it in order."""
        delivered = []
        for _ in range(1000):
            self.custody.turn(1.0)
            parcel = self.outbox.take_now()
            if not isinstance(parcel, Parcel):
                break
            delivered += [each["id"] for each in json.loads(parcel.body.content)]
            self.outbox.settled(parcel, confirmed=True)
            self.custody.done(self.outbox.take_done(), 1.0)
        return delivered


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path


NAMES = [f"document-{number}-{'x' * 20}" for number in range(20)]


def test_what_memory_has_no_room_for_goes_to_the_disk_and_comes_in_order(folder):
    bench = DiskBench(folder)
    bench.put(*NAMES)
    assert bench.spool.batches > 10
    assert bench.custody.bytes_in_flight < 200
    assert bench.custody.may_read(0, 10**12)
    assert bench.deliver_all() == NAMES
    assert bench.spool.batches == 0
    assert bench.stats.get("events_delivered") == 20
    bench.put("z")
    assert bench.spool.batches == 0


def test_a_new_batch_queues_up_behind_those_on_disk(folder):
    bench = DiskBench(folder)
    bench.put(*NAMES[:10])
    bench.custody.turn(1.0)
    bench.outbox.settled(take(bench.outbox), confirmed=True)
    bench.put(*NAMES[10:])
    assert bench.deliver_all() == NAMES[1:]


def test_what_is_in_memory_at_the_end_is_delivered_by_the_next_process(folder):
    bench = DiskBench(folder, memory_max_bytes=10**6)
    bench.put(*NAMES)
    for _ in range(5):
        bench.outbox.settled(take(bench.outbox), confirmed=True)
    under_way = take(bench.outbox)
    bench.custody.leave(1.0)
    bench.outbox.settled(under_way, confirmed=True)  # too late
    assert DiskBench(folder).deliver_all() == NAMES[5:]


def test_what_comes_from_the_disk_isnt_delivered_again_by_the_next_process(folder):
    bench = DiskBench(folder, memory_max_bytes=10**6)
    bench.put(*NAMES)
    bench.custody.leave(1.0)
    bench = DiskBench(folder, memory_max_bytes=10**6)
    bench.custody.turn(1.0)
    bench.outbox.settled(take(bench.outbox), confirmed=True)
    bench.custody.done(bench.outbox.take_done(), 1.0)
    bench.outbox.settled(take(bench.outbox), confirmed=True)  # not told: the loop has ended
    bench.custody.leave(1.0)
    assert DiskBench(folder).deliver_all() == NAMES[2:]


def spooled_in_two_bodies(folder: Path) -> DiskBench:
    """A process that has one spooled body in memory, cut in two, of which one is delivered."""
    bench = DiskBench(folder)
    bench.spool.append(join_documents([document("a"), document("b")]).content, 2)
    bench.spool.close()
    bench = DiskBench(folder, memory_max_bytes=10**6)
    bench.custody.turn(1.0)
    parcel = take(bench.outbox)
    halves = [join_documents([document(name)]) for name in "ab"]
    bench.outbox.replaced(parcel, halves)
    bench.outbox.settled(take(bench.outbox), confirmed=True)
    return bench


def test_of_a_spooled_body_that_is_done_in_part_the_rest_stays(folder):
    bench = spooled_in_two_bodies(folder)
    bench.custody.leave(1.0)
    assert DiskBench(folder).deliver_all() == ["b"]


def test_if_the_disk_doesnt_take_the_rest_the_whole_stays(folder, monkeypatch):
    bench = spooled_in_two_bodies(folder)

    def full(_body: bytes, _events: int) -> int:
        raise StoreError("The disk is full.")

    monkeypatch.setattr(bench.spool, "append", full)
    bench.custody.leave(1.0)
    # Twice is better than never.
    assert DiskBench(folder).deliver_all() == ["a", "b"]
    assert bench.stats.get("events_dropped_by_disk") == 0


def test_messages_of_an_earlier_connection_are_counted_beside_those_of_the_next(folder):
    bench = DiskBench(folder, memory_max_bytes=10**6)
    bench.custody.take(batch(1, ["a", "b", "c"]))
    assert bench.custody.messages_in_flight(3) == 3
    bench.custody.connection_begun()
    assert bench.custody.messages_in_flight(0) == 3
    assert bench.custody.messages_in_flight(2) == 5
    bench.custody.take(batch(1, ["d", "e"]))
    assert bench.custody.messages_in_flight(2) == 5
    bench.deliver_all()
    assert bench.custody.messages_in_flight(2) == 0


def out_of_reach(folder: Path) -> Callable[[], object]:
    """Put a folder where the spool is, so that it can't be opened; call what is returned to undo it."""
    path = folder / "spool.sqlite3"
    kept = path.rename(path.with_suffix(".kept"))
    path.mkdir()
    return lambda: (path.rmdir(), kept.rename(path))


def test_a_spool_that_couldnt_be_opened_at_the_start_is_delivered_once_it_can_be(folder):
    bench = DiskBench(folder)
    bench.spool.append(join_documents([document("spooled")]).content, 1)
    bench.spool.close()
    put_right = out_of_reach(folder)
    bench = DiskBench(folder)
    assert bench.custody.turn(100.0) == 100.0 + LOAD_RETRY_S
    put_right()
    bench.custody.turn(100.0 + LOAD_RETRY_S)
    assert json.loads(take(bench.outbox).body.content) == [{"id": "spooled"}]


def test_what_is_heard_while_the_spool_cant_be_opened_is_kept_in_memory(folder):
    bench = DiskBench(folder)
    bench.spool.append(b"[]", 0)
    bench.spool.close()
    out_of_reach(folder)
    bench = DiskBench(folder, memory_max_bytes=10**6)
    bench.put(*NAMES)
    assert bench.deliver_all() == NAMES
    assert bench.stats.get("events_dropped_by_disk") == 0
