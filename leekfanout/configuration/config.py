"""Subscriptions and settings: what they are, and loading them (contract, section 5).

The rules are in ``validation`` and ``rules``; ``redaction`` keeps secrets out of text.
"""

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from leekfanout.configuration import references
from leekfanout.configuration.rules import Choice, Key, Number, Refused, shown
from leekfanout.configuration.validation import validate
from leekfanout.errors import ConfigError

SUBSCRIPTIONS_VARIABLE: Final = "LEEK_AGENT_SUBSCRIPTIONS"
FILE_VARIABLE: Final = "LEEK_AGENT_SUBSCRIPTIONS_FILE"
"""Names the file, for containers whose secrets are mounted as files."""

SUBSCRIPTIONS_FILE: Final = Path("/opt/app/conf/subscriptions.json")
"""Where the subscriptions are if nothing else is said: on Leek's mounted volume."""

BYTES_PER_MB = 1_000_000
"""A megabyte is 1,000,000 bytes here, the smaller reading: it is within the limit under both."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates for one peer: files in PEM format; None leaves it to the system's defaults."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """One broker's events on their way to one application of one Leek API; checked and complete.

    The keys and their bounds are the contract's (section 5); durations are seconds.
    Secrets (``app_key``, the passwords in URLs) are kept out of ``repr``.
    """

    org_name: str
    app_name: str
    app_env: str
    broker: tuple[str, ...] = field(repr=False)
    """Failover addresses, each a whole URL; all of one transport."""
    app_key: str = field(repr=False)
    api_url: str = field(repr=False)
    """Without a trailing slash and without ``/v1/events/process``; may hold a user and password."""
    backend: str | None = field(default=None, repr=False)
    exchange: str = "celeryev"
    queue: str = "leek.fanout"
    routing_key: str = "#"
    prefetch_count: int = 1_000
    concurrency_pool_size: int = 1
    batch_max_size_in_mb: float = 1
    batch_max_number_of_messages: int = 1_000
    batch_max_window_in_seconds: float = 5
    broker_management_url: str | None = field(default=None, repr=False)
    transport_options: dict[str, Any] = field(default_factory=dict, repr=False)
    queue_type: Literal["classic", "quorum"] = "classic"
    in_flight_max_mb: float = 64
    api_connect_timeout_in_seconds: float = 5
    api_read_timeout_in_seconds: float = 30
    broker_tls: Tls | None = None
    api_tls: Tls | None = None
    max_memory_mb: float | None = None
    processes: int = 1
    number: int = 1
    """Which one of its processes this is for (see :func:`for_processes`)."""

    @property
    def name(self) -> str:
        """The name in logs, status, metrics, ``ps`` and folders; of the second process ``…-2``."""
        name = f"{self.app_name}-{self.app_env}"
        return name if self.number == 1 else f"{name}-{self.number}"

    @property
    def transport(self) -> Literal["amqp", "redis"]:
        """Which source reads it: ``redis`` for redis, rediss and sentinel URLs, else ``amqp``."""
        scheme = self.broker[0].partition("://")[0].lower()
        return "redis" if scheme in {"redis", "rediss", "sentinel"} else "amqp"

    @property
    def batch_max_size_bytes(self) -> int:
        return int(self.batch_max_size_in_mb * BYTES_PER_MB)

    @property
    def in_flight_max_bytes(self) -> int:
        return int(self.in_flight_max_mb * BYTES_PER_MB)


@dataclass(frozen=True, slots=True)
class Settings:
    """The agent's own settings: options of ``run``, and variables ``LEEKFANOUT_<NAME>``."""

    state_dir: Path
    drain_timeout_s: float = 8.0
    log_level: str = "INFO"
    log_format: Literal["text", "json"] | None = None
    dead_letters_max_mb: float = 100
    spool_max_mb: float = 1_000
    spool_memory_max_mb: float = 32


_MEGABYTES: Final = Number(above=0, most=1_000_000)

