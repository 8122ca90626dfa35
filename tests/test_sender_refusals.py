"""What a sender does with refusals: isolated, taken out by name, kept until the disk has room."""

from collections import Counter

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leekfanout.delivery import sender as sender_module
from leekfanout.delivery.batcher import join_documents, parse_body
from leekfanout.delivery.outcome import (
    CONFLICTS_BEFORE_HALVING,
    FAILURES_BEFORE_BISECT,
    REFUSALS_BEFORE_BISECT,
    Answer,
    BreakerState,
)
from leekfanout.delivery.sender import STORE_RETRY_S
from tests.sending import (
    OK,
    Bench,
    FakePoster,
    batch,
    json_answer,
    refusing,
)


@pytest.fixture(autouse=True)
def _fake_poster(monkeypatch):
    monkeypatch.setattr(sender_module, "Poster", FakePoster)


@pytest.fixture
def bench() -> Bench:
    return Bench()


# Refused without a name


def test_a_refusal_that_passes_is_only_retried(bench):
    answers = iter([json_answer(409, "Conflict")] * (CONFLICTS_BEFORE_HALVING - 1) + [OK])
    bench.api(lambda _: next(answers))
    bench.put("a", "b")
    bench.run()
    assert bench.poster.posts == [["a", "b"]] * CONFLICTS_BEFORE_HALVING
    assert bench.dead_letters.letters == []
    assert bench.breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("status", [400, 422])
def test_the_neighbours_of_a_document_that_is_refused_for_good_dont_wait(bench, status):
    names = {f"n{number}" for number in range(100)}
    bench.api(lambda posted: json_answer(status, "No") if "bad" in posted else OK)
    bench.put(*names, "bad")
    while bench.confirmed != Counter(names):
        bench.step()
    assert bench.now == 0
    assert bench.dead_letters.letters == []
    bench.run()
    assert bench.dead_letters.names == ["bad"]
    assert bench.posted["bad"] > REFUSALS_BEFORE_BISECT


@pytest.mark.parametrize("status", [400, 409, 422])
@pytest.mark.parametrize("position", range(9))
def test_the_refused_document_is_found_at_every_position(bench, status, position):
    names = [f"n{number}" for number in range(9)]
    refused = names[position]
    bench.api(lambda posted: json_answer(status, "No") if refused in posted else OK)
    whole = bench.put(*names)
    bench.run()
    assert bench.done == [whole]
    assert bench.dead_letters.names == [refused]
    confirmed = Counter(
        name for posted in bench.poster.posts if refused not in posted for name in posted
    )
    assert confirmed == Counter(set(names) - {refused})
    assert bench.now < 10


@given(st.sets(st.integers(0, 40)), st.integers(1, 41))
def test_exactly_the_refused_documents_are_dead_lettered(refused_numbers, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sender_module, "Poster", FakePoster)
        bench = Bench()
    names = [f"n{number}" for number in range(count)]
    refused = {f"n{number}" for number in refused_numbers} & set(names)
    bench.api(lambda posted: json_answer(409) if refused & set(posted) else OK)
    bench.put(*names)
    bench.run()
    assert sorted(bench.dead_letters.names) == sorted(refused)
    confirmed = [
        name for posted in bench.poster.posts if not refused & set(posted) for name in posted
    ]
    assert sorted(confirmed) == sorted(set(names) - refused)


def test_a_passing_conflict_of_a_document_that_was_cut_out_isnt_the_end_of_it(bench):
    conflicts = Counter({"good": 2})

    def api(names: list[str]) -> Answer:
        if "bad" in names:
            return json_answer(409)
        if names == ["good"] and conflicts["good"]:
            conflicts["good"] -= 1
            return json_answer(409)
        return OK

    bench.api(api)
    bench.put("good", "bad")
    bench.run()
    assert bench.dead_letters.names == ["bad"]


# Refused by name


def test_named_documents_are_dead_lettered_and_the_others_are_indexed(bench):
    bench.api(refusing(("b", 400), ("d", 404)))
    whole = bench.put(*"abcde")
    bench.run()
    assert bench.poster.posts == [list("abcde")]
    assert bench.done == [whole]
    assert bench.dead_letters.names == ["b", "d"]
    assert orjson.loads(bench.dead_letters.letters[0].answer) == {"_id": "b", "status": 400}
    assert bench.stats.get("documents_delivered") == 3
    assert bench.stats.get("documents_refused") == 2
    assert bench.outbox.evidence.confirmed == 1
    assert bench.stats.get("last_delivery_at") > 0


def test_if_all_documents_are_refused_nothing_counts_as_confirmed(bench):
    bench.api(refusing(("a", 400), ("b", 400)))
    bench.put("a", "b")
    bench.run()
    assert bench.dead_letters.names == ["a", "b"]
    assert bench.outbox.evidence.confirmed == 0
    assert bench.stats.get("last_delivery_at") == 0
    assert bench.stats.get("documents_delivered") == 0


