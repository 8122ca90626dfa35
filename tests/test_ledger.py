"""The ledger: which delivery tags may be acked, and which messages came again."""

from collections.abc import Sequence, Set

import pytest

from leekfanout.delivery.batcher import Batch, ClosedBy, join_documents
from leekfanout.delivery.ledger import REMEMBERED_FOR_S, REMEMBERED_MAX, Ledger
from leekfanout.sources import Ack
from leekfanout.stores.deadletters import DeadLetter


def body(number: int) -> bytes:
    return b"message %d" % number


def batch(first_tag: int, last_tag: int, *, continues: bool = False, documents: int = 1) -> Batch:
    """A batch of the messages with these tags; tag and body go by the same number."""
    return Batch(
        first_tag,
        last_tag,
        [body(tag) for tag in range(first_tag, last_tag + 1)],
        [join_documents([b'{"id":"1"}'] * documents)] if documents else [],
        [],
        ClosedBy.NUMBER,
        documents,
        continues,
    )


def opened(ledger: Ledger, *batches: Batch) -> Sequence[Batch]:
    for each in batches:
        ledger.opened(each)
    return batches


def withdraw_all(_: object) -> bool:
    return True


def withdraw_none(_: object) -> bool:
    return False


def multiple(tag: int) -> Ack:
    return Ack(tag, multiple=True)


def singles(*tags: int) -> list[Ack]:
    return [Ack(tag, multiple=False) for tag in tags]


# Acks


def test_nothing_is_acked_before_its_batch_is_done():
    ledger = Ledger()
    opened(ledger, batch(1, 3), batch(4, 6))
    assert ledger.acks(1e9, 0.0) == []
    assert ledger.outstanding(6) == 6


def test_batches_that_are_done_in_order_take_one_multiple_ack():
    ledger = Ledger()
    for each in opened(ledger, batch(1, 3), batch(4, 6), batch(7, 7)):
        assert ledger.done(each, 1.0)
    assert ledger.acks(1.0, 0.25) == [multiple(7)]
    assert ledger.acks(1e9, 0.0) == []
    assert ledger.outstanding(7) == 0


def is_any_of(message: bytes, ids: Set[str]) -> bool:
    return any(message == body(int(number)) for number in ids)


def acks_with_left(ledger: Ledger, of: Batch, *numbers: int) -> list[Ack]:
    """Let only the documents of these messages be left of a batch; return the acks of that."""
    ledger.thinned(of, {str(number) for number in numbers})
    return acks_of_parts(ledger)


def acks_of_parts(ledger: Ledger) -> list[Ack]:
    return ledger.acks_of_parts(1.0, is_any_of)


def test_of_a_batch_that_is_done_in_part_only_what_is_left_stays_unacked():
    ledger = Ledger()
    (whole,) = opened(ledger, batch(1, 5))
    assert acks_with_left(ledger, whole, 2, 4) == singles(1, 3, 5)
    assert ledger.outstanding(5) == 2
    assert acks_with_left(ledger, whole, 2) == singles(4)
    assert acks_with_left(ledger, whole, 2) == []
    assert ledger.outstanding(5) == 1
    assert ledger.acks(1e9, 0.0) == []
    ledger.done(whole, 1.0)
    assert ledger.acks(1.0, 0.0) == singles(2)
    assert ledger.outstanding(5) == 0


def test_of_a_batch_beyond_a_gap_the_rest_is_acked_once():
    ledger = Ledger()
    first, second = opened(ledger, batch(1, 2), batch(3, 6))
    assert acks_with_left(ledger, second, 4) == singles(3, 5, 6)
    ledger.done(second, 1.0)
    assert ledger.acks(9.0, 0.25) == singles(4)
    assert ledger.outstanding(6) == 2
    ledger.done(first, 9.0)
    assert ledger.acks(9.0, 0.25) == [multiple(2)]
    assert ledger.outstanding(6) == 0


