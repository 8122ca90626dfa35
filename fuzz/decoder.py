"""A message's body to documents: each event ends in a document, of no use, or as a BadEventError."""

import json
from typing import Any

from leekfanout.documents.events import Documents, EventTally, decode
from leekfanout.errors import BadEventError

UPDATED_AT_MS = 1_760_000_000_000


def one_input(body: bytes) -> None:
    """Raise if an event gets lost, or a document is no strict JSON."""
    tally = EventTally()
    batch = Documents("qa", tally)
    try:
        events = decode(body, "application/json")
    except BadEventError:
        return
    taken = 0
    for event in events:
        try:
            taken += batch.add(event)
        except BadEventError as error:
            check_reason(error)
    assert tally.events == len(events)
    assert tally.task_events <= taken
    for document in map(strictly, batch.close(UPDATED_AT_MS)):
        taken -= document["events_count"]
        assert document["kind"] in {"task", "worker"}
        assert document["id"]
        assert document["app_env"] == "qa"
    assert taken == 0


def check_reason(error: BadEventError) -> None:
    """It is one line that can be shown anywhere."""
    assert str(error).isprintable(), ascii(error)


def strictly(text: bytes) -> Any:
    """Parse what a strict parser would take: UTF-8, no NaN, and no key twice."""
    return json.loads(text.decode(), parse_constant=_refuse, object_pairs_hook=_unique)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    assert len(value) == len(pairs), "A key stands there twice."
    return value
