"""Celery's events to Leek's documents: one batch at a time, merged by id while events come.

Work that is done once per document rather than once per event waits until the batch is closed.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from leekfanout.documents import json_text, merging
from leekfanout.documents.event_shapes import (
    NUMBER,
    NUMBER_FIELDS,
    NUMBERS,
    TERMINAL,
    WHOLE,
    Shape,
    known_shapes,
    look_at,
)
from leekfanout.documents.tracebacks import failure_fields
from leekfanout.errors import BadEventError

CONTENT_TYPE: Final = "application/json"

MAX_SECONDS: Final = 2**63 / 1000
MIN_SECONDS: Final = -MAX_SECONDS
"""A time beyond these has more milliseconds than 64 bits hold."""

MAX_EXACT: Final = 2**53
"""Up to here a float holds each whole number; an integer beyond 64 bits is read as a float, too."""

MAX_NAMES: Final = 100
MAX_NAME_CHARACTERS: Final = 100
OTHER_NAMES: Final = "(others)"

_NONE: Final[Mapping[str, Any]] = {}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(slots=True)
class EventTally:
    """What has come in, since the process began. Belongs to one thread.

    Names come from outside, so at most :data:`MAX_NAMES` of them are told apart.
    """

    events: int = 0
    task_events: int = 0
    """Those that are in a document."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Events of types that Leek has no use for, by type."""
    extra_fields: dict[str, int] = field(default_factory=dict)
    """Fields that Leek doesn't know, which were left out, by name."""
    bad: int = 0
    """Counted by who sets them aside."""


def _count(counts: dict[str, int], name: str) -> None:
    if name not in counts:
        if len(counts) < MAX_NAMES:
            name = json_text.replace_surrogates(name[:MAX_NAME_CHARACTERS])
        else:
            name = OTHER_NAMES
    counts[name] = counts.get(name, 0) + 1


def decode(body: bytes, content_type: str | None) -> list[Any]:
    """Return a message's events, of which it holds one or a list.

    BadEventError: it is of another content type than JSON (pickle above all, which can run code), or
    no JSON. What Python's encoder writes beyond JSON is taken, so that it can only spoil the event
    that it stands in: NaN, lone surrogates, and bytes that aren't UTF-8, as lone surrogates.
    """
    if content_type != CONTENT_TYPE and not _is_json(content_type):
        shown = repr(content_type)[:MAX_NAME_CHARACTERS]
        raise BadEventError(f"Its content type is {shown}, not {CONTENT_TYPE}.")
    try:
        events = json_text.loads(body)
    except ValueError:
        return _decode_leniently(body)
    return events if type(events) is list else [events]


