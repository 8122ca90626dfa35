"""The outbox: order, accounting, and that no parcel is ever lost between threads."""

import random
import threading
from collections import Counter
from collections.abc import Callable

import pytest

from leekfanout.delivery.batcher import Batch, Body, ClosedBy, join_documents
from leekfanout.delivery.outbox import BACK_WITHIN_S, Outbox, Signal
from leekfanout.delivery.outcome import FAILURES_TO_OPEN, Breaker, BreakerState
from leekfanout.delivery.parcel import Parcel
from leekfanout.delivery.retries import BLAMED_REST_S
from tests.waiting import until


def body(*names: str) -> Body:
    return join_documents([b'{"id":"%s"}' % name.encode() for name in names])


def batch(*bodies: Body) -> Batch:
    return Batch(1, 1, [b"message"], list(bodies), [], ClosedBy.NUMBER, len(bodies), False)


class Bench:
    """An outbox with a clock that only the test moves."""

    def __init__(self, capacity: int = 2) -> None:
        self.now = 1000.0
        self.notified = 0
        self.breaker = Breaker(random.Random(3))
        self.outbox = Outbox(capacity, self.breaker, self._notify, lambda: self.now)

    def _notify(self) -> None:
        self.notified += 1

    def put(self, *bodies: Body) -> Batch:
        self.outbox.put(new := batch(*bodies))
        return new

    def take(self) -> Parcel:
        work = self.outbox.take_now()
        assert isinstance(work, Parcel)
        return work

    def fail(self, parcel: Parcel, delay_s: float = 5.0, **keys) -> None:
        self.outbox.failed(parcel, delay_s, **{"breaks": True, **keys})

    def open_breaker(self) -> None:
        """Fail often enough, with a batch that is taken out again."""
        doomed = self.put(body("doomed"))
        for _ in range(FAILURES_TO_OPEN):
            self.fail(self.take(), 0.0)
        assert self.outbox.breaker_state is BreakerState.OPEN
        assert self.outbox.withdraw([doomed])

    def break_at_once(self) -> None:
        self.breaker.failed(self.now, begun_at=self.now, at_once=True, retry_after_s=None)

    def probe(self, ready: bool) -> None:
        self.now = max(self.now, self.breaker.next_probe_at)
        assert self.outbox.take_now() is Signal.PROBE
        self.outbox.probed(ready)


@pytest.fixture
def bench() -> Bench:
    return Bench()


# Order


def test_fresh_bodies_go_in_the_order_they_came(bench):
    first, second = body("a"), body("b")
    bench.put(first, second)
    third = body("c")
    bench.put(third)
    assert [bench.take().body for _ in range(3)] == [first, second, third]
    assert bench.outbox.take_now() is None


def test_a_due_retry_goes_before_a_fresh_body_and_holds_up_nobody_until_then(bench):
    bench.put(body("a"), body("b"), body("c"))
    failed = bench.take()
    bench.fail(failed, 5.0)
    second = bench.take()
    assert second.body is not failed.body
    bench.now += 5.0
    assert bench.take() is failed
    assert failed.attempts == 2


def test_retries_go_in_the_order_they_are_due(bench):
    bench.put(*(body(str(number)) for number in range(4)))
    parcels = [bench.take() for _ in range(4)]
    for parcel, delay_s in zip(parcels, (9.0, 3.0, 6.0, 3.0), strict=True):
        bench.outbox.failed(parcel, delay_s, breaks=False)
    bench.now += 10
    assert [bench.take() for _ in range(4)] == [parcels[i] for i in (1, 3, 2, 0)]


def test_a_probe_goes_before_anything_else(bench):
    bench.open_breaker()
    bench.put(body("a"))
    assert bench.outbox.take_now() is None
    bench.probe(True)
    assert bench.take().body.document(0) == b'{"id":"a"}'


# Being full, and idle senders


def test_it_is_full_when_as_many_fresh_bodies_wait_as_it_has_room_for(bench):
    bench.put(body("a"))
    assert not bench.outbox.is_full
    bench.put(body("b"))
    assert bench.outbox.is_full
    bench.fail(bench.take())
    # What is being retried takes no room: it must not stop the reading of what can be delivered.
    assert not bench.outbox.is_full


