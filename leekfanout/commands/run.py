"""``leekfanout run``: the agent itself."""

import argparse
import gc
import os
from collections.abc import Callable, Sequence

from leekfanout import config, control_client, logs, proctitle, startup_checks, subscription
from leekfanout.config import Subscription
from leekfanout.errors import FixedConfigError
from leekfanout.supervisor import Supervisor


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``run``."""
    config.add_settings_options(parser)
    control_client.add_socket_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run the agent until a signal ends it.

    Raises ConfigError, with nothing started, and AgentRunsError.
    """
    settings = config.load_settings(args, os.environ)
    subscriptions = config.load_subscriptions(os.environ, args.config)
    logs.configure(settings.log_level, settings.log_format)
    os.umask(0o077)  # what the agent writes may quote events, which are nobody else's business
    load = _loader(args)
    proctitle.forget_variable(config.SUBSCRIPTIONS_VARIABLE)
    socket_path = control_client.socket_path(args, os.environ)
    supervisor = Supervisor(settings, socket_path, subscription.run, load)
    # What is imported by now stays shared between all processes: frozen, the collector doesn't
    # write to it, and so doesn't copy its pages.
    gc.collect()
    gc.freeze()
    return supervisor.run(subscriptions, startup_checks.report)


def _loader(args: argparse.Namespace) -> Callable[[], Sequence[Subscription]]:
    if config.subscriptions_from_variable(os.environ):
        return _refuse
    return lambda: config.load_subscriptions(os.environ, args.config, allow_none=True)


def _refuse() -> Sequence[Subscription]:
    raise FixedConfigError(
        [
            f"The subscriptions come from {config.SUBSCRIPTIONS_VARIABLE}, which can't change while "
            "the agent runs: change it and start the agent again, or use a file instead."
        ]
    )
