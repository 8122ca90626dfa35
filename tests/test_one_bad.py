"""One bad event or one refused document among many costs exactly itself, wherever it stands.

The real batcher, outbox and sender, joined by hand; the API is a function, and time jumps.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leekfanout.delivery import sender as sender_module
from leekfanout.delivery.batcher import Batcher, ClosedBy
from leekfanout.delivery.outcome import (
    FAILURES_BEFORE_BISECT,
    FAILURES_TO_OPEN,
    PROOF_LASTS_S,
    Answer,
    BreakerState,
)
from leekfanout.delivery.retries import BLAMED_REST_S
from leekfanout.documents.events import EventTally
from leekfanout.stores.deadletters import DeadLetter
from tests.sending import NO_ANSWER, OK, Bench, FakePoster, json_answer, refusing

JSON = "application/json"
MANY = 10_000
VICTIM = "victim"
MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "no JSON": lambda body: body[:-1],
    "no type": lambda body: body.replace(b'"type"', b'"kind"'),
    "no uuid": lambda body: body.replace(b'"uuid"', b'"uid"'),
    "a string for a number": lambda body: body.replace(b'"pid": 1', b'"pid": "1"'),
    "no object": lambda _: b'"task-sent"',
    "pickle": lambda _: b"\x80\x04K\x01.",
}
REFUSALS: dict[str, Answer] = {
    "400 that names it": refusing((VICTIM, 400)),
    "400": json_answer(400, "No"),
    "409": json_answer(409, "Conflict"),
    "413": json_answer(413),
    "422": json_answer(422),
}
FAILURES: dict[str, Answer] = {"403": Answer(403), "500": Answer(500), "no answer": NO_ANSWER}
"""Nobody can know at once that these speak of one document."""


@pytest.fixture(autouse=True)
def _fake_poster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "Poster", FakePoster)


def event(name: str) -> bytes:
    fields = {"type": "task-sent", "uuid": name, "hostname": "h", "timestamp": 1.0}
    return json.dumps({**fields, "utcoffset": 0, "pid": 1, "clock": 1}).encode()


class Way:
    """The way of events from their messages to the API, in batches of ``batch_events``."""

    def __init__(self, batch_events: int) -> None:
        self.set_aside: list[DeadLetter] = []
        self.bench = Bench()
        self._batcher = Batcher(
            app_env="qa",
            max_events=batch_events,
            max_bytes=1_000_000,
            keep_messages=True,
            emit=self._take,
            wall_clock=lambda: 1.0,
            tally=EventTally(),
        )

    def _take(self, batch) -> None:
        self.set_aside += batch.dead_letters
        self.bench.outbox.put(batch)

    def deliver(self, bodies: Iterable[bytes], enough: int | None = None) -> None:
        """Bring all of them on their way, and post until all are through, or ``enough`` confirmed."""
        for tag, body in enumerate(bodies, 1):
            self._batcher.message(tag, body, JSON)
        self._batcher.close(ClosedBy.WINDOW)
        poster = self.bench.poster
        while self.bench.outbox.batches_held and poster.confirmed.total() != enough:
            assert len(poster.posts) < 1_000, "it goes on for ever"
            self.bench.step()

    @property
    def confirmed(self) -> Counter[str]:
        return self.bench.confirmed


def check_malformed(way: Way, names: list[str], position: int, kind: str) -> None:
    bodies = [event(name) for name in names]
    bodies[position] = MALFORMED[kind](bodies[position])
    way.deliver(bodies)
    assert [letter.payload for letter in way.set_aside] == [bodies[position]]
    assert way.confirmed == Counter(names[:position] + names[position + 1 :])
    assert way.bench.dead_letters.letters == []


def check_refused(way: Way, names: list[str], position: int, answer: Answer) -> None:
    names[position] = VICTIM
    way.bench.api(lambda posted: answer if VICTIM in posted else OK)
    way.deliver(map(event, names))
    confirmed = way.confirmed
    if answer is REFUSALS["400 that names it"]:
        # It has all others that came with it (contract, section 1).
        (posted,) = (posted for posted in way.bench.poster.posts if VICTIM in posted)
        confirmed = confirmed + Counter(posted) - Counter([VICTIM])
    assert confirmed == Counter(names) - Counter([VICTIM])
    assert way.set_aside == []
    assert way.bench.dead_letters.names == [VICTIM]


def check_failing(way: Way, names: list[str], position: int, answer: Answer) -> None:
    names[position] = VICTIM
    way.bench.api(lambda posted: answer if VICTIM in posted else OK)
    way.deliver(map(event, names), enough=len(names) - 1)
    assert way.confirmed == Counter(names) - Counter([VICTIM])
    assert way.set_aside == []
    # Alone it goes on being tried, which the sender's tests look at.
    assert way.bench.dead_letters.letters == []
    assert way.bench.outbox.batches_held == 1


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_event_costs_itself_at_every_position(kind: str) -> None:
    for position in range(60):
        names = [f"n{number}" for number in range(60)]
        check_malformed(Way(batch_events=20), names, position, kind)


@pytest.mark.parametrize("kind", ["no type", "no uuid", "a string for a number"])
def test_a_malformed_event_costs_itself_at_every_position_of_a_list(kind: str) -> None:
    names = [f"n{number}" for number in range(50)]
    for position in range(50):
        events = [event(name) for name in names]
        events[position] = MALFORMED[kind](events[position])
        way = Way(batch_events=20)
        way.deliver([b"[" + b",".join(events) + b"]"])
        assert way.confirmed == Counter(names[:position] + names[position + 1 :])
        (letter,) = way.set_aside
        assert orjson.loads(letter.payload) == orjson.loads(events[position])


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refused_document_costs_itself_at_every_position(kind: str) -> None:
    for position in range(60):
        names = [f"n{number}" for number in range(60)]
        check_refused(Way(batch_events=20), names, position, REFUSALS[kind])


@pytest.mark.parametrize("kind", FAILURES)
def test_a_document_on_which_the_api_fails_costs_itself_at_every_position(kind: str) -> None:
    for position in range(60):
        names = [f"n{number}" for number in range(60)]
        check_failing(Way(batch_events=20), names, position, FAILURES[kind])


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize(("bad", "seconds"), [(4, 20), (40, 60)])
def test_the_neighbours_of_some_documents_on_which_the_api_fails_wait_for_seconds(
    kind: str, bad: int, seconds: int
) -> None:
    """Their bodies come one after the other, since one is all that the prefetch count allows."""
    bench, dice = Bench(), random.Random(5)
    names = [f"n{number}" for number in range(8_000)]
    victims = set(dice.sample(names, bad))
    good = set(names) - victims
    bench.api(lambda posted: OK if victims.isdisjoint(posted) else FAILURES[kind])
    while bench.confirmed.keys() != good:
        in_flight = 1_000 - (8_000 - len(names)) + len(bench.confirmed)
        if names and in_flight and not bench.outbox.is_full:
            bench.put(*names[:in_flight])
            del names[:in_flight]
        bench.step()
        bench.now += 0.01
    assert bench.now < seconds
    assert set(bench.confirmed.values()) == {1}


@pytest.mark.parametrize("kind", ["403", "500"])
def test_documents_on_which_the_api_fails_are_given_up_in_the_end_while_others_come(
    kind: str,
) -> None:
    bench = Bench()
    bench.api(lambda posted: OK if posted[0].startswith("good") else FAILURES[kind])
    for number in range(40):
        bench.put(f"bad-{number}")
    number = 0
    while len(bench.dead_letters.letters) < 40:
        assert bench.now < 3_600
        if number < bench.now / 5 and not bench.outbox.is_full:
            bench.put(f"good-{number}")
            number += 1
        bench.step()
    assert sorted(bench.dead_letters.names) == sorted(f"bad-{number}" for number in range(40))
    assert min(bench.posted[name] for name in bench.dead_letters.names) > FAILURES_BEFORE_BISECT


def test_an_api_that_goes_away_is_not_stormed_by_documents_that_it_failed_on() -> None:
    bench = Bench()
    bench.api(lambda posted: OK if posted[0].startswith("good") else Answer(500))
    for number in range(40):
        bench.put(f"bad-{number}")
    bench.put("good-1")
    while bench.now < 60 or bench.outbox.evidence.confirmed < 2:
        if bench.now > 30 and bench.outbox.evidence.confirmed == 1:
            bench.put("good-2")
        bench.step()
    bench.api(NO_ANSWER)
    bench.poster.ready = NO_ANSWER
    before, away_at = len(bench.poster.posts), bench.now
    while bench.now < away_at + PROOF_LASTS_S:
        bench.step()
    assert len(bench.poster.posts) - before <= PROOF_LASTS_S / BLAMED_REST_S + 1
    before = len(bench.poster.posts)
    while bench.now < away_at + 600:
        bench.step()
    # No trial but after a probe that says ready, and no probe does.
    assert len(bench.poster.posts) - before <= FAILURES_TO_OPEN
    assert bench.breaker.state is BreakerState.OPEN


@settings(max_examples=12)
@given(st.sampled_from([*MALFORMED, *REFUSALS, *FAILURES]), st.integers(0, MANY - 1))
def test_one_among_ten_thousand_costs_itself(kind: str, position: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sender_module, "Poster", FakePoster)
        way = Way(batch_events=1_000)
    names = [f"n{number}" for number in range(MANY)]
    if kind in MALFORMED:
        check_malformed(way, names, position, kind)
    elif kind in REFUSALS:
        check_refused(way, names, position, REFUSALS[kind])
    else:
        check_failing(way, names, position, FAILURES[kind])


def test_many_bad_ones_cost_exactly_themselves() -> None:
    way = Way(batch_events=50)
    dice = random.Random(3)
    names = [f"n{number}" for number in range(1_000)]
    bodies = [event(name) for name in names]
    refused = set(dice.sample(names[:500], 20))
    malformed = dice.sample(range(500, 1_000), 20)
    for position in malformed:
        bodies[position] = MALFORMED[dice.choice(list(MALFORMED))](bodies[position])
    way.bench.api(lambda posted: json_answer(422) if refused & set(posted) else OK)
    way.deliver(bodies)
    assert sorted(way.bench.dead_letters.names) == sorted(refused)
    assert sorted(letter.payload for letter in way.set_aside) == sorted(
        bodies[position] for position in malformed
    )
    good = set(names) - refused - {names[position] for position in malformed}
    assert way.confirmed == Counter(good)