def test_a_multiple_ack_of_a_later_batch_covers_what_was_left_of_an_earlier_one():
    ledger = Ledger()
    first, second = opened(ledger, batch(1, 4), batch(5, 6))
    assert acks_with_left(ledger, first, 3) == singles(1, 2, 4)
    ledger.done(second, 1.0)
    ledger.done(first, 1.0)
    assert ledger.acks(1.0, 0.25) == [multiple(6)]
    assert ledger.outstanding(6) == 0


def test_a_batch_that_follows_one_of_which_a_document_fails_is_acked_all_the_same():
    ledger = Ledger()
    first, second, third = opened(
        ledger, batch(1, 3, continues=True), batch(3, 5, continues=True), batch(5, 6)
    )
    ledger.done(second, 1.0)
    ledger.done(third, 1.0)
    assert acks_of_parts(ledger) == []  # what is left of the first isn't known
    assert acks_with_left(ledger, first, 1) == singles(2, 3, 4)
    # With that the second is done, and so the third is, which waited for nothing else.
    assert ledger.acks(1.0, 0.0) == singles(5, 6)
    assert ledger.outstanding(6) == 1
    assert ledger.acks(9.0, 0.0) == []
    ledger.done(first, 9.0)
    assert ledger.acks(9.0, 0.0) == singles(1)
    assert ledger.outstanding(6) == 0
    assert ledger.bytes_held == ledger.unbarred_bytes


def test_a_message_that_is_shared_waits_for_both_its_batches():
    ledger = Ledger()
    first, second = opened(ledger, batch(1, 3, continues=True), batch(3, 5))
    assert acks_with_left(ledger, first, 3) == singles(1, 2)
    assert acks_with_left(ledger, second, 5) == singles(4)
    ledger.done(first, 1.0)
    assert acks_of_parts(ledger) == singles(3)
    ledger.done(second, 1.0)
    assert ledger.acks(1.0, 0.0) == singles(5)
    assert ledger.outstanding(5) == 0


def test_a_message_that_is_split_over_three_batches_waits_for_the_first():
    ledger = Ledger()
    first, second, third = opened(
        ledger, batch(1, 2, continues=True), batch(2, 2, continues=True), batch(2, 3)
    )
    ledger.done(second, 1.0)
    ledger.done(third, 1.0)
    assert sorted(acks_with_left(ledger, first, 2)) == singles(1, 3)
    assert ledger.acks(9.0, 0.0) == []
    ledger.done(first, 9.0)
    assert ledger.acks(9.0, 0.0) == singles(2)


def test_what_comes_again_beside_a_document_that_fails_is_acked_and_so_is_what_is_new():
    ledger = Ledger()
    (first,) = opened(ledger, batch(1, 3))
    acks_with_left(ledger, first, 2)
    ledger.connection_lost()
    assert all(ledger.recognise(body(tag)) for tag in (1, 2, 3))
    (again,) = opened(ledger, batch(1, 5))
    ledger.done(again, 1.0)
    assert acks_of_parts(ledger) == singles(1, 3, 4, 5)
    assert ledger.outstanding(5) == 1
    ledger.done(first, 2.0)
    assert ledger.acks(2.0, 0.0) == singles(2)
    assert ledger.outstanding(5) == 0


def test_messages_wait_for_dead_letters_that_are_not_on_disk():
    ledger = Ledger()
    first, second = opened(ledger, batch(1, 3, continues=True), batch(3, 5))
    first.dead_letters = [DeadLetter("event", "why", None, b"{}", 0.0)]
    ledger.done(second, 1.0)
    assert acks_with_left(ledger, first, 1) == []
    first.dead_letters = []
    assert acks_with_left(ledger, first, 1) == [*singles(2), *singles(3, 4, 5)]


