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
from leekfanout.delivery.outcome import Answer
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
