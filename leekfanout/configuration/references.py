"""Secrets that stand elsewhere: ``${VARIABLE}``, ``${file:/path}`` and ``file:/path``.

Resolved when subscriptions are loaded, right before they are validated, so that nothing else knows
of it. What is written down, shown and edited is the reference.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from leekfanout.configuration.rules import Problem
from leekfanout.configuration.validation import name_of
from leekfanout.errors import ConfigError
from leekfanout.redaction import is_secret_name

KEYS: Final = ("app_key", "broker", "backend", "broker_management_url", "api_url")
"""The keys that may hold references; in ``transport_options`` whatever is named like a secret."""

FILE_MAX_BYTES: Final = 65_536

_REFERENCE: Final = re.compile(
    r"(?P<escape>\$)?\$\{(?:(?P<what>[A-Za-z_][A-Za-z0-9_]*|file:/[^}]+)\})?"
)
"""Without ``what`` it only begins like one."""
_FILE: Final = "file:/"


class _Unresolved(Exception):
    """The message says why, without the value."""


def resolve(entries: Iterable[Any], environ: Mapping[str, str]) -> list[Any]:
    """Return the entries with every reference replaced by what it refers to; reads files.

    Raises ConfigError with one line for each reference that leads nowhere.
    """
    resolved, lines = [], []
    for number, entry in enumerate(entries, 1):
        problems: list[Problem] = []
        resolved.append(_resolve_entry(entry, environ, problems))
        who = name_of(entry) or f"#{number}"
        lines += [f"subscription {who}: {problem}" for problem in problems]
    if lines:
        raise ConfigError(lines)
    return resolved


def refuse(entry: Any) -> None:
    """Raise ConfigError if the entry holds references.

    For entries that come over the network: who may add a subscription must not thereby read files
    and variables of the agent.
    """
    keys = sorted({key for key, text in _texts(entry) if _is_whole(text) or any(_found(text))})
    if keys:
        who = name_of(entry) or "#1"
        rule = (
            "references to files and variables can't be added from here: write the subscription into "
            "the file"
        )
        raise ConfigError([f"subscription {who}: {Problem(key, '', rule)}" for key in keys])


def variables_in(entries: Iterable[Any]) -> set[str]:
    """Return the names of the variables that the entries refer to."""
    return {
        match["what"]
        for entry in entries
        for _, text in _texts(entry)
        for match in _found(text)
        if match["what"] and not match["what"].startswith(_FILE)
    }


def _resolve_entry(entry: Any, environ: Mapping[str, str], problems: list[Problem]) -> Any:
    if not isinstance(entry, Mapping):
        return entry
    resolved = dict(entry)
    for key in KEYS:
        if isinstance(entry.get(key), str):
            resolved[key] = _resolve_text(key, entry[key], environ, problems)
    options = entry.get("transport_options")
    if isinstance(options, Mapping):
        resolved["transport_options"] = _resolve_options(options, environ, problems)
    return resolved


def _resolve_options(
    options: Mapping[str, Any], environ: Mapping[str, str], problems: list[Problem]
) -> dict[str, Any]:
    resolved = dict(options)
    for name, value in options.items():
        if isinstance(value, Mapping):
            resolved[name] = _resolve_options(value, environ, problems)
        elif isinstance(value, str) and is_secret_name(name):
            resolved[name] = _resolve_text(f"transport_options.{name}", value, environ, problems)
    return resolved


def _resolve_text(key: str, text: str, environ: Mapping[str, str], problems: list[Problem]) -> str:
    def value(what: str) -> str:
        try:
            return _read(what) if what.startswith(_FILE) else _variable(what, environ)
        except _Unresolved as error:
            problems.append(
                Problem(key, f"${{{what}}}" if not _is_whole(text) else what, str(error))
            )
            return ""

    def replace(match: re.Match[str]) -> str:
        if match["escape"]:
            return match.group()[1:]
        if match["what"] is None:
            rule = "${ begins a reference: ${NAME} or ${file:/path}; literally it is written $${"
            if (problem := Problem(key, "${", rule)) not in problems:
                problems.append(problem)
            return ""
        found = value(match["what"])
        # A password in a URL is percent-encoded; who keeps it in a file has written it as it is.
        return quote(found, safe="") if _in_userinfo(match) else found

    if _is_whole(text):
        return value(text)
    if text.startswith("file:"):
        problems.append(Problem(key, text, "a reference to a file has its whole path: file:/path"))
        return ""
    return _REFERENCE.sub(replace, text)


def _in_userinfo(match: re.Match[str]) -> bool:
    before, after = match.string[: match.start()], match.string[match.end() :]
    return bool(re.search(r"://[^/;]*$", before) and re.match(r"[^/?#;]*@", after))


def _is_whole(text: str) -> bool:
    return text.startswith(_FILE)


def _found(text: str) -> Iterator[re.Match[str]]:
    return (match for match in _REFERENCE.finditer(text) if not match["escape"])


def _texts(entry: Any) -> Iterator[tuple[str, str]]:
    """Yield key and text wherever a reference may stand."""
    if not isinstance(entry, Mapping):
        return
    for key in KEYS:
        if isinstance(entry.get(key), str):
            yield key, entry[key]
    yield from _option_texts(entry.get("transport_options"))


def _option_texts(options: Any) -> Iterator[tuple[str, str]]:
    if isinstance(options, Mapping):
        for name, value in options.items():
            if isinstance(value, str) and is_secret_name(name):
                yield f"transport_options.{name}", value
            yield from _option_texts(value)


def _variable(name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name)
    if not value:
        raise _Unresolved(f"the variable {name} is {'not set' if value is None else 'empty'}")
    return value


def _read(what: str) -> str:
    """Return the file's text without the line end that editors and ``echo`` put there."""
    path = Path(what.removeprefix("file:"))
    try:
        if path.exists() and not path.is_file():  # a FIFO that nobody writes to would block
            raise _Unresolved("it is no regular file")
        with path.open("rb") as file:
            content = file.read(FILE_MAX_BYTES + 1)
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise _Unresolved("the file is not UTF-8 text") from None
    except OSError as error:
        raise _Unresolved(f"the file can't be read: {error.strerror}") from None
    except ValueError:
        raise _Unresolved("it is no file name") from None
    if len(content) > FILE_MAX_BYTES:
        raise _Unresolved(f"the file is larger than {FILE_MAX_BYTES:,} bytes")
    if not text:
        raise _Unresolved("the file is empty")
    return text
