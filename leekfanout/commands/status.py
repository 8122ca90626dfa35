"""``leekfanout status``: how each subscription is."""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from leekfanout.control import control_client
from leekfanout.control.control_client import Client
from leekfanout.errors import LeekfanoutError
from leekfanout.status.diagnosis import diagnose
from leekfanout.status.status_table import lines, rates
from leekfanout.supervision.lifecycle import State
from leekfanout.terminal.screen import Screen, has_colour, is_live
from leekfanout.terminal.stopping import StopSignals

EXIT_NOT_RUNNING: Final = 3
"""A subscription's process isn't RUNNING (as for a service's status in the Linux Standard Base)."""

EVERY_S: Final = 1.0
"""Between two looks: of ``--watch``, and of the one that rates need."""

UNLIMITED: Final = 1_000_000
"""Columns of an output that is no terminal."""

Statuses = Sequence[Mapping[str, Any]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``status``."""
    parser.epilog = "Exit code: 0 all run, 3 one doesn't, 2 there is no agent or no such name."
    parser.add_argument("name", metavar="NAME", nargs="?", help="only this subscription")
    parser.add_argument("--json", action="store_true", help="everything, for machines")
    parser.add_argument("--watch", action="store_true", help="look again each second")
    control_client.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Show the status; see the epilog for the exit code."""
    client = control_client.connect(args)
    if args.watch:
        return _watch(client, args)
    first, at = _look(client, args.name), time.monotonic()
    if args.json:
        print(_as_json(first))
        return _exit_code(first)
    time.sleep(EVERY_S)
    second = _look(client, args.name)
    _print(_lines(second, rates(first, second, time.monotonic() - at)))
    return _exit_code(second)


def _watch(client: Client, args: argparse.Namespace) -> int:
    before, at = _look(client, args.name), time.monotonic()
    screen = Screen(sys.stdout) if not args.json and is_live(sys.stdout) else None
    try:
        with StopSignals() as signals:
            while not signals.wait(EVERY_S):
                now, now_at = _look(client, args.name), time.monotonic()
                if args.json:
                    print(_as_json(now, indent=None), flush=True)
                else:
                    drawn = _lines(now, rates(before, now, now_at - at))
                    if screen is None:
                        _print([*drawn, ""])
                    else:
                        screen.draw(drawn)
                before, at = now, now_at
    finally:
        if screen is not None:
            screen.close()
    return _exit_code(before)


def _look(client: Client, name: str | None) -> Statuses:
    statuses: Statuses = client.call("leekfanout.getStatus")
    if name is None:
        return statuses
    wanted = control_client.bare(name)
    found = [status for status in statuses if status["name"] == wanted]
    if not found:
        raise LeekfanoutError(f"The agent has no subscription {wanted}.")
    return found


def _lines(statuses: Statuses, rates_by_name: Mapping[str, float]) -> list[str]:
    width = shutil.get_terminal_size().columns if is_live(sys.stdout) else UNLIMITED
    colour = has_colour(sys.stdout)
    return lines(statuses, rates_by_name, time.time(), width, colour=colour)


def _print(table: Sequence[str]) -> None:
    print("\n".join(table), flush=True)


def _as_json(statuses: Statuses, indent: int | None = 2) -> str:
    now = time.time()
    rows = []
    for status in statuses:
        diagnosis = diagnose(status, now)
        about = {
            "level": diagnosis.level.value,
            "words": diagnosis.words,
            "error": diagnosis.error,
            "advice": diagnosis.advice,
        }
        rows.append({**status, "diagnosis": about})
    return json.dumps(_whole(rows), indent=indent)


def _whole(value: Any) -> Any:
    """Return counts, which travel as floats, as whole numbers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return value


def _exit_code(statuses: Statuses) -> int:
    running = all(status["state"] == State.RUNNING for status in statuses)
    return 0 if running else EXIT_NOT_RUNNING
