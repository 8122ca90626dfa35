"""JSON in and out, where it isn't quite JSON: NaN, lone surrogates, integers beyond 64 bits.

Python's own encoder, which Celery uses, writes such things. orjson, ten times as fast, refuses them; so
it goes first, and the slow way is for what it refuses.
"""

import gc
import json
import math
import re
from collections.abc import Callable
from typing import Any, Final

import orjson

LARGE: Final = 50_000
"""Characters or bytes from where on the collector is kept from looking at a text's lists and dicts
while they are made: that took more than half of the time, and they can't be garbage."""

MAX_CONTAINERS: Final = 50_000
"""How many lists and objects are made of a text within an event: to make these takes 5 ms."""

LONG_INTEGER = re.compile(r"\d{19}")
"""What may be beyond 64 bits, so that orjson reads it as a float; a shorter one isn't."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class UnfitNumber(float):
    """A number that JSON doesn't have (NaN, infinity), or that no float holds.

    Its type tells it from a float, so that whoever checks types needn't look at values.
    """

    __slots__ = ()


def loads(text: str | bytes) -> Any:
    """Parse strict JSON; orjson.JSONDecodeError (a ValueError) if it is something else.

    Integers beyond 64 bits become floats. Nesting above 1,024 is refused.
    """
    return orjson.loads(text) if len(text) < LARGE else _undisturbed(orjson.loads, text)


def _undisturbed(parse: Callable[[Any], Any], text: str | bytes) -> Any:
    if not gc.isenabled():
        return parse(text)
    gc.disable()
    try:
        return parse(text)
    finally:
        gc.enable()


def loads_exactly(text: str) -> Any:
    """Parse as Python's decoder does, NaN and integers of any size; ValueError or RecursionError.

    A large text is parsed as by :func:`loads`, since Python's decoder takes too long for it, and not at
    all if it may have more than :data:`MAX_CONTAINERS`.
    """
    if len(text) < LARGE:
        if LONG_INTEGER.search(text):
            return json.loads(text)
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return json.loads(text)
    if text.count("[") + text.count("{") > MAX_CONTAINERS:
        raise ValueError
    return loads(text)


def loads_leniently(text: str) -> Any:
    """Parse what Python's encoder may have written; ValueError or RecursionError if it is none of it.

    Lone surrogates stay in the strings. NaN and infinity come as :class:`UnfitNumber` where they are
    written as such; numbers of other sizes come as Python reads them, see :func:`fit`. A text that may
    have more than 100,000 lists and objects is refused, for the time that it would take.
    """
    if text.count("[") + text.count("{") > 2 * MAX_CONTAINERS:
        raise ValueError("it isn't strict, and has too many lists and objects")
    return _undisturbed(_decode_leniently, text)


_decode_leniently = json.JSONDecoder(
    # A method of a dict is called five times as fast as a function, and there may be a million.
    parse_constant={
        name: UnfitNumber(name) for name in ("NaN", "Infinity", "-Infinity")
    }.__getitem__
).decode


def fit(value: Any) -> Any:
    """Return a number as :func:`loads` gives it, or as :class:`UnfitNumber`; the rest as it is."""
    if type(value) is float:
        return value if math.isfinite(value) else UnfitNumber(value)
    if type(value) is int and not fits_64_bits(value):
        try:
            return float(value)
        except OverflowError:
            return UnfitNumber("inf")
    return value


def dumps(value: Any) -> bytes:
    """Write compact JSON that a strict parser reads back equal.

    Lone surrogates, which UTF-8 can't hold, become U+FFFD, as bytes do that aren't UTF-8. Integers
    beyond 64 bits are written in full. All keys must be strings, all floats finite.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        return orjson.dumps(_representable(value))


def replace_surrogates(text: str) -> str:
    """Return ``text`` with U+FFFD in the place of each lone surrogate."""
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def fits_64_bits(number: int) -> bool:
    """Whether orjson reads and writes it as an integer; it knows signed and unsigned ones."""
    return -(2**63) <= number < 2**64


def _representable(value: Any) -> Any:
    if isinstance(value, dict):
        return {replace_surrogates(key): _representable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_representable(item) for item in value]
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, int) and not fits_64_bits(value):
        return orjson.Fragment(str(value))
    return value
