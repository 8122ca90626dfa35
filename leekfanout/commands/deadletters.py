"""``leekfanout deadletters``: list, show, replay or purge the events that were refused."""

import argparse
import base64
import json
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from leekfanout.configuration import config
from leekfanout.configuration.config import BYTES_PER_MB
from leekfanout.errors import LeekfanoutError
from leekfanout.stores.deadletters import (
    EVERYTHING,
    FILE_NAME,
    KINDS,
    DeadLetters,
    LetterFilter,
    StoredLetter,
)
from leekfanout.stores.replay import Replayed, replay
from leekfanout.terminal.question import confirmed
from leekfanout.terminal.screen import Cell, columns, has_colour, printable

EXIT_LEFT: Final = 1
"""Something that should have gone is still there."""

UNLIMITED: Final = 1_000_000
"""Columns of an output that is no terminal."""

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


class LetterId(NamedTuple):
    """What names a letter among those of all subscriptions: ``shop-prod:12``."""

    subscription: str
    number: int

    def __str__(self) -> str:
        return f"{self.subscription}:{self.number}"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    show = _add(actions, "show", _show, "show a dead letter with all that is known of it")
    show.add_argument("id", metavar="ID", type=_letter_id, help="as it is listed: shop-prod:12")
    _add_filters(_add(actions, "list", _list, "list dead letters, the oldest first"))
    again = _add(actions, "replay", _replay, "deliver again, and remove what is confirmed")
    which = again.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "ids",
        metavar="ID",
        nargs="*",
        type=_letter_id,
        default=[],
        help="a letter, as it is listed",
    )
    which.add_argument("--all", action="store_true", help="all that the filters fit")
    _add_filters(again)
    config.add_config_option(again)
    purge = _add(actions, "purge", _purge, "remove dead letters for good")
    purge.add_argument("--yes", action="store_true", help="don't ask")
    _add_filters(purge)


def run(args: argparse.Namespace) -> int:
    """Do what was asked; 1: something that should have gone is still there."""
    code: int = args.action(args)
    return code


def _add(
    actions: Any, name: str, action: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    description = f"{summary[0].upper()}{summary[1:]}."
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=summary, description=description
    )
    parser.set_defaults(action=action)
    config.add_state_dir_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, an object per line")
    return parser


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--subscription", metavar="NAME", help="only those of one subscription")
    parser.add_argument("--kind", choices=KINDS, help="only those of one kind")
    parser.add_argument("--reason", metavar="TEXT", help="only those whose reason has this text")
    parser.add_argument(
        "--since",
        metavar="WHEN",
        type=_moment,
        help="only those set aside since then: 90m, 2h, 3d, or a date and time in ISO 8601",
    )


def _filter(args: argparse.Namespace) -> LetterFilter:
    return LetterFilter(kind=args.kind, reason=args.reason, since=args.since)


def _stores(args: argparse.Namespace, only: str | None) -> Iterator[DeadLetters]:
    """Give the dead letters of each subscription that has any, or of ``only`` one."""
    settings = config.load_settings(args, os.environ)
    max_bytes = int(settings.dead_letters_max_mb * BYTES_PER_MB)
    for path in _files_in(settings.state_dir):
        if only in {None, path.parent.name}:
            store = DeadLetters(path, path.parent.name, max_bytes, owner=False)
            try:
                yield store
            finally:
                store.close()


def _files_in(state_dir: Path) -> list[Path]:
    """Return the files of dead letters; LeekfanoutError where nobody can tell which there are."""
    try:
        folders = sorted(entry.path for entry in os.scandir(state_dir) if entry.is_dir())
        return [Path(folder, FILE_NAME) for folder in folders if FILE_NAME in os.listdir(folder)]
    except OSError as error:
        raise LeekfanoutError(
            f"{error.filename} can't be read: {error.strerror}. The dead letters are in the agent's "
            "state folder: name it with --state-dir, and be its user or root."
        ) from None


def _letters(store: DeadLetters, only: LetterFilter = EVERYTHING) -> Iterator[StoredLetter]:
    """Give the letters that are there now, the oldest first."""
    newest = store.newest_id()
    last = 0
    while page := store.select(only, after=last):
        for letter in page:
            if letter.id > newest:
                return
            yield letter
        last = page[-1].id


def _list(args: argparse.Namespace) -> int:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED
    none = True
    for store in _stores(args, args.subscription):
        rows = []
        for letter in _letters(store, _filter(args)):
            letter_id = str(LetterId(store.subscription, letter.id))
            if args.json:
                print(json.dumps({**letter._asdict(), "id": letter_id, "at": _iso(letter.at)}))
            else:
                rows.append(
                    (
                        Cell(letter_id, "bold"),
                        Cell(_iso(letter.at)),
                        Cell(letter.kind),
                        Cell(f"{letter.size_bytes:,} B", right=True),
                        Cell(letter.reason),
                    )
                )
            none = False
        if rows:
            limits = (100, 30, 10, 20, UNLIMITED)
            print("\n".join(columns(rows, limits, width, colour=has_colour(sys.stdout))))
    if none and not args.json:
        print("There are no dead letters that fit.", file=sys.stderr)
    return 0