def test_a_batch_without_bodies_is_done_at_once(bench):
    empty = bench.put()
    assert bench.notified == 1
    assert bench.outbox.take_done() == [empty]
    assert bench.outbox.take_done() == []
    assert bench.outbox.batches_held == 0


# Accounting


def test_a_batch_is_done_when_all_its_bodies_are(bench):
    whole = bench.put(body("a"), body("b"), body("c"))
    assert bench.outbox.bytes_held == whole.size_bytes
    for confirmed in (True, False, True):
        assert bench.outbox.take_done() == []
        bench.outbox.settled(bench.take(), confirmed=confirmed)
    assert bench.outbox.take_done() == [whole]
    assert whole.begun
    assert bench.outbox.evidence.confirmed == 2
    assert bench.outbox.bytes_held == bench.outbox.batches_held == bench.outbox.posts_under_way == 0


def test_a_body_that_is_replaced_by_its_parts_is_done_when_they_are(bench):
    whole = bench.put(body("a", "b"))
    bench.outbox.replaced(bench.take(), [body("a"), body("b")], suspect=True)
    assert not whole.begun
    halves = [bench.take(), bench.take()]
    assert all(half.suspect and half.attempts == 1 and half.batch is whole for half in halves)
    bench.outbox.settled(halves[0], confirmed=True)
    assert bench.outbox.take_done() == []
    bench.outbox.settled(halves[1], confirmed=False)
    assert bench.outbox.take_done() == [whole]


def test_what_is_left_of_a_body_waits_for_its_delay(bench):
    whole = bench.put(body("a", "b"))
    bench.outbox.replaced(bench.take(), [body("b")], confirmed=True, delay_s=4.0)
    assert whole.begun
    assert bench.outbox.take_now() is None
    bench.now += 4.0
    bench.outbox.settled(bench.take(), confirmed=False)
    assert bench.outbox.take_done() == [whole]


def test_a_batch_of_which_a_document_was_dead_lettered_has_begun(bench):
    whole = bench.put(body("a", "b", "c"))
    bench.outbox.replaced(bench.take(), [body("b", "c")])
    assert whole.begun


def test_a_failed_parcel_keeps_its_history(bench):
    bench.put(body("a"), body("b"), body("c"), body("d"))
    parcel = bench.take()
    for _ in range(2):
        bench.outbox.settled(bench.take(), confirmed=True)
    bench.fail(parcel, 0.0)
    assert parcel.confirmed_before == 2
    assert bench.take() is parcel
    bench.outbox.settled(bench.take(), confirmed=True)
    bench.fail(parcel, 0.0)
    assert (parcel.attempts, parcel.confirmed_before) == (2, 2)


def left_of(batches: dict[Batch, list[Body]]) -> dict[Batch, list[bytes]]:
    return {each: [left.content for left in bodies] for each, bodies in batches.items()}


def test_a_batch_is_told_of_when_only_what_fails_is_left_of_it(bench):
    whole = bench.put(body("a", "b", "c"))
    bench.outbox.replaced(bench.take(), [body("a"), body("b", "c")], suspect=True)
    bench.outbox.settled(bench.take(), confirmed=True)
    assert bench.outbox.take_thinned() == {}  # the other half may be confirmed any time
    failing = bench.take()
    assert bench.outbox.take_thinned() == {}
    bench.fail(failing, 0.0)
    assert left_of(bench.outbox.take_thinned()) == {whole: [body("b", "c").content]}
    bench.fail(bench.take(), 0.0)
    assert bench.outbox.take_thinned() == {}  # nothing new


def test_a_batch_is_told_of_when_its_last_good_part_is_confirmed(bench):
    whole = bench.put(body("a", "b"))
    bench.outbox.replaced(bench.take(), [body("a"), body("b")], suspect=True)
    bench.fail(bench.take(), 60.0)
    good = bench.take()
    assert bench.outbox.take_thinned() == {}
    bench.outbox.settled(good, confirmed=True)
    # Not only once the other fails again, which may be a minute later.
    assert left_of(bench.outbox.take_thinned()) == {whole: [body("a").content]}


