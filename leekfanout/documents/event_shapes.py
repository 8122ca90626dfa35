"""What Celery's events look like: their types, fields and JSON types, and what each becomes in Leek.

Events of one *shape* have the same type, keys and types of values. Celery sends a few dozen shapes, so
each is looked at once, field by field, and what was found is kept for all that follow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from leekfanout.errors import BadEventError

TERMINAL: Final = frozenset({"SUCCEEDED", "FAILED", "REJECTED", "REVOKED", "RECOVERED", "CRITICAL"})


@dataclass(frozen=True, slots=True)
class State:
    """What an event's type makes of its task or worker."""

    name: str
    time_field: str
    """The document's field that says when it came into this state."""
    owned: tuple[str, ...]
    """The fields that an event may write even if it comes late."""
    is_task: bool = True
    host_field: str = "worker"
    """What a task's document calls the host that sent the event."""


STATES: Final[Mapping[str, State]] = {
    "task-sent": State(
        "QUEUED",
        "queued_at",
        ("queued_at", "exchange", "routing_key", "queue", "client"),
        host_field="client",
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
NUMBER_FIELDS: Final = frozenset(
    name for name, json_type in {**_TASK, **_WORKER}.items() if float in json_type.types
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What is true of all events of one shape: they are good, as far as types can tell."""

    state: State
    is_terminal: bool
    dropped: tuple[str, ...]
    """What a document doesn't take over as it is: the type, the host's name of a task, fields that are
    null, and those that Leek doesn't know."""
    extras: tuple[str, ...]
    """The last of these."""
    has_args: bool
    has_traceback: bool
    dates: tuple[str, ...]
    whole_floats: tuple[str, ...]
    """Whole numbers that are written as 3.0, if they are whole."""
    has_loadavg: bool
    has_values_to_check: bool
    """Whether one of the last three says that types aren't enough."""


MAX_SHAPES: Final = 1_000
MAX_KEPT_FIELDS: Final = 50
MAX_KEPT_CHARACTERS: Final = 1_000
"""Bounds of what is kept: shapes, and for each the number of its fields and their names' length. So
events whose keys are random can't fill the memory."""

known_shapes: Final[dict[tuple[Any, ...], Shape]] = {}
"""By the event's type, its keys and the types of its values, in their order. One thread."""


def look_at(event: Any) -> Shape | None:
    """Return the event's shape, and keep it; None if Leek has no use for the event's type.

    The event is one of :func:`leekfanout.documents.events.decode`. BadEventError: it is bad.
    One thread.
    """
    if type(event) is not dict:
        raise BadEventError("It is no object.")
    event_type = event.get("type")
    if type(event_type) is not str:
        raise BadEventError("It has no type." if event_type is None else "Its type is no string.")
    state = STATES.get(event_type)
    if state is None:
        if not event_type:
            raise BadEventError("Its type is empty.")
        return None
    shape = _shape(event, state)
    if len(event) <= MAX_KEPT_FIELDS and sum(map(len, event)) <= MAX_KEPT_CHARACTERS:
        if len(known_shapes) >= MAX_SHAPES:
            known_shapes.clear()
        known_shapes[event_type, *event, *map(type, event.values())] = shape
    return shape


def _shape(event: dict[str, Any], state: State) -> Shape:
    required, known = (_REQUIRED_OF_TASK, _TASK) if state.is_task else (_REQUIRED, _WORKER)
    missing = [name for name in required if event.get(name) is None]
    if missing:
        raise BadEventError(f"It lacks {', '.join(missing)}.")
    for name, json_type in known.items():
        value = event.get(name)
        if value is not None and type(value) not in json_type.types:
            raise BadEventError(f"Its {name} is not {json_type.name}.")
    taken = {name for name in known if event.get(name) is not None}
    dates = tuple(name for name in ("eta", "expires") if name in taken)
    whole_floats = tuple(
        name for name in taken if type(event[name]) is float and known[name] in (WHOLE, SIGNAL)
    )
    has_loadavg = "loadavg" in taken
    return Shape(
        state=state,
        is_terminal=state.name in TERMINAL,
        dropped=tuple(
            name for name in event if name not in taken or (state.is_task and name == "hostname")
        ),
        extras=tuple(name for name in event if name not in known and name != "type"),
        has_args="args" in taken,
        has_traceback="traceback" in taken,
        dates=dates,
        whole_floats=whole_floats,
        has_loadavg=has_loadavg,
        has_values_to_check=bool(dates or whole_floats or has_loadavg),
    )
