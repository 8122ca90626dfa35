"""Why nothing is heard on Redis: listens more widely for some seconds, and says what was found.

PUB/SUB tells nobody that a name is wrong: another database, prefix or exchange is plain silence.
"""

import threading
import time
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any, Final

import hiredis
import redis

from leekfanout import logs
from leekfanout.configuration.addresses import parse_address
from leekfanout.configuration.config import Subscription
from leekfanout.errors import SourceError
from leekfanout.sources.redis_channels import channels
from leekfanout.sources.redis_connection import in_plain_words, open_connection
from leekfanout.sources.redis_sentinel import find_master

log = logs.get("redis")

SILENCE_S: Final = 60.0
"""So long without any event is a symptom, where heartbeats are among what is subscribed to."""
AGAIN_S: Final = 600.0

LISTEN_S: Final = 5.0
"""Workers send a heartbeat every two seconds."""
CHANNELS_MAX: Final = 20
"""Enough to tell what is wrong; a busy server is not listened to any longer than that takes."""


class SilenceWatch:
    """Logs why nothing is heard, once a minute has passed without a message, and then now and then.

    The listening is done on a thread, one at a time.
    """

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._messages = -1
        self._due = 0.0

    def tick(self, now: float, messages: int) -> None:
        """Take the number of messages so far, at ``now`` (monotonic seconds). Never blocks."""
        if messages != self._messages:
            self._messages = messages
            self._due = now + SILENCE_S
        elif now >= self._due and self._subscription.routing_key == "#":
            self._due = now + AGAIN_S
            threading.Thread(target=self._look, name="silence", daemon=True).start()

    def _look(self) -> None:
        try:
            finding = diagnose(self._subscription)
        except SourceError as error:
            finding = str(error)
        if finding is not None:
            log.warning("redis.silent", finding=finding)


def diagnose(subscription: Subscription) -> str | None:
    """Listen for any Celery events at the first broker address; return what is wrong, if anything.

    Opens a connection of its own, reads a copy of what is published, and blocks for up to
    ten seconds. Raises SourceError if the broker can't be reached or allows none of this.
    """
    addresses = tuple(parse_address(url) for url in subscription.broker)
    address = addresses[0]
    connection: Any = None
    try:
        if address.scheme == "sentinel":
            address = find_master(subscription, addresses)
        connection = open_connection(subscription, address)
        patterns = _ask(connection, "PUBSUB", "NUMPAT")
        heard = _listen(connection, f"*{subscription.exchange}*", "*worker.heartbeat")
    except (OSError, redis.RedisError, hiredis.HiredisError) as error:
        wanted = "listen to other channels than the subscription's"
        raise in_plain_words(error, address.place, subscription, wanted) from None
    finally:
        if connection is not None:
            with suppress(OSError, redis.RedisError):
                connection.disconnect()
    return explain(channels(subscription, int(address.path)).names, heard, int(patterns))


def explain(expected: tuple[str, ...], heard: AbstractSet[str], patterns: int) -> str | None:
    """Return what it means that these channels were heard; None: there are ``expected`` task events.

    ``patterns`` is how many patterns are subscribed to at the server, the agent's own among them:
    each Celery worker has some, for remote control and gossip. Pure.
    """
    literal = tuple(name.removesuffix("*").replace("\\", "") for name in expected)
    wanted = sorted(name for name in heard if name.startswith(literal))
    if any(name in literal or "/task." in name for name in wanted):
        return None
    if wanted:
        return (
            "Workers send heartbeats but no task events: start them with -E, or set "
            "worker_send_task_events."
        )
    if heard:
        return (
            f"Events are published on {_some(sorted(heard))}, but this subscription listens to "
            f"{' '.join(expected)}. Correct the database's number or the exchange, or set "
            "global_keyprefix, fanout_prefix or fanout_patterns in transport_options."
        )
    if patterns > 1:
        return (
            f"No events are published at this Redis, though it has {patterns} subscribed patterns, "
            "so that Celery may be at work here: do the workers run without heartbeats and -E?"
        )
    return (
        "No events are published at this Redis, and no worker is connected to it: no worker runs, or "
        "the workers use another broker."
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _ask(connection: Any, *command: str) -> Any:
    connection.send_command(*command)
    return connection.read_response()


def _listen(connection: Any, *patterns: str) -> set[str]:
    """Return the channels on which something was published until the time is up."""
    connection.send_command("PSUBSCRIBE", *patterns)
    heard: set[str] = set()
    deadline = time.monotonic() + LISTEN_S
    while len(heard) < CHANNELS_MAX and (left_s := deadline - time.monotonic()) > 0:
        if connection.can_read(timeout=left_s):
            reply = connection.read_response()
            if reply[0] == b"pmessage":
                heard.add(reply[2].decode("utf-8", "replace"))
    return heard
