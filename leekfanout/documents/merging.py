"""What a coming event may still write into its task's document, and what is done once at the end.

An event that is terminal, or later than the document while that isn't terminal, writes all of it: see
:meth:`leekfanout.documents.events.Documents.add`. This is about the others.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from leekfanout.documents import reprs
from leekfanout.documents.event_shapes import Shape
from leekfanout.documents.reprs import ARG_FIELDS

CALL_FIELDS: Final = (
    "name", "args", "kwargs", "root_id", "parent_id", "eta", "expires", "retries",
)  # fmt: skip
"""What tells how the task was called. More fields follow from these at the end."""
FAILURE_FIELDS: Final = ("exception", "traceback", "lang", "error", "stack", "trace")

MAX_EVENTS_KEPT: Final = 21
"""How many states the field ``events`` remembers."""

_CALLED: Final = frozenset({"QUEUED", "RECEIVED"})
"""The states whose events bring the call fields."""
_PROMOTED: Final[Mapping[str, str]] = {"FAILED": "CRITICAL", "SUCCEEDED": "RECOVERED"}


def write_late(have: dict[str, Any], event: dict[str, Any], shape: Shape) -> None:
    """Write what its state owns, and where it tells more than ``have`` knows, the call or failure.

    Nothing at all if the states are the same.
    """
    state, have_state = shape.state, have["state"]
    if state.name == have_state:
        return
    write(have, event, state.owned)
    if state.name == "RETRY":
        if have_state not in {"FAILED", "CRITICAL"}:
            write(have, event, FAILURE_FIELDS)
    elif state.name in _CALLED and have_state not in _CALLED:
        if shape.has_args:
            settle_args(have, event)
        write(have, event, CALL_FIELDS)


def write(have: dict[str, Any], event: dict[str, Any], names: Iterable[str]) -> None:
    """Write those of the fields that the event has."""
    for name in names:
        if name in event:
            have[name] = event[name]


def promote(have: dict[str, Any]) -> None:
    """Name the outcome of a task that was retried before as Leek does; after each merge."""
    if have["state"] in _PROMOTED and have.get("retries", 0) > 0:
        have["state"] = _PROMOTED[have["state"]]


def settle_args(have: dict[str, Any], event: dict[str, Any]) -> None:
    """Read the arguments that ``event`` overwrites, if it brings others.

    The new ones will overwrite as many items as they have; those beyond stay.
    """
    args = have.get("args")
    if args is not None and args != event["args"]:
        _read_args(have, args)


def _read_args(document: dict[str, Any], args: str) -> None:
    document.update(zip(ARG_FIELDS, reprs.args_items(args), strict=False))


def finish_task(document: dict[str, Any]) -> None:
    """Add what follows from other fields, now that no event will change the document."""
    identity = document["uuid"]
    document["id"] = identity
    document["kind"] = "task"
    states = document["events"]
    document["events_count"] = len(states)
    if len(states) > 1:
        document["events"] = states[: -MAX_EVENTS_KEPT - 1 : -1]
        for field_name in ("root_id", "parent_id"):
            if document.get(field_name) == identity:
                del document[field_name]
    name = document.get("name")
    if name is not None:
        module, _, function = name.rpartition(".")
        document["name_parts"] = {"module": module, "function": function}
    args = document.get("args")
    if args is not None:
        _read_args(document, args)
    kwargs = document.get("kwargs")
    if kwargs is not None:
        document["kwargs_flattened"] = reprs.flatten(kwargs)
