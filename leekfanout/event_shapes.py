"""What Celery's events look like: their types, fields and JSON types, and what each becomes in Leek.

Events of one *shape* have the same type, keys and types of values. Celery sends a few dozen shapes, so
each is looked at once, field by field, and what was found is kept for all that follow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from leekfanout.errors import BadEventError
from leekfanout.reprs import ARG_FIELDS

TERMINAL: Final = frozenset({"SUCCEEDED", "FAILED", "REJECTED", "REVOKED", "RECOVERED", "CRITICAL"})

CALL_FIELDS: Final = (
    "name", "args", "kwargs", "root_id", "parent_id", "eta", "expires", "retries",
)  # fmt: skip
"""The call fields as they are in events; ``name_parts``, ``args_0`` to ``args_9`` and
``kwargs_flattened`` follow from them."""
FAILURE_FIELDS: Final = ("exception", "traceback", "lang", "error", "stack", "trace")

DERIVED_FIELDS: Final = frozenset({"name_parts", "kwargs_flattened", *ARG_FIELDS})


@dataclass(frozen=True, slots=True)
class State:
    """What an event's type makes of its task or worker."""

    name: str
    time_field: str
    """The document's field that says when it came into this state."""
    owned: tuple[str, ...]
    """The fields that an event may write even if it comes late."""
    is_task: bool = True


STATES: Final[Mapping[str, State]] = {
    "task-sent": State(
        "QUEUED", "queued_at", ("queued_at", "exchange", "routing_key", "queue", "client")
    ),
    "task-received": State("RECEIVED", "received_at", ("received_at",)),
    "task-started": State("STARTED", "started_at", ("started_at",)),
    "task-retried": State("RETRY", "retried_at", ("retried_at",)),
    # All of a terminal event is written, so it needs no fields of its own.
    "task-succeeded": State("SUCCEEDED", "succeeded_at", ()),
    "task-failed": State("FAILED", "failed_at", ()),
    "task-rejected": State("REJECTED", "rejected_at", ()),
    "task-revoked": State("REVOKED", "revoked_at", ()),
    "worker-online": State("ONLINE", "online_at", ("online_at",), is_task=False),
    "worker-heartbeat": State(
        "HEARTBEAT",
        "last_heartbeat_at",
        ("last_heartbeat_at", "processed", "active", "freq", "loadavg"),
        is_task=False,
    ),
    "worker-offline": State("OFFLINE", "offline_at", ("offline_at",), is_task=False),
}


@dataclass(frozen=True, slots=True)
class JsonType:
    """What a field may hold."""

    name: str
    types: tuple[type, ...]


TEXT: Final = JsonType("a string", (str,))
FLAG: Final = JsonType("true or false", (bool,))
NUMBER: Final = JsonType("a number", (float, int))
# 3.0 is whole too: JSON has but one type of number, and some encoders know but one.
WHOLE: Final = JsonType("a whole number of 64 bits", (int, float))
SIGNAL: Final = JsonType("a string or a whole number of 64 bits", (str, int, float))
NUMBERS: Final = JsonType("a list of numbers", (list,))

_REQUIRED: Final[Mapping[str, JsonType]] = {
    "hostname": TEXT,
    "timestamp": NUMBER,
    "utcoffset": NUMBER,
    "pid": WHOLE,
    "clock": WHOLE,
}
_REQUIRED_OF_TASK: Final = {"uuid": TEXT, **_REQUIRED}
_TASK: Final[Mapping[str, JsonType]] = {
    **_REQUIRED_OF_TASK,
    "name": TEXT,
    "args": TEXT,
    "kwargs": TEXT,
    "exchange": TEXT,
    "routing_key": TEXT,
    "queue": TEXT,
    "root_id": TEXT,
    "parent_id": TEXT,
    "eta": TEXT,
    "expires": TEXT,
    "result": TEXT,
    "runtime": NUMBER,
    "retries": WHOLE,
    "exception": TEXT,
    "traceback": TEXT,
    "terminated": FLAG,
    "expired": FLAG,
    "signum": SIGNAL,
    "requeue": FLAG,
}
_WORKER: Final[Mapping[str, JsonType]] = {
    **_REQUIRED,
    "freq": NUMBER,
    "active": WHOLE,
    "processed": WHOLE,
    "loadavg": NUMBERS,
    "sw_ident": TEXT,
    "sw_ver": TEXT,
    "sw_sys": TEXT,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What is true of all events of one shape: they are good, as far as types can tell."""

    state: State
    is_terminal: bool
    extras: tuple[str, ...]
    """The fields that Leek doesn't know."""
    dropped: tuple[str, ...]
    """These, the null ones, and ``type``: what isn't taken over."""
    whole_floats: tuple[str, ...]
    """Whole numbers that are written as 3.0, if they are whole."""
    dates: tuple[str, ...]
    has_loadavg: bool
    has_args: bool
    has_traceback: bool


MAX_SHAPES: Final = 1_000
MAX_KEPT_FIELDS: Final = 50
MAX_KEPT_CHARACTERS: Final = 1_000
"""Bounds of what is kept: shapes, and for each the number of its fields and their names' length. So
events whose keys are random can't fill the memory."""

_shapes: dict[tuple[Any, ...], Shape] = {}


def shape_of(event: Any) -> Shape | None:
    """Return the event's shape, or None if Leek has no use for its type; BadEventError: it is bad.

    The event is one of :func:`leekfanout.events.decode`. One thread.
    """
    if type(event) is not dict:
        raise BadEventError("It is no object.")
    try:
        key = (event.get("type"), *event, *map(type, event.values()))
        shape = _shapes.get(key)
    except TypeError:
        raise BadEventError("Its type is no string.") from None
    if shape is not None:
        return shape
    shape = _look_at(event)
    if (
        shape is not None
        and len(event) <= MAX_KEPT_FIELDS
        and sum(map(len, event)) <= MAX_KEPT_CHARACTERS
    ):
        if len(_shapes) >= MAX_SHAPES:
            _shapes.clear()
        _shapes[key] = shape
    return shape


def _look_at(event: dict[str, Any]) -> Shape | None:
    event_type = event.get("type")
    if not isinstance(event_type, str) or not event_type:
        raise BadEventError("It has no type." if not event_type else "Its type is no string.")
    state = STATES.get(event_type)
    if state is None:
        return None
    required, known = (_REQUIRED_OF_TASK, _TASK) if state.is_task else (_REQUIRED, _WORKER)
    missing = [name for name in required if event.get(name) is None]
    if missing:
        raise BadEventError(f"It lacks {', '.join(missing)}.")
    for name, json_type in known.items():
        value = event.get(name)
        if value is not None and type(value) not in json_type.types:
            raise BadEventError(f"Its {name} is not {json_type.name}.")
    extras = tuple(name for name in event if name not in known and name != "type")
    taken = {name for name in known if event.get(name) is not None}
    return Shape(
        state=state,
        is_terminal=state.name in TERMINAL,
        extras=extras,
        dropped=tuple(name for name in event if name not in taken),
        whole_floats=tuple(
            name
            for name in event
            if name in taken and type(event[name]) is float and known[name] in (WHOLE, SIGNAL)
        ),
        dates=tuple(name for name in ("eta", "expires") if state.is_task and name in taken),
        has_loadavg="loadavg" in taken,
        has_args="args" in taken,
        has_traceback="traceback" in taken,
    )
