"""Whether an AMQP broker takes us, and would let us do what reading events needs.

A connection of its own, nothing declared, nothing consumed. RabbitMQ looks at permissions before it
looks at anything else, so they are asked for with requests that it can't carry out in any case: an
argument is wrong, or the binding doesn't exist (RabbitMQ's access control page has the table of
what each method needs). Other brokers may judge arguments differently, so they are not asked.
"""

import uuid
from collections.abc import Callable
from typing import Any, Final

from amqp import exceptions as amqp_errors
from kombu.connection import Connection

from leekfanout.configuration.addresses import parse_address
from leekfanout.configuration.config import Subscription
from leekfanout.health.check import Check, Kind, trouble
from leekfanout.health.network import TIMEOUT_S, network_trouble
from leekfanout.sources.amqp import tls_options

_OWN_TIMEOUTS: Final = frozenset({"connect_timeout", "read_timeout", "write_timeout", "heartbeat"})


def check_amqp_address(subscription: Subscription, url: str) -> Check:
    """Connect to one address, log in, open the virtual host, and ask for the permissions."""
    address = parse_address(url)
    connection = None
    try:
        connection = connect(subscription, url)
        return _check_connection(connection, subscription, address.place, address.path)
    except Exception as error:  # noqa: BLE001  # py-amqp raises AttributeError and others, too
        return amqp_trouble(error, address.place)
    finally:
        if connection is not None:
            connection.collect()


def connect(subscription: Subscription, url: str) -> Any:
    """Return a new py-amqp connection of our own, with a timeout on everything it waits for."""
    options = subscription.transport_options
    broker = Connection(
        url,
        transport="pyamqp",
        ssl=tls_options(subscription, url),
        connect_timeout=TIMEOUT_S,
        transport_options={key: options[key] for key in options.keys() - _OWN_TIMEOUTS},
    )
    # Not broker.connect(), which tries again after a failure.
    connection = broker.transport.establish_connection()
    connection.transport.sock.settimeout(TIMEOUT_S)
    return connection


def _check_connection(connection: Any, subscription: Subscription, place: str, vhost: str) -> Check:
    words = f"{place} takes the credentials, and the virtual host {vhost} is there."
    if str(connection.server_properties.get("product")) != "RabbitMQ":
        return Check(Kind.OK, words)
    missing = _missing_permission(connection, subscription)
    if missing is None:
        return Check(Kind.OK, words)
    return trouble(
        Kind.PERMISSIONS,
        f"{place} takes the credentials, but the user may not {missing}.",
        f"Give the user the permissions (rabbitmqctl set_permissions -p {vhost} …).",
    )


def _missing_permission(connection: Any, subscription: Subscription) -> str | None:
    """Say what the user may not do of what is needed; None if nothing is missing."""
    queue, exchange = subscription.queue, subscription.exchange

    def answer(ask: Callable[[Any], object]) -> Exception | None:
        channel = connection.channel()
        try:
            ask(channel)
        except amqp_errors.ChannelError as error:  # which has closed the channel
            refusal: Exception = error
            return refusal
        channel.close()
        return None

    def refused(ask: Callable[[Any], object]) -> bool:
        return isinstance(answer(ask), amqp_errors.AccessRefused)

    def exists(ask: Callable[[Any], object]) -> bool:
        return not isinstance(answer(ask), amqp_errors.NotFound)

    if refused(lambda each: each.basic_consume(queue, arguments={"x-priority": "none"})):
        return f"read the queue {queue}"
    # What exists is used as it is; what doesn't has to be made and bound.
    if exists(lambda each: each.queue_declare(queue, passive=True)):
        return None
    if refused(lambda each: each.queue_declare(queue, durable=True, arguments={"x-expires": 0})):
        return f"configure the queue {queue}, which doesn't exist yet"
    if not exists(lambda each: each.exchange_declare(exchange, "topic", passive=True)) and refused(
        lambda each: each.exchange_declare(
            exchange, "topic", durable=True, arguments={"alternate-exchange": 0}
        )
    ):
        return f"configure the exchange {exchange}, which doesn't exist yet"
    nobodys_key = f"leekfanout.check.{uuid.uuid4()}"
    if refused(lambda each: each.queue_unbind(queue, exchange, nobodys_key)):
        return f"bind the queue {queue} to the exchange {exchange} (write the one, read the other)"
    return None


def amqp_trouble(error: Exception, place: str) -> Check:
    """Say what went wrong with a broker; its own words where it has any, never a library's."""
    if isinstance(error, amqp_errors.AMQPError):
        said = str(error.reply_text or "").strip()
        if isinstance(error, amqp_errors.AccessRefused):
            return trouble(
                Kind.CREDENTIALS,
                f"{place} refuses the credentials.",
                "Check the user and the password in `broker`. RabbitMQ lets the user guest in from "
                "its own machine only.",
            )
        if isinstance(error, amqp_errors.NotAllowed):
            if "limit" in said:
                return trouble(Kind.BUSY, f"{place} takes no more connections: {said}.")
            return trouble(
                Kind.VIRTUAL_HOST,
                f"{place} refuses the virtual host: {said}.",
                "Create it, or give the user access to it.",
            )
        if isinstance(error, (amqp_errors.InternalError, amqp_errors.ConnectionForced)):
            return trouble(Kind.BUSY, f"{place} can't serve at the moment: {said}.")
        if isinstance(error, amqp_errors.UnexpectedFrame):
            return trouble(Kind.PROTOCOL, f"{place} doesn't speak AMQP 0-9-1.")
        return trouble(Kind.UNEXPECTED, f"{place} refuses: {said}.")
    found = network_trouble(error, place)
    if found is not None:
        return found
    return trouble(Kind.PROTOCOL, f"{place} takes a connection, but doesn't speak AMQP 0-9-1.")
