"""``leekfanout start``: start the agent's subscriptions, or one of them."""

import argparse

from leekfanout.terminal import actions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``start``."""
    actions.configure(parser)


def run(args: argparse.Namespace) -> int:
    """Start what doesn't run, and return once it has lived for a second."""
    return actions.act(args, "supervisor.startProcessGroup", "started")