def _show(args: argparse.Namespace) -> int:
    for store in _stores(args, args.id.subscription):
        letter = store.get(args.id.number)
        if letter is None:
            break
        if args.json:
            shown = {"id": str(args.id), **letter._asdict(), "at": _iso(letter.at)}
            payload = shown.pop("payload")
            print(json.dumps({**shown, **_payload(payload)}))
            return 0
        print(f"ID       {args.id}")
        print(f"Time     {_iso(letter.at)}")
        print(f"Kind     {letter.kind}")
        print(f"Reason   {printable(letter.reason)}")
        if letter.answer is not None:
            print(f"Answer   {printable(letter.answer)}")
        print(f"Payload  {len(letter.payload):,} bytes\n")
        for line in letter.payload.decode("utf-8", "backslashreplace").splitlines():
            print(printable(line))
        return 0
    raise LeekfanoutError(f"There is no dead letter {args.id}.")


def _payload(payload: bytes) -> dict[str, str]:
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(payload).decode()}


def _purge(args: argparse.Namespace) -> int:
    fits = sum(
        1 for store in _stores(args, args.subscription) for _ in _letters(store, _filter(args))
    )
    if fits and not args.yes and not confirmed(f"Remove {fits:,} dead letters for good?"):
        return EXIT_LEFT
    purged = sum(store.purge(_filter(args)) for store in _stores(args, args.subscription))
    print(json.dumps({"purged": purged}) if args.json else f"{purged:,} dead letters removed.")
    return 0


def _replay(args: argparse.Namespace) -> int:
    if args.ids and (args.subscription or _filter(args) != EVERYTHING):
        raise LeekfanoutError("Filters go with --all, not with single dead letters.")
    subscriptions = {
        subscription.name: subscription
        for subscription in config.for_processes(config.load_subscriptions(os.environ, args.config))
    }
    code = 0
    missing = set(args.ids)
    for store in _stores(args, args.subscription):
        name = store.subscription
        if args.all:
            ids = [letter.id for letter in _letters(store, _filter(args))]
        else:
            wanted = {each.number for each in args.ids if each.subscription == name}
            ids = [number for number in sorted(wanted) if store.get(number) is not None]
            missing -= {LetterId(name, number) for number in ids}
        if not ids:
            continue
        if name not in subscriptions:
            _complain(f"{name} is not among the subscriptions, so its API isn't known.")
            code = EXIT_LEFT
            continue
        replayed = replay(store, subscriptions[name], ids)
        _print_replayed(name, replayed, as_json=args.json)
        if replayed.staying or replayed.stopped is not None:
            code = EXIT_LEFT
    for letter_id in sorted(missing):
        _complain(f"There is no dead letter {letter_id}.")
        code = EXIT_LEFT
    return code


def _print_replayed(name: str, replayed: Replayed, *, as_json: bool) -> None:
    if as_json:
        staying = {str(LetterId(name, number)): why for number, why in replayed.staying.items()}
        print(
            json.dumps(
                {
                    "subscription": name,
                    "delivered": replayed.delivered,
                    "staying": staying,
                    "stopped": replayed.stopped,
                }
            )
        )
        return
    print(f"{name}: {replayed.delivered:,} delivered and removed.")
    for reason, number in Counter(replayed.staying.values()).most_common():
        print(f"{name}: {number:,} stay: {printable(reason)}")
    if replayed.stopped is not None:
        print(f"{name}: all others stay, for the API takes nothing: {printable(replayed.stopped)}")


def _complain(problem: str) -> None:
    print(f"leekfanout: {problem}", file=sys.stderr)


def _letter_id(text: str) -> LetterId:
    subscription, separator, number = text.rpartition(":")
    if not separator or not subscription or not (number.isascii() and number.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no ID, which look like shop-prod:12")
    return LetterId(subscription, int(number))


def _moment(text: str) -> float:
    """Return a moment in epoch seconds; without an offset it is in local time."""
    if ago := re.fullmatch(r"(\d{1,9})([smhdw])", text):
        return time.time() - int(ago[1]) * _UNITS_S[ago[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a time ago (90m, 2h, 3d) nor a date and time in ISO 8601"
        ) from None


def _iso(epoch_s: float) -> str:
    try:
        moment = datetime.fromtimestamp(epoch_s, UTC)
    except (ValueError, OverflowError, OSError):  # a clock that was far off, then
        return f"{epoch_s:.0f} s"
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
