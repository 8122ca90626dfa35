"""The kinds of values that a configuration holds, each with its rule in words.

A kind accepts a value (and returns it in the form that the program uses) or raises
:class:`Refused`. Kinds are data: whatever describes the configuration is made from them too.
"""

import json
import math
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, NamedTuple, Protocol

from leekfanout.configuration.addresses import (
    AddressError,
    check_http_url,
    parse_address,
    split_addresses,
    transport_of,
)
from leekfanout.redaction import MASK, redact_url

SHOWN_MAX_CHARACTERS: Final = 80


class Problem(NamedTuple):
    """One mistake: where (a dotted path, empty for the value itself), what was found, the rule."""

    path: str
    found: str
    rule: str

    def below(self, key: str) -> "Problem":
        """Return the problem as seen from the object whose ``key`` holds the value."""
        return self._replace(path=f"{key}.{self.path}" if self.path else key)

    def __str__(self) -> str:
        # One line, whatever a key or a file in it is called: it is shown in terminals and logs.
        text = ": ".join(part for part in self if part)
        return text if text.isprintable() else ascii(text)[1:-1]


class Refused(Exception):
    """A value breaks its kind's rule."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__(self.problems)


class Kind(Protocol):
    """What a key may hold."""

    @property
    def rule(self) -> str:
        """The rule as the end of a sentence: ``must be …``."""

    def accept(self, value: Any) -> Any:
        """Return the value as the program uses it; raise Refused if it breaks the rule."""


def shown(value: Any) -> str:
    """Show a value that is no secret in a message: on one line, and not too long."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, str) and "@" in value:
        value = redact_url(value)
    try:
        text = json.dumps(value, ensure_ascii=False)
    except ValueError:  # an integer with thousands of digits
        return "a number"
    if not text.isprintable():
        text = ascii(text)[1:-1]
    return text if len(text) <= SHOWN_MAX_CHARACTERS else f"{text[:SHOWN_MAX_CHARACTERS]}…"


def _refuse(kind: Kind, value: Any, secret: bool = False) -> Refused:
    hidden = secret and not isinstance(value, (dict, list))
    return Refused([Problem("", MASK if hidden else shown(value), kind.rule)])


@dataclass(frozen=True, slots=True)
class Text:
    """A string that matches ``pattern`` as a whole."""

    pattern: str
    rule: str
    secret: bool = False

    def accept(self, value: Any) -> str:
        if isinstance(value, str) and re.fullmatch(self.pattern, value, re.ASCII):
            return value
        raise _refuse(self, value, self.secret)


@dataclass(frozen=True, slots=True)
class AmqpName:
    """The name of an exchange or a queue: AMQP 0-9-1 has short strings of up to 255 bytes."""

    rule: str = "must be a string of printable characters, 1 to 255 bytes long"

    def accept(self, value: Any) -> str:
        if isinstance(value, str) and value.isprintable() and 1 <= len(value.encode()) <= 255:
            return value
        raise _refuse(self, value)


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number between bounds that belong to it, but for ``above``; booleans are none."""

    most: float
    least: float | None = None
    above: float | None = None
    whole: bool = False

    @property
    def rule(self) -> str:
        what = "a whole number" if self.whole else "a number"
        if self.least is not None:
            return f"must be {what} from {self.least:,} to {self.most:,}"
        return f"must be {what} above {self.above:,} and up to {self.most:,}"

    def accept(self, value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _refuse(self, value)
        # JSON has no NaN and no infinities, but its readers have.
        if isinstance(value, float) and not (
            math.isfinite(value) and (value.is_integer() or not self.whole)
        ):
            raise _refuse(self, value)
        number: int | float = int(value) if self.whole else value
        if (
            number > self.most
            or (self.least is not None and number < self.least)
            or (self.above is not None and number <= self.above)
        ):
            raise _refuse(self, value)
        return number

    def parse(self, text: str) -> int | float:
        """Accept a number that was written in an option or a variable."""
        try:
            number = float(text)
        except ValueError:
            raise _refuse(self, text) from None
        return self.accept(int(number) if number.is_integer() else number)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some strings; options and variables may write it in any case."""

    values: tuple[str, ...]

    @property
    def rule(self) -> str:
        *most, last = self.values
        return f"must be {', '.join(most)} or {last}"

    def accept(self, value: Any) -> str:
        if isinstance(value, str) and value in self.values:
            return value
        raise _refuse(self, value)

    def parse(self, text: str) -> str:
        """Accept a word that was written in an option or a variable, in any case."""
        for value in self.values:
            if value.lower() == text.strip().lower():
                return value
        raise _refuse(self, text)