def test_what_is_refused_by_name_and_tried_again_is_what_is_left_of_its_batch(bench):
    whole = bench.put(body("a", "b", "c"))
    parcel = bench.take()
    parcel.refusals += 1
    bench.outbox.replaced(parcel, [body("b")], confirmed=True, delay_s=9.0)
    assert left_of(bench.outbox.take_thinned()) == {whole: [body("b").content]}


def test_a_batch_of_which_nothing_is_done_or_that_is_gone_is_not_told_of(bench):
    bench.put(body("a", "b"))
    bench.fail(bench.take(), 0.0)
    assert bench.outbox.take_thinned() == {}
    parcel = bench.take()
    parcel.refusals += 1
    bench.outbox.replaced(parcel, [body("b")], confirmed=True)
    bench.outbox.settled(bench.take(), confirmed=True)
    assert bench.outbox.take_thinned() == {}


# Taking back


def test_withdrawn_batches_leave_nothing(bench):
    kept, fresh, retried = bench.put(body("a")), bench.put(body("b")), bench.put(body("c"))
    parcels = {parcel.batch: parcel for parcel in (bench.take(), bench.take(), bench.take())}
    for parcel in parcels.values():
        bench.outbox.failed(parcel, 1.0, breaks=False)
    assert bench.outbox.withdraw([fresh, retried])
    assert bench.outbox.batches_held == 1
    assert bench.outbox.bytes_held == kept.size_bytes
    bench.now += 2
    assert bench.take().batch is kept
    assert bench.outbox.take_now() is None


@pytest.mark.parametrize("state", ["under way", "begun", "done"])
def test_nothing_is_withdrawn_if_it_is_too_late_for_one(bench, state):
    late, other = bench.put(body("a"), body("b")), bench.put(body("c"))
    parcel = bench.take()
    if state != "under way":
        bench.outbox.settled(parcel, confirmed=True)
    if state == "done":
        bench.outbox.settled(bench.take(), confirmed=True)
    assert not bench.outbox.withdraw([other, late])
    assert bench.outbox.batches_held == (1 if state == "done" else 2)
    assert bench.outbox.withdraw([other])


def test_a_parcel_that_fails_can_be_withdrawn_afterwards(bench):
    only = bench.put(body("a"), body("b"))
    bench.fail(bench.take())
    assert bench.outbox.withdraw([only])
    bench.now += 100
    assert bench.outbox.take_now() is None


def test_drained_batches_are_returned_in_order_and_come_back_to_nobody(bench):
    batches = [bench.put(body(name)) for name in "abc"]
    parcel = bench.take()
    done = bench.take()
    bench.outbox.settled(done, confirmed=True)
    assert list(bench.outbox.drain()) == [batches[0], batches[2]]
    assert bench.outbox.take_done() == [batches[1]]
    assert bench.outbox.bytes_held == bench.outbox.batches_held == 0
    for give_back in (
        lambda: bench.fail(parcel),
        lambda: bench.outbox.settled(parcel, confirmed=True),
        lambda: bench.outbox.replaced(parcel, [body("a")]),
    ):
        bench.outbox.posts_under_way = 1
        give_back()
        assert bench.outbox.posts_under_way == 0
        assert bench.outbox.take_now() is None
        assert bench.outbox.take_done() == []


def test_after_stop_nothing_is_handed_out(bench):
    bench.put(body("a"))
    bench.outbox.stop()
    assert bench.outbox.take_now() is Signal.STOP
    assert bench.outbox.take() is Signal.STOP
    assert bench.outbox.batches_held == 1


# The breaker


def test_while_the_breaker_is_open_only_a_probe_is_handed_out(bench):
    bench.open_breaker()
    bench.put(body("a"))
    bench.now = bench.breaker.next_probe_at
    assert bench.outbox.take_now() is Signal.PROBE
    assert bench.outbox.take_now() is None
    bench.outbox.probed(False)
    assert bench.outbox.take_now() is None


