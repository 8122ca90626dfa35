"""What a sender does with each answer: confirmed, retried, paused, split, or unexpected."""

import random
from collections import Counter

import pytest

from leekfanout.delivery import sender as sender_module
from leekfanout.delivery.batcher import Batch
from leekfanout.delivery.outbox import Outbox, Signal
from leekfanout.delivery.outcome import (
    FAILURES_BEFORE_HALVING,
    Answer,
    Breaker,
    BreakerState,
)
from leekfanout.delivery.parcel import Parcel
from leekfanout.delivery.sender import Complaints, Sender
from tests.sending import (
    NO_ANSWER,
    OK,
    SUBSCRIPTION,
    UNAVAILABLE,
    Bench,
    FakePoster,
    batch,
    body,
    json_answer,
)
from tests.waiting import until


@pytest.fixture(autouse=True)
def _fake_poster(monkeypatch):
    monkeypatch.setattr(sender_module, "Poster", FakePoster)


@pytest.fixture
def bench() -> Bench:
    return Bench()


# Confirmed


def test_a_confirmed_body_is_done(bench):
    whole = bench.put("a", "b")
    bench.step()
    assert bench.done == [whole]
    assert bench.outbox.evidence.confirmed == 1
    numbers = bench.stats.snapshot(("posts", "posts_confirmed", "documents_delivered"))
    assert list(numbers.values()) == [1, 1, 2]
    assert bench.stats.get("bytes_delivered") == len(body("a", "b").content)


# Retried


@pytest.mark.parametrize(
    ("answer", "times"),
    [
        *((answer, 7) for answer in (UNAVAILABLE, Answer(200), Answer(302), Answer(429))),
        # More often, and it is taken for the body's fault.
        (Answer(500), FAILURES_BEFORE_HALVING - 1),
        (NO_ANSWER, FAILURES_BEFORE_HALVING - 1),
    ],
)
def test_the_same_bytes_are_posted_again_until_they_are_confirmed(bench, answer, times):
    answers = iter([answer] * times + [OK])
    bench.api(lambda _: next(answers))
    whole = bench.put("a", "b", "c")
    bench.run()
    assert bench.poster.posts == [["a", "b", "c"]] * (times + 1)
    assert bench.done == [whole]
    assert bench.stats.get("posts_retried") == times
    assert bench.dead_letters.letters == []
    assert bench.stats.read_text("last_error")


def test_some_failures_in_a_row_open_the_breaker_and_the_sender_probes(bench):
    bench.api(UNAVAILABLE)
    bench.poster.ready = UNAVAILABLE
    bench.put("a")
    bench.run(until_posts=3)
    assert bench.breaker.state is BreakerState.OPEN
    for _ in range(5):
        assert bench.step() is Signal.PROBE
    assert len(bench.poster.posts) == 3
    assert max(bench.delays) <= 8.25
    bench.poster.ready = Answer(200)
    bench.api(OK)
    assert bench.step() is Signal.PROBE
    bench.run()
    assert len(bench.poster.posts) == 4
    assert bench.breaker.state is BreakerState.CLOSED


def test_retry_after_is_obeyed_by_all(bench):
    bench.api(Answer(503, {"Retry-After": "120"}))
    bench.put("a")
    bench.put("b")
    bench.step()
    assert bench.breaker.state is BreakerState.OPEN
    bench.api(OK)
    bench.step()
    assert bench.now >= 120
    assert len(bench.poster.posts) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 405, 407])
def test_a_wrong_application_pauses_everything_and_costs_nothing(bench, status):
    bench.api(json_answer(status))
    bench.poster.ready = json_answer(status)
    bench.put("a", "b")
    bench.put("c")
    bench.step()
    assert bench.breaker.state is BreakerState.OPEN
    for _ in range(200):
        assert bench.step() is Signal.PROBE
    assert bench.stats.read_text("advice").startswith(("Check", "Something"))
    bench.poster.ready = Answer(200)
    bench.api(OK)
    bench.run()
    assert bench.posted == {"a": 2, "b": 2, "c": 1}
    assert bench.dead_letters.letters == []


@pytest.mark.parametrize("status", [401, 403, 405])
def test_an_api_that_says_ready_and_takes_nothing_gets_nothing_dead_lettered(bench, status):
    bench.api(json_answer(status))
    bench.put("a", "b")
    bench.put("c")
    bench.run(until_posts=100)
    assert bench.dead_letters.letters == []
    bench.api(OK)
    bench.run()
    assert len(bench.done) == 2


# Bodies that fail alone, while others are confirmed


