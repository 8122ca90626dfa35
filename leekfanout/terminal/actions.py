"""What ``leekfanout start``, ``stop`` and ``restart`` have in common: a result for each process."""

import argparse
import json
from typing import Any, Final

from leekfanout.control import control_client
from leekfanout.control.control_client import RefusedError
from leekfanout.control.process_info import GROUP
from leekfanout.control.rpc import Fault
from leekfanout.errors import LeekfanoutError

EXIT_FAILED: Final = 1
"""The agent couldn't do it for a subscription."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of an action."""
    parser.epilog = "Exit code: 0 done, 1 it failed, 2 there is no agent or no such name."
    parser.add_argument("name", metavar="NAME", nargs="?", help="only this subscription")
    parser.add_argument("--json", action="store_true", help="the results, for machines")
    control_client.add_options(parser)


def act(args: argparse.Namespace, method: str, done: str) -> int:
    """Call a method that answers with a result for each process, and print those.

    ``done`` is the word for success. What is so already is no failure.
    """
    client = control_client.connect(args)
    target = GROUP if args.name is None else f"{GROUP}:{control_client.bare(args.name)}"
    try:
        results: list[dict[str, Any]] = client.call(method, target)
    except RefusedError as error:
        if error.code == Fault.BAD_NAME:
            raise LeekfanoutError(f"The agent has no subscription {args.name}.") from None
        raise
    if args.json:
        print(json.dumps(results, indent=2))
    else:
        for result in results:
            print(f"{result['name']}: {done if _succeeded(result) else _why(result)}")
        if not results:
            print(f"Nothing to do: {args.name or 'every subscription'} is {done} already.")
    return 0 if all(map(_succeeded, results)) else EXIT_FAILED


def _succeeded(result: dict[str, Any]) -> bool:
    return bool(result["status"] == Fault.SUCCESS)


def _why(result: dict[str, Any]) -> str:
    """Return a fault's text without its code and the process's name, which precede the reason."""
    description: str = result["description"]
    return description.rpartition(f"{result['name']}: ")[2]