def test_one_trial_goes_first_and_then_all(bench):
    bench.open_breaker()
    bench.put(body("a"), body("b"), body("c"))
    bench.probe(True)
    trial = bench.take()
    assert bench.outbox.take_now() is None
    bench.outbox.settled(trial, confirmed=True)
    assert bench.take()
    assert bench.take()


def test_a_failure_that_doesnt_speak_of_the_api_closes_the_breaker(bench):
    bench.open_breaker()
    bench.put(body("a"))
    bench.probe(True)
    bench.outbox.failed(bench.take(), 1.0, breaks=False)
    assert bench.outbox.breaker_state is BreakerState.CLOSED


def test_cutting_a_body_that_fails_says_nothing_good_of_the_api(bench):
    bench.open_breaker()
    opened_at = bench.breaker.opened_at
    bench.put(body("a", "b"))
    bench.probe(True)
    bench.outbox.replaced(bench.take(), [body("a"), body("b")], suspect=True, breaks=True)
    assert bench.outbox.breaker_state is BreakerState.OPEN
    assert bench.outbox.breaker_opened_at == opened_at
    assert bench.outbox.posts_under_way == bench.outbox.evidence.confirmed == 0
    bench.probe(True)
    assert bench.take().suspect


def after_a_long_outage(bench: Bench, parcels: int = 1, **keys) -> list[Parcel]:
    """Leave some parcels with a minute's backoff behind an open breaker."""
    bench.put(*(body(str(number)) for number in range(parcels)))
    taken = [bench.take() for _ in range(parcels)]
    for parcel in taken:
        bench.fail(parcel, 60.0, at_once=True, **keys)
    return taken


def test_an_api_that_is_back_isnt_left_waiting_for_a_backoff(bench):
    (parcel,) = after_a_long_outage(bench)
    bench.probe(True)
    assert bench.take() is parcel


def test_once_the_api_has_confirmed_something_all_that_failed_comes_soon(bench):
    after_a_long_outage(bench, parcels=3)
    bench.put(body("fresh"))
    bench.probe(True)
    bench.outbox.settled(bench.take(), confirmed=True)
    bench.now += BACK_WITHIN_S
    for _ in range(3):
        bench.outbox.settled(bench.take(), confirmed=True)
    assert bench.outbox.batches_held == 0


def test_a_retry_after_is_obeyed_even_when_the_api_is_back(bench):
    (parcel,) = after_a_long_outage(bench, retry_after_s=30.0)
    late = bench.put(body("late"))
    assert bench.breaker.next_probe_at >= bench.now + 30.0
    bench.breaker.succeeded()  # a POST from before comes through
    bench.outbox.settled(bench.take(), confirmed=True)
    assert bench.outbox.take_done() == [late]
    bench.now += 29.0
    assert bench.outbox.take_now() is None
    bench.now += 40.0
    assert bench.take() is parcel


def test_a_delay_that_has_nothing_to_do_with_the_api_stays_as_it_is(bench):
    bench.put(body("a"), body("b"))
    refused = bench.take()
    bench.outbox.failed(refused, 60.0, breaks=False)
    bench.fail(bench.take(), 60.0, at_once=True)
    bench.probe(True)
    assert bench.take() is not refused
    assert bench.outbox.take_now() is None


def test_a_body_that_fails_again_and_again_lets_others_be_the_trial(bench):
    poison, *others = after_a_long_outage(bench, parcels=3)
    seen = []
    for _ in range(4):
        bench.probe(True)
        seen.append(trial := bench.take())
        bench.fail(trial, 60.0, at_once=True)
    assert seen[:3] == [poison, *others]


# The trial, and documents that are to blame


def with_blamed(bench: Bench, documents: int) -> list[Parcel]:
    """Leave some single documents that failed while another was confirmed; they are due at once."""
    bench.put(*(body(f"bad-{number}") for number in range(documents)), body("good"))
    blamed = [bench.take() for _ in range(documents)]
    bench.outbox.settled(bench.take(), confirmed=True)
    for parcel in blamed:
        bench.fail(parcel, 0.0, blamed=True)
    return blamed


def test_documents_that_are_to_blame_dont_open_the_breaker(bench):
    with_blamed(bench, documents=40)
    for _ in range(100):
        bench.now += BLAMED_REST_S
        bench.fail(bench.take(), 0.0, blamed=True)
    assert bench.outbox.breaker_state is BreakerState.CLOSED


