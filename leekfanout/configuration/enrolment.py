"""Adding a subscription to the file, and removing one, with all that is to be asked before."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from leekfanout import health
from leekfanout.configuration import config
from leekfanout.configuration.addresses import parse_address
from leekfanout.configuration.config import Subscription
from leekfanout.configuration.subscriptions_file import Entry, SubscriptionsFile
from leekfanout.configuration.validation import SUBSCRIPTION_KEYS, name_of
from leekfanout.errors import (
    ConfigError,
    FixedConfigError,
    LeekfanoutError,
    SubscriptionExistsError,
    SubscriptionRefusedError,
)
from leekfanout.leftovers.leftover_queue import delete_queue, left_behind


class QueueFate(StrEnum):
    """What became of a removed subscription's queue."""

    KEPT = "kept"
    DELETED = "deleted"
    ABSENT = "absent"


class Removed(NamedTuple):
    """A removed subscription's name, its queue's fate, and what a person should know of it."""

    name: str
    queue: QueueFate
    note: str


def add(file: SubscriptionsFile, entry: Any, environ: Mapping[str, str]) -> Subscription:
    """Add a subscription that is valid, whose broker takes us and whose API takes its key.

    Blocks while broker and API are asked. Raises, with nothing written: FixedConfigError,
    ConfigError, SubscriptionExistsError, SubscriptionRefusedError, LeekfanoutError.
    """
    _refuse_if_fixed(environ)
    (subscription,) = config.subscriptions_of([entry], environ)
    if subscription.name in map(name_of, file.entries()):
        raise SubscriptionExistsError(
            f"{file.path} has a subscription {subscription.name} already."
        )
    for check in (health.check_broker, health.check_api):
        found = check(subscription)
        if not found.ok:
            raise SubscriptionRefusedError(
                f"The subscription {subscription.name} is not added. {found}",
                refused=found.refused,
            )
    file.add(entry)
    return subscription


def remove(
    file: SubscriptionsFile,
    name: str,
    environ: Mapping[str, str],
    *,
    queue_too: bool = False,
    force: bool = False,
) -> Removed:
    """Remove a subscription, and with ``queue_too`` its queue at RabbitMQ.

    The queue goes first, and what keeps it from going keeps the subscription too. Raises, with
    nothing changed: FixedConfigError, SubscriptionUnknownError, LeekfanoutError.
    """
    _refuse_if_fixed(environ)
    if not queue_too:
        subscription = _understood(file.remove(name), environ)
        return Removed(name, QueueFate.KEPT, left_behind(subscription) if subscription else "")
    fate, note = QueueFate.ABSENT, "Redis keeps nothing for it."

    def delete(entry: Entry) -> None:
        nonlocal fate, note
        subscription = _understood(entry, environ)
        if subscription is None:
            raise LeekfanoutError(
                f"The subscription {name} is not valid, so its queue can't be deleted: remove it "
                "without --delete-queue."
            )
        if subscription.transport == "redis":
            return
        if not force:
            _refuse_if_shared(file, subscription, environ)
        fate, note = _delete(subscription, force=force)

    file.remove(name, before=delete)
    return Removed(name, fate, note)


def _delete(subscription: Subscription, *, force: bool) -> tuple[QueueFate, str]:
    queue = subscription.queue
    deleted = delete_queue(subscription, force=force)
    if not deleted.existed:
        return QueueFate.ABSENT, f"There was no queue {queue}."
    note = f"The queue {queue} is deleted, with {deleted.messages:,} messages."
    if deleted.consumers:
        note += " It was still being read: a running agent makes it anew unless it is reloaded now."
    return QueueFate.DELETED, note


def _refuse_if_fixed(environ: Mapping[str, str]) -> None:
    if config.subscriptions_from_variable(environ):
        variable = config.SUBSCRIPTIONS_VARIABLE
        raise FixedConfigError(
            [
                f"The subscriptions come from {variable}, which wins over any file: change the "
                "variable instead, or unset it."
            ]
        )


def _refuse_if_shared(
    file: SubscriptionsFile, subscription: Subscription, environ: Mapping[str, str]
) -> None:
    for entry in file.entries():
        other = _understood(entry, environ)
        if (
            other is not None
            and other.name != subscription.name
            and other.queue == subscription.queue
            and _places(other) & _places(subscription)
        ):
            raise LeekfanoutError(
                f"The queue {subscription.queue} is not deleted, because {other.name} reads it too; "
                "--force deletes it all the same."
            )


def _places(subscription: Subscription) -> set[tuple[str, int, str]]:
    addresses = map(parse_address, subscription.broker)
    return {(address.host.lower(), address.port, address.path) for address in addresses}


def _understood(entry: Any, environ: Mapping[str, str]) -> Subscription | None:
    """Return the subscription as far as this version knows its keys; None if that isn't valid."""
    if not isinstance(entry, Mapping):
        return None
    known = {key.name for key in SUBSCRIPTION_KEYS}
    try:
        (subscription,) = config.subscriptions_of(
            [{key: value for key, value in entry.items() if key in known}], environ
        )
    except ConfigError:
        return None
    return subscription
