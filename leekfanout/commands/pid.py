"""``leekfanout pid``: the process id of the agent, or of one subscription."""

import argparse
import json
import sys
from typing import Final

from leekfanout.control import control_client
from leekfanout.control.control_client import RefusedError
from leekfanout.control.process_info import GROUP
from leekfanout.control.rpc import Fault
from leekfanout.errors import LeekfanoutError

EXIT_NOT_RUNNING: Final = 3
"""The subscription has no process now."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pid``."""
    parser.epilog = "Exit code: 0 printed, 3 it has none, 2 there is no agent or no such name."
    parser.add_argument("name", metavar="NAME", nargs="?", help="a subscription")
    parser.add_argument("--json", action="store_true", help='as {"pid": 42}, for machines')
    control_client.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the process id; see the epilog for the exit code."""
    client = control_client.connect(args)
    if args.name is None:
        pid = client.call("supervisor.getPID")
    else:
        name = control_client.bare(args.name)
        try:
            pid = client.call("supervisor.getProcessInfo", f"{GROUP}:{name}")["pid"]
        except RefusedError as error:
            if error.code == Fault.BAD_NAME:
                raise LeekfanoutError(f"The agent has no subscription {name}.") from None
            raise
    if args.json:
        print(json.dumps({"pid": pid or None}))
    elif pid:
        print(pid)
    else:
        print(f"{args.name} has no process now.", file=sys.stderr)
    return 0 if pid else EXIT_NOT_RUNNING