SETTINGS_KEYS: Final[tuple[Key, ...]] = (
    Key("drain_timeout", Number(above=0, most=3_600), "seconds that a stop may take", 8.0),
    Key(
        "log_level",
        Choice(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")),
        "the least severe lines to write",
        "INFO",
    ),
    Key(
        "log_format",
        Choice(("text", "json")),
        "how to write log lines; if it isn't given, text on a terminal and json elsewhere",
    ),
    Key("dead_letters_max_mb", _MEGABYTES, "size of each subscription's dead letters", 100),
    Key("spool_max_mb", _MEGABYTES, "size of each Redis subscription's spool on disk", 1_000),
    Key(
        "spool_memory_max_mb",
        _MEGABYTES,
        "what a Redis subscription keeps in memory before it spools",
        32,
    ),
)
"""The settings that have a default value; the state directory's default is a decision."""


def variable_of(setting: str) -> str:
    """Return the environment variable of a setting; Leek has one for the log level already."""
    return "LEEK_AGENT_LOG_LEVEL" if setting == "log_level" else f"LEEKFANOUT_{setting.upper()}"


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, for :func:`load_subscriptions`."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"JSON file with the subscriptions (default: ${FILE_VARIABLE}, or {SUBSCRIPTIONS_FILE}); "
        f"the variable {SUBSCRIPTIONS_VARIABLE} wins over it",
    )


def add_state_dir_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--state-dir``, for :func:`load_settings`."""
    parser.add_argument(
        "--state-dir",
        metavar="FOLDER",
        help="where the agent keeps its state (default: $LEEKFANOUT_STATE_DIR, or "
        "/var/lib/leekfanout where it can be written, or the user's XDG state folder)",
    )


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``run``: one for each setting, and ``--config``."""
    add_config_option(parser)
    add_state_dir_option(parser)
    for key in SETTINGS_KEYS:
        default = "" if key.default is None else f", or {key.default}"
        parser.add_argument(
            f"--{key.name.replace('_', '-')}",
            metavar="VALUE",
            help=f"{key.meaning} (default: ${variable_of(key.name)}{default})",
        )


