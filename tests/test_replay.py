"""Replaying dead letters against an API that takes, refuses, or is away."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leekfanout.configuration.config import Subscription
from leekfanout.stores.deadletters import DeadLetter, DeadLetters
from leekfanout.stores.replay import Replayed, replay
from tests.api_double import ApiDouble
from tests.api_exchange import Reply


@pytest.fixture
def api() -> Iterator[ApiDouble]:
    with ApiDouble() as double:
        yield double


@pytest.fixture
def letters(tmp_path: Path) -> Iterator[DeadLetters]:
    store = DeadLetters(tmp_path / "deadletters.sqlite3", "shop-prod", 10_000_000)
    yield store
    store.close()


def subscription(api: ApiDouble, **changes: Any) -> Subscription:
    return Subscription(
        **{
            "org_name": "mono", "app_name": "shop", "app_env": "prod", "api_url": api.url,
            "broker": ("amqp://127.0.0.1",), "app_key": api.app_key, **changes,
        }
    )  # fmt: skip


def document(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": f"id-{number}", "kind": "task", "events_count": 1, **changes}


def letter(payload: Any, kind: str = "document") -> DeadLetter:
    encoded = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return DeadLetter(kind, "refused", None, encoded, 0.0)  # type: ignore[arg-type]


def sent(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "type": "task-sent", "uuid": f"id-{number}", "name": "shop.pay", "hostname": "gen@h",
        "timestamp": 1.5, "utcoffset": 0, "pid": 1, "clock": 1, **changes,
    }  # fmt: skip


def replay_all(letters: DeadLetters, api: ApiDouble, **changes: Any) -> Replayed:
    return replay(letters, subscription(api, **changes), [each.id for each in letters.select()])


def left(letters: DeadLetters) -> list[int]:
    return [each.id for each in letters.select(limit=10_000)]


def test_documents_are_posted_as_they_were_and_removed(
    letters: DeadLetters, api: ApiDouble
) -> None:
    payload = b'{"id": "x",  "name": "\xc3\xbc", "events_count": 1}'
    letters.put([letter(payload)])
    assert replay_all(letters, api) == Replayed(delivered=1)
    assert [post.body for post in api.posts] == [b"[" + payload + b"]"]
    assert left(letters) == []


def test_many_letters_travel_in_batches_within_the_bounds(
    letters: DeadLetters, api: ApiDouble
) -> None:
    letters.put([letter(document(number, pad="x" * 900)) for number in range(400)])
    replayed = replay_all(
        letters, api, batch_max_size_in_mb=0.05, batch_max_number_of_messages=1_000
    )
    assert replayed.delivered == 400
    assert [each["id"] for each in api.confirmed()] == [f"id-{number}" for number in range(400)]
    assert max(len(post.body) for post in api.posts) <= 50_000
    assert len(api.posts) < 15


def test_batches_are_bounded_in_number(letters: DeadLetters, api: ApiDouble) -> None:
    letters.put([letter(document(number)) for number in range(25)])
    replay_all(letters, api, batch_max_number_of_messages=10)
    assert [len(post.documents) for post in api.posts] == [10, 10, 5]


def test_letters_of_one_id_travel_apart(letters: DeadLetters, api: ApiDouble) -> None:
    letters.put([letter(document(1, state=state)) for state in ("SENT", "STARTED", "FAILED")])
    api.refuse(lambda each: each["state"] == "STARTED")
    replayed = replay_all(letters, api)
    assert (replayed.delivered, set(replayed.staying)) == (2, {2})
    assert left(letters) == [2]


@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_a_refused_document_stays_and_its_neighbours_go(
    letters: DeadLetters, api: ApiDouble, status: int
) -> None:
    letters.put([letter(document(number)) for number in range(20)])
    api.refuse(lambda each: each["id"] in {"id-0", "id-7", "id-19"}, status)
    replayed = replay_all(letters, api)
    assert left(letters) == [1, 8, 20]
    assert (replayed.delivered, set(replayed.staying)) == (17, {1, 8, 20})
    assert replayed.stopped is None
    ids = [each["id"] for each in api.confirmed()]
    assert len(ids) == len(set(ids)) == 17


def test_a_document_that_breaks_the_api_stays_and_its_neighbours_go(
    letters: DeadLetters, api: ApiDouble
) -> None:
    letters.put([letter(document(number)) for number in range(9)])
    api.script(lambda request: Reply(500) if b'"id-4"' in request.body else None)
    replayed = replay_all(letters, api)
    assert left(letters) == [5]
    assert (replayed.delivered, replayed.stopped) == (8, None)


@pytest.mark.parametrize("status", [401, 404, 503])
def test_nothing_is_tried_further_while_the_api_is_not_ready(
    letters: DeadLetters, api: ApiDouble, status: int
) -> None:
    letters.put([letter(document(number)) for number in range(30)])
    api.always(Reply(status))
    replayed = replay_all(letters, api, batch_max_number_of_messages=10)
    assert replayed.delivered == 0
    assert str(status) in str(replayed.stopped)
    assert len(api.posts) == 1
    assert len(left(letters)) == 30


def test_an_api_that_refuses_connections_ends_the_replay(
    letters: DeadLetters, api: ApiDouble
) -> None:
    letters.put([letter(document(1))])
    api.go_down()
    assert replay_all(letters, api).stopped == "the API refuses connections"
    assert left(letters) == [1]


def test_an_api_that_says_ready_but_takes_nothing_is_not_asked_for_ever(
    letters: DeadLetters, api: ApiDouble
) -> None:
    letters.put([letter(document(number)) for number in range(500)])
    api.script(lambda _: Reply(500))
    assert replay_all(letters, api).stopped is not None
    assert len(api.posts) < 20
    assert len(left(letters)) == 500


def test_what_was_confirmed_before_the_api_went_away_is_removed(
    letters: DeadLetters, api: ApiDouble
) -> None:
    letters.put([letter(document(number)) for number in range(8)])

    def at_most_two(request: Any) -> Reply | None:
        if len(json.loads(request.body)) > 2:
            return Reply(413)
        if b'"id-4"' in request.body:
            api.script_probes(lambda _: Reply(503))
            return Reply(503)
        return None

    api.script(at_most_two)
    replayed = replay_all(letters, api)
    assert (replayed.delivered, left(letters)) == (4, [5, 6, 7, 8])
    assert "503" in str(replayed.stopped)


def test_an_event_that_is_understood_by_now_becomes_a_document(
    letters: DeadLetters, api: ApiDouble
) -> None:
    letters.put([letter(sent(1), "event"), letter([sent(2), sent(3)], "message")])
    assert replay_all(letters, api).delivered == 2
    assert {each["id"] for each in api.confirmed()} == {"id-1", "id-2", "id-3"}
    assert {each["state"] for each in api.confirmed()} == {"QUEUED"}
    assert left(letters) == []


def test_a_message_is_replayed_as_what_it_was_said_to_be(
    letters: DeadLetters, api: ApiDouble
) -> None:
    said = [None, "application/json; charset=utf-8", "application/x-python-serialize", ""]
    letters.put(
        [
            letter(sent(number), "message")._replace(content_type=content_type)
            for number, content_type in enumerate(said)
        ]
    )
    replayed = replay_all(letters, api)
    assert {each["id"] for each in api.confirmed()} == {"id-0", "id-1"}
    assert left(letters) == [3, 4]
    assert "application/x-python-serialize" in replayed.staying[3]
    assert "''" in replayed.staying[4]


def test_what_still_makes_no_document_stays_with_its_reason(
    letters: DeadLetters, api: ApiDouble
) -> None:
    letters.put(
        [
            letter(sent(1, pid="one"), "event"),
            letter(b"\x80\x02}q\x00.", "message"),
            letter([], "message"),
            letter(sent(2, type="task-unheard-of"), "event"),
            letter(b"[1", "document"),
            letter(document(9)),
        ]
    )
    replayed = replay_all(letters, api)
    assert (replayed.delivered, left(letters)) == (1, [1, 2, 3, 4, 5])
    assert set(replayed.staying) == {1, 2, 3, 4, 5}
    assert all(replayed.staying.values())


def test_a_letter_with_one_refused_document_stays_whole(
    letters: DeadLetters, api: ApiDouble
) -> None:
    letters.put([letter([sent(1), sent(2)], "message"), letter(document(3))])
    api.refuse(lambda each: each["id"] == "id-2")
    assert replay_all(letters, api).delivered == 1
    assert left(letters) == [1]


def test_letters_that_went_meanwhile_are_passed_over(letters: DeadLetters, api: ApiDouble) -> None:
    letters.put([letter(document(number)) for number in range(3)])
    letters.remove([2])
    assert replay(letters, subscription(api), [1, 2, 3, 99]) == Replayed(delivered=2)


def test_a_redirect_does_not_get_the_key(letters: DeadLetters, api: ApiDouble) -> None:
    letters.put([letter(document(1))])
    with ApiDouble() as elsewhere:
        api.script(lambda _: Reply(307, headers={"Location": elsewhere.url}))
        replayed = replay_all(letters, api)
        assert elsewhere.posts == []
    assert replayed.delivered == 0
    assert left(letters) == [1]