def test_messages_that_were_acked_early_are_recognised_if_the_acks_were_lost():
    ledger = Ledger()
    (whole,) = opened(ledger, batch(1, 3))
    acks_with_left(ledger, whole, 2)
    ledger.connection_lost()
    assert all(ledger.recognise(body(tag)) for tag in (1, 2, 3))


def test_a_gap_is_waited_for_and_then_acked_beyond():
    ledger = Ledger()
    first, second, third = opened(ledger, batch(1, 3), batch(4, 5), batch(6, 7))
    ledger.done(second, 10.0)
    assert ledger.acks(10.1, 0.25) == []
    assert ledger.held_until(0.25) == 10.25
    assert ledger.acks(10.25, 0.25) == singles(4, 5)
    assert ledger.held_until(0.25) is None
    assert ledger.outstanding(7) == 5
    ledger.done(third, 11.0)
    ledger.done(first, 11.0)
    # Tag 7 hasn't been acked yet, so the multiple ack may name it, over those that were.
    assert ledger.acks(11.0, 0.25) == [multiple(7)]
    assert ledger.outstanding(7) == 0


def test_a_multiple_ack_never_names_a_tag_that_was_acked_already():
    ledger = Ledger()
    first, second = opened(ledger, batch(1, 3), batch(4, 5))
    ledger.done(second, 10.0)
    assert ledger.acks(11.0, 0.25) == singles(4, 5)
    ledger.done(first, 12.0)
    assert ledger.acks(12.0, 0.25) == [multiple(3)]
    assert ledger.outstanding(5) == 0


def test_several_gaps_are_acked_around():
    ledger = Ledger()
    batches = opened(ledger, *(batch(tag, tag) for tag in range(1, 9)))
    for index in (1, 3, 4, 6):
        ledger.done(batches[index], 1.0)
    assert ledger.acks(2.0, 0.25) == singles(2, 4, 5, 7)
    ledger.done(batches[0], 3.0)
    assert ledger.acks(3.0, 0.25) == [multiple(1)]
    ledger.done(batches[2], 3.0)
    ledger.done(batches[7], 3.0)
    assert ledger.acks(3.0, 0.25) == [multiple(3)]
    assert ledger.acks(4.0, 0.25) == singles(8)
    ledger.done(batches[5], 5.0)
    assert ledger.acks(5.0, 0.25) == [multiple(6)]
    assert ledger.outstanding(8) == 0


def test_a_batch_that_is_told_done_twice_is_acked_once():
    ledger = Ledger()
    (only,) = opened(ledger, batch(1, 3))
    assert ledger.done(only, 1.0)
    assert not ledger.done(only, 1.0)
    assert ledger.acks(2.0, 0.0) == [multiple(3)]
    assert not ledger.done(only, 3.0)
    assert ledger.acks(4.0, 0.0) == []


def test_the_open_batch_counts_as_outstanding():
    ledger = Ledger()
    (only,) = opened(ledger, batch(1, 3))
    ledger.done(only, 1.0)
    ledger.acks(1.0, 0.0)
    assert ledger.outstanding(last_tag=10) == 7


# Messages that are split


def test_a_split_message_is_acked_once_all_its_batches_are_done():
    ledger = Ledger()
    first, second = opened(ledger, batch(1, 3, continues=True), batch(3, 4))
    ledger.done(second, 1.0)
    assert ledger.acks(2.0, 0.0) == []
    ledger.done(first, 3.0)
    assert ledger.acks(3.0, 0.0) == [multiple(4)]


def test_of_a_split_message_the_first_batch_acks_only_those_before_it():
    ledger = Ledger()
    first, second = opened(ledger, batch(1, 3, continues=True), batch(3, 4))
    ledger.done(first, 1.0)
    assert ledger.acks(1.0, 0.0) == [multiple(2)]
    assert ledger.outstanding(4) == 2
    ledger.done(second, 2.0)
    assert ledger.acks(2.0, 0.0) == [multiple(4)]


