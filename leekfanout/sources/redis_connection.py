"""Connecting to a Redis server: TLS, credentials, timeouts, and errors in plain words."""

from collections.abc import Callable
from typing import Any, Final

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.retry import Retry

from leekfanout.configuration.addresses import Address
from leekfanout.configuration.config import Subscription
from leekfanout.errors import SourceError, SourceRefusedError
from leekfanout.redaction import mask, secrets_of
from leekfanout.sources.network_errors import network_error

CONNECT_TIMEOUT_S: Final = 4.0
ANSWER_TIMEOUT_S: Final = 4.0
"""kombu passes None for redis-py's timeouts, which waits for ever on a host that has gone."""

RESP2: Final = 2
"""Redis' protocol version: the one that every server speaks, and enough for PUB/SUB."""

_SOCKET_OPTIONS: Final = (
    "socket_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_keepalive_options",
)


def open_connection(subscription: Subscription, address: Address) -> Any:
    """Return a ``redis.Connection`` that is logged in.

    Blocks for some seconds at most; raises redis-py's errors and OSError. No database is selected:
    PUB/SUB has none, and so the user needs no permission for it.
    """
    arguments: dict[str, Any] = {
        "host": address.host,
        "port": address.port,
        "username": address.user,
        "password": address.password,
        **socket_arguments(subscription.transport_options),
    }
    kind: Any = Connection
    if address.scheme == "rediss" or subscription.broker_tls is not None:
        kind = SSLConnection
        arguments |= _tls_arguments(subscription, address)
    connection = kind(**arguments)
    connection.connect()
    return connection


def socket_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Return redis-py's arguments for a socket: bounded waiting, keepalive, nothing tried twice."""
    return {
        "socket_timeout": ANSWER_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        **{name: options[name] for name in _SOCKET_OPTIONS if name in options},
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "protocol": RESP2,
    }


def _tls_arguments(subscription: Subscription, address: Address) -> dict[str, Any]:
    """Return redis-py's arguments for TLS: ``broker_tls``, and what a rediss URL says goes over it."""
    tls = subscription.broker_tls
    given = address.parameters
    files = {
        "ssl_ca_certs": tls and tls.ca,
        "ssl_certfile": tls and tls.cert,
        "ssl_keyfile": tls and tls.key,
    }
    verify = given.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    return {
        **{name: given.get(name, path) for name, path in files.items()},
        "ssl_cert_reqs": verify,
        "ssl_check_hostname": given.get("ssl_check_hostname", "true").lower() != "false"
        and verify != "none",
    }


def in_plain_words(
    error: Exception, address: str, subscription: Subscription, wanted: str = "subscribe"
) -> SourceError:
    """Return what went wrong as a sentence, and whether a person is needed.

    ``address`` is shown, so without secrets; a server may quote a command that it refuses, password
    and all, so its words are masked.
    """
    if isinstance(error, SourceError):
        return error
    # redis-py tells only the text of the system's error; that itself hangs on as the context.
    cause = error.__context__ if isinstance(error.__context__, OSError) else error
    if isinstance(cause, OSError):
        return network_error(cause, address)
    if isinstance(error, redis.TimeoutError):
        return network_error(TimeoutError(), address)
    if isinstance(error, (redis.InvalidResponse, hiredis.ProtocolError)):
        return SourceError(f"{address} doesn't speak Redis' protocol: is it a Redis server?")
    text = mask(str(error), secrets_of(subscription))
    for matches, kind, sentence in _ANSWERS:
        if matches(error, text):
            return kind(sentence.format(address=address, wanted=wanted, text=text.rstrip(".")))
    if isinstance(error, (redis.ResponseError, hiredis.ReplyError)):
        return SourceError(f"{address} answers with an error: {text}")
    if isinstance(error, redis.ConnectionError):
        return SourceError(f"The connection to {address} was lost: {text.rstrip('.')}.")
    return SourceError(f"The connection to {address} was lost ({type(error).__name__}).")


def _is(*kinds: type[Exception]) -> Callable[[Exception, str], bool]:
    return lambda error, _text: isinstance(error, kinds)


def _says(*words: str) -> Callable[[Exception, str], bool]:
    return lambda _error, text: any(word in text.lower() for word in words)


_ANSWERS: Final[tuple[tuple[Callable[[Exception, str], bool], type[SourceError], str], ...]] = (
    (
        _says("authentication required", "noauth"),
        SourceRefusedError,
        "{address} asks for a password: write user and password into `broker`.",
    ),
    (
        _says("without any password configured", "no password is set"),
        SourceRefusedError,
        "{address} has no password for this user, but `broker` has one: take it out.",
    ),
    (
        _is(redis.AuthenticationError, redis.AuthenticationWrongNumberOfArgsError),
        SourceRefusedError,
        "{address} refuses the credentials. Check the user and the password in `broker`.",
    ),
    (
        _says("no permissions", "noperm", "has no permission"),
        SourceRefusedError,
        "{address} doesn't let this user {wanted}: {text}. Give it the permission with ACL SETUSER.",
    ),
    (
        _says("protected mode"),
        SourceRefusedError,
        "{address} runs in protected mode and takes no connections from other hosts: "
        "set a password there, or bind it to a network that is safe.",
    ),
    (
        _is(redis.BusyLoadingError),
        SourceError,
        "{address} is still loading its data.",
    ),
    (
        _says("max number of clients"),
        SourceError,
        "{address} has no room for another connection (its maxclients are reached).",
    ),
    (
        _says("masterdown", "link with master is down"),
        SourceError,
        "{address} is a replica without a link to its master.",
    ),
)
"""What servers say, the first that fits, and what it means."""
