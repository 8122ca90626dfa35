"""Texts that ought to be Python literals, such as ``repr(args)``, to values; nothing is evaluated.

What :func:`read` returns equals what :func:`ast.literal_eval` returns, and costs less in two ways: the
common shapes are respelled as JSON, which orjson reads ten times as fast, and a text that holds
anything but literals (``<User: 7>``, ``datetime.datetime(…)``) is seen to do so before Python's own
parser is asked, which needs a microsecond for each token, and longer to say what is wrong.
"""

import ast
import re
import warnings
from array import array
from itertools import accumulate
from typing import Any, Final

from leekfanout.documents import json_text

MAX_TOKENS: Final = 10_000
"""What Python's parser is given at most; that is a hundredth of a second. Celery cuts a repr at 1,024
characters, so only a text that somebody composed has more."""

MAX_RESPELLED: Final = 100_000
"""How many strings, and characters outside of them, are respelled as JSON at most: a hundredth of a
second as well. The strings may have any length."""

MAX_NESTING: Final = 200
"""How many open brackets Python's tokenizer allows (CPython, ``MAXLEVEL`` in Parser/tokenizer.h)."""


class NotALiteralError(Exception):
    """The text is no Python literal, or one of those that aren't read.

    Not read are a number that Python refuses to write in decimal (above 4,300 digits, see
    ``sys.set_int_max_str_digits``), and what has more than :data:`MAX_TOKENS` tokens, unless only its
    spelling isn't JSON: then :data:`MAX_RESPELLED` is the limit.
    """


def read(text: str) -> Any:
    """Return the value of a Python literal, or raise NotALiteralError.

    Takes time in proportion to the text, about 20 ms for a million characters at worst.
    """
    value = _read_as_json(text)
    return _read_as_python(text) if value is _UNREAD else value


_UNREAD: Final = object()

# In these escapes JSON agrees with Python. Without an escaped quote, a string ends at the next quote.
_SHARED_ESCAPES_ONLY = re.compile(r"[^\\]*+(?:\\[\\nrt][^\\]*+)*+")
# JSON's tokens and Python's words, outside strings, where a quote stands for a string.
_SHARED_TOKENS_ONLY = re.compile(r"(?:[][{},:'.eE+\-\d ]++|None|True|False)*+")
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[{]}"))


def _read_as_json(text: str) -> Any:
    """Read a literal of which the spelling alone (quotes, tuple, words) is not JSON; else _UNREAD.

    Its strings are in single quotes, and a tuple can only be the outermost bracket. Why nothing else
    can pass: the text is cut at single quotes, and what is outside strings may only hold tokens that
    mean the same in both languages. If there is a string in double quotes, or with a prefix, the first
    one's quote or prefix stands outside and is refused, as the strings before it were cut rightly.
    Strings side by side or left open, keys that are no strings, and ``[1,]`` are refused by orjson.
    """
    is_tuple = text[:1] == "("
    if is_tuple:
        if text[-1] != ")":
            return _UNREAD
        ends_in_comma = text[-2] == ","
        text = f"[{text[1:-2] if ends_in_comma else text[1:-1]}]"
    if "\\" in text and not _SHARED_ESCAPES_ONLY.fullmatch(text):
        return _UNREAD
    parts = text.replace('"', '\\"').split("'", 2 * MAX_RESPELLED + 1)
    outside = "'".join(parts[::2])
    if len(outside) > MAX_RESPELLED or not _SHARED_TOKENS_ONLY.fullmatch(outside):
        return _UNREAD
    if json_text.LONG_INTEGER.search(outside):
        return _UNREAD
    if len(outside) > MAX_NESTING and _nesting(outside) > MAX_NESTING:
        return _UNREAD
    if "e" in outside:  # as in all three words
        words = outside.replace("None", "null").replace("True", "true").replace("False", "false")
        parts[::2] = words.split("'")
    try:
        value = json_text.loads('"'.join(parts))
    except ValueError:
        return _UNREAD
    if not is_tuple:
        return value
    # `(1)` is no tuple, and `(,)` nothing at all.
    return tuple(value) if len(value) > 1 or (value and ends_in_comma) else _UNREAD


def _nesting(outside: str) -> int:
    """Return how many brackets are open at once, at most."""
    steps = array("b", outside.encode().translate(_STEPS, _NO_BRACKETS))
    return max(accumulate(steps), default=0)


# A superset of what may stand in a literal, so that Python's parser meets neither operators nor
# keywords, on whose chains it is slow. DOTALL: an escape may precede a line's end. The lookaheads in
# strings aren't the last alternatives: there, Python 3.11.0 to 3.11.4 forgets to go back when a
# possessive group's repetition fails (python/cpython#106052).
_LITERAL_PART = r"""
    \s*+
    (?: [][(){},:+\-]
      | (?: 0[xX][\da-fA-F_]++ | 0[oObB][\d_]++ | [\d._]++(?:[eE][+\-]?+[\d_]++)?+[jJ]?+ ) (?!\w)
      | (?: [rR][bB]?+ | [bB][rR]?+ | [uU] )?+
        (?: \'{3} (?: '(?!'') | \\. | [^'\\]++ )*+ \'{3}
          | \"{3} (?: "(?!"") | \\. | [^"\\]++ )*+ \"{3}
          | ' (?: [^'\\\r\n]++ | \\(?: \r\n | . ) )*+ '
          | " (?: [^"\\\r\n]++ | \\(?: \r\n | . ) )*+ " )
      | (?: None | True | False | set ) (?!\w)
      | \#[^\r\n]*+
      | \\(?: \r\n | [\r\n] ) )
"""
_LITERAL_PARTS_ONLY = re.compile(
    rf"(?: {_LITERAL_PART} ){{1,{MAX_TOKENS}}}+ \s*+", re.VERBOSE | re.DOTALL
)
# The shortest number above 4,300 digits is written in hexadecimal, which Python reads at any length.
_SHORTEST_UNWRITABLE: Final = 3_500


def _read_as_python(text: str) -> Any:
    if not _LITERAL_PARTS_ONLY.fullmatch(text):
        raise NotALiteralError
    try:
        if "\\" in text:
            # An escape that Python doesn't know is a literal still, of which it warns.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = ast.literal_eval(text)
        else:
            value = ast.literal_eval(text)
        if len(text) > _SHORTEST_UNWRITABLE:
            str(value)
    # The five that literal_eval's documentation names; it means them by "not a literal".
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise NotALiteralError from None
    return value
