"""``leekfanout restart``: drain, stop and start again."""

import argparse

from leekfanout.terminal import actions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``restart``."""
    actions.configure(parser)


def run(args: argparse.Namespace) -> int:
    """Restart each process at its own pace, and return once all run again."""
    return actions.act(args, "leekfanout.restartProcesses", "restarted")