def test_a_message_that_is_split_over_many_batches_is_acked_once():
    ledger = Ledger()
    parts = [batch(1, 1, continues=True) for _ in range(4)] + [batch(1, 1)]
    opened(ledger, *parts)
    for part in (parts[4], parts[0], parts[2], parts[1]):
        ledger.done(part, 1.0)
        assert ledger.acks(5.0, 0.0) == []
    ledger.done(parts[3], 6.0)
    assert ledger.acks(6.0, 0.0) == [multiple(1)]


def test_beyond_a_gap_a_split_message_waits_for_its_first_part_too():
    ledger = Ledger()
    gap, first, second = opened(ledger, batch(1, 1), batch(2, 3, continues=True), batch(3, 4))
    ledger.done(second, 1.0)
    assert ledger.acks(9.0, 0.0) == []
    ledger.done(first, 9.0)
    assert ledger.acks(9.0, 0.0) == singles(2, 3, 4)
    ledger.done(gap, 10.0)
    assert ledger.acks(10.0, 0.0) == [multiple(1)]


def test_a_first_part_that_was_acked_long_ago_isnt_waited_for():
    ledger = Ledger()
    (first,) = opened(ledger, batch(1, 3, continues=True))
    ledger.done(first, 1.0)
    assert ledger.acks(1.0, 0.0) == [multiple(2)]
    (second,) = opened(ledger, batch(3, 4))
    ledger.done(second, 2.0)
    assert ledger.acks(2.0, 0.0) == [multiple(4)]


# Bytes


def test_bytes_are_held_until_the_broker_has_the_ack():
    ledger = Ledger()
    first, second = opened(ledger, batch(1, 3, documents=5), batch(4, 5))
    messages = 3 * len(body(1))
    assert ledger.bytes_held == ledger.unacked_bytes == first.size_bytes + second.size_bytes
    ledger.done(first, 1.0)
    assert first.bodies == []
    assert ledger.bytes_held == messages + second.size_bytes
    ledger.acks(1.0, 0.0)
    assert ledger.bytes_held == messages + second.size_bytes
    assert ledger.unacked_bytes == second.size_bytes
    assert ledger.unbarred_bytes == messages
    ledger.barrier_sent()
    assert ledger.unbarred_bytes == 0
    ledger.done(second, 2.0)
    ledger.acks(2.0, 0.0)
    ledger.barrier_reached()
    assert first.messages == []
    assert ledger.bytes_held == ledger.unbarred_bytes == 2 * len(body(1))
    ledger.barrier_sent()
    ledger.barrier_reached()
    assert ledger.bytes_held == ledger.unacked_bytes == 0


def test_a_lost_connection_leaves_only_the_bodies_in_memory():
    ledger = Ledger()
    acked, split, rest = opened(
        ledger, batch(1, 3), batch(4, 5, continues=True), batch(5, 6, documents=7)
    )
    ledger.done(acked, 1.0)
    ledger.acks(1.0, 0.0)
    ledger.connection_lost()
    assert ledger.bytes_held == sum(len(each.bodies[0].content) for each in (split, rest))
    assert ledger.unacked_bytes == ledger.bytes_held
    ledger.done(split, 3.0)
    ledger.done(rest, 3.0)
    assert ledger.bytes_held == 0
    assert ledger.acks(4.0, 0.0) == []


# Lost connections


def test_after_a_lost_connection_the_old_tags_are_never_acked():
    ledger = Ledger()
    first, second = opened(ledger, batch(1, 3), batch(4, 6))
    ledger.done(first, 1.0)
    ledger.connection_lost()
    ledger.done(second, 3.0)
    assert ledger.acks(1e9, 0.0) == []
    assert ledger.held_until(0.0) is None
    assert ledger.outstanding(0) == 0


