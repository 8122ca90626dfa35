"""The AMQP source: a durable queue bound to the event exchange, read with manual acks.

kombu and py-amqp do the protocol; the reading of deliveries is in ``amqp_frames``. The queue is
declared and bound as the contract says (section 2 and 5), and one that exists otherwise is used as
it is.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from amqp import exceptions as amqp_errors
from amqp import spec
from kombu.connection import Connection

from leekfanout import logs
from leekfanout.configuration.config import Subscription
from leekfanout.errors import SourceError, SourceRefusedError
from leekfanout.redaction import redact_url
from leekfanout.sources import Ack, Inbox
from leekfanout.sources.amqp_frames import (
    CONSUMER_TAG,
    Deliveries,
    Transport,
    ack_frames,
    frame_handler,
    pump,
)
from leekfanout.sources.network_errors import network_error

log = logs.get("amqp")

CONNECT_TIMEOUT_S: Final = 4.0
HEARTBEAT_S: Final = 20
"""What we ask for; the broker may ask for less (RabbitMQ: "Detecting Dead TCP Connections")."""


class AmqpSource:
    """One connection, one channel, one consumer; used by one thread at a time.

    It holds nothing across connections but the position in the list of failover addresses.
    """

    acks = True
    still_arriving = False

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._addresses = itertools.cycle(subscription.broker)
        self.address = redact_url(subscription.broker[0])
        self._kombu: Connection | None = None
        self._connection: Any = None
        self._channel: Any = None
        self._counter: Any = None
        """A channel of its own for asking how many messages wait, since a refusal closes it."""
        self.depth: int | None = None
        self._deliveries = Deliveries()
        self._warned = False
        self._refusal: amqp_errors.AccessRefused | None = None
        self._heartbeat_sent_at = 0.0

    def connect(self) -> None:
        """Connect to the next address, declare, bind, consume (see :class:`Source`)."""
        self.close()
        url = next(self._addresses)
        self.address = redact_url(url)
        self._deliveries.discard = False
        with self._plain_words():
            self._kombu = self._new_connection(url)
            # Not connect(): that would wait for two seconds and try again before it fails.
            self._connection = self._kombu.transport.establish_connection()
            self._heartbeat_sent_at = time.monotonic()
            with self._for_lack_of_permission():
                self._declare()
                self._open_counter()
                self._consume()

    def _new_connection(self, url: str) -> Connection:
        options = {
            **self._subscription.transport_options,
            "frame_handler": frame_handler(self._deliveries),
            "client_properties": {"connection_name": f"leekfanout {self._subscription.name}"},
        }
        return Connection(
            url,
            transport=Transport,
            ssl=tls_options(self._subscription, url),
            heartbeat=HEARTBEAT_S,
            connect_timeout=CONNECT_TIMEOUT_S,
            transport_options=options,
        )

    def _consume(self) -> None:
        self._deliveries.reset()
        self._channel.basic_qos(0, self._subscription.prefetch_count, a_global=False)
        self._channel.basic_consume(self._subscription.queue, consumer_tag=CONSUMER_TAG)

    def _open_counter(self) -> None:
        """Ask for the queue's depth a first time: no delivery can stand before the answer yet."""
        self._counter = self._connection.channel()
        try:
            declared = self._counter.queue_declare(self._subscription.queue, passive=True)
        except amqp_errors.AccessRefused:
            self._counter = self.depth = None
        else:
            self._counted(*declared)
            self._counter._callbacks[spec.Queue.DeclareOk] = self._counted

    def _counted(self, _queue: str, messages: int, _consumers: int) -> None:
        self.depth = messages

    def _declare(self) -> None:
        """Declare and bind; what exists with other arguments, or may not be touched, is used as is."""
        subscription = self._subscription
        arguments = {"x-queue-type": "quorum"} if subscription.queue_type == "quorum" else None
        self._channel = self._connection.channel()
        self._use_as_it_is_unless(
            "exchange",
            subscription.exchange,
            lambda: self._channel.exchange_declare(
                subscription.exchange, "topic", durable=True, auto_delete=False
            ),
        )
        self._use_as_it_is_unless(
            "queue",
            subscription.queue,
            lambda: self._channel.queue_declare(
                subscription.queue, durable=True, auto_delete=False, arguments=arguments
            ),
        )
        self._use_as_it_is_unless(
            "binding",
            f"{subscription.queue} to {subscription.exchange}",
            lambda: self._channel.queue_bind(
                subscription.queue, subscription.exchange, subscription.routing_key
            ),
        )
        self._warned = True

    def _use_as_it_is_unless(self, kind: str, name: str, declare: Callable[[], Any]) -> None:
        try:
            declare()
        except (amqp_errors.PreconditionFailed, amqp_errors.AccessRefused) as error:
            if isinstance(error, amqp_errors.AccessRefused):
                self._refusal = error
            if not self._warned:
                log.warning(f"{kind}.used_as_it_is", name=name, reason=error.reply_text)
            # The refusal has closed the channel (AMQP 0-9-1, 1.4.2.1).
            self._channel = self._connection.channel()

    @contextmanager
    def _for_lack_of_permission(self) -> Iterator[None]:
        """Let what isn't there be told as the refusal to make it, if it was refused."""
        self._refusal = None
        try:
            yield
        except amqp_errors.NotFound:
            if self._refusal is None:
                raise
            raise self._refusal from None

    def fileno(self) -> int:
        """The connection's socket."""
        return int(self._connection.transport.sock.fileno())

    def receive(self, inbox: Inbox, limit: int) -> bool:
        """Give ``inbox`` what has arrived (see :class:`Source`)."""
        with self._plain_words():
            connection = self._connection
            return pump(
                connection.transport, self._deliveries, connection.on_inbound_frame, inbox, limit
            )

    def ack(self, acks: Sequence[Ack]) -> None:
        """Acknowledge, all in one write."""
        with self._plain_words():
            self._connection.transport.write(ack_frames(self._channel.channel_id, acks))

    def barrier(self, reached: Callable[[], None]) -> None:
        """Call ``reached`` once the broker has dealt with all acks sent so far.

        A channel's methods are processed in order, and basic.qos is the one that is answered and
        changes nothing for the consumer there is (RabbitMQ: "Consumer Prefetch"). One at a time.
        """
        with self._plain_words():
            self._channel._callbacks[spec.Basic.QosOk] = reached
            self._channel.send_method(
                spec.Basic.Qos, "lBb", (0, self._subscription.prefetch_count, False)
            )

    def tick(self, now: float) -> float:
        """Send a heartbeat when one is due; raise SourceError when the broker's are missing."""
        interval_s = self._connection.heartbeat
        if not interval_s:
            return now + HEARTBEAT_S
        with self._plain_words():
            if now - self._heartbeat_sent_at >= interval_s / 2:
                self._heartbeat_sent_at = now
                self._connection.send_heartbeat()
            transport = self._connection.transport
            # What we leave unread is no sign of death: so look before saying so.
            if now - transport.received_at > 2 * interval_s and not transport.fill():
                raise SourceError(
                    f"No heartbeat came from {self.address} for {2 * interval_s} seconds; "
                    "the connection is taken for dead."
                )
        return self._heartbeat_sent_at + float(interval_s) / 2

    def stop_consuming(self) -> None:
        """Cancel the consumer without waiting; acks still arrive."""
        with self._plain_words():
            self._channel.send_method(spec.Basic.Cancel, "sb", (CONSUMER_TAG, True))

    def hand_back(self) -> None:
        """Close the channel, so that the broker queues all unacked messages again.

        Acks sent before are dealt with first, since the broker answers the close after them.
        """
        self._deliveries.discard = True
        with self._plain_words():
            self._channel.close()
        self._deliveries.reset()

    def resume(self) -> None:
        """Open a channel and consume again."""
        self._deliveries.discard = False
        with self._plain_words(), self._for_lack_of_permission():
            self._declare()
            self._consume()

    def ask_depth(self) -> None:
        """Ask how many messages are ready in the queue.

        Waiting for the answer would mean to read all deliveries before it, which takes long on a
        thin line.
        """
        if self._counter is not None:
            with self._plain_words():
                # Passive: the queue is neither made nor changed (AMQP 0-9-1, queue.declare).
                self._counter.send_method(
                    spec.Queue.Declare,
                    "BsbbbbbF",
                    (0, self._subscription.queue, True, False, False, False, False, None),
                )

    def close(self, wait_s: float = 0.0) -> None:
        """Close the connection (see :class:`Source`)."""
        try:
            if self._connection is not None and wait_s:
                self._deliveries.discard = True
                self._connection.transport.answer_timeout_s = wait_s
                with self._plain_words():
                    self._channel.close()
        finally:
            if self._connection is not None:
                with suppress(OSError, amqp_errors.AMQPError):
                    self._connection.collect()
            self._connection = self._channel = self._counter = self._kombu = None

    @contextmanager
    def _plain_words(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # lost connections raise AttributeError and more
            raise in_plain_words(error, self.address, self._subscription) from None


def tls_options(subscription: Subscription, url: str) -> dict[str, Any] | bool:
    """Return kombu's ``ssl`` argument: for amqps, certificates and host name are verified."""
    if not url.lower().startswith("amqps://"):
        return False
    tls = subscription.broker_tls
    options: dict[str, Any] = {"server_hostname": None}  # None: kombu puts the URL's host there
    if tls is not None:
        options |= {
            key: value
            for key, value in (("ca_certs", tls.ca), ("certfile", tls.cert), ("keyfile", tls.key))
            if value is not None
        }
    return options


def in_plain_words(error: Exception, address: str, subscription: Subscription) -> SourceError:
    """Return what went wrong as a sentence for the person on call, and whether a person is needed.

    The original error's text is used only where it comes from the broker or the system: a traceback
    of the libraries could show the password.
    """
    if isinstance(error, SourceError):
        return error
    if isinstance(error, amqp_errors.NotAllowed):
        return SourceRefusedError(
            f"{address} refuses the virtual host: {_sentence(error)} "
            "Create it, or give the user access to it."
        )
    if isinstance(error, amqp_errors.AccessRefused):
        return SourceRefusedError(_access_refused(error, address, subscription))
    if isinstance(error, amqp_errors.NotFound):
        return SourceError(f"{address} doesn't have what is needed: {_sentence(error)}")
    if isinstance(error, amqp_errors.ConsumerCancelled):
        return SourceError(
            f"{address} cancelled the consumer: the queue {subscription.queue} was deleted or moved."
        )
    if isinstance(error, amqp_errors.AMQPError):
        return SourceError(f"{address} ended the conversation: {error}")
    if isinstance(error, OSError):
        return network_error(error, address)
    return SourceError(f"The connection to {address} was lost ({type(error).__name__}).")


def _access_refused(
    error: amqp_errors.AccessRefused, address: str, subscription: Subscription
) -> str:
    if "login" in error.reply_text.lower():
        return f"{address} refuses the credentials. Check the user and the password in `broker`."
    return (
        f"{address} refuses access: {_sentence(error)} Give the user the permissions to read the "
        f"queue {subscription.queue} and, so that it can be made and bound, to configure it, and to "
        f"read the exchange {subscription.exchange}."
    )


def _sentence(error: amqp_errors.AMQPError) -> str:
    """Return what the broker says as a sentence: its texts end with a full stop or without one."""
    return f"{error.reply_text.rstrip('. ')}."
