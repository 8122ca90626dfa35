"""Celery's events to Leek's documents: one batch at a time, merged by id while events come.

Work that is done once per document rather than once per event waits until the batch is closed.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from leekfanout import json_text, reprs
from leekfanout.errors import BadEventError
from leekfanout.event_shapes import (
    CALL_FIELDS,
    FAILURE_FIELDS,
    TERMINAL,
    Shape,
    shape_of,
)
from leekfanout.tracebacks import failure_fields

CONTENT_TYPE: Final = "application/json"

MAX_SECONDS: Final = 2**63 / 1000
"""A time beyond this has more milliseconds than 64 bits hold."""

MAX_EVENTS_KEPT: Final = 21
"""How many states the field ``events`` remembers."""

MAX_NAMES: Final = 100
MAX_NAME_CHARACTERS: Final = 100
OTHER_NAMES: Final = "(others)"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_PROMOTED: Final[Mapping[str, str]] = {"FAILED": "CRITICAL", "SUCCEEDED": "RECOVERED"}
"""What a terminal state is called if the task was retried before."""


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
    shown = json_text.replace_surrogates(name[:MAX_NAME_CHARACTERS])
    if shown not in counts and len(counts) >= MAX_NAMES:
        shown = OTHER_NAMES
    counts[shown] = counts.get(shown, 0) + 1


def decode(body: bytes, content_type: str | None) -> list[Any]:
    """Return a message's events, of which it holds one or a list.

    BadEventError: it is of another content type than JSON (pickle above all, which can run code), or
    no JSON. What Python's encoder writes beyond JSON is taken, so that it can only spoil the event
    that it stands in: NaN, lone surrogates, and bytes that aren't UTF-8, as lone surrogates.
    """
    if content_type != CONTENT_TYPE and not _is_json(content_type):
        raise BadEventError(f"Its content type is {content_type!r}, not {CONTENT_TYPE}.")
    try:
        events = json_text.loads(body)
    except ValueError:
        try:
            events = json_text.loads_leniently(body.decode("utf-8", "surrogateescape"))
        except json.JSONDecodeError as error:
            raise BadEventError(f"It is no JSON: {error.msg} at character {error.pos}.") from None
        except RecursionError:
            raise BadEventError("It is nested too deeply to be read.") from None
    return events if type(events) is list else [events]


def _is_json(content_type: str | None) -> bool:
    return content_type is not None and (
        content_type.partition(";")[0].strip().lower() == CONTENT_TYPE
    )


class Documents:
    """The documents of one open batch. One thread."""

    __slots__ = ("_app_env", "_documents", "_tally", "_tasks", "_workers")

    def __init__(self, app_env: str, tally: EventTally) -> None:
        self._app_env = app_env
        self._tally = tally
        self._documents: list[dict[str, Any]] = []
        self._tasks: dict[str, dict[str, Any]] = {}
        self._workers: dict[str, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._documents)

    def add(self, event: Any) -> bool:
        """Take one event of :func:`decode` into its document.

        True: the event is the document's from now on, don't touch it again. False: it is known to be
        no use to Leek, and is counted. BadEventError says why it is bad; it is left as it was.
        """
        tally = self._tally
        tally.events += 1
        shape = shape_of(event)
        if shape is None:
            _count(tally.ignored, event["type"])
            return False
        _convert(event, shape)
        for name in shape.extras:
            _count(tally.extra_fields, name)
        if shape.state.is_task:
            tally.task_events += 1
            self._add_task(event, shape)
        else:
            self._add_worker(event, shape)
        return True

    def _add_task(self, new: dict[str, Any], shape: Shape) -> None:
        state = shape.state.name
        new["client" if state == "QUEUED" else "worker"] = new.pop("hostname")
        have = self._tasks.get(new["uuid"])
        if have is None:
            new["events"] = [state]
            self._tasks[new["uuid"]] = new
            self._documents.append(new)
            return
        _merge_task(have, new, shape)
        have["events"].append(state)
        if have["state"] in _PROMOTED and have.get("retries", 0) > 0:
            have["state"] = _PROMOTED[have["state"]]

    def _add_worker(self, new: dict[str, Any], shape: Shape) -> None:
        have = self._workers.get(new["hostname"])
        if have is None:
            new["events_count"] = 1
            self._workers[new["hostname"]] = new
            self._documents.append(new)
            return
        if new["exact_timestamp"] > have["exact_timestamp"]:
            have.update(new)
        elif new["state"] != have["state"]:
            _write(have, new, shape.state.owned)
        have["events_count"] += 1

    def close(self, updated_at_ms: int) -> list[bytes]:
        """Return each document as compact JSON, in the order of its first event; then it is over.

        ``updated_at_ms`` is our clock, in milliseconds since 1970.
        """
        closed = []
        for document in self._documents:
            document["app_env"] = self._app_env
            document["updated_at"] = updated_at_ms
            if "uuid" in document:
                _finish_task(document)
            else:
                document["id"] = document["hostname"]
                document["kind"] = "worker"
            closed.append(json_text.dumps(document))
        return closed


def _convert(event: dict[str, Any], shape: Shape) -> None:
    """Turn an event into its document's fields, in place; BadEventError if a value is bad."""
    seconds = event["timestamp"]
    if not -MAX_SECONDS < seconds < MAX_SECONDS:
        raise BadEventError("Its timestamp is out of range.")
    state = shape.state
    identity = event["uuid"] if state.is_task else event["hostname"]
    if not identity.isascii() and json_text.replace_surrogates(identity) != identity:
        raise BadEventError("Its id holds a lone surrogate.")
    if not identity:
        raise BadEventError("Its id is empty.")
    changed: dict[str, Any] = {}
    for name in shape.whole_floats:
        changed[name] = _whole(event[name])
    for name in shape.dates:
        changed[name] = _milliseconds(event[name])
    if shape.has_loadavg:
        for item in event["loadavg"]:
            if type(item) is not float and type(item) is not int:
                raise BadEventError("Its loadavg is not a list of numbers.")
    # From here on nothing can be wrong with it.
    event.update(changed)
    for name in shape.dropped:
        del event[name]
    event["state"] = state.name
    event["exact_timestamp"] = float(seconds)
    event["timestamp"] = event[state.time_field] = int(seconds * 1000)
    if shape.has_traceback:
        event.update(failure_fields(event["traceback"], event.get("exception", "")))


