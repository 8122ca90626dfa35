"""The command line: one subcommand per file in ``leekfanout.commands``."""

import argparse
import importlib
import os
import sys
from typing import Final

from leekfanout.errors import LeekfanoutError
from leekfanout.version import VERSION

EXIT_USAGE: Final = 2
"""What bad input ends with: a configuration, an argument or a file that can't be used."""

COMMANDS: Final[dict[str, str]] = {
    "run": "run the agent: deliver every subscription's events until told to stop",
    "check": "validate the subscriptions and ask every broker and API, without consuming",
    "health": "say whether the agent is alive, or ready, for health checks",
    "status": "show how each subscription is",
    "start": "start the agent's subscriptions, or one of them",
    "stop": "drain and stop the agent's subscriptions, or one of them",
    "restart": "drain, stop and start again",
    "reload": "read the subscriptions again and apply what has changed",
    "pid": "print the process id of the agent, or of one subscription",
    "subscriptions": "list, add, remove or validate subscriptions in the file",
    "deadletters": "list, show, replay or purge the events that were refused",
    "redis-orphans": "find, and delete, what dead monitors left in a Redis broker",
    "documents": "turn Celery events into Leek documents, for dry runs",
    "sink": "run a small Leek API that shows what arrives",
    "demo": "show real Celery tasks arriving as documents, with nothing to configure",
    "completion": "print a script that lets bash, zsh or fish complete commands and options",
}


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; with ``only``, import no other command's module than that one."""
    parser = argparse.ArgumentParser(
        prog="leekfanout",
        description="Leek's agent, rebuilt: Celery events from RabbitMQ and Redis to a Leek API.",
    )
    parser.add_argument("--version", action="version", version=f"leekfanout {VERSION}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        description = f"{summary[0].upper()}{summary[1:]}."
        subparser = subparsers.add_parser(name, help=summary, description=description)
        if only in {None, name}:
            _command(name).configure(subparser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; bad input is one line on standard error and 2."""
    arguments = sys.argv[1:] if argv is None else argv
    named = next((word for word in arguments if not word.startswith("-")), None)
    parser = build_parser(only=named if named in COMMANDS else "run")
    args = parser.parse_args(arguments)
    try:
        code: int = _command(args.command).run(args)
        sys.stdout.flush()
    except LeekfanoutError as error:
        for line in str(error).splitlines():
            print(f"leekfanout: {line}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        # The reader of our output went away (`leekfanout … | head`): no news for anybody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _command(name: str):  # type: ignore[no-untyped-def]  # a module with configure() and run()
    return importlib.import_module(f"leekfanout.commands.{name.replace('-', '_')}")
