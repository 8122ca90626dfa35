"""Log lines as an event name with fields, so that text and JSON come from the same call.

``log = logs.get("sender")`` and then ``log.warning("post.retry", attempt=7, delay_s=4.1)``.
A process binds fields that stand in all of its lines with :func:`bind`: ``subscription=shop-prod``.
"""

import logging
import logging.handlers
import sys
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from leekfanout.redaction import Mask

_bound: dict[str, Any] = {}
_secrets: set[str] = set()
_mask = Mask()

# Longer values are cut: a field may quote what a broker or an API sent, which has no bound.
VALUE_MAX_CHARACTERS = 1_000

FILE_MAX_BYTES = 1_000_000
"""A log file that has grown so large becomes the one backup, and a new one begins."""


class Log:
    """Writes lines of one part of the program, under the logger ``leekfanout.<part>``."""

    __slots__ = ("_logger",)

    def __init__(self, part: str) -> None:
        self._logger = logging.getLogger(f"leekfanout.{part}")

    def debug(self, event: str, /, **fields: Any) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        self._write(logging.ERROR, event, fields)

    def exception(self, event: str, /, **fields: Any) -> None:
        """Write an error line with the traceback of the exception that is being handled."""
        self._write(logging.ERROR, event, fields, exc_info=True)

    def _write(
        self, level: int, event: str, fields: dict[str, Any], exc_info: bool = False
    ) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields}, exc_info=exc_info)


def get(part: str) -> Log:
    """Return the log of one part of the program; any thread may use it."""
    return Log(part)


def bind(**fields: Any) -> None:
    """Put ``fields`` into every line that this process writes from now on."""
    _bound.update(fields)


def hide(secrets: Iterable[str]) -> None:
    """Mask ``secrets`` in every line that this process writes from now on, tracebacks included.

    Adds to what is hidden already; a secret that is out of use stays one. Lines of libraries are
    masked too, since what they quote is nobody's choice.
    """
    global _mask  # noqa: PLW0603  # replaced whole, so that a reader sees the old or the new one
    _secrets.update(secrets)
    _mask = Mask(_secrets)


class RateLimit:
    """Lets a call site that can flood write once per ``interval_s`` seconds, and counts the rest.

    >>> limit = RateLimit(60.0)
    >>> if (held_back := limit.allow()) is not None:
    ...     log.warning("event.bad", held_back=held_back)
    """

    __slots__ = ("_clock", "_held_back", "_interval_s", "_lock", "_next")

    def __init__(self, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._next = float("-inf")
        self._held_back = 0
        self._lock = threading.Lock()

    def allow(self) -> int | None:
        """Return how many calls were held back since the last allowed one; None: hold this back."""
        now = self._clock()
        with self._lock:
            if now < self._next:
                self._held_back += 1
                return None
            held_back, self._held_back = self._held_back, 0
            self._next = now + self._interval_s
            return held_back


class RateLimits:
    """A :class:`RateLimit` for each of a few keys; when there are too many, all begin anew.

    So a second reason isn't held back because of the first one. One thread.
    """

    __slots__ = ("_interval_s", "_keys_max", "_limits")

    def __init__(self, interval_s: float, keys_max: int = 20) -> None:
        self._interval_s = interval_s
        self._keys_max = keys_max
        self._limits: dict[str, RateLimit] = {}

    def allow(self, key: str) -> int | None:
        """Return as :meth:`RateLimit.allow` does, for ``key`` alone."""
        limit = self._limits.get(key)
        if limit is None:
            if len(self._limits) >= self._keys_max:
                self._limits.clear()
            limit = self._limits[key] = RateLimit(self._interval_s)
        return limit.allow()


def _shown(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, (bool, int)) or value is None:
        return value
    text = str(value)
    return text if len(text) <= VALUE_MAX_CHARACTERS else text[:VALUE_MAX_CHARACTERS] + "…"


def _fields_of(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    fields: dict[str, Any] | None = getattr(record, "fields", None)
    if fields is None:  # a library's own line
        return _mask(record.getMessage()), {}
    return record.getMessage(), {key: _shown(_masked(value)) for key, value in fields.items()}


def _masked(value: Any) -> Any:
    # Numbers stay numbers; anything else is masked before it is cut, or the cut may hide a match.
    return value if isinstance(value, (int, float)) or value is None else _mask(str(value))


def _quoted(value: Any) -> str:
    text = str(value)
    if text and all(c.isprintable() and c not in ' "=' for c in text):
        return text
    return '"' + text.translate(_ESCAPES) + '"'


# A line is one line whatever a field holds: a broker's answer must not be able to forge a second.
_ESCAPES = (
    {ord('"'): '\\"', ord("\\"): "\\\\"}
    | {code: f"\\x{code:02x}" for code in [*range(32), 127]}
    | {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
)


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123Z WARNING sender batch.retry subscription=shop-prod batch=7``."""

    def format(self, record: logging.LogRecord) -> str:
        event, fields = _fields_of(record)
        part = record.name.removeprefix("leekfanout.")
        pairs = " ".join(f"{key}={_quoted(value)}" for key, value in {**_bound, **fields}.items())
        line = f"{_timestamp(record)} {record.levelname:<7} {part} {event}"
        line = f"{line} {pairs}" if pairs else line
        if record.exc_info:
            line = f"{line}\n{_mask(self.formatException(record.exc_info))}"
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ``timestamp``, ``level``, ``part``, ``event`` and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        event, fields = _fields_of(record)
        line = {
            "timestamp": _timestamp(record),
            "level": record.levelname.lower(),
            "part": record.name.removeprefix("leekfanout."),
            "event": event,
            **{key: _shown(value) for key, value in _bound.items()},
            **fields,
        }
        if record.exc_info:
            line["traceback"] = _mask(self.formatException(record.exc_info))
        return orjson.dumps(line, option=orjson.OPT_NON_STR_KEYS).decode()


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def configure(level: str = "INFO", log_format: str | None = None) -> None:
    """Send the log to standard error at ``level``; call it once, before any thread exists.

    ``log_format`` is ``text`` or ``json``; None means text on a terminal and JSON otherwise.
    """
    if log_format is None:
        log_format = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if log_format == "text" else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries speak only when something is wrong: at DEBUG they write lines for each message.
    root.setLevel(logging.WARNING)
    # py-amqp warns of each answer that comes while a channel closes, which is what closing is like.
    logging.getLogger("amqp").setLevel(logging.ERROR)
    logging.getLogger("leekfanout").setLevel(level.upper())


def also_to(path: Path) -> None:
    """Write this process's lines to a file as well, as text; two files of a megabyte at most.

    Raises OSError if it can't be opened. What can't be written later (a full disk) is left out.
    """
    handler = _File(path, maxBytes=FILE_MAX_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(TextFormatter())
    logging.getLogger().addHandler(handler)


class _File(logging.handlers.RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Keep quiet: the line is on standard error, where logging would put its complaint."""