def _whole(number: float) -> int:
    if not number.is_integer() or not json_text.fits_64_bits(int(number)):
        raise BadEventError(f"{number} is not a whole number of 64 bits.")
    return int(number)


def _milliseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadEventError("Its eta or expires is no date in ISO 8601.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MILLISECOND


def _merge_task(have: dict[str, Any], new: dict[str, Any], shape: Shape) -> None:
    """Write into ``have`` what the order of arrival and of time allows ``new`` to say."""
    state, have_state = shape.state, have["state"]
    have_is_terminal = have_state in TERMINAL
    is_later = new["exact_timestamp"] > have["exact_timestamp"]
    if shape.is_terminal or (is_later and not have_is_terminal):
        if shape.has_args:
            _settle_args(have, new)
        have.update(new)
        return
    if have_state == state.name:
        return
    _write(have, new, state.owned)
    if state.name == "RETRY":
        if have_state not in {"FAILED", "CRITICAL"}:
            _write(have, new, FAILURE_FIELDS)
    elif state.name in _CALLED and (have_is_terminal or have_state not in _CALLED):
        if shape.has_args:
            _settle_args(have, new)
        _write(have, new, CALL_FIELDS)


_CALLED: Final = frozenset({"QUEUED", "RECEIVED"})


def _write(have: dict[str, Any], new: dict[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if name in new:
            have[name] = new[name]


def _settle_args(have: dict[str, Any], new: dict[str, Any]) -> None:
    """Read the arguments that are about to be overwritten, if they are others.

    New ones overwrite as many items as they have, and the items beyond stay.
    """
    args = have.get("args")
    if args is not None and args != new["args"]:
        _read_args(have, args)


def _read_args(document: dict[str, Any], args: str) -> None:
    document.update(zip(reprs.ARG_FIELDS, reprs.args_items(args), strict=False))


def _finish_task(document: dict[str, Any]) -> None:
    identity = document["uuid"]
    document["id"] = identity
    document["kind"] = "task"
    states = document["events"]
    document["events_count"] = len(states)
    if len(states) > 1:
        document["events"] = states[: -MAX_EVENTS_KEPT - 1 : -1]
        for name in ("root_id", "parent_id"):
            if document.get(name) == identity:
                del document[name]
    if (task_name := document.get("name")) is not None:
        module, _, function = task_name.rpartition(".")
        document["name_parts"] = {"module": module, "function": function}
    if (args := document.get("args")) is not None:
        _read_args(document, args)
    if (kwargs := document.get("kwargs")) is not None:
        document["kwargs_flattened"] = reprs.flatten(kwargs)


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
