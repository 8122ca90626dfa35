"""``leekfanout run``: the agent itself."""

import argparse
import gc
import os
from collections.abc import Callable, Sequence

from leekfanout import config, logs, proctitle, subscription
from leekfanout.config import Subscription
from leekfanout.errors import ConfigError
from leekfanout.supervisor import Supervisor

SUBSCRIPTIONS_VARIABLE = "LEEK_AGENT_SUBSCRIPTIONS"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``run``."""
    config.add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the agent until a signal ends it; ConfigError: nothing was started."""
    settings = config.load_settings(args, os.environ)
    subscriptions = config.load_subscriptions(os.environ, args.config)
    logs.configure(settings.log_level, settings.log_format)
    load = _loader(args, fixed=SUBSCRIPTIONS_VARIABLE in os.environ)
    proctitle.forget_variable(SUBSCRIPTIONS_VARIABLE)
    supervisor = Supervisor(settings, subscription.run, load)
    # What is imported by now stays shared between all processes: frozen, the collector doesn't
    # write to it, and so doesn't copy its pages.
    gc.collect()
    gc.freeze()
    return supervisor.run(subscriptions)


def _loader(args: argparse.Namespace, fixed: bool) -> Callable[[], Sequence[Subscription]]:
    def load() -> Sequence[Subscription]:
        if fixed:
            raise ConfigError(
                [
                    f"The subscriptions come from {SUBSCRIPTIONS_VARIABLE}, which can't change "
                    "while the agent runs: change it and start the agent again, or use a file."
                ]
            )
        return config.load_subscriptions(os.environ, args.config)

    return load