def test_documents_that_are_to_blame_go_one_at_a_time_with_pauses(bench):
    blamed = with_blamed(bench, documents=3)
    first = bench.take()
    assert first is blamed[0]
    assert bench.outbox.take_now() is None
    bench.now += 30.0  # the API hangs over it
    bench.fail(first, 0.0, blamed=True)
    bench.put(body("fresh"))
    bench.now += 29.0
    assert not bench.take().blamed
    assert bench.outbox.take_now() is None
    bench.now += 1.0
    second = bench.take()
    assert second is blamed[1]
    # What the API takes after all needs no pause.
    bench.outbox.settled(second, confirmed=True)
    assert bench.take() is blamed[2]


def test_a_fresh_body_is_the_trial_rather_than_a_retry(bench):
    after_a_long_outage(bench, parcels=2)
    bench.now += 60.0
    fresh = bench.put(body("fresh"))
    bench.probe(True)
    assert bench.take().batch is fresh


def test_the_small_part_of_a_body_is_the_trial_before_a_fresh_body(bench):
    whole = bench.put(body("a", "b", "c"))
    parcel = bench.take()
    bench.outbox.replaced(parcel, [body("a"), body("b", "c")], suspect=True, breaks=True)
    bench.break_at_once()
    bench.put(body("d", "e"))
    bench.probe(True)
    trial = bench.take()
    assert (trial.batch, len(trial.body)) == (whole, 1)
    bench.fail(trial, 0.0)
    # As it failed by itself, everything else has its turns now.
    for _ in range(4):
        bench.probe(True)
        other = bench.take()
        assert len(other.body) == 2
        bench.fail(other, 0.0)


def test_a_document_that_is_to_blame_is_the_trial_only_if_nothing_else_comes(bench):
    (blamed,) = with_blamed(bench, documents=1)
    bench.break_at_once()
    bench.probe(True)
    # The main thread has a moment to put what it has.
    assert bench.outbox.take_now() is None
    fresh = bench.put(body("fresh"))
    trial = bench.take()
    assert trial.batch is fresh
    bench.fail(trial, 60.0)
    bench.outbox.withdraw([fresh])
    bench.probe(True)
    bench.now += BLAMED_REST_S
    assert bench.take() is blamed
    bench.fail(blamed, 0.0, blamed=True)
    assert bench.outbox.breaker_state is BreakerState.OPEN


def test_failures_of_all_bodies_in_a_row_speak_for_cutting_the_trial_alone(bench):
    bench.put(*(body(f"{number}a", f"{number}b") for number in range(4)))
    for expected in (1, 1, 1):
        parcel = bench.take()
        assert bench.outbox.evidence.failures_against(parcel) == expected
        bench.fail(parcel, 60.0)
    bench.probe(True)
    trial = bench.take()
    assert (trial.attempts, bench.outbox.evidence.failures_against(trial)) == (1, 4)
    parts = [body("3a"), body("3b")]
    bench.outbox.replaced(trial, parts, suspect=True, breaks=True)
    bench.probe(True)
    bench.outbox.settled(bench.take(), confirmed=True)
    assert bench.outbox.evidence.failures_in_a_row == 0


def test_failures_of_single_documents_count_against_the_api_once_they_are_confirmed(bench):
    bench.put(body("a"), body("b"))
    first, second = bench.take(), bench.take()
    for parcel in (first, second):
        bench.fail(parcel, 0.0)
    for _ in range(4):
        bench.breaker.succeeded()
        assert bench.take() is first
        bench.fail(first, 0.0)
        assert bench.take() is second
        bench.fail(second, 0.0)
    bench.breaker.succeeded()
    assert bench.outbox.evidence.others_since_first_failure(second) == (0, 0)
    assert bench.take() is first
    bench.outbox.settled(first, confirmed=True)
    assert bench.outbox.evidence.others_since_first_failure(second) == (1, 5)


# Threads


def waiting(outbox: Outbox) -> Callable[[], bool]:
    return lambda: outbox.has_idle_sender


