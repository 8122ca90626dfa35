"""A task's traceback, which Celery sends as text, to the fields that Leek shows and searches."""

import re
from typing import Any, Final

MAX_CHARACTERS: Final = 30_000
RETRY: Final = "celery.exceptions.Retry"

_FIRST_LINE = re.compile(r"^Traceback \(most recent call last\):", re.MULTILINE)
_NAME = r"[A-Za-z_]\w*+"
_LAST_LINE = re.compile(rf"({_NAME}(?:\.{_NAME})*+): ++(.*)", re.DOTALL)


def failure_fields(traceback: str, exception: str) -> dict[str, Any]:
    """Return ``traceback``, ``lang``, ``error``, ``stack`` and ``trace`` of a failed or retried task.

    ``exception`` is what came with the traceback, or "". A retry's traceback is left whole.
    """
    if f"{RETRY}:" in traceback:
        text = f"{RETRY}: {exception}"[:MAX_CHARACTERS]
        return _fields(traceback, "python", RETRY, exception[:MAX_CHARACTERS], text)
    text = traceback[:MAX_CHARACTERS]
    if not _FIRST_LINE.search(text):
        return _fields(text, "unknown", "", "", text)
    last_line = text.strip().rpartition("\n")[2]
    error = _LAST_LINE.fullmatch(last_line)
    error_type, message = error.groups() if error else ("", "")
    return _fields(text, "python", error_type, message, text)


def _fields(traceback: str, lang: str, error_type: str, message: str, text: str) -> dict[str, Any]:
    return {
        "traceback": traceback,
        "lang": lang,
        "error": {"type": error_type, "message": message},
        "stack": [],
        "trace": {"raw": text, "text": text, "wc": text},
    }