def test_what_was_done_is_acked_at_once_when_it_comes_again():
    ledger = Ledger()
    (only,) = opened(ledger, batch(1, 2))
    ledger.done(only, 1.0)
    ledger.acks(1.0, 0.0)
    ledger.connection_lost()
    assert ledger.remembers
    assert ledger.recognise(body(1))
    assert ledger.recognise(body(2))
    assert not ledger.remembers
    assert not ledger.recognise(body(1))
    (again,) = opened(ledger, batch(1, 2, documents=0))
    ledger.done(again, 3.0)
    assert ledger.acks(3.0, 0.0) == [multiple(2)]


def test_what_is_under_way_is_acked_when_its_first_delivery_is_done():
    ledger = Ledger()
    (only,) = opened(ledger, batch(1, 2))
    ledger.connection_lost()
    assert ledger.recognise(body(1))
    (again,) = opened(ledger, batch(1, 1, documents=0))
    assert ledger.recognise(body(2))
    (rest,) = opened(ledger, batch(2, 2, documents=0))
    for each in (again, rest):
        ledger.done(each, 3.0)
    assert ledger.acks(9.0, 0.0) == []
    ledger.done(only, 10.0)
    assert ledger.acks(10.0, 0.0) == [multiple(2)]


def test_recognition_holds_over_several_lost_connections():
    ledger = Ledger()
    (only,) = opened(ledger, batch(1, 1))
    for number in range(1, 5):
        ledger.connection_lost()
        assert ledger.recognise(body(1))
        assert not ledger.recognise(body(1))
        (again,) = opened(ledger, batch(1, 1, documents=0))
        ledger.done(again, float(number))
        assert ledger.acks(float(number), 0.0) == []
    ledger.done(only, 9.0)
    assert ledger.acks(9.0, 0.0) == [multiple(1)]


def test_acks_that_the_broker_is_known_to_have_arent_remembered():
    ledger = Ledger()
    first, second = opened(ledger, batch(1, 1), batch(2, 2))
    ledger.done(first, 1.0)
    ledger.acks(1.0, 0.0)
    ledger.barrier_sent()
    ledger.done(second, 1.0)
    ledger.acks(1.0, 0.0)
    ledger.barrier_reached()
    ledger.connection_lost()
    assert not ledger.recognise(body(1))
    assert ledger.recognise(body(2))


def test_a_barrier_of_a_lost_connection_proves_nothing():
    ledger = Ledger()
    (first,) = opened(ledger, batch(1, 1))
    ledger.done(first, 1.0)
    ledger.acks(1.0, 0.0)
    ledger.barrier_sent()
    ledger.connection_lost()
    (second,) = opened(ledger, batch(1, 1))
    ledger.done(second, 3.0)
    ledger.acks(3.0, 0.0)
    assert ledger.unbarred_bytes == len(body(1))
    ledger.barrier_reached()
    assert ledger.unbarred_bytes == len(body(1))


def test_large_messages_are_let_go_once_acked_and_recognised_all_the_same(monkeypatch):
    monkeypatch.setattr("leekfanout.delivery.ledger.ACKED_BODIES_MAX_BYTES", 2 * len(body(1)))
    ledger = Ledger()
    for each in opened(ledger, *(batch(tag, tag) for tag in range(1, 6))):
        ledger.done(each, 1.0)
    ledger.acks(1.0, 0.0)
    assert ledger.bytes_held == 2 * len(body(1))
    ledger.barrier_sent()
    (last,) = opened(ledger, batch(6, 6))
    ledger.done(last, 2.0)
    ledger.acks(2.0, 0.0)
    ledger.barrier_reached()
    assert ledger.bytes_held == len(body(6))
    (lost,) = opened(ledger, batch(7, 7))
    ledger.done(lost, 3.0)
    ledger.acks(3.0, 0.0)
    (lost,) = opened(ledger, batch(8, 8))
    ledger.done(lost, 3.0)
    ledger.acks(3.0, 0.0)
    ledger.connection_lost()
    assert [ledger.recognise(body(tag)) for tag in range(5, 9)] == [False, True, True, True]
    assert ledger.bytes_held == 0


