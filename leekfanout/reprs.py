"""A task's arguments, which Celery sends as text, to fields that Leek can search.

Celery writes ``repr(args)`` and ``repr(kwargs)``; an application may write JSON, or anything else.
"""

import json
import math
from collections.abc import Iterable
from typing import Any, Final

from leekfanout import json_text, literals
from leekfanout.literals import NotALiteralError

ARG_FIELDS: Final = tuple(f"args_{index}" for index in range(10))
MAX_ARG_CHARACTERS: Final = 256
MAX_VALUE_CHARACTERS: Final = 100
MAX_LIST_ITEMS: Final = 100
MAX_PATH_KEYS: Final = 12
"""Leek's limits: for an argument, and among keyword arguments for a value, a list and a path."""

ROOM: Final = 100_000
ROOM_PER_CHARACTER: Final = 10
MAX_ROOM: Final = 1_500_000
LEAF_ROOM: Final = 50
"""How many characters the flattened form of a text may have, for each text, for each of its characters,
and at most; each leaf or container takes this many more, for its time. Paths repeat the keys above
them, so one megabyte could become many gigabytes."""


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
    try:
        value = _read(text)
        if type(value) is not dict:
            return {}
        flat = _Flat(len(text))
        flat.add("", 1, value.items())
    except NotALiteralError:
        return {}
    except _NoRoomError:
        pass
    return flat.leaves


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


class _Flat:
    """Leaves by path, as long as there is room."""

    __slots__ = ("leaves", "room")

    def __init__(self, characters: int) -> None:
        self.leaves: dict[str, Any] = {}
        self.room = min(ROOM + ROOM_PER_CHARACTER * characters, MAX_ROOM)

    def add(self, prefix: str, depth: int, items: Iterable[tuple[Any, Any]]) -> None:
        """Add the leaves in ``items``, which are at ``depth``; NotALiteralError, _NoRoomError."""
        self.room -= LEAF_ROOM
        for key, value in items:
            path = f"{prefix}{key}"
            kind = type(value)
            if depth > MAX_PATH_KEYS:
                leaf = _ENCODE(self._plain(value, depth))
            elif kind is str:
                leaf = value[:MAX_VALUE_CHARACTERS]
            elif kind is dict and value:
                self.add(f"{path}.", depth + 1, value.items())
                continue
            elif (kind is list or kind is tuple or kind is set) and value:
                self.add(f"{path}.", depth + 1, enumerate(_listed(value)))
                continue
            else:
                leaf = _leaf(value)
            self.room -= LEAF_ROOM + len(path)
            if type(leaf) is str:
                self.room -= len(leaf)
            if self.room < 0:
                raise _NoRoomError
            self.leaves[path] = leaf

    def _plain(self, value: Any, depth: int) -> Any:
        """Return ``value`` as JSON can hold it, its texts and lists cut as everywhere else."""
        self.room -= 2 * LEAF_ROOM
        if self.room < 0:
            raise _NoRoomError
        if isinstance(value, dict):
            _check_nesting(depth)
            return {str(key): self._plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple, set)):
            _check_nesting(depth)
            return [self._plain(item, depth + 1) for item in _listed(value)]
        return _leaf(value)


_ENCODE: Final = json.JSONEncoder(ensure_ascii=False).encode


def _check_nesting(depth: int) -> None:
    # The mapping that holds all of it is the first bracket.
    if depth >= literals.MAX_NESTING:
        raise NotALiteralError


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
