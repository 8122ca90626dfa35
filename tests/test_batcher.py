"""The batcher: its bounds, its exact sizes, and what becomes of messages that hold many events."""

import itertools
import json
from array import array

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leekfanout.delivery.batcher import (
    Batch,
    Batcher,
    Body,
    ClosedBy,
    cut_into_bodies,
    join_documents,
    parse_body,
)
from leekfanout.documents.events import EventTally

JSON = "application/json"
MB = 1_000_000


def event(number: int, **fields: object) -> dict[str, object]:
    return {
        "type": "task-sent",
        "uuid": f"task-{number}",
        "hostname": "client@host",
        "timestamp": 1_700_000_000 + number,
        "utcoffset": -1,
        "pid": 1,
        "clock": number,
        **fields,
    }


class Harness:
    """A batcher, its batches, and the messages that it was given, with tags counting up from 1."""

    def __init__(self, max_events: int = 1000, max_bytes: int = MB, *, keep_messages: bool = True):
        self.batches: list[Batch] = []
        self.bodies: list[bytes] = []
        self.tally = EventTally()
        self.batcher = Batcher(
            app_env="qa",
            max_events=max_events,
            max_bytes=max_bytes,
            keep_messages=keep_messages,
            emit=self.batches.append,
            wall_clock=lambda: 1_700_000_000.5,
            tally=self.tally,
        )

    def message(self, payload: object, content_type: str | None = JSON) -> bytes:
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.bodies.append(body)
        self.batcher.message(len(self.bodies), body, content_type)
        return body

    def close(self) -> Batch | None:
        """Close the open batch; return it, or None if there was none."""
        count = len(self.batches)
        self.batcher.close(ClosedBy.WINDOW)
        return self.batches[-1] if len(self.batches) > count else None


def ids(batch: Batch) -> list[str]:
    return [
        orjson.loads(body.document(index))["id"]
        for body in batch.bodies
        for index in range(len(body))
    ]


# Bounds


def test_a_batch_closes_at_its_number_of_events():
    harness = Harness(max_events=3)
    for number in range(7):
        harness.message(event(number))
    assert [(b.first_tag, b.last_tag, b.closed_by, b.events) for b in harness.batches] == [
        (1, 3, ClosedBy.NUMBER, 3),
        (4, 6, ClosedBy.NUMBER, 3),
    ]
    assert harness.batches[0].messages == harness.bodies[:3]
    assert len(harness.batcher) == 1
    last = harness.close()
    assert (last.first_tag, last.last_tag, last.closed_by) == (7, 7, ClosedBy.WINDOW)
    assert harness.batcher.is_empty


def test_events_count_whether_or_not_they_become_documents_of_their_own():
    harness = Harness(max_events=4)
    harness.message(event(1))
    harness.message(event(1, type="task-received"))  # merged
    harness.message(event(2, type="task-cancelled"))  # ignored
    assert not harness.batches
    harness.message(event(3, pid="many"))  # bad
    (batch,) = harness.batches
    assert ids(batch) == ["task-1"]
    assert batch.events == 2
    assert [letter.kind for letter in batch.dead_letters] == ["event"]
    assert batch.last_tag == 4