def with_traffic(bench: Bench, until_done: Batch, posts: int = 3000) -> None:
    """Keep other bodies coming until a batch is done."""
    number = 0
    while until_done not in bench.done and len(bench.poster.posts) < posts:
        if not bench.outbox.is_full:
            bench.put(f"other-{number}")
            number += 1
        bench.step()
        bench.now += 0.5


@pytest.mark.parametrize("answer", [Answer(403), Answer(500), Answer(502), NO_ANSWER])
def test_a_document_that_fails_while_others_are_confirmed_is_found(bench, answer):
    bench.api(lambda names: answer if "poison" in names else OK)
    names = [f"n{number}" for number in range(16)]
    whole = bench.put(*names[:5], "poison", *names[5:])
    with_traffic(bench, whole)
    assert whole in bench.done
    assert bench.dead_letters.names == ["poison"]
    assert all(bench.posted[name] >= 1 for name in names)
    assert bench.breaker.state is BreakerState.CLOSED or bench.poster.ready.status == 200


@pytest.mark.parametrize("answer", [Answer(403), Answer(500), Answer(502), Answer(503), NO_ANSWER])
@pytest.mark.parametrize("position", [0, 9, 15])
def test_the_neighbours_of_a_document_that_fails_need_no_other_traffic(bench, answer, position):
    """They may be all that the broker lets us have: as many as the prefetch count."""
    bench.api(lambda names: answer if "poison" in names else OK)
    names = [f"n{number}" for number in range(15)]
    bench.put(*names[:position], "poison", *names[position:])
    bench.run(until_posts=100)
    assert bench.confirmed == Counter(names)
    # Nothing else was confirmed for long enough to be sure that it is to blame.
    assert bench.dead_letters.letters == []
    assert bench.poster.posts[-1] == ["poison"]


@pytest.mark.parametrize(
    ("answer", "seconds"), [(Answer(403), 10), (Answer(500), 30), (NO_ANSWER, 30)]
)
def test_the_neighbours_of_a_document_that_fails_wait_for_seconds_at_most(bench, answer, seconds):
    bench.api(lambda names: answer if "poison" in names else OK)
    names = {f"n{number}" for number in range(999)}
    bench.put(*names, "poison")
    while bench.confirmed != Counter(names):
        bench.step()
    assert bench.now < seconds


def test_an_api_that_says_ready_and_takes_nothing_has_no_more_cut_than_it_is_asked(bench):
    bench.api(Answer(500))
    for number in range(4):
        bench.put(*(f"{number}-{index}" for index in range(100)))
    while bench.now < 3600:
        bench.step()
    tried = len(bench.poster.posts)
    bench.api(OK)
    bench.run()
    assert len(bench.poster.posts) - tried < 4 + tried / FAILURES_BEFORE_HALVING


def test_a_forbidden_document_doesnt_open_the_breaker_again_while_others_are_confirmed(bench):
    bench.api(lambda names: Answer(403) if "poison" in names else OK)
    bench.put("poison")
    bench.step()
    assert bench.breaker.state is BreakerState.OPEN
    while bench.outbox.evidence.confirmed < 3:
        if not bench.outbox.is_full:
            bench.put("other")
        bench.step()
    probes = bench.poster.probes
    with_traffic(bench, bench.put("last"))
    assert bench.poster.probes == probes


def test_an_overload_is_no_reason_to_give_up_a_document(bench):
    """A bad document is being isolated when the API becomes overloaded for a while."""
    bench.api(lambda names: json_answer(422) if "bad" in names else OK)
    whole = bench.put(*(f"n{number}" for number in range(7)), "bad")
    while bench.outbox.evidence.confirmed < 2:
        bench.step()
    bench.api(UNAVAILABLE)
    bench.poster.ready = Answer(200)
    for _ in range(60):
        bench.step()
    assert bench.dead_letters.names == []
    bench.api(lambda names: json_answer(422) if "bad" in names else OK)
    bench.run()
    assert bench.done == [whole]
    assert bench.dead_letters.names == ["bad"]


def test_an_api_that_fails_at_random_costs_no_document(bench):
    randomness = random.Random(4)
    bench.api(lambda _: randomness.choice([OK, OK, UNAVAILABLE, Answer(401), NO_ANSWER]))
    batches = []
    for number in range(150):
        batches.append(bench.put(*(f"{number}-{index}" for index in range(4))))
        bench.step()
    bench.run()
    assert set(bench.done) == set(batches)
    assert bench.dead_letters.letters == []


# Split


