"""``leekfanout health``: might a restart help? For Docker's HEALTHCHECK and for scripts."""

import argparse
import time

from leekfanout.control import control_client
from leekfanout.status.health_report import NO_AGENT, Health, liveness_of, readiness_of

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
    """Print a line for each subscription; return 0 if the agent is alive, or all is ready; else 1."""
    try:
        statuses = control_client.connect(args).call("leekfanout.getStatus")
        health = readiness_of(statuses) if args.ready else liveness_of(statuses, time.monotonic())
    except control_client.NoAgentError as error:
        health = Health(ok=False, lines=(str(error) or NO_AGENT,))
    print("\n".join(health.lines) or "No subscriptions.")
    return 0 if health.ok else EXIT_UNWELL