def test_a_batch_closes_near_its_size_whatever_the_messages():
    harness = Harness(max_events=10_000, max_bytes=20_000)
    for number in range(2000):
        harness.message(event(number, exception="x" * (number % 50)))
    sizes = [len(body.content) for batch in harness.batches for body in batch.bodies]
    assert {batch.closed_by for batch in harness.batches} == {ClosedBy.SIZE}
    assert max(sizes) <= 20_000
    # The growth from message to document is learned, so that one batch is one body, nearly full.
    learned = harness.batches[len(harness.batches) // 2 :]
    assert all(len(batch.bodies) == 1 for batch in learned)
    assert sum(len(batch.bodies[0].content) for batch in learned) > 0.75 * 20_000 * len(learned)


def test_merged_events_dont_teach_it_to_take_in_without_bound():
    harness = Harness(max_events=10**9, max_bytes=10_000)
    for number in range(3000):
        harness.message(event(1, type="worker-heartbeat", hostname="worker", clock=number))
    raw = [sum(map(len, batch.messages)) for batch in harness.batches]
    assert max(raw) <= 2.5 * 10_000


def test_closing_an_empty_batch_emits_nothing():
    harness = Harness()
    assert harness.close() is None
    assert harness.batcher.is_empty
    assert not harness.batcher.has_documents


def test_a_batch_of_useless_events_has_no_bodies_but_covers_its_messages():
    harness = Harness()
    harness.message(event(1, type="my-own-event"))
    assert not harness.batcher.is_empty
    assert not harness.batcher.has_documents
    batch = harness.close()
    assert batch.bodies == []
    assert (batch.first_tag, batch.last_tag, batch.events) == (1, 1, 0)


def test_the_owner_is_told_when_a_window_begins():
    harness = Harness(max_events=2)
    harness.message(event(1))
    assert harness.batcher.opened
    harness.batcher.opened = False
    harness.message(event(2))
    assert not harness.batcher.opened
    harness.message(event(3))
    assert harness.batcher.opened


def test_empty_lists_and_empty_messages_are_covered_like_any_other():
    harness = Harness()
    for payload in (b"[]", b"", b"null", b"[null]"):
        harness.message(payload)
    batch = harness.close()
    assert (batch.first_tag, batch.last_tag, batch.bodies) == (1, 4, [])
    assert [letter.payload for letter in batch.dead_letters] == [b"", b"null", b"[null]"]


# Sizes


@given(st.lists(st.integers(0, 400), max_size=40), st.integers(1, 500))
def test_no_body_is_above_the_limit_unless_it_is_a_single_document(sizes, max_bytes):
    documents = [b"%04d" % index + b"x" * size for index, size in enumerate(sizes)]
    cut = cut_into_bodies(documents, max_bytes)
    assert [document for body in cut for document in body] == documents
    for body in cut:
        assert len(body) == 1 or len(join_documents(body).content) <= max_bytes
    # Greedy, so that they are few: no two neighbours would fit together.
    for one, other in itertools.pairwise(cut):
        assert len(join_documents([*one, other[0]]).content) > max_bytes


@given(
    st.lists(st.lists(st.integers(0, 3000), min_size=1, max_size=6), max_size=30),
    st.integers(200, 5000),
    st.integers(1, 20),
)
def test_what_is_posted_keeps_to_the_bounds(messages, max_bytes, max_events):
    harness = Harness(max_events, max_bytes)
    numbers = iter(range(10**6))
    for sizes in messages:
        events = [event(next(numbers), exception="é" * size) for size in sizes]
        harness.message(events if len(events) > 1 else events[0])
    harness.close()
    for batch in harness.batches:
        assert batch.events <= max_events
        for body in batch.bodies:
            assert len(body) == 1 or len(body.content) <= max_bytes
        assert batch.size_bytes == sum(map(len, batch.messages)) + sum(
            len(body.content) for body in batch.bodies
        )
    assert [each for batch in harness.batches for each in ids(batch)] == [
        f"task-{number}" for number in range(sum(map(len, messages)))
    ]


def test_a_message_above_the_limit_travels_alone():
    harness = Harness(max_bytes=1000)
    harness.message(event(1))
    harness.message(event(2, exception="x" * 5000))
    (batch,) = harness.batches
    assert batch.closed_by is ClosedBy.SIZE
    assert [len(body) for body in batch.bodies] == [1, 1]


# Messages that hold many events


def test_a_list_is_split_where_a_batch_is_full():
    harness = Harness(max_events=4)
    harness.message([event(number) for number in range(3)])
    body = harness.message([event(number) for number in range(3, 13)])
    first, second, third = harness.batches
    assert [b.events for b in harness.batches] == [4, 4, 4]
    assert [b.continues for b in harness.batches] == [True, True, True]
    assert [(b.first_tag, b.last_tag) for b in harness.batches] == [(1, 2), (2, 2), (2, 2)]
    assert first.messages == harness.bodies
    assert second.messages == third.messages == [body]
    last = harness.close()
    assert (last.first_tag, last.last_tag, last.events, last.continues) == (2, 2, 1, False)
    assert harness.batcher.messages_taken == 2


def test_a_list_that_fills_a_batch_to_the_brim_doesnt_continue():
    harness = Harness(max_events=3)
    harness.message([event(number) for number in range(6)])
    assert [(b.continues, b.last_tag, b.events) for b in harness.batches] == [
        (True, 1, 3),
        (False, 1, 3),
    ]
    assert harness.batcher.is_empty


def test_the_rest_of_a_split_list_counts_only_its_own_bytes():
    harness = Harness(max_events=10, max_bytes=10_000)
    harness.message([event(number) for number in range(30)])  # 4 kB
    assert [batch.closed_by for batch in harness.batches] == [ClosedBy.NUMBER] * 3
    harness.message(event(31))
    assert len(harness.batches) == 3


@given(
    st.lists(
        st.tuples(
            st.integers(0, 9), st.sampled_from(["good", "good", "bad", "useless", "merged"])
        ).map(lambda pair: [pair[1]] * pair[0]),
        max_size=25,
    ),
    st.integers(1, 7),
)
def test_every_event_goes_somewhere_and_every_tag_is_covered(messages, max_events):
    harness = Harness(max_events)
    number = 0
    expected: dict[str, int] = {"good": 0, "bad": 0, "useless": 0, "merged": 0}
    for kinds in messages:
        events = []
        for kind in kinds:
            number += 1
            expected[kind] += 1
            events.append(
                {
                    "good": event(number),
                    "bad": event(number, uuid=None),
                    "useless": event(number, type="task-cancelled"),
                    "merged": event(0, clock=number),
                }[kind]
            )
        harness.message(events)
    harness.close()
    batches = harness.batches
    assert sum(batch.events for batch in batches) == expected["good"] + expected["merged"]
    assert sum(len(batch.dead_letters) for batch in batches) == expected["bad"]
    assert harness.tally.bad == expected["bad"]
    assert sum(harness.tally.ignored.values()) == expected["useless"]
    good = [each for batch in batches for each in ids(batch) if each != "task-0"]
    assert len(good) == len(set(good)) == expected["good"]
    next_tag = 1
    for batch in batches:
        assert batch.first_tag == next_tag
        assert batch.messages == harness.bodies[batch.first_tag - 1 : batch.last_tag]
        next_tag = batch.last_tag + (not batch.continues)
    assert next_tag == len(messages) + 1
    assert harness.batcher.messages_taken == len(messages)


# What is bad


def test_bad_events_ride_along_with_their_reasons():
    harness = Harness()
    harness.message([event(1), event(2, clock="x"), event(3), 7])
    harness.message(b"no json")
    harness.message(event(4), "application/x-python-serialize")
    harness.batcher.unusable(4, b"\x00envelope", "Its envelope is broken.")
    batch = harness.close()
    assert ids(batch) == ["task-1", "task-3"]
    assert [letter.kind for letter in batch.dead_letters] == ["event", "event"] + ["message"] * 3
    assert json.loads(batch.dead_letters[0].payload)["uuid"] == "task-2"
    assert batch.dead_letters[1].payload == b"7"
    assert batch.dead_letters[4].payload == b"\x00envelope"
    types = [letter.content_type for letter in batch.dead_letters]
    assert types == [None, None, "application/json", "application/x-python-serialize", None]
    assert batch.dead_letters[4].reason == "Its envelope is broken."
    assert all(letter.reason and letter.at == 1_700_000_000.5 for letter in batch.dead_letters)
    assert batch.last_tag == 4
    assert len(batch.messages) == 4


def test_a_lone_bad_event_is_kept_byte_for_byte():
    harness = Harness()
    body = harness.message(b'{ "type" : "task-sent" }')
    assert harness.close().dead_letters[0].payload == body


@pytest.mark.parametrize("depth", [200, 900, 1000, 1020, 1023, 2000, 100_000])
@pytest.mark.parametrize("opening", [b"[", b'{"type":'])
def test_a_bad_event_that_is_nested_very_deeply_harms_nobody(depth: int, opening: bytes):
    closing = b"]" if opening == b"[" else b"}"
    harness = Harness(max_bytes=100 * MB)
    deep = opening * depth + b"1" + closing * depth
    body = harness.message(b"[" + deep + b"," + json.dumps(event(1)).encode() + b"]")
    harness.message(event(2))
    batch = harness.close()
    assert ids(batch)[-1] == "task-2"
    (letter,) = batch.dead_letters
    assert letter.payload.replace(b" ", b"") in (deep, body.replace(b" ", b""))


def test_a_batch_with_dead_letters_cant_be_taken_back():
    harness = Harness()
    harness.message(event(1))
    assert not harness.close().begun
    harness.message([event(1), 7])
    # Its bad event is on the disk by now, and would be there twice if the message came again.
    assert harness.close().begun


# Recognised messages, and sources without acks


def test_recognised_messages_take_a_place_and_make_no_document():
    harness = Harness(max_events=3)
    harness.batcher.recognised(1, b"seen before")
    assert not harness.batcher.has_documents
    assert harness.batcher.opened
    harness.batcher.recognised(2, b"seen too")
    harness.batcher.message(3, json.dumps(event(1)).encode(), JSON)
    (batch,) = harness.batches
    assert (batch.first_tag, batch.last_tag, batch.events) == (1, 3, 1)
    assert batch.messages[:2] == [b"seen before", b"seen too"]


def test_a_source_without_acks_gets_its_messages_not_kept():
    harness = Harness(max_events=2, keep_messages=False)
    harness.message([event(number) for number in range(5)])
    harness.close()
    assert all(batch.messages == [] for batch in harness.batches)
    assert [batch.events for batch in harness.batches] == [2, 2, 1]


def test_a_discarded_batch_leaves_nothing():
    harness = Harness()
    harness.message([event(1), 7])
    harness.batcher.discard()
    assert harness.batcher.is_empty
    assert harness.close() is None
    harness.batcher.tags_begin_again()
    assert harness.batcher.last_tag == 0
    harness.batcher.message(1, json.dumps(event(2)).encode(), JSON)
    batch = harness.close()
    assert ids(batch) == ["task-2"]
    assert batch.dead_letters == []


# Bodies


def assert_same(body: Body, documents: list[bytes]) -> None:
    assert len(body) == len(documents)
    assert [body.document(index) for index in range(len(body))] == documents


TEXTS = st.dictionaries(st.text(max_size=5), st.text() | st.integers() | st.none(), max_size=4)


@given(st.lists(TEXTS, max_size=12))
def test_a_body_gives_its_documents_back_byte_for_byte(values):
    documents = [
        json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") for value in values
    ]
    body = join_documents(documents)
    assert orjson.loads(body.content) == [orjson.loads(document) for document in documents]
    assert_same(body, documents)
    if documents:  # a spool never holds an empty body
        assert_same(parse_body(body.content), documents)


@given(st.lists(st.text(alphabet='[]{},"\\ :1x', max_size=8), min_size=1, max_size=6))
def test_brackets_and_commas_in_strings_dont_cut_a_body(texts):
    documents = [json.dumps({text: [text, {"k": text}]}).encode() for text in texts]
    assert_same(parse_body(join_documents(documents).content), documents)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[",
        b"[]",
        b"[{}",
        b"no json",
        b"\xff\xfe",
        b"[1, 2]",
        b'["\xff"]',
        b"[1]]",
        b"[" * 9999,
    ],
)
def test_a_damaged_body_on_disk_is_no_reason_to_fail(content):
    body = parse_body(content)
    assert isinstance(body.ends, array)
    for index in range(len(body)):
        body.document(index)
