"""The Redis source: PUB/SUB, which keeps nothing and knows no acks.

redis-py connects and logs in; messages are then read from its socket directly, which costs a third
less than through its ``PubSub``. Nothing is declared or bound: kombu's PUBLISH needs no binding, and
what kombu would keep for one is never read (see ``redis_orphans``). Of several agents one subscribes
(see ``redis_lease``).
"""

import math
import select
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import hiredis
import redis

from leekfanout import logs
from leekfanout.configuration.addresses import Address, parse_address
from leekfanout.configuration.config import Subscription
from leekfanout.errors import BadEventError, SourceError, SourceStandbyError
from leekfanout.redaction import redact_url
from leekfanout.sources import Ack, Inbox
from leekfanout.sources.redis_channels import Channels, Copies, channels, open_envelope
from leekfanout.sources.redis_connection import in_plain_words, open_connection
from leekfanout.sources.redis_hand_over import HandOver, take_over
from leekfanout.sources.redis_holder import holder_in
from leekfanout.sources.redis_lease import Lease
from leekfanout.sources.redis_sentinel import MasterWatch, check_role, find_master
from leekfanout.sources.redis_silence import SilenceWatch

log = logs.get("redis")

BUFFER_BYTES: Final = 32_768
"""hiredis moves what is left in its buffer with each reply, so a larger one costs more CPU."""

PING_EVERY_S: Final = 7.0
"""Two unanswered PINGs mean that nobody is there: noticed within three times this long."""
PINGS_UNANSWERED_MAX: Final = 2
PING: Final = b"*1\r\n$4\r\nPING\r\n"
UNSUBSCRIBE: Final = b"*1\r\n$11\r\nUNSUBSCRIBE\r\n"
PUNSUBSCRIBE: Final = b"*1\r\n$12\r\nPUNSUBSCRIBE\r\n"

OVERRUN_BYTES: Final = 262_144
"""With more than this unread when it ends, a connection was most likely ended for that reason."""

