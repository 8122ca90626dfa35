"""Health checks: would this broker and this API work, and if not, why not?

Each check opens a connection of its own, changes nothing on the other side, consumes nothing and
raises nothing. ``amqp``, ``redis`` and ``api`` do the asking, ``check`` says what can come out.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from leekfanout.configuration.addresses import parse_address, transport_of
from leekfanout.configuration.config import Subscription
from leekfanout.health.amqp import check_amqp_address
from leekfanout.health.api import check_api_of
from leekfanout.health.check import Check, Kind, combined
from leekfanout.health.concurrent import run_checks
from leekfanout.health.redis import check_redis_address, check_sentinels

__all__ = ["Check", "Health", "Kind", "check_all", "check_api", "check_broker"]


def check_broker(subscription: Subscription) -> Check:
    """Return whether the broker takes the credentials and lets us read events.

    Of failover addresses one that is well suffices; the others are named in the advice. Takes some
    seconds at most for each wait, starts threads for several addresses.
    """
    first = parse_address(subscription.broker[0])
    transport = transport_of(first.scheme)
    if transport == "sentinel":
        (check,) = run_checks([partial(check_sentinels, subscription)])
        return check
    if transport == "redis":
        addresses = map(parse_address, subscription.broker)
        checks = [partial(check_redis_address, subscription, address) for address in addresses]
    else:
        checks = [partial(check_amqp_address, subscription, url) for url in subscription.broker]
    return combined(run_checks(checks))


def check_api(subscription: Subscription) -> Check:
    """Return whether the API is up and takes this application's documents. As above."""
    (check,) = run_checks([partial(check_api_of, subscription)])
    return check


class Health(NamedTuple):
    """What was found for one subscription."""

    subscription: Subscription
    broker: Check
    api: Check


def check_all(subscriptions: Sequence[Subscription]) -> list[Health]:
    """Check brokers and APIs of all subscriptions side by side, a bounded number at a time."""
    checks = [partial(check, each) for each in subscriptions for check in (check_broker, check_api)]
    results = run_checks(checks)
    return [
        Health(each, broker, api)
        for each, broker, api in zip(subscriptions, results[::2], results[1::2], strict=True)
    ]