def _decode_leniently(body: bytes) -> list[Any]:
    try:
        value = json_text.loads_leniently(body.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise BadEventError(f"It is no JSON: {error}.") from None
    except RecursionError:
        raise BadEventError("It is nested too deeply to be read.") from None
    events = value if type(value) is list else [value]
    for event in events:
        if type(event) is dict:
            for name in NUMBER_FIELDS & event.keys():
                event[name] = json_text.fit(event[name])
            if type(event.get("loadavg")) is list:
                event["loadavg"] = [json_text.fit(load) for load in event["loadavg"]]
    return events


def _is_json(content_type: str | None) -> bool:
    return content_type is not None and (
        content_type.partition(";")[0].strip().lower() == CONTENT_TYPE
    )


class Documents:
    """The documents of one open batch. One thread."""

    __slots__ = ("_app_env", "_documents", "_tally")

    def __init__(self, app_env: str, tally: EventTally) -> None:
        self._app_env = app_env
        self._tally = tally
        # By uuid, and workers' by (hostname,): a task that is called like a worker stays apart.
        self._documents: dict[str | tuple[str], dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._documents)

    def add(self, event: Any) -> bool:
        """Take one event of :func:`decode` into its document.

        True: the event is the document's from now on, don't touch it again. False: it is known to be
        no use to Leek, and is counted. BadEventError says why it is bad; it is left as it was.
        """
        tally = self._tally
        tally.events += 1
        try:
            shape = known_shapes[event["type"], *event, *map(type, event.values())]
        except (KeyError, TypeError):
            new_shape = look_at(event)
            if new_shape is None:
                _count(tally.ignored, event["type"])
                return False
            shape = new_shape
        if not MIN_SECONDS < event["timestamp"] < MAX_SECONDS:
            raise BadEventError("Its timestamp is out of range.")
        values = _checked_values(event, shape) if shape.has_values_to_check else _NONE
        if shape.state.is_task:
            self._add_task(event, shape, values)
            tally.task_events += 1
        else:
            self._add_worker(event, shape, values)
        for name in shape.extras:
            _count(tally.extra_fields, name)
        return True

    def _add_task(self, event: dict[str, Any], shape: Shape, values: Mapping[str, Any]) -> None:
        identity = event["uuid"]
        have = self._documents.get(identity)
        if have is None:
            _check_id(identity)
        # From here on the event is good, and what it keeps is what it has to say.
        hostname = event["hostname"]
        for name in shape.dropped:
            del event[name]
        if values:
            event.update(values)
        if shape.has_traceback:
            event.update(failure_fields(event["traceback"], event.get("exception", "")))
        state = shape.state
        seconds = event["timestamp"]
        exact = float(seconds)
        if have is None:
            self._documents[identity] = have = event
            have["events"] = []
        elif shape.is_terminal or (
            have["state"] not in TERMINAL and exact > have["exact_timestamp"]
        ):
            if shape.has_args:
                merging.settle_args(have, event)
            have.update(event)
        else:
            event[state.time_field] = int(seconds * 1000)
            event[state.host_field] = hostname
            merging.write_late(have, event, shape)
            have["events"].append(state.name)
            merging.promote(have)
            return
        have["state"] = state.name
        have["exact_timestamp"] = exact
        have["timestamp"] = have[state.time_field] = int(seconds * 1000)
        have[state.host_field] = hostname
        have["events"].append(state.name)
        if shape.is_terminal and len(have["events"]) > 1:
            merging.promote(have)

    def _add_worker(self, event: dict[str, Any], shape: Shape, values: Mapping[str, Any]) -> None:
        state = shape.state
        identity = event["hostname"]
        have = self._documents.get((identity,))
        if have is None:
            _check_id(identity)
        for name in shape.dropped:
            del event[name]
        if values:
            event.update(values)
        seconds = event["timestamp"]
        event["state"] = state.name
        event["exact_timestamp"] = float(seconds)
        event["timestamp"] = event[state.time_field] = int(seconds * 1000)
        if have is None:
            self._documents[identity,] = have = event
            have["events_count"] = 0
        elif event["exact_timestamp"] > have["exact_timestamp"]:
            have.update(event)
        elif event["state"] != have["state"]:
            merging.write(have, event, state.owned)
        have["events_count"] += 1

    def close(self, updated_at_ms: int) -> list[bytes]:
        """Return each document as compact JSON, in the order of its first event, and forget it.

        ``updated_at_ms`` is our clock, in milliseconds since 1970.
        """
        documents = list(self._documents.values())
        self._documents.clear()
        documents.reverse()
        closed = []
        # Each document goes as it has been written, or there would be two copies of all of them.
        while documents:
            document = documents.pop()
            document["app_env"] = self._app_env
            document["updated_at"] = updated_at_ms
            if "uuid" in document:
                merging.finish_task(document)
            else:
                document["id"] = document["hostname"]
                document["kind"] = "worker"
            closed.append(json_text.dumps(document))
        return closed


def _check_id(identity: str) -> None:
    if not identity:
        raise BadEventError("Its id is empty.")
    if json_text.replace_surrogates(identity) != identity:
        # Two ids could become one by that.
        raise BadEventError("Its id holds a lone surrogate, which can't be sent.")


def _checked_values(event: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """Return what some fields become; BadEventError if they can't, by their values."""
    if shape.has_loadavg and not all(type(load) in NUMBER.types for load in event["loadavg"]):
        raise BadEventError(f"Its loadavg is not {NUMBERS.name}.")
    values: dict[str, Any] = {}
    for name in shape.whole_floats:
        number = event[name]
        if not number.is_integer() or abs(number) > MAX_EXACT:
            raise BadEventError(f"Its {name} is not {WHOLE.name}.")
        values[name] = int(number)
    for name in shape.dates:
        try:
            values[name] = _milliseconds(event[name])
        except ValueError:
            raise BadEventError(f"Its {name} is no date in ISO 8601.") from None
    return values


def _milliseconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MILLISECOND


def documents(
    events: Iterable[Any], app_env: str, updated_at_ms: int
) -> tuple[list[dict[str, Any]], list[tuple[Any, str]]]:
    """Return one batch's documents, and its bad events with the reasons; the events stay as they are.

    >>> documents([{"type": "task-sent"}], "qa", 0)
    ([], [({'type': 'task-sent'}, 'It lacks uuid, hostname, timestamp, utcoffset, pid, clock.')])
    """
    batch = Documents(app_env, EventTally())
    bad: list[tuple[Any, str]] = []
    for event in events:
        try:
            batch.add(dict(event) if type(event) is dict else event)
        except BadEventError as error:
            bad.append((event, str(error)))
    return [json.loads(document) for document in batch.close(updated_at_ms)], bad
