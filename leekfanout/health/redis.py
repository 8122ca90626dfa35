"""Whether a Redis server, or the master that Sentinel names, takes us and lets us subscribe.

A connection of its own. Subscribing for a moment takes nothing from anybody: PUB/SUB gives each
subscriber its own copy.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import hiredis
import redis
from redis.exceptions import AuthenticationWrongNumberOfArgsError, NoPermissionError

from leekfanout.configuration.addresses import Address, parse_address
from leekfanout.configuration.config import Subscription
from leekfanout.health.check import Check, Kind, combined, trouble
from leekfanout.health.network import network_trouble
from leekfanout.sources.redis_channels import channels
from leekfanout.sources.redis_connection import open_connection, socket_arguments

_OWN_TIMEOUTS: Final = frozenset({"socket_timeout", "socket_connect_timeout"})


def check_redis_address(subscription: Subscription, address: Address, place: str = "") -> Check:
    """Connect to one server, log in, look for the database, and subscribe for a moment."""
    place = place or address.place
    database = int(address.path)
    wanted = channels(subscription, database)
    try:
        with _connected(open_connection(_impatient(subscription), address)) as connection:
            _ask(connection, "PING")
            try:
                _ask(connection, "SELECT", database)
            except NoPermissionError:
                pass  # PUB/SUB has no databases, and whoever publishes has a user of his own
            except redis.ResponseError as error:
                return _no_database(place, database, str(error))
            _ask(connection, wanted.command, *wanted.names)
    except Exception as error:  # noqa: BLE001  # redis-py lets errors of all sorts through
        return redis_trouble(error, place, f"subscribe to {', '.join(wanted.names)}")
    return Check(Kind.OK, f"{place} takes the credentials, and lets us hear database {database}.")


def check_sentinels(subscription: Subscription) -> Check:
    """Ask each Sentinel for the master, and check the master that one of them names."""
    name = subscription.transport_options["master_name"]
    checks: list[Check] = []
    for url in subscription.broker:
        sentinel = parse_address(url)
        try:
            found = _ask_sentinel(subscription, sentinel)
        except Exception as error:  # noqa: BLE001  # as above
            checks.append(redis_trouble(error, sentinel.place, "ask for the master"))
            continue
        if found is None:
            words = f"{sentinel.place} knows no master of the name {name}."
            advice = "Check master_name in transport_options."
            checks.append(trouble(Kind.MASTER_UNKNOWN, words, advice))
            continue
        # User, password and database are those of the first URL, as kombu has it.
        host, port = found
        master = replace(parse_address(subscription.broker[0]), host=host, port=port)
        place = f"redis://{host}:{port}, the master {name} of {sentinel.place},"
        checks.append(check_redis_address(subscription, master, place))
        if checks[-1].ok:
            break
    return combined(checks)


def _ask_sentinel(subscription: Subscription, sentinel: Address) -> tuple[str, int] | None:
    """Return the master's host and port, or None if this Sentinel knows none of that name."""
    options = subscription.transport_options
    own = options.get("sentinel_kwargs", {})
    arguments = {**socket_arguments({}), **{key: own[key] for key in own.keys() - _OWN_TIMEOUTS}}
    with redis.Redis(host=sentinel.host, port=sentinel.port, **arguments) as client:
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", options["master_name"])
        answer: Any = client.execute_command(*command)
    return None if answer is None else (answer[0].decode(), int(answer[1]))


def _impatient(subscription: Subscription) -> Subscription:
    options = subscription.transport_options
    kept = {key: options[key] for key in options.keys() - _OWN_TIMEOUTS}
    return replace(subscription, transport_options=kept)


@contextmanager
def _connected(connection: Any) -> Iterator[Any]:
    try:
        yield connection
    finally:
        connection.disconnect()


def _ask(connection: Any, *command: str | int) -> Any:
    connection.send_command(*command)
    return connection.read_response()


def _no_database(place: str, database: int, said: str) -> Check:
    return trouble(
        Kind.DATABASE,
        f"{place} has no database {database}, so nobody can publish events there: {said}.",
        "Check the number at the end of the URL.",
    )


def redis_trouble(error: Exception, place: str, wanted: str) -> Check:
    """Say what went wrong with a server, or what it doesn't let us do (``wanted``)."""
    text = str(error)
    lower = text.lower()
    if isinstance(error, redis.BusyLoadingError):
        return trouble(Kind.BUSY, f"{place} is still loading its data.")
    if "max number of clients" in lower:
        return trouble(Kind.BUSY, f"{place} takes no more connections (maxclients is reached).")
    if "protected mode" in lower:
        return trouble(
            Kind.CREDENTIALS,
            f"{place} runs in protected mode, and takes no connections from other hosts.",
            "Set a password there, or let it listen on a safe network only.",
        )
    if "without any password" in lower or "no password is set" in lower:
        return trouble(
            Kind.CREDENTIALS,
            f"{place} has no password for this user, but the URL has one.",
            "Take the password out of `broker`, or set it at the server.",
        )
    if "authentication required" in lower or "noauth" in lower:
        return trouble(
            Kind.CREDENTIALS,
            f"{place} asks for a password.",
            "Write user and password into the URL, or for a Sentinel into sentinel_kwargs.",
        )
    if isinstance(error, (redis.AuthenticationError, AuthenticationWrongNumberOfArgsError)):
        return trouble(
            Kind.CREDENTIALS,
            f"{place} refuses the credentials.",
            "Check the user and the password in the URL, or for a Sentinel in sentinel_kwargs.",
        )
    if isinstance(error, NoPermissionError):
        return trouble(
            Kind.PERMISSIONS,
            f"{place} takes the credentials, but the user may not {wanted}.",
            "Give the user the permission with ACL SETUSER.",
        )
    if isinstance(error, redis.ResponseError):
        return trouble(Kind.UNEXPECTED, f"{place} answers with an error.")
    if isinstance(error, (redis.InvalidResponse, hiredis.ProtocolError)):
        return trouble(Kind.PROTOCOL, f"{place} doesn't speak Redis' protocol.")
    if isinstance(error, redis.TimeoutError):
        error = TimeoutError()
    found = network_trouble(error, place)
    if found is not None:
        return found
    return trouble(Kind.PROTOCOL, f"{place} takes a connection, and closes it.")
