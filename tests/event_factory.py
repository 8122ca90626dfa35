"""Events and documents as the tests of events want them: short to write, complete, comparable."""

import json
from typing import Any

from leekfanout.documents.events import Documents, EventTally, decode

SECONDS = 1_760_000_000.25
MILLISECONDS = 1_760_000_000_250


def task(event_type: str, /, **fields: Any) -> dict[str, Any]:
    """A task event with what every event has; None leaves a field out."""
    event = {
        "type": f"task-{event_type}",
        "uuid": "t1",
        "hostname": "celery@vm",
        "timestamp": SECONDS,
        "utcoffset": -2,
        "pid": 7,
        "clock": 9,
        **fields,
    }
    return {name: value for name, value in event.items() if value is not None}


def worker(event_type: str, /, **fields: Any) -> dict[str, Any]:
    """A worker event with what every event has; None leaves a field out."""
    event = task(event_type, **{"uuid": None, **fields})
    return {**event, "type": f"worker-{event_type}"}


def documents_of(*events: Any, app_env: str = "qa", updated_at_ms: int = 5) -> list[dict[str, Any]]:
    """The documents of one batch, its events taken through JSON as a message brings them."""
    batch = Documents(app_env, EventTally())
    for event in decode(json.dumps(events).encode(), "application/json"):
        assert batch.add(event)
    return [strictly(document) for document in batch.close(updated_at_ms)]


def document_of(*events: Any) -> dict[str, Any]:
    """The only document of a batch."""
    (document,) = documents_of(*events)
    return document


def strictly(text: bytes) -> Any:
    """Parse what a strict parser would take: no NaN, and no key twice."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    return json.loads(text.decode(), parse_constant=refuse, object_pairs_hook=unique)