def test_a_waiting_sender_gets_what_is_put():
    outbox = Outbox(2, Breaker(random.Random(0)), lambda: None)
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(outbox.take()), daemon=True)
    thread.start()
    until(waiting(outbox), 5, "the sender to wait")
    outbox.put(batch(body("a")))
    thread.join(5)
    assert isinstance(got[0], Parcel)
    assert not outbox.has_idle_sender


def test_a_waiting_sender_wakes_up_for_a_retry_and_for_the_end():
    outbox = Outbox(2, Breaker(random.Random(0)), lambda: None)
    got: list[object] = []

    def run() -> None:
        while (work := outbox.take()) is not Signal.STOP:
            got.append(work)

    thread = threading.Thread(target=run, daemon=True)
    outbox.put(batch(body("a")))
    parcel = outbox.take()
    thread.start()
    until(waiting(outbox), 5, "the sender to wait")
    outbox.failed(parcel, 0.05, breaks=False)
    until(lambda: got, 5, "the retry")
    outbox.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_a_sender_that_waits_tells_so_once():
    told = threading.Event()
    calls: list[bool] = []

    def notify() -> None:
        calls.append(True)
        told.set()

    outbox = Outbox(1, Breaker(random.Random(0)), notify)
    thread = threading.Thread(target=outbox.take, daemon=True)
    thread.start()
    assert told.wait(5)
    # Whoever is told so and asks then is told the truth.
    assert outbox.has_idle_sender
    outbox.stop()
    thread.join(5)
    assert len(calls) == 1


@pytest.mark.parametrize("seed", range(3))
def test_no_parcel_is_lost_between_many_threads(seed):
    """Four senders do at random what senders may do, while batches come and are withdrawn."""
    outbox = Outbox(4, Breaker(random.Random(seed)), lambda: None)
    delivered: Counter[bytes] = Counter()
    under_way: Counter[int] = Counter()
    lock = threading.Lock()
    problems: list[object] = []

    def send(randomness: random.Random) -> None:
        try:
            while (work := outbox.take()) is not Signal.STOP:
                if work is Signal.PROBE:
                    outbox.probed(True)
                    continue
                with lock:
                    under_way[id(work)] += 1
                    assert under_way[id(work)] == 1, "one parcel with two senders"
                documents = [work.body.document(index) for index in range(len(work.body))]
                dice = randomness.random()
                with lock:
                    under_way[id(work)] -= 1
                if dice < 0.2:
                    outbox.failed(work, randomness.random() / 500, breaks=dice < 0.1)
                elif dice < 0.4 and len(documents) > 1:
                    middle = len(documents) // 2
                    halves = [documents[:middle], documents[middle:]]
                    outbox.replaced(work, [join_documents(half) for half in halves])
                else:
                    with lock:
                        delivered.update(documents)
                    outbox.settled(work, confirmed=dice < 0.9)
        except BaseException as error:
            problems.append(error)

    threads = [
        threading.Thread(target=send, args=(random.Random(f"{seed}-{number}"),), daemon=True)
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    randomness = random.Random(seed)
    batches, withdrawn = [], []
    for number in range(300):
        names = [f"{number}-{index}" for index in range(randomness.randrange(1, 7))]
        cut = randomness.randrange(len(names))
        bodies = [body(*part) for part in (names[:cut], names[cut:]) if part]
        outbox.put(new := batch(*bodies))
        batches.append(new)
        if number % 10 == 0 and outbox.withdraw([new]):
            withdrawn.append(new)
    done: list[Batch] = []

    def all_done() -> bool:
        done.extend(outbox.take_done())
        return bool(problems) or len(done) == len(batches) - len(withdrawn)

    until(all_done, 30, "all batches")
    outbox.stop()
    for thread in threads:
        thread.join(5)
    assert problems == []
    assert set(done) == set(batches) - set(withdrawn)
    assert len(done) == len(set(done))
    expected = Counter(
        each.document(index) for one in done for each in one.bodies for index in range(len(each))
    )
    assert delivered == expected
    assert outbox.bytes_held == outbox.batches_held == outbox.posts_under_way == 0
