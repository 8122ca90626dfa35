"""``leekfanout reload``: read the subscriptions again and apply what has changed."""

import argparse
import json

from leekfanout.control import control_client


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``reload``."""
    parser.epilog = "Exit code: 0 done, 2 there is no agent, or the subscriptions can't be used."
    parser.add_argument("--json", action="store_true", help="the difference, for machines")
    control_client.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Reload, and print what was added, changed and removed."""
    what: dict[str, list[str]] = control_client.connect(args).call("leekfanout.reload")
    if args.json:
        print(json.dumps(what))
        return 0
    for word, names in what.items():
        for name in names:
            print(f"{name}: {word}")
    if not any(what.values()):
        print("Nothing has changed.")
    return 0