def test_messages_that_were_acked_beyond_a_gap_are_remembered_once():
    ledger = Ledger()
    gap, beyond = opened(ledger, batch(1, 1), batch(2, 2))
    ledger.done(beyond, 1.0)
    assert ledger.acks(2.0, 0.0) == singles(2)
    ledger.connection_lost()
    assert ledger.recognise(body(2))
    assert not ledger.recognise(body(2))
    assert ledger.recognise(body(1))
    assert ledger.bytes_held == sum(len(each.content) for each in gap.bodies)


def test_a_split_message_is_remembered_once_and_waits_for_both_parts():
    ledger = Ledger()
    first, second = opened(ledger, batch(1, 2, continues=True), batch(2, 3))
    ledger.connection_lost()
    for number in (1, 2, 3):
        assert ledger.recognise(body(number))
        assert not ledger.recognise(body(number))
    (again,) = opened(ledger, batch(1, 3, documents=0))
    ledger.done(again, 2.0)
    ledger.done(second, 2.0)
    assert ledger.acks(3.0, 0.0) == []
    ledger.done(first, 4.0)
    assert ledger.acks(4.0, 0.0) == [multiple(3)]


def test_messages_with_the_same_body_are_recognised_as_often_as_they_were_seen():
    ledger = Ledger()
    same = Batch(1, 2, [b"same", b"same"], [], [], ClosedBy.NUMBER, 0, False)
    opened(ledger, same)
    ledger.connection_lost()
    assert [ledger.recognise(b"same") for _ in range(3)] == [True, True, False]


def test_messages_that_dont_come_again_are_forgotten_some_time_after_reconnecting():
    ledger = Ledger()
    done, _ = opened(ledger, batch(1, 1), batch(2, 2))
    ledger.done(done, 1.0)
    ledger.connection_lost()
    reconnected_at = 50_000.0  # however long the broker was away
    ledger.forget_old(reconnected_at)
    ledger.forget_old(reconnected_at + REMEMBERED_FOR_S)
    assert ledger.remembers
    ledger.forget_old(reconnected_at + REMEMBERED_FOR_S + 1)
    assert not ledger.recognise(body(1))
    # What is still in hand would be posted twice if it were forgotten.
    assert ledger.recognise(body(2))
    assert not ledger.remembers


def test_a_second_loss_begins_the_time_anew():
    ledger = Ledger()
    (only,) = opened(ledger, batch(1, 1))
    ledger.done(only, 1.0)
    ledger.connection_lost()
    ledger.forget_old(10.0)
    ledger.connection_lost()
    ledger.forget_old(9_001.0)
    assert ledger.recognise(body(1))


def test_what_is_remembered_is_bounded():
    ledger = Ledger()
    messages = [body(number) for number in range(REMEMBERED_MAX + 5)]
    ledger.opened(Batch(1, len(messages), messages, [], [], ClosedBy.NUMBER, 0, False))
    ledger.connection_lost()
    assert not any(ledger.recognise(body(number)) for number in range(5))
    assert all(ledger.recognise(body(number)) for number in range(5, len(messages)))
    assert not ledger.remembers


# Handing back


def test_what_is_handed_back_is_forgotten():
    ledger = Ledger()
    first, second = opened(ledger, batch(1, 3), batch(4, 6))
    assert ledger.hand_back(withdraw_all) == [first, second]
    assert ledger.bytes_held == 0
    assert not ledger.remembers
    assert not ledger.done(first, 2.0)
    assert ledger.acks(9.0, 0.0) == []
    assert ledger.outstanding(0) == 0


