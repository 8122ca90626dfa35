"""``leekfanout redis-orphans``: find, and delete, what dead monitors left in a Redis broker."""

import argparse
import os
import shutil
import sys
import time
from typing import Any, Final

import hiredis
import redis

from leekfanout.configuration import config
from leekfanout.configuration.addresses import Address, AddressError, parse_address, split_addresses
from leekfanout.configuration.config import Subscription
from leekfanout.errors import LeekfanoutError
from leekfanout.leftovers.redis_orphans import Keys, Orphans, find
from leekfanout.leftovers.redis_orphans_deletion import Deleted, delete
from leekfanout.redaction import redact_url
from leekfanout.sources.redis_connection import in_plain_words, open_connection
from leekfanout.sources.redis_sentinel import find_master
from leekfanout.supervision.proctitle import set_title
from leekfanout.terminal.question import confirmed
from leekfanout.terminal.screen import Cell, columns, has_colour, printable

EXIT_LEFT: Final = 1
"""Something that should have gone is still there."""

QUEUES_SHOWN: Final = 30
PROGRESS_EVERY_S: Final = 1.0
"""How often a terminal is told how far a deletion is."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.epilog = (
        "Only queues of the event exchange alone are deleted, and only items that are events; a "
        "queue that might hold tasks is left alone. Monitors that run don't need what is deleted."
    )
    broker = parser.add_mutually_exclusive_group(required=True)
    broker.add_argument(
        "subscription", metavar="NAME", nargs="?", help="look at this subscription's broker"
    )
    broker.add_argument(
        "--broker",
        metavar="URL",
        help="look at this broker; for a moment, other users can see a password in it with ps",
    )
    parser.add_argument("--exchange", metavar="NAME", help="the event exchange (default: celeryev)")
    parser.add_argument(
        "--global-keyprefix", metavar="PREFIX", help="kombu's transport option of this name"
    )
    parser.add_argument("--delete", action="store_true", help="delete what is found, after asking")
    parser.add_argument("--yes", action="store_true", help="don't ask")
    config.add_config_option(parser)


def run(args: argparse.Namespace) -> int:
    """Show what is orphaned, and delete it if that is wanted; 1: some of it is left."""
    if args.broker is not None:
        set_title("leekfanout: redis-orphans")  # instead of a URL with a password
    subscription = _subscription(args)
    keys = Keys(subscription.exchange, subscription.transport_options.get("global_keyprefix", ""))
    shown = redact_url(";".join(subscription.broker))
    try:
        with _connect(subscription) as client:
            orphans = find(client, keys)
            _print_found(orphans, shown, keys)
            if not orphans or not args.delete:
                return 0
            if not args.yes and not confirmed(f"Delete them from {shown}?"):
                return EXIT_LEFT
            deleted = delete(client, keys, orphans, _Progress())
    except (OSError, redis.RedisError, hiredis.HiredisError) as error:
        raise in_plain_words(error, shown, subscription, "read and write kombu's keys") from None
    return _print_deleted(deleted)


def _subscription(args: argparse.Namespace) -> Subscription:
    """Return the subscription whose broker is meant, or one made up for ``--broker``."""
    if args.broker is None:
        if args.exchange is not None or args.global_keyprefix is not None:
            raise LeekfanoutError(
                "--exchange and --global-keyprefix go with --broker; a subscription has its own."
            )
        for subscription in config.load_subscriptions(os.environ, args.config):
            if subscription.name == args.subscription:
                break
        else:
            raise LeekfanoutError(f"There is no subscription {args.subscription}.")
    else:
        subscription = Subscription(
            org_name="",
            app_name="redis",
            app_env="orphans",
            app_key="",
            api_url="",
            broker=tuple(split_addresses(args.broker)),
            exchange=args.exchange or "celeryev",
            transport_options={"global_keyprefix": args.global_keyprefix or ""},
        )
    if subscription.transport != "redis":
        raise LeekfanoutError("Only Redis brokers have such orphans, and this is none.")
    return subscription


def _connect(subscription: Subscription) -> Any:
    """Return a client of the first address that answers, or of the master behind Sentinel."""
    try:
        addresses = [parse_address(url) for url in subscription.broker]
    except AddressError as error:
        raise LeekfanoutError(f"The broker's URL can't be used: {error}.") from None
    if addresses[0].scheme == "sentinel":
        if "master_name" not in subscription.transport_options:
            raise LeekfanoutError(
                "Sentinel needs the option master_name: name a subscription that has it."
            )
        return _client(subscription, find_master(subscription, tuple(addresses)))
    for address in addresses[:-1]:
        try:
            return _client(subscription, address)
        except (OSError, redis.RedisError, hiredis.HiredisError):
            continue
    return _client(subscription, addresses[-1])


def _client(subscription: Subscription, address: Address) -> redis.Redis:
    client = redis.Redis(connection_pool=_Pool(subscription, address))
    client.ping()
    return client


class _Pool(redis.ConnectionPool):
    """Opens connections as the agent does, on the database of the address."""

    def __init__(self, subscription: Subscription, address: Address) -> None:
        super().__init__()
        self._subscription = subscription
        self._address = address

    def make_connection(self) -> Any:
        connection = open_connection(self._subscription, self._address)
        connection.db = int(self._address.path)  # for redis-py, should it connect once more
        connection.send_command("SELECT", connection.db)
        connection.read_response()
        return connection


class _Progress:
    """Tells a terminal once a second how far the deletion is."""

    def __init__(self) -> None:
        self._due = time.monotonic() + PROGRESS_EVERY_S

    def __call__(self, deleted: Deleted) -> None:
        now = time.monotonic()
        if now >= self._due and sys.stderr.isatty():
            self._due = now + PROGRESS_EVERY_S
            print(f"  {deleted.items:,} items deleted …", file=sys.stderr)


def _print_found(orphans: Orphans, shown: str, keys: Keys) -> None:
    print(f"{shown}, exchange {printable(keys.exchange)}\n")
    if orphans.queues:
        _print_queues(orphans)
    for queue in orphans.kept:
        print(f"Left alone: {_name(queue.name)}, because {queue.kept_because}.")
    if orphans.kept:
        print()
    if not orphans:
        print("No orphans.")
        return
    bindings = sum(len(queue.bindings) for queue in orphans.queues)
    print(
        f"Orphaned: {orphans.items:,} items in the lists of {len(orphans.queues):,} queues, "
        f"{bindings:,} bindings, {orphans.unacked:,} unacked events; "
        f"{_size(orphans.size_bytes)} in all."
    )


def _print_queues(orphans: Orphans) -> None:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1_000
    largest = sorted(orphans.queues, key=lambda queue: (-queue.size_bytes, queue.name))
    rows = [(Cell("ITEMS", "dim", True), Cell("SIZE", "dim", True), Cell("QUEUE", "dim"))]
    rows += [
        (
            Cell(f"{queue.items:,}", right=True),
            Cell(_size(queue.size_bytes), right=True),
            Cell(_name(queue.name)),
        )
        for queue in largest[:QUEUES_SHOWN]
    ]
    print("\n".join(columns(rows, (20, 20, 500), width, colour=has_colour(sys.stdout))))
    if len(largest) > QUEUES_SHOWN:
        print(f"and {len(largest) - QUEUES_SHOWN:,} queues that are no larger")
    print()


def _print_deleted(deleted: Deleted) -> int:
    print(
        f"Deleted: {deleted.items:,} items, {deleted.bindings:,} bindings, "
        f"{deleted.unacked:,} unacked events."
    )
    for name, reason in deleted.kept.items():
        print(f"Left alone: {_name(name)}, because {reason}.")
    return EXIT_LEFT if deleted.kept else 0


def _name(queue: bytes) -> str:
    return printable(queue.decode("utf-8", "backslashreplace"))


def _size(size_bytes: int) -> str:
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1_000:,.1f} kB"
    return f"{size_bytes / 1_000_000:,.1f} MB"
