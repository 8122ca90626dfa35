"""Redis Sentinel: which server is the master now, and whether it still is."""

import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import redis
from redis.sentinel import MasterNotFoundError, Sentinel

from leekfanout.configuration.addresses import Address
from leekfanout.configuration.config import Subscription
from leekfanout.errors import SourceError
from leekfanout.sources.redis_connection import socket_arguments

SENTINEL_TIMEOUT_S: Final = 1.0
"""For each sentinel: they are asked one after the other, and some may be away."""
ASK_EVERY_S: Final = 5.0
"""A failover that was ordered demotes the old master about ten seconds after the new one is there."""
LOOK_AFTER_S: Final = 0.5
"""When to look for the answer."""


def find_master(subscription: Subscription, sentinels: tuple[Address, ...]) -> Address:
    """Ask the sentinels in turn for the master; return its address with the broker's credentials.

    As in kombu, user, password and database of the first URL are the master's, and
    ``sentinel_kwargs`` holds what the sentinels themselves ask for. Blocks for a second per sentinel
    that is away. Raises SourceError where none knows the master, and redis-py's errors.
    """
    options = subscription.transport_options
    name = options["master_name"]
    arguments: dict[str, Any] = {
        **socket_arguments({}),
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
        **options.get("sentinel_kwargs", {}),
    }
    sentinel: Any = Sentinel(
        [(address.host, address.port) for address in sentinels],
        min_other_sentinels=options.get("min_other_sentinels", 0),
        sentinel_kwargs=arguments,
    )
    try:
        host, port = sentinel.discover_master(name)
    except MasterNotFoundError:
        places = ", ".join(address.place for address in sentinels)
        raise SourceError(
            f"No sentinel answers, or none knows a master {name} that is up ({places})."
        ) from None
    finally:
        for client in sentinel.sentinels:
            client.close()
    return replace(sentinels[0], scheme="redis", host=str(host), port=int(port), parameters={})


def check_role(connection: Any, shown: str) -> None:
    """Make sure that it is the master, as Redis asks of clients ("Sentinel clients", step 3)."""
    try:
        connection.send_command("ROLE")
        role = connection.read_response()[0]
    except redis.ResponseError:  # the user may not: then Sentinel's word must do
        return
    if role != b"master":
        raise SourceError(f"{shown} is no longer the master; Sentinel hasn't named a new one yet.")


class MasterWatch:
    """Asks the sentinels every five seconds, on a thread, whether the master is another one now.

    A master that is demoted cuts its clients off, and one that hangs misses its PINGs; but one that
    is cut off from the sentinels stays up, and silent, while a new one takes its place.
    """

    def __init__(
        self, subscription: Subscription, sentinels: tuple[Address, ...], master: Address
    ) -> None:
        self._subscription = subscription
        self._sentinels = sentinels
        self._master = (master.host, master.port)
        self._found = self._master
        self._due = 0.0
        self._thread: threading.Thread | None = None

    def tick(self, now: float) -> float:
        """Ask again when it is time, without blocking; return when to call next.

        Raises SourceError if the sentinels have named another master.
        """
        if self._found != self._master:
            host, port = self._found
            raise SourceError(f"Sentinel has made {host}:{port} the master; connecting to that.")
        asking = self._thread is not None and self._thread.is_alive()
        if now >= self._due and not asking:
            self._due = now + ASK_EVERY_S
            self._thread = threading.Thread(target=self._ask, name="sentinel", daemon=True)
            self._thread.start()
            asking = True
        return now + LOOK_AFTER_S if asking else self._due

    def _ask(self) -> None:
        # No answer is no news: the connection to the master that we have is the better witness.
        with suppress(SourceError, redis.RedisError, OSError):
            master = find_master(self._subscription, self._sentinels)
            self._found = (master.host, master.port)
