"""``leekfanout health``: does everything run that should? For Docker's HEALTHCHECK and for scripts."""

import argparse

from leekfanout.control import control_client
from leekfanout.status.health_report import NO_AGENT, Health, health_of, readiness_of

EXIT_UNWELL = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``health``."""
    control_client.add_options(parser)
    parser.add_argument(
        "--ready",
        action="store_true",
        help="ask instead whether every subscription is delivering now: broker and API are there",
    )


def run(args: argparse.Namespace) -> int:
    """Print a line for each subscription; return 0 if all is well, else 1."""
    judge = readiness_of if args.ready else health_of
    try:
        health = judge(control_client.connect(args).call("leekfanout.getStatus"))
    except control_client.NoAgentError as error:
        health = Health(ok=False, lines=(str(error) or NO_AGENT,))
    print("\n".join(health.lines) or "No subscriptions.")
    return 0 if health.ok else EXIT_UNWELL
