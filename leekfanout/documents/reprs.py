"""A task's arguments, which Celery sends as text, to fields that Leek can search.

Celery writes ``repr(args)`` and ``repr(kwargs)``; an application may write JSON, or anything else.
"""

import json
import math
from typing import Any, Final

from leekfanout.documents import json_text, literals
from leekfanout.documents.literals import NotALiteralError

ARG_FIELDS: Final = tuple(f"args_{index}" for index in range(10))
MAX_ARG_CHARACTERS: Final = 256
MAX_VALUE_CHARACTERS: Final = 100
MAX_LIST_ITEMS: Final = 100
MAX_PATH_KEYS: Final = 12
"""Leek's limits: for an argument, and among keyword arguments for a value, a list and a path."""

ROOM: Final = 100_000
ROOM_PER_CHARACTER: Final = 10
MAX_ROOM: Final = 600_000
ITEM_ROOM: Final = 25
"""How many characters flattening may take, for each text, for each of its characters, and at most. Each
item takes those of the path above it, and this many more for its time. Without a limit, one megabyte
could become many gigabytes, since each path repeats the keys above it."""


def args_items(text: str) -> list[str]:
    """Return what stands in ``args_0`` to ``args_9``, for the repr of a task's arguments."""
    if not text or text == "()":
        return []
    try:
        value = literals.read(text)
    except NotALiteralError:
        return [text[:MAX_ARG_CHARACTERS]]
    items = value if isinstance(value, (tuple, list)) else (value,)
    return [str(item)[:MAX_ARG_CHARACTERS] for item in items[: len(ARG_FIELDS)]]


def flatten(text: str) -> dict[str, Any]:
    """Return ``kwargs_flattened``, for JSON or the repr of a task's keyword arguments.

    What is nested deeper than :data:`literals.MAX_NESTING` counts as unreadable, in JSON as in Python.
    What comes when the room is used up (see :data:`ROOM`) is left out.
    """
    if text == "{}":
        return {}
    flat: dict[str, Any] = {}
    try:
        value = _read(text)
        if type(value) is dict:
            _flatten(flat, "", 1, value, min(ROOM + ROOM_PER_CHARACTER * len(text), MAX_ROOM))
    except NotALiteralError:
        return {}
    except _NoRoomError:
        pass
    return flat


def _read(text: str) -> Any:
    # JSON comes first, unless the second character shows that this isn't JSON.
    if not text.startswith("{'"):
        try:
            return json_text.loads_exactly(text)
        except (ValueError, RecursionError):
            pass
    return literals.read(text)


class _NoRoomError(Exception):
    pass


def _flatten(
    flat: dict[str, Any], prefix: str, depth: int, container: dict[Any, Any] | list[Any], room: int
) -> int:
    """Put the leaves of ``container``, whose items are at ``depth``, into ``flat``.

    Returns how much room is left. NotALiteralError, _NoRoomError.
    """
    item_room = ITEM_ROOM + len(prefix)
    items = container.items() if type(container) is dict else enumerate(container)
    if depth > MAX_PATH_KEYS:
        for key, value in items:
            plain, room = _plain(value, depth, room - item_room)
            flat[f"{prefix}{key}"] = _ENCODE(plain)
        return room
    for key, value in items:
        room -= item_room
        if room < 0:
            raise _NoRoomError
        kind = type(value)
        if kind is str:
            flat[f"{prefix}{key}"] = value[:MAX_VALUE_CHARACTERS]
        elif kind is int or kind is bool or value is None:
            flat[f"{prefix}{key}"] = value
        elif kind is dict and value:
            room = _flatten(flat, f"{prefix}{key}.", depth + 1, value, room)
        elif kind in _LISTS and value:
            room = _flatten(flat, f"{prefix}{key}.", depth + 1, _listed(value), room)
        else:
            flat[f"{prefix}{key}"] = _leaf(value)
    return room


def _plain(value: Any, depth: int, room: int) -> tuple[Any, int]:
    """Return ``value`` as JSON can hold it, cut as everywhere else, and how much room is left."""
    room -= 3 * ITEM_ROOM
    if room < 0:
        raise _NoRoomError
    kind = type(value)
    if kind is not dict and kind not in _LISTS:
        return _leaf(value), room
    # The mapping that holds all of it is the first bracket, so this is one more than depth.
    if depth >= literals.MAX_NESTING:
        raise NotALiteralError
    if kind is dict:
        mapping = {}
        for key, item in value.items():
            mapping[str(key)], room = _plain(item, depth + 1, room)
        return mapping, room
    plain = []
    for item in _listed(value):
        plain_item, room = _plain(item, depth + 1, room)
        plain.append(plain_item)
    return plain, room


_LISTS: Final = frozenset({list, tuple, set})
_ENCODE: Final = json.JSONEncoder(ensure_ascii=False).encode


def _listed(value: list[Any] | tuple[Any, ...] | set[Any]) -> list[Any]:
    return list(value)[:MAX_LIST_ITEMS]


def _leaf(value: Any) -> Any:
    """Return what stands for a value that has no items."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, str):
        return value[:MAX_VALUE_CHARACTERS]
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, (list, tuple, set)):
        return "[]"
    if isinstance(value, bytes):
        # A character has four bytes at most, a bad byte is one character: more can't show.
        return value[: 4 * MAX_VALUE_CHARACTERS].decode("utf-8", "replace")[:MAX_VALUE_CHARACTERS]
    if value is ...:
        return "<ELLIPSIS>"
    return str(value)[:MAX_VALUE_CHARACTERS]