def test_a_batch_that_can_no_longer_be_withdrawn_is_kept_and_recognised():
    ledger = Ledger()
    first, second = opened(ledger, batch(1, 1), batch(2, 2))
    assert ledger.hand_back(lambda batches: batches == [second]) == [second]
    assert ledger.bytes_held == len(first.bodies[0].content)
    assert ledger.recognise(body(1))
    assert not ledger.recognise(body(2))
    (again,) = opened(ledger, batch(1, 1, documents=0))
    ledger.done(again, 2.0)
    assert ledger.acks(3.0, 0.0) == []
    assert ledger.done(first, 4.0)
    assert ledger.acks(4.0, 0.0) == [multiple(1)]


def test_a_batch_that_the_api_has_in_part_is_kept():
    ledger = Ledger()
    (begun,) = opened(ledger, batch(1, 2))
    begun.begun = True
    assert ledger.hand_back(withdraw_all) == []
    assert ledger.recognise(body(1))
    assert ledger.recognise(body(2))


@pytest.mark.parametrize("begun", [0, 1])
def test_of_a_split_message_all_parts_are_kept_or_none(begun: int):
    ledger = Ledger()
    parts = opened(ledger, batch(1, 2, continues=True), batch(2, 3))
    parts[begun].begun = True
    assert ledger.hand_back(withdraw_all) == []
    assert all(ledger.recognise(body(number)) for number in (1, 2, 3))


def test_the_parts_of_a_split_message_are_withdrawn_together():
    ledger = Ledger()
    parts = opened(ledger, batch(1, 2, continues=True), batch(2, 3))
    asked = []
    assert ledger.hand_back(lambda batches: asked.append(batches) or True) == list(parts)
    assert asked == [list(parts)]
    assert ledger.bytes_held == 0


def test_the_rest_of_a_split_message_is_kept_if_its_first_part_was_acked():
    ledger = Ledger()
    (first,) = opened(ledger, batch(1, 2, continues=True))
    ledger.done(first, 1.0)
    assert ledger.acks(1.0, 0.0) == [multiple(1)]
    assert ledger.open_batch_is_tied
    (rest,) = opened(ledger, batch(2, 3))
    assert not ledger.open_batch_is_tied
    assert ledger.hand_back(withdraw_all) == []
    # Delivered again as a whole, its first part would be posted twice.
    assert ledger.recognise(body(2))
    (again,) = opened(ledger, batch(1, 1, documents=0))
    ledger.done(again, 3.0)
    assert ledger.acks(3.0, 0.0) == []
    ledger.done(rest, 4.0)
    assert ledger.acks(4.0, 0.0) == [multiple(1)]


def test_a_part_without_documents_goes_with_the_part_that_it_waits_for():
    ledger = Ledger()
    first, rest = opened(ledger, batch(1, 2, continues=True), batch(2, 3, documents=0))
    ledger.done(rest, 1.0)
    assert ledger.hand_back(withdraw_all) == [first]
    assert ledger.bytes_held == 0
    assert not ledger.remembers


def test_a_batch_with_messages_of_earlier_batches_is_kept():
    ledger = Ledger()
    opened(ledger, batch(1, 1))
    ledger.connection_lost()
    ledger.recognise(body(1))
    assert ledger.open_batch_is_tied
    opened(ledger, batch(1, 2))
    assert not ledger.open_batch_is_tied
    assert ledger.hand_back(withdraw_all) == []
    assert ledger.recognise(body(1))
    (again,) = opened(ledger, batch(1, 1, documents=0))
    ledger.done(again, 3.0)
    assert ledger.acks(3.0, 0.0) == []


def test_acks_that_a_failing_hand_back_may_have_lost_are_remembered():
    ledger = Ledger()
    (only,) = opened(ledger, batch(1, 2))
    ledger.done(only, 1.0)
    ledger.acks(1.0, 0.0)
    ledger.hand_back(withdraw_none)
    ledger.connection_lost()  # before the broker has answered
    assert ledger.recognise(body(1))
    assert ledger.recognise(body(2))
    assert ledger.bytes_held == 0