def load_settings(args: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Return the settings: the option if given, else the variable, else the default.

    ``args`` may lack options. Raises ConfigError with everything that is wrong. The state directory
    may not exist yet: :mod:`leekfanout.configuration.places` makes it.
    """
    values: dict[str, Any] = {}
    problems = []
    for key in SETTINGS_KEYS:
        origin, text = _written(key.name, args, environ)
        values[key.name] = key.default
        if text is not None:
            assert isinstance(key.kind, (Number, Choice))
            try:
                values[key.name] = key.kind.parse(text)
            except Refused:
                problems.append(f"{origin}: {shown(text)}: {key.kind.rule}")
    if problems:
        raise ConfigError(problems)
    _, folder = _written("state_dir", args, environ)
    state_dir = Path(folder).absolute() if folder is not None else _default_state_dir(environ)
    return Settings(state_dir=state_dir, drain_timeout_s=values.pop("drain_timeout"), **values)


def _written(
    setting: str, args: argparse.Namespace, environ: Mapping[str, str]
) -> tuple[str, str | None]:
    """Return the option or variable that holds a setting, and the text in it; blank is absent."""
    text = getattr(args, setting, None)
    if text is not None:
        return f"--{setting.replace('_', '-')}", text
    variable = variable_of(setting)
    return variable, environ.get(variable, "").strip() or None


def _default_state_dir(environ: Mapping[str, str]) -> Path:
    system = Path("/var/lib/leekfanout")
    if os.access(system if system.exists() else system.parent, os.W_OK | os.X_OK):
        return system
    # The XDG base directory specification: a relative path counts as unset.
    xdg = Path(environ.get("XDG_STATE_HOME", ""))
    home = environ.get("HOME") or "/"
    return (xdg if xdg.is_absolute() else Path(home, ".local", "state")) / "leekfanout"


def subscriptions_from_variable(environ: Mapping[str, str]) -> bool:
    """Whether the subscriptions come from the variable, so that they can't change meanwhile."""
    return bool(environ.get(SUBSCRIPTIONS_VARIABLE, "").strip())


def subscriptions_file(option: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the path of the subscriptions' file: the option's, the variable's, or on Leek's volume."""
    variable = environ.get(FILE_VARIABLE, "").strip()
    return option or (Path(variable) if variable else SUBSCRIPTIONS_FILE)


def load_subscriptions(
    environ: Mapping[str, str], config_file: Path | None, *, allow_none: bool = False
) -> list[Subscription]:
    """Return the subscriptions, valid and complete, from the variable or else from the file.

    ``config_file`` is as for :func:`subscriptions_file`. Raises ConfigError with every mistake of
    every subscription, one line each, without any secret. An empty list is a mistake unless
    ``allow_none``, because an agent that has nothing to do is nearly always a misplaced file.
    """
    origin, entries = read_entries(environ, config_file)
    if not entries and not allow_none:
        raise ConfigError(
            [f"{origin} holds an empty list: it must name at least one subscription."]
        )
    return subscriptions_of(entries, environ)


def read_entries(environ: Mapping[str, str], config_file: Path | None) -> tuple[str, list[Any]]:
    """Return where the subscriptions come from, and what the JSON text there holds."""
    if subscriptions_from_variable(environ):
        origin, text = SUBSCRIPTIONS_VARIABLE, environ[SUBSCRIPTIONS_VARIABLE]
    else:
        path = subscriptions_file(config_file, environ)
        origin, text = str(path), read_subscriptions_file(path)
    return origin, parse_entries(text, origin)


def subscriptions_of(entries: list[Any], environ: Mapping[str, str]) -> list[Subscription]:
    """Return subscriptions from what the JSON text holds; ConfigError as for loading.

    References to variables and files are followed first, and reported first if they lead nowhere.
    """
    return [
        Subscription(**{**values, **{key: _tls(values[key]) for key in ("broker_tls", "api_tls")}})
        for values in validate(references.resolve(entries, environ), environ)
    ]


def for_processes(subscriptions: Iterable[Subscription]) -> list[Subscription]:
    """Return one subscription for each process: several that differ in their names only.

    They read the same queue as competing consumers. Each has ``processes`` 1, so that none is
    restarted when their number changes.
    """
    made = []
    for subscription in subscriptions:
        one = replace(subscription, processes=1)
        made += [one, *(replace(one, number=n) for n in range(2, subscription.processes + 1))]
    return made


def _tls(values: dict[str, str | None] | None) -> Tls | None:
    return None if values is None else Tls(**values)


def read_subscriptions_file(path: Path) -> str:
    """Return the text of a subscriptions file; ConfigError says why it can't be read."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        problem = (
            f"There is no file {path}: write the subscriptions there, name another file with "
            f"--config, or set {SUBSCRIPTIONS_VARIABLE}."
        )
    except UnicodeDecodeError as error:
        problem = f"{path} is not UTF-8 text (byte {error.start} can't be decoded)."
    except OSError as error:
        problem = f"{path} can't be read: {error.strerror}."
    except ValueError:  # a NUL in the path
        problem = f"{str(path)!r} is no file name."
    raise ConfigError([problem])


def parse_entries(text: str, origin: str) -> list[Any]:
    """Return the list in the JSON text of ``origin``; ConfigError says what else is there."""

    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if repeated := [
            key for key, times in Counter(key for key, _ in pairs).items() if times > 1
        ]:
            raise ConfigError(
                [f"{origin}: the key {shown(key)} stands twice in one object." for key in repeated]
            )
        return dict(pairs)

    try:
        entries = json.loads(text, object_pairs_hook=without_repeats)
    except json.JSONDecodeError as error:
        problem = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise ConfigError([f"{origin} is not JSON: {problem}."]) from None
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        raise ConfigError([f"{origin} is not JSON that can be read."]) from None
    if isinstance(entries, dict):
        raise ConfigError(
            [
                f"{origin} holds a JSON object, which is the format of old versions of Leek: write "
                "a JSON array of subscriptions, each with its own app_name and app_env."
            ]
        )
    if not isinstance(entries, list):
        raise ConfigError([f"{origin} holds {shown(entries)}: it must be a JSON array."])
    return entries
