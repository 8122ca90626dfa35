"""The messages that are measured with: a real client's and worker's events, over and over.

Each copy of the captured events has task ids of its own, as tasks have: events are merged by id
within a batch, so that copies with the same ids would make the work smaller than it is.
"""

import gzip
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

CAPTURED = Path(__file__).parent / "data" / "celery_events.jsonl.gz"
LIST_EVENTS = 10
LARGE_BYTES = 100_000
CELERY_MAX = 1_000
"""Characters of arguments that an event may hold (``argsrepr_maxsize`` of celery.app.amqp, 1,024)."""
UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Event = dict[str, Any]


class Message(NamedTuple):
    """One message as it is published to the event exchange."""

    routing_key: str
    body: bytes
    events: int


def _captured() -> list[Event]:
    bodies = map(json.loads, gzip.decompress(CAPTURED.read_bytes()).splitlines())
    return [event for body in bodies for event in (body if isinstance(body, list) else [body])]


def _one(event: Event) -> Message:
    return Message(event["type"].replace("-", "."), json.dumps(event).encode(), 1)


def _single() -> list[Message]:
    return [_one(event) for event in _captured()]


def _lists() -> list[Message]:
    events = _captured()
    whole = len(events) - len(events) % LIST_EVENTS
    return [
        Message("task.multi", json.dumps(events[at : at + LIST_EVENTS]).encode(), LIST_EVENTS)
        for at in range(0, whole, LIST_EVENTS)
    ]


def _tracebacks() -> list[Message]:
    """All events of the tasks that failed or were retried."""
    events = _captured()
    unlucky = {event["uuid"] for event in events if "traceback" in event}
    return [_one(event) for event in events if event.get("uuid") in unlucky]


def _rows(size: int) -> str:
    """Return the repr of a list of small mappings, of about ``size`` characters."""
    row = {"sku": "a1", "qty": 1, "price": 12.5, "tags": ["new", "blue"]}
    return repr([row] * (size // (len(repr(row)) + 2)))


def _long_arguments() -> list[Message]:
    """Arguments, in the events that have any, as long as Celery lets them be by default."""
    long = {"args": f"({_rows(CELERY_MAX)},)", "kwargs": f"{{'rows': {_rows(CELERY_MAX)}}}"}
    return [_one({**event, **long} if "args" in event else event) for event in _captured()]


def _large() -> list[Message]:
    """Tasks' first events, with keyword arguments of 100 kB."""
    kwargs = f"{{'rows': {_rows(LARGE_BYTES)}}}"
    sent = [event for event in _captured() if event["type"] == "task-sent"]
    return [_one({**event, "kwargs": kwargs}) for event in sent]


SHAPES: dict[str, Callable[[], list[Message]]] = {
    "single": _single,
    "lists of ten": _lists,
    "with tracebacks": _tracebacks,
    "long arguments": _long_arguments,
    "100 kB": _large,
}
"""What a message may look like."""


def messages(shape: str, events: int) -> Iterator[Message]:
    """Yield messages of a shape that hold ``events`` events in all (a multiple of a message's)."""
    captured = SHAPES[shape]()
    left = events
    for copy in itertools.count():
        mark = b"%08x" % copy
        for message in captured:
            body = UUID.sub(lambda uuid, mark=mark: mark + uuid[0][8:], message.body)
            yield message._replace(body=body)
            left -= message.events
            if left <= 0:
                return