@dataclass(frozen=True, slots=True)
class Boolean:
    """true or false."""

    rule: str = "must be true or false"

    def accept(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        raise _refuse(self, value)


@dataclass(frozen=True, slots=True)
class File:
    """The path of a file that can be read now."""

    rule: str = "must be the path of a file that can be read"

    def accept(self, value: Any) -> str:
        if (
            isinstance(value, str)
            and "\0" not in value
            and os.path.isfile(value)
            and os.access(value, os.R_OK)
        ):
            return value
        raise _refuse(self, value)


@dataclass(frozen=True, slots=True)
class BrokerUrls:
    """One or more broker addresses of one transport, joined by semicolons; a tuple of them."""

    rule: str = (
        "must be an amqp, amqps, pyamqp, redis, rediss or sentinel URL, or several of one "
        "transport joined with ;"
    )

    def accept(self, value: Any) -> tuple[str, ...]:
        if not isinstance(value, str):
            raise _refuse(self, value, secret=True)
        urls = split_addresses(value)
        problems = []
        schemes = set()
        for url in urls:
            try:
                schemes.add(parse_address(url).scheme)
            except AddressError as error:
                problems.append(Problem("", shown_url(url), str(error)))
        if not problems and len({transport_of(scheme) for scheme in schemes}) > 1:
            problems.append(
                Problem("", shown_url(value), "its failover addresses must be of one transport")
            )
        if problems:
            raise Refused(problems)
        return tuple(urls)


@dataclass(frozen=True, slots=True)
class HttpUrl:
    """The base of an HTTP API, without a trailing slash or ``suffix``."""

    suffix: str = ""
    rule: str = "must be an http or https URL"

    def accept(self, value: Any) -> str:
        if not isinstance(value, str):
            raise _refuse(self, value, secret=True)
        try:
            return check_http_url(value).removesuffix(self.suffix).rstrip("/")
        except AddressError as error:
            raise Refused([Problem("", shown_url(value), str(error))]) from None


@dataclass(frozen=True, slots=True)
class AnyUrl:
    """A URL of any scheme."""

    rule: str = "must be a URL or null"

    def accept(self, value: Any) -> str:
        if not isinstance(value, str):
            raise _refuse(self, value, secret=True)
        if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value):
            raise Refused([Problem("", shown_url(value), self.rule)])
        # A space and a lone surrogate, which has no UTF-8, would pass for a part of the host.
        if " " in value or not value.isprintable():
            rule = "it must hold no spaces, and nothing that can't be printed"
            raise Refused([Problem("", shown_url(value), rule)])
        return value


def shown_url(url: str) -> str:
    """Show a URL in a message: on one line, without its password, and not too long."""
    return shown(redact_url(url))


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an object; ``meaning`` is for people who write it.

    ``required`` says who needs it, or is empty.
    """

    name: str
    kind: Kind
    meaning: str
    default: Any = None
    required: str = ""


@dataclass(frozen=True, slots=True)
class Object:
    """An object with known keys; null counts as absent."""

    keys: tuple[Key, ...]
    build: Callable[[dict[str, Any]], Any] = dict
    rule: str = "must be an object"
    unknown: str = "unknown key"
    secret: bool = field(default=True)

    def accept(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _refuse(self, value, self.secret)
        accepted, problems = accept_keys(value, self.keys, self.unknown)
        if problems:
            raise Refused(problems)
        return self.build(accepted)


@dataclass(frozen=True, slots=True)
class AnyObject:
    """An object that is passed on as it is."""

    rule: str = "must be an object"

    def accept(self, value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        raise _refuse(self, value, secret=True)


@dataclass(frozen=True, slots=True)
class TcpOptions:
    """An object of TCP socket options; the names become the system's numbers."""

    rule: str = (
        "must be an object of TCP options, such as TCP_USER_TIMEOUT, with whole numbers from 0 to "
        "2,147,483,647"
    )

    def accept(self, value: Any) -> dict[int, int]:
        if not isinstance(value, Mapping):
            raise _refuse(self, value)
        options = {}
        for name, number in value.items():
            option = getattr(socket, name, None) if str(name).startswith("TCP_") else None
            whole = isinstance(number, int) and not isinstance(number, bool)
            # The system takes a C int; Python raises OverflowError for what isn't one.
            if option is None or not whole or not 0 <= number < 2**31:
                raise Refused([Problem(shown(name)[1:-1], shown(number), self.rule)])
            options[int(option)] = number
        return options


def accept_keys(
    value: Mapping[str, Any], keys: Iterable[Key], unknown: str = "unknown key"
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the accepted values of an object by key, and every problem in it.

    A key that is absent, null or wrong has its default, so that rules over several keys can still
    be applied.
    """
    by_name = {key.name: key for key in keys}
    accepted = {key.name: key.default for key in by_name.values()}
    problems = []
    for name, each in value.items():
        if name not in by_name:
            problems.append(Problem(shown(name)[1:-1], "", _nearest(name, list(by_name), unknown)))
        elif each is not None:
            try:
                accepted[name] = by_name[name].kind.accept(each)
            except Refused as refused:
                problems += [problem.below(name) for problem in refused.problems]
    problems += [
        Problem(key.name, "missing", f"{key.required}; {key.kind.rule}")
        for key in by_name.values()
        if key.required and value.get(key.name) is None
    ]
    return accepted, problems


def _nearest(name: str, known: list[str], unknown: str) -> str:
    nearest = get_close_matches(name, known, n=1, cutoff=0.0)
    return f"{unknown}; the nearest known one is {nearest[0]}" if nearest else unknown
