"""``leekfanout subscriptions``: list, add, remove or validate subscriptions; JSON in and out."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from leekfanout.configuration import config, enrolment
from leekfanout.configuration.config import SUBSCRIPTIONS_VARIABLE
from leekfanout.configuration.subscriptions_file import SubscriptionsFile
from leekfanout.configuration.validation import name_of
from leekfanout.errors import ConfigError, LeekfanoutError
from leekfanout.redaction import redact_entry

EXIT_INVALID: Final = 2
STANDARD_INPUT: Final = "-"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _action(actions, "list", "show all subscriptions, without their secrets")
    add = _action(actions, "add", "add one, if its broker and its API take it")
    add.add_argument(
        "file",
        nargs="?",
        default=STANDARD_INPUT,
        metavar="FILE",
        help="a JSON object; standard input if it is - or isn't given. "
        "There is no option for it, because other users see a command's arguments",
    )
    remove = _action(actions, "remove", "remove one; its queue stays, unless told otherwise")
    remove.add_argument("name", metavar="NAME", help="its name, such as shop-prod")
    remove.add_argument(
        "--delete-queue", action="store_true", help="delete its queue at RabbitMQ, if it is empty"
    )
    remove.add_argument(
        "--force",
        action="store_true",
        help="with --delete-queue: delete it with its messages, and even if it is still read",
    )
    validate = _action(actions, "validate", "say whether subscriptions are valid; nobody is asked")
    validate.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="a JSON array, standard input if it is -; without it, what the agent would load",
    )


def _action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    config.add_config_option(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what was asked, and print JSON. Raises LeekfanoutError, with nothing changed."""
    return {"list": _list, "add": _add, "remove": _remove, "validate": _validate}[args.action](args)


def _list(args: argparse.Namespace) -> int:
    if config.subscriptions_from_variable(os.environ):
        text = os.environ[SUBSCRIPTIONS_VARIABLE]
        entries = config.parse_entries(text, SUBSCRIPTIONS_VARIABLE)
    else:
        file = _file(args)
        entries = file.entries()
        if not entries and not file.path.exists():
            print(f"leekfanout: there is no file {file.path} (see --config).", file=sys.stderr)
    _print([_shown(entry) for entry in entries])
    return 0


def _add(args: argparse.Namespace) -> int:
    text, origin = _read(args.file)
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        raise LeekfanoutError(f"{origin} is not JSON.") from None
    if not isinstance(entry, dict):
        raise LeekfanoutError(f"{origin} must hold one subscription, which is a JSON object.")
    enrolment.add(_file(args), entry, os.environ)
    _print(_shown(entry))
    return 0


def _remove(args: argparse.Namespace) -> int:
    removed = enrolment.remove(
        _file(args), args.name, os.environ, queue_too=args.delete_queue, force=args.force
    )
    _print({"removed": removed.name, "queue": removed.queue, "note": removed.note})
    return 0


def _validate(args: argparse.Namespace) -> int:
    try:
        if args.file is None:
            subscriptions = config.load_subscriptions(os.environ, args.config)
        else:
            entries = config.parse_entries(*_read(args.file))
            subscriptions = config.subscriptions_of(entries, os.environ)
    except ConfigError as error:
        _print({"valid": False, "problems": error.problems})
        return EXIT_INVALID
    _print({"valid": True, "subscriptions": [each.name for each in subscriptions]})
    return 0


def _file(args: argparse.Namespace) -> SubscriptionsFile:
    return SubscriptionsFile(config.subscriptions_file(args.config, os.environ))


def _read(file: str) -> tuple[str, str]:
    """Return the text of a file or of standard input, and what to call it."""
    if file != STANDARD_INPUT:
        return config.read_subscriptions_file(Path(file)), file
    if sys.stdin.isatty():
        print("leekfanout: reading JSON from standard input …", file=sys.stderr)
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig"), "standard input"
    except UnicodeDecodeError:
        raise LeekfanoutError("Standard input is not UTF-8 text.") from None


def _shown(entry: Any) -> Any:
    name = name_of(entry)
    return redact_entry(entry) if name is None else {"name": name, **redact_entry(entry)}


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2))
