"""``leekfanout stop``: drain and stop the agent's subscriptions, or one of them."""

import argparse

from leekfanout.terminal import actions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``stop``."""
    actions.configure(parser)


def run(args: argparse.Namespace) -> int:
    """Drain and stop what runs, and return once it has ended."""
    return actions.act(args, "supervisor.stopProcessGroup", "stopped")