def test_a_body_that_is_too_large_is_halved_until_it_fits(bench):
    bench.api(lambda names: json_answer(413) if len(names) > 2 else OK)
    whole = bench.put(*"abcdefg")
    bench.run()
    assert bench.done == [whole]
    assert Counter(name for names in bench.poster.posts if len(names) <= 2 for name in names) == (
        Counter("abcdefg")
    )
    assert bench.dead_letters.letters == []


def test_a_single_document_that_is_too_large_is_dead_lettered(bench):
    bench.api(lambda names: json_answer(413, "Too large") if "huge" in names else OK)
    whole = bench.put("a", "huge", "b")
    bench.run()
    assert bench.done == [whole]
    assert bench.dead_letters.names == ["huge"]
    (letter,) = bench.dead_letters.letters
    assert (letter.kind, letter.reason) == ("document", "HTTP 413 Too large")
    assert letter.payload == b'{"id":"huge","kind":"task"}'


# What nobody thought of


def test_an_unexpected_error_loses_neither_the_parcel_nor_the_sender(bench):
    calls = iter([KeyError("x"), MemoryError(), None])

    def api(_names: list[str]) -> Answer:
        if (error := next(calls)) is not None:
            raise error
        return OK

    bench.api(api)
    whole = bench.put("a")
    bench.run()
    assert bench.done == [whole]
    assert len(bench.poster.posts) == 3
    assert bench.outbox.posts_under_way == 0
    assert "MemoryError" in bench.stats.read_text("last_error")


def test_an_unexpected_error_in_a_probe_doesnt_end_the_probing(bench, monkeypatch):
    bench.api(json_answer(401))
    bench.put("a")
    bench.step()
    with monkeypatch.context() as patch:
        patch.setattr(bench.poster, "probe", lambda: 1 / 0)
        assert bench.step() is Signal.PROBE
    assert not bench.breaker.probing
    bench.api(OK)
    bench.run()
    assert bench.outbox.batches_held == 0


def test_an_error_after_the_parcel_was_given_back_doesnt_give_it_back_twice(bench, monkeypatch):
    whole = bench.put("a")
    settled = bench.outbox.settled

    def failing(parcel: Parcel, *, confirmed: bool) -> None:
        settled(parcel, confirmed=confirmed)
        raise OSError

    monkeypatch.setattr(bench.outbox, "settled", failing)
    bench.step()
    assert bench.done == [whole]
    assert bench.outbox.posts_under_way == 0
    assert bench.outbox.take_now() is None


def test_the_thread_delivers_until_it_is_told_to_stop(bench):
    outbox = Outbox(1, Breaker(random.Random(1)), lambda: None)
    sender = Sender(
        1, SUBSCRIPTION, outbox, bench.dead_letters, bench.stats, complaints=Complaints()
    )
    outbox.put(batch(body("a"), body("b")))
    sender.start()
    until(lambda: outbox.batches_held == 0, 5, "the batch to be delivered")
    assert sender.name == "sender-1"
    outbox.stop()
    sender.join(5)
    assert not sender.is_alive()
    assert sender._poster.closed


# The log


OUTAGES = {
    "away": (NO_ANSWER, NO_ANSWER),
    "overloaded": (UNAVAILABLE, UNAVAILABLE),
    "wrong key": (Answer(401), Answer(401)),
    "says ready and takes nothing": (Answer(500), Answer(200)),
    "says ready and forbids everything": (Answer(403), Answer(200)),
    "says ready and answers nothing": (NO_ANSWER, Answer(200)),
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_of_an_hour_fills_tens_of_lines_of_the_log(bench, outage, caplog):
    caplog.set_level("INFO")
    answer, bench.poster.ready = OUTAGES[outage]
    bench.api(answer)
    for number in range(20):
        bench.put(*(f"{number}-{index}" for index in range(50)))
    while bench.now < 3600:
        bench.step()
    assert bench.poster.probes > 400
    assert 1 <= len(caplog.records) <= 61
    bench.api(OK)
    bench.poster.ready = Answer(200)
    bench.run()
    assert len(bench.done) == 20


def test_an_hour_of_failures_now_and_then_fills_tens_of_lines_of_the_log(bench, caplog):
    caplog.set_level("INFO")
    randomness = random.Random(6)
    bench.api(lambda _: randomness.choice([OK, Answer(500), UNAVAILABLE, Answer(403), NO_ANSWER]))
    number = 0
    while bench.now < 3600:
        if not bench.outbox.is_full:
            bench.put(*(f"{number}-{index}" for index in range(5)))
            number += 1
        bench.step()
        bench.now += 0.5
    assert len(bench.poster.posts) > 1_000
    assert 1 <= len(caplog.records) <= 61
    # One in five is confirmed: that a document fails again and again says nothing of it.
    assert bench.dead_letters.letters == []