def test_a_refusal_that_names_nothing_of_ours_is_bisected(bench):
    bench.api(lambda names: refusing(("stranger", 400)) if "b" in names else OK)
    bench.put("a", "b", "c")
    bench.run()
    assert bench.dead_letters.names == ["b"]


def test_where_only_some_of_the_refused_are_named_all_others_are_tried_again(bench):
    def api(names: list[str]) -> Answer:
        bad = [name for name in names if name.startswith("bad")]
        return refusing((bad[0], 400), failed=len(bad)) if bad else OK

    bench.api(api)
    bench.put("a", "bad1", "b", "bad2", "bad3", "c")
    bench.run()
    assert sorted(bench.dead_letters.names) == ["bad1", "bad2", "bad3"]
    # Each answer takes one out, until it names all that it refuses.
    assert bench.poster.posts[1:] == [["a", "b", "bad2", "bad3", "c"], ["a", "b", "bad3", "c"]]
    assert bench.outbox.batches_held == 0


def test_a_name_that_isnt_ours_leaves_one_of_ours_unnamed(bench):
    answers = iter([refusing(("a", 400), ("stranger", 400)), OK])
    bench.api(lambda _: next(answers))
    bench.put("a", "b", "c")
    bench.run()
    assert bench.dead_letters.names == ["a"]
    assert bench.poster.posts == [["a", "b", "c"], ["b", "c"]]


def test_documents_with_the_same_id_stand_and_fall_together(bench):
    """A task's uuid may be a worker's host name."""
    bench.api(refusing(("same", 400)))
    bench.outbox.put(batch(join_documents([b'{"id":"same","kind":"task"}', b'{"id":"b"}',
                                           b'{"id":"same","kind":"worker"}'])))  # fmt: skip
    bench.run()
    assert bench.dead_letters.names == ["same", "same"]
    assert bench.stats.get("documents_delivered") == 1


def test_a_conflict_is_tried_again_alone_and_may_pass(bench):
    answers = iter([refusing(("b", 409)), OK])
    bench.api(lambda _: next(answers))
    bench.put("a", "b", "c")
    bench.run()
    assert bench.poster.posts == [["a", "b", "c"], ["b"]]
    assert bench.dead_letters.letters == []


def test_a_conflict_that_stays_is_dead_lettered(bench):
    bench.api(lambda names: refusing(("b", 409)) if "b" in names else OK)
    bench.put("a", "b", "c")
    bench.run()
    assert bench.poster.posts == [["a", "b", "c"]] + [["b"]] * (REFUSALS_BEFORE_BISECT - 1)
    assert bench.dead_letters.names == ["b"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_search_backend_that_is_busy_gets_more_time(bench, status):
    bench.api(lambda names: refusing(("b", status)) if "b" in names and bench.now < 60 else OK)
    bench.put("a", "b", "c")
    bench.run()
    assert bench.dead_letters.letters == []
    assert bench.posted["a"] == bench.posted["c"] == 1


def test_a_document_that_the_search_backend_never_takes_is_dead_lettered_in_the_end(bench):
    bench.api(lambda names: refusing(("b", 503)) if "b" in names else OK)
    bench.put("a", "b")
    bench.run()
    assert bench.dead_letters.names == ["b"]
    assert bench.posted["b"] == FAILURES_BEFORE_BISECT


def test_what_a_damaged_spool_holds_is_dead_lettered_too(bench):
    damaged = parse_body(b'[{"id":"a"},{"id"')
    bench.outbox.put(batch(damaged))
    bench.poster.post = lambda _: refusing(("a", 400))
    bench.run()
    assert [letter.payload for letter in bench.dead_letters.letters] == [damaged.document(0)]


# The disk


def test_what_the_disk_doesnt_take_stays_and_nothing_else_is_posted_again(bench):
    bench.dead_letters.full = True
    bench.api(lambda names: refusing(("b", 400)) if "b" in names else OK)
    whole = bench.put("a", "b", "c")
    bench.run(until_posts=4)
    assert bench.outbox.batches_held == 1
    assert bench.poster.posts == [["a", "b", "c"], ["b"], ["b"], ["b"]]
    assert min(bench.delays[1:]) >= STORE_RETRY_S - 1
    assert bench.stats.read_text("last_error") == "The disk is full."
    bench.dead_letters.full = False
    bench.run()
    assert bench.dead_letters.names == ["b"]
    assert bench.done == [whole]


@pytest.mark.parametrize("status", [413, 422])
def test_a_single_refused_document_waits_for_the_disk(bench, status):
    bench.dead_letters.full = True
    bench.api(lambda names: json_answer(status) if "b" in names else OK)
    whole = bench.put("a", "b", "c")
    for _ in range(30):
        bench.step()
    assert bench.dead_letters.attempts > 2
    assert bench.outbox.batches_held == 1
    bench.dead_letters.full = False
    bench.run()
    assert bench.dead_letters.names == ["b"]
    assert bench.done == [whole]
