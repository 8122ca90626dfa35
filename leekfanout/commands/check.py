"""``leekfanout check``: is the configuration valid, and do its brokers and APIs take us?"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from leekfanout import health
from leekfanout.configuration import config
from leekfanout.errors import ConfigError
from leekfanout.health import Check
from leekfanout.terminal.screen import Cell, columns, has_colour

EXIT_FAILED: Final = 2

_UNLIMITED: Final = 10_000
"""Columns: the sentences are whole, wherever the terminal breaks them."""


class Line(NamedTuple):
    """One subscription and one check of it."""

    subscription: str
    what: str
    check: Check


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``check``."""
    config.add_config_option(parser)
    parser.add_argument("--json", action="store_true", help="write one JSON object")


def run(args: argparse.Namespace) -> int:
    """Validate, ask every broker and API, and print a line for each; 2 if anything is wrong.

    Raises ConfigError, but with ``--json`` writes its problems as JSON.
    """
    if args.config is not None and config.subscriptions_from_variable(os.environ):
        print(
            f"leekfanout: {config.SUBSCRIPTIONS_VARIABLE} is set and wins over {args.config}.",
            file=sys.stderr,
        )
    try:
        subscriptions = config.load_subscriptions(os.environ, args.config)
    except ConfigError as error:
        if not args.json:
            raise
        print(json.dumps({"ok": False, "problems": error.problems, "checks": []}))
        return EXIT_FAILED
    lines = [
        Line(each.subscription.name, what, check)
        for each in health.check_all(subscriptions)
        for what, check in (("broker", each.broker), ("api", each.api))
    ]
    ok = all(line.check.ok for line in lines)
    if args.json:
        print(json.dumps({"ok": ok, "problems": [], "checks": [_as_json(line) for line in lines]}))
    else:
        print("\n".join(_as_text(lines, colour=has_colour(sys.stdout))))
    return 0 if ok else EXIT_FAILED


def _as_json(line: Line) -> dict[str, Any]:
    return {
        "subscription": line.subscription,
        "check": line.what,
        "ok": line.check.ok,
        "kind": line.check.kind,
        "message": line.check.words,
        "advice": line.check.advice,
    }


def _as_text(lines: Sequence[Line], *, colour: bool) -> list[str]:
    rows = [
        [
            Cell(line.subscription, "bold"),
            Cell(line.what),
            Cell("ok", "green") if line.check.ok else Cell("failed", "red"),
            Cell(str(line.check)),
        ]
        for line in lines
    ]
    return columns(rows, [_UNLIMITED] * 4, 4 * _UNLIMITED, colour=colour)