_UNSUBSCRIBED: Final = (b"punsubscribe", b"unsubscribe")
_NOT_ENOUGH: Final = object()
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class RedisSource:
    """One connection in subscriber mode, and one for the lease; used by one thread at a time.

    Failover addresses are tried in turn, beginning with the one that worked last; behind Sentinel
    the addresses are the sentinels', who are asked for the master each time.
    """

    acks = False
    depth: int | None = None

    def __init__(self, subscription: Subscription, folder: Path | None = None) -> None:
        """``folder`` is the subscription's state folder; without, a restart loses the lease."""
        self._subscription = subscription
        self._holder = holder_in(folder)
        self._addresses = tuple(parse_address(url) for url in subscription.broker)
        self._position = 0
        self._sentinel = self._addresses[0].scheme == "sentinel"
        self.address = self._shown_address()
        options = subscription.transport_options
        # kombu's 0 switches its checks off. We have no other way to notice a half-open connection.
        self._ping_every_s = min(options.get("health_check_interval") or PING_EVERY_S, PING_EVERY_S)
        self.still_arriving = False
        self._connection: Any = None
        self._socket: Any = None
        self._reader = _new_reader()
        self._buffer = bytearray(BUFFER_BYTES)
        self._channels: Channels | None = None
        self._lease: Lease | None = None
        self._hand_over = HandOver("")
        self._stands_by = False
        self._no_lease_told: set[str] = set()
        self._unsubscribe_due = math.inf
        self._watch: MasterWatch | None = None
        self._silence: SilenceWatch | None = None
        self._kind = b"pmessage"
        self._copies: Copies | None = None
        self._tag = 0
        self._ping_due = 0.0
        self._pings_unanswered = 0
        self._heard = False
        self._heard_at = 0.0
        self._bytes_since_caught_up = 0

    def connect(self) -> None:
        """Connect to the next address, and subscribe if the lease is ours (see :class:`Source`)."""
        self.close()
        try:
            self._connect()
        except SourceStandbyError:
            self.close()
            self._stands_by = True  # at this address
            raise
        except (OSError, redis.RedisError, hiredis.HiredisError, SourceError) as error:
            if self._lease is not None:
                self._lease.give_up()
            self.close()
            self._stands_by = False
            shown = self.address
            self._position = (self._position + 1) % len(self._addresses)
            wanted = (
                f"subscribe to {' '.join(self._channels.names)}" if self._channels else "log in"
            )
            raise in_plain_words(error, shown, self._subscription, wanted) from None

    def _connect(self) -> None:
        address = self._addresses[0 if self._sentinel else self._position]
        self.address = self._shown_address()
        self._channels = None
        if self._sentinel:
            address = find_master(self._subscription, self._addresses)
            self.address += f", master {address.place}"
        self._open_connection(address)
        if self._sentinel:
            check_role(self._connection, self.address)
            self._watch = MasterWatch(self._subscription, self._addresses, address)
        wanted = channels(self._subscription, int(address.path))
        connection, self._connection = self._connection, None
        self._lease = Lease(
            *(self._subscription, address, wanted),
            holder=self._holder,
            connection=connection,
            told=self._no_lease_told,
        )
        self._lease.claim(patient=self._stands_by)
        self._open_connection(address)  # in subscriber mode a connection takes no other commands
        self._channels = wanted
        self._copies = Copies() if len(wanted.names) > 1 else None
        self._subscribe(wanted)
        self._take_over(self._lease)
        if self._stands_by:
            log.info("lease.taken", address=self.address)
        self._stands_by = False
        urls = self._subscription.broker
        here = urls if self._sentinel else urls[self._position : self._position + 1]
        self._silence = SilenceWatch(replace(self._subscription, broker=here))

    def _shown_address(self) -> str:
        broker = self._subscription.broker
        return redact_url(";".join(broker) if self._sentinel else broker[self._position])

    def _open_connection(self, address: Address) -> None:
        """Connect, and name the connection for whoever reads CLIENT LIST; one may live without."""
        self._connection = open_connection(self._subscription, address)
        default = f"leekfanout-{self._subscription.name}"
        with suppress(redis.ResponseError):
            self._ask(
                *("CLIENT", "SETNAME"),
                self._subscription.transport_options.get("client_name", default),
            )

    def _ask(self, *command: str) -> Any:
        self._connection.send_command(*command)
        return self._connection.read_response()

    def _subscribe(self, wanted: Channels) -> None:
        """Subscribe, and wait for the confirmations; from here on we read the socket ourselves.

        Until now each reply was the answer to a command, so redis-py holds nothing back.
        """
        self._connection.send_command(wanted.command, *wanted.names)
        self._socket = self._connection._sock
        self._reader = _new_reader()
        for _ in wanted.names:
            # One command's replies come together, before any message.
            while (reply := self._reader.gets()) is _NOT_ENOUGH:
                self._fill()
            if isinstance(reply, Exception):
                raise reply
        self._socket.setblocking(False)
        self.still_arriving = True
        self._kind = b"pmessage" if wanted.command == "PSUBSCRIBE" else b"message"
        self._tag = 0
        self._ping_due = 0.0
        self._unsubscribe_due = math.inf
        self._pings_unanswered = 0
        self._heard = True
        self._heard_at = time.monotonic()
        self._bytes_since_caught_up = 0

    def _take_over(self, lease: Lease) -> None:
        """Share what comes meanwhile with an agent that leaves, if there is one."""
        self._hand_over = HandOver(lease.key)
        self._connection.send_command("SUBSCRIBE", self._hand_over.channel)
        # Whoever subscribes does this: who leaves is known only by who hears the marker.
        wait = self._wait_for_reply
        others = take_over(self._hand_over, lease.mark, wait, stood_by=self._stands_by)
        if self._copies is not None:
            self._copies.taken(reply[-1] for reply in others)

    def _wait_for_reply(self, deadline: float) -> Any:
        """Return the next reply, or None if the deadline (monotonic seconds) comes first."""
        while (reply := self._reader.gets()) is _NOT_ENOUGH:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            if not self._fill():
                select.select([self._socket], [], [], left_s)
        return reply

    def fileno(self) -> int:
        """The connection's socket; -1 while the lease may have run out (see :class:`Source`)."""
        if self._lapsed:
            return -1
        return int(self._socket.fileno())

    def receive(self, inbox: Inbox, limit: int) -> bool:
        """Give ``inbox`` what has arrived (see :class:`Source`)."""
        if self._lapsed or not self.still_arriving:
            return False
        gets = self._next_reply if self._hand_over.held else self._reader.gets
        message, kind, control = inbox.message, self._kind, self._hand_over.channel
        tag, last = self._tag, self._tag + limit
        try:
            while tag < last:
                reply = gets()
                if reply is _NOT_ENOUGH:
                    if not self._fill():
                        return False
                    continue
                # ["pmessage", pattern, channel, payload] or ["message", channel, payload]
                if type(reply) is not list or reply[0] != kind or reply[1] == control:
                    self._not_a_message(reply)
                    if not self.still_arriving:
                        return False
                    continue
                payload = reply[-1]
                try:
                    body, content_type, message_id = open_envelope(payload)
                except BadEventError as error:
                    tag += 1
                    inbox.unusable(tag, payload, str(error))
                    continue
                if self._copies is not None and self._copies.is_second(message_id):
                    continue
                tag += 1
                message(tag, body, content_type)
        except hiredis.HiredisError as error:
            raise in_plain_words(error, self.address, self._subscription) from None
        finally:
            self._tag = tag
        return True

    def _next_reply(self) -> Any:
        held = self._hand_over.held
        return held.popleft() if held else self._reader.gets()

    def _not_a_message(self, reply: Any) -> None:
        """Heed a PONG, a confirmation, a marker or an error: that most came at all is what matters."""
        if isinstance(reply, hiredis.ReplyError):
            raise in_plain_words(reply, self.address, self._subscription)
        # ["punsubscribe", pattern, subscriptions left]: nothing is sent to us behind the last one.
        if type(reply) is list and reply[0] in _UNSUBSCRIBED and reply[-1] == 0:
            self.still_arriving = False
        answer = self._hand_over.answer_to(reply)
        if answer is not None and self._lease is not None and self._lease.leaving:
            self.still_arriving, self._unsubscribe_due = False, math.inf
            self._unsubscribe()
            self._lease.answer(self._hand_over, answer)

    def _fill(self) -> bool:
        """Read once into the reader; False: there is nothing to read at the moment."""
        try:
            size = self._socket.recv_into(self._buffer)
        except _WOULD_BLOCK:
            self._bytes_since_caught_up = 0
            return False
        except OSError as error:
            raise self._ended(error) from None
        if size == 0:
            raise self._ended(None)
        self._heard = True
        self._heard_at = time.monotonic()
        self._bytes_since_caught_up += size
        self._reader.feed(self._buffer, 0, size)
        return True

    def _ended(self, error: OSError | None) -> SourceError:
        if self._bytes_since_caught_up > OVERRUN_BYTES:
            return SourceError(
                f"{self.address} ended the connection while much was still unread: most likely it was "
                "read too slowly, and Redis cut it off (client-output-buffer-limit pubsub)."
            )
        if error is not None:
            return in_plain_words(error, self.address, self._subscription)
        return SourceError(f"{self.address} closed the connection.")

    def ack(self, acks: Sequence[Ack]) -> None:
        """Do nothing: PUB/SUB knows no acks."""

    def barrier(self, reached: Callable[[], None]) -> None:
        """Do nothing: without acks nobody waits for them."""

    def tick(self, now: float) -> float:
        """Renew the lease and send a PING when it is time.

        Raises SourceStandbyError when another agent has the lease, SourceError when two PINGs in a row
        are unanswered. Anything that arrives counts as an answer, since a PONG comes after all that
        was sent before.
        """
        due = self._watch.tick(now) if self._watch is not None else math.inf
        if self._lease is not None:
            due = min(due, self._lease.tick(now), self._leave(now, self._lease))
        if now >= self._ping_due:
            self._ping_due = now + self._ping_every_s
            if self._silence is not None:
                self._silence.tick(now, self._tag)
            self._expect_answers(now)
            self._ping()
        return min(due, self._ping_due)

    def _expect_answers(self, now: float) -> None:
        # What we leave unread is no sign of death: so look before saying so.
        if self._heard or (self._pings_unanswered and self._fill()):
            self._pings_unanswered = 0
        if self._pings_unanswered >= PINGS_UNANSWERED_MAX:
            raise SourceError(
                f"{self.address} has answered nothing for "
                f"{PINGS_UNANSWERED_MAX * self._ping_every_s:g} seconds; "
                "the connection is taken for dead.",
                silent_s=max(0.0, now - self._heard_at),
            )
        self._heard = False
        self._pings_unanswered += 1

    def _ping(self) -> None:
        try:
            sent = self._socket.send(PING)
        except _WOULD_BLOCK:
            return  # nothing was taken for so long that the buffer is full: an unanswered PING
        except OSError as error:
            raise self._ended(error) from None
        if sent < len(PING):
            raise SourceError(f"{self.address} takes nothing more; the connection is given up.")

    def stop_consuming(self) -> None:
        """Give the lease back; a later :meth:`tick` unsubscribes (see :class:`Source`)."""
        if self._lease is None:
            return
        self._unsubscribe_due = time.monotonic() + self._hand_over.lasts_s
        self._lease.leave()
        if self._lapsed:
            self.still_arriving = False

    def _leave(self, now: float, lease: Lease) -> float:
        """Unsubscribe where nobody waits for the lease, or no marker comes; return when to look."""
        if now < self._unsubscribe_due and lease.awaited:
            return self._unsubscribe_due
        if self._unsubscribe_due < math.inf:
            self._unsubscribe_due = math.inf
            self._unsubscribe()
        return math.inf

    @property
    def _lapsed(self) -> bool:
        return self._lease is not None and self._lease.lapsed

    def _unsubscribe(self) -> None:
        with suppress(OSError):
            patterns = PUNSUBSCRIBE if self._kind == b"pmessage" else b""
            self._socket.send(patterns + UNSUBSCRIBE)  # the latter ends the lease's channel, too

    def hand_back(self) -> None:
        """Do nothing: PUB/SUB keeps nothing, so nothing can be returned to it."""

    def resume(self) -> None:
        """Do nothing: nothing was handed back."""

    def ask_depth(self) -> None:
        """Do nothing: nothing waits at the broker."""

    def close(self, wait_s: float = 0.0) -> None:
        """Close the connections; with ``wait_s``, once the lease is given back, if it is."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.close(wait_s)
        connection, self._connection, self._socket, self._watch = self._connection, None, None, None
        self.still_arriving = False
        if connection is not None:
            with suppress(OSError, redis.RedisError):
                connection.disconnect()


def _new_reader() -> Any:  # its annotations don't know that feed() takes any buffer
    return hiredis.Reader(notEnoughData=_NOT_ENOUGH)
