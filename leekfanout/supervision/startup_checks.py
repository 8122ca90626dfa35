"""What an agent that starts says of each broker and API, in a process of its own.

A check takes threads and, where nobody answers, half a minute: neither is for the supervisor, and
no subscription waits for it.
"""

from collections.abc import Sequence

from leekfanout import logs
from leekfanout.configuration.config import Subscription
from leekfanout.health import check_all

log = logs.get("check")


def report(subscriptions: Sequence[Subscription]) -> int:
    """Check all brokers and APIs, write one line for each subscription, and return an exit code."""
    # What several processes share is asked for once.
    for health in check_all([each for each in subscriptions if each.number == 1]):
        well = health.broker.ok and health.api.ok
        write = log.info if well else log.warning
        write(
            "check.done",
            subscription=health.subscription.name,
            broker=health.broker,
            api=health.api,
        )
    return 0
