"""The lease in Redis by which one agent of several hears a subscription's events, and the others wait.

PUB/SUB gives every event to every subscriber, and has nothing at which Redis could fence a subscriber
off. So it is the holder that fences itself: it reads nothing once its lease may have run out by its own
clock, until Redis has told whose the lease is. Where Redis answers but grants no leases (the user may
not, a replica, no memory), events are heard without one: twice is better than not at all.

The lease is a key with an expiry, in database 0, whose value begins with its holder's token. No other
agent has that, so a late renewal or release never touches another's lease; an agent that was restarted
has the same (see ``redis_holder``), and goes on with its lease. At which event one agent ends and the
next begins, when the lease is given back, is agreed on as ``redis_hand_over`` says.
"""

import hashlib
import math
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import redis

from leekfanout import logs
from leekfanout.configuration.addresses import Address
from leekfanout.configuration.config import Subscription
from leekfanout.errors import SourceStandbyError
from leekfanout.redaction import mask, secrets_of
from leekfanout.sources.redis_channels import Channels
from leekfanout.sources.redis_connection import ANSWER_TIMEOUT_S, open_connection
from leekfanout.sources.redis_hand_over import HandOver
from leekfanout.sources.redis_holder import place_of, token_of

log = logs.get("redis")

LEASE_S: Final = 10.0
"""So long after its holder's death a lease can be taken by another."""
RENEW_EVERY_S: Final = 3.0
HELD_S: Final = LEASE_S - 1.0
"""The holder's own reckoning, from before it asked: over before it is over at Redis."""
LOOK_AFTER_S: Final = 0.5
LEAVING_LOOK_AFTER_S: Final = 0.02

_TAKE: Final = """\
local held = redis.call('GET', KEYS[1])
if held and held:sub(1, 32) ~= ARGV[1]:sub(1, 32) then
  redis.pcall('SET', KEYS[2], ARGV[1], 'PX', 2 * ARGV[2])
  return {held, redis.call('PTTL', KEYS[1])}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {}"""
"""Takes the lease if it is free, renews it if it is ours; else tells whose it is, and for how long.

It leaves word that we stand by, if it can, until some time after we would ask again.
"""

_RELEASE: Final = """\
local held = redis.call('GET', KEYS[1])
if not held or held:sub(1, 32) ~= ARGV[1]:sub(1, 32) then return end
redis.call('DEL', KEYS[1])
redis.call('LPUSH', KEYS[2], ARGV[1])
redis.call('PEXPIRE', KEYS[2], 1000)
return redis.call('GET', KEYS[3])"""
"""Gives the lease back if it is ours, and wakes the agent that has waited longest.

Tells which one has stood by last; that may be ourselves, or one that has gone since.
"""

_MARK: Final = """\
local held = redis.call('GET', KEYS[1])
if not held or held:sub(1, 32) ~= ARGV[1]:sub(1, 32) then return 0 end
return redis.call('PUBLISH', ARGV[2], ARGV[3])"""
"""Publishes the marker of a hand-over, if the lease is ours; tells how many have heard it."""

_THIS_HOST: Final = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})  # noqa: S104
"""0.0.0.0 is what a local agent has for its API (contract, section 5)."""


def lease_key(subscription: Subscription, wanted: Channels, host: str) -> str:
    """Return the key of the lease that agents share whose events and API application are the same.

    It begins like kombu's keys where these have a prefix, so that an ACL for them takes it in. The
    digest stands for the channels and the API's address, without user and password; ``localhost``
    is another API on each ``host``. Pure.
    """
    api = urlsplit(subscription.api_url)
    place = f"{api.scheme}://{api.netloc.rpartition('@')[2]}{api.path}"
    parts = (place, host if api.hostname in _THIS_HOST else "", wanted.command, *wanted.names)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    prefix = subscription.transport_options.get("global_keyprefix", "")
    application = f"{subscription.org_name}/{subscription.app_name}/{subscription.app_env}"
    return f"{prefix}leekfanout.lease.{application}.{digest}"


@dataclass(frozen=True, slots=True)
class Other:
    """Another agent's lease."""

    holder: str
    """``host:pid`` of its supervisor."""
    left_s: float


class Tenure:
    """Until when the events are ours to hear, and who hears them instead. Pure; monotonic seconds."""

    __slots__ = ("lost_to", "until")

    def __init__(self) -> None:
        self.until = -math.inf
        self.lost_to: Other | None = None

    def answered(self, asked_at: float, other: Other | None) -> None:
        """Take Redis' answer to what was asked at ``asked_at``; None: the lease is ours."""
        self.lost_to = other
        self.until = -math.inf if other is not None else max(self.until, asked_at + HELD_S)

    def lasts(self, now: float) -> bool:
        """Whether nobody else can hold the lease at ``now``."""
        return now < self.until


class Lease:
    """One subscription's lease at one server, over a connection of its own.

    :meth:`claim` blocks and is for the thread that connects. Everything else never blocks, and belongs
    to the main thread; what it asks of Redis is asked on a thread, one at a time. It is renewed by
    :meth:`tick`, and not by itself, so that a main loop that hangs loses it.
    """

    def __init__(
        self,
        subscription: Subscription,
        address: Address,
        wanted: Channels,
        *,
        holder: str,
        connection: Any,
        told: set[str],
    ) -> None:
        """``connection`` to the server at ``address`` is the lease's from here on.

        ``holder`` is this agent (see ``redis_holder``).

        ``told`` are the reasons for there being no leases that were logged already, by those before.
        """
        self._subscription = subscription
        self._address = address
        self.key = lease_key(subscription, wanted, socket.gethostname())
        self._value = holder
        self._connection = connection
        self._tenure = Tenure()
        self._due = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False
        self._told = told
        self.leaving = False
        """Whether it is given back, or about to be."""
        self.lapsed = False
        """Whether it may have run out, so that nothing must be read: as of the last :meth:`tick`."""
        self.awaited = True
        """Whether another agent takes over from us, as far as is known; set by :meth:`leave`."""

    def claim(self, *, patient: bool) -> None:
        """Take the lease, or, if ``patient``, wait for it until the present one would be over.

        Raises SourceStandbyError if another agent holds it, OSError and redis-py's errors where the
        connection is lost. Blocks for some ten seconds at most.
        """
        other = self._claim_once()
        if other is not None and patient:
            self._wait(other.left_s)
            other = self._claim_once()
        if other is not None:
            raise SourceStandbyError(other.holder)
        self._due = time.monotonic() + RENEW_EVERY_S

    def mark(self, hand_over: HandOver) -> int | None:
        """Publish the marker of a hand-over, for the thread that connects.

        Return how many have heard it, ourselves among them; None where Redis doesn't let us.
        """
        try:
            arguments = (self._value, hand_over.channel, hand_over.marker)
            return int(self._ask("EVAL", _MARK, "1", self.key, *arguments))
        except redis.ResponseError:
            return None
        except (OSError, redis.RedisError):  # the next renewal opens another one
            self._disconnect()
            return None

    def _claim_once(self) -> Other | None:
        asked_at, other = time.monotonic(), None
        try:
            other = self._take()
        except redis.ResponseError as error:
            self._tell_of(error)
        self._tenure.answered(asked_at, other)
        return other

    def _take(self) -> Other | None:
        milliseconds = str(int(LEASE_S * 1000))
        keys = (self.key, f"{self.key}.standby")
        reply = self._ask("EVAL", _TAKE, "2", *keys, self._value, milliseconds)
        if not reply:
            return None
        return Other(place_of(reply[0]), max(0.0, reply[1] / 1000))

    def _ask(self, *command: str | bytes) -> Any:
        self._connection.send_command(*command)
        return self._connection.read_response()

    def _wait(self, left_s: float) -> None:
        """Wait until the lease is given back, or over."""
        seconds = min(math.ceil(left_s) or 1, math.ceil(LEASE_S))
        try:
            self._connection.send_command("BLPOP", f"{self.key}.released", str(seconds))
            if not self._connection.can_read(timeout=seconds + ANSWER_TIMEOUT_S):
                raise redis.TimeoutError
            self._connection.read_response()
        except redis.ResponseError:  # the user may not, or the server became a replica meanwhile
            time.sleep(RENEW_EVERY_S)

    def tick(self, now: float) -> float:
        """Renew the lease when that is due, and look whether it lasts; return when to call next.

        Raises SourceStandbyError when another agent has it.
        """
        asking = self._thread is not None and self._thread.is_alive()
        if self.leaving:
            return now + LEAVING_LOOK_AFTER_S if asking else math.inf
        other = self._tenure.lost_to
        if other is not None:
            raise SourceStandbyError(other.holder)
        lapsed = not self._tenure.lasts(now)
        if lapsed and not self.lapsed:
            log.warning("lease.lapsed", reason="Redis has not answered in time; nothing is read")
        self.lapsed = lapsed
        if now >= self._due and not asking:
            self._due = now + RENEW_EVERY_S
            self._begin(self._renew)
        if lapsed or now >= self._due:
            return now + LOOK_AFTER_S
        return min(self._due, self._tenure.until)

    def _begin(self, work: Any, *arguments: Any) -> None:
        self._thread = threading.Thread(target=work, args=arguments, name="lease", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        asked_at = time.monotonic()
        try:
            if self._connection is None:
                self._connection = open_connection(self._subscription, self._address)
            other = self._take()
        except Exception as error:  # noqa: BLE001  # redis-py lets errors of all sorts through
            if not isinstance(error, redis.ResponseError):
                self._disconnect()
            if not is_answer(error):
                return
            self._tell_of(error)
            other = None
        finally:
            if self._closed:  # meanwhile
                self._disconnect()
        self._tenure.answered(asked_at, other)

    def leave(self) -> None:
        """Give the lease back, so that another agent can take it at once; don't wait for that."""
        self.leaving = True
        self._begin(self._release, self._thread)

    def _release(self, renewal: threading.Thread | None) -> None:
        if renewal is not None:
            renewal.join()
        try:
            released = f"{self.key}.released"
            keys = (self.key, released, f"{self.key}.standby")
            standby = self._ask("EVAL", _RELEASE, "3", *keys, self._value)
            # Who waited for it has taken it out of the list already; who was about to does so soon.
            stands_by = standby is not None and token_of(standby) != token_of(self._value.encode())
            self.awaited = stands_by or self._ask("LLEN", released) == 0
        except Exception:  # noqa: BLE001  # as above; the lease is over soon in any case
            self.awaited = False

    def answer(self, hand_over: HandOver, text: bytes) -> None:
        """Tell who takes over that all before its marker is taken; don't wait for that."""
        self._begin(self._answer, self._thread, hand_over.channel, text)

    def _answer(self, release: threading.Thread | None, channel: bytes, text: bytes) -> None:
        if release is not None:
            release.join()
        with suppress(Exception):  # as above; unanswered, the other one keeps all that it has heard
            self._ask("PUBLISH", channel, text)

    def give_up(self) -> None:
        """Give the lease back and wait for that: for the thread that connects, after a failure."""
        if self._tenure.lasts(time.monotonic()):
            self._release(None)

    def close(self, wait_s: float) -> None:
        """Close the connection, quietly; with ``wait_s``, let what leaving takes be done first.

        The lease stays ours without it until it is over: whoever has lost a connection comes back.
        """
        if self._thread is not None and self.leaving:
            self._thread.join(wait_s)
        self._closed = True
        self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError, redis.RedisError):
                connection.disconnect()

    def _tell_of(self, error: Exception) -> None:
        """Log that there are no leases to be had."""
        reason = mask(str(error), secrets_of(self._subscription))
        if reason not in self._told:
            self._told.add(reason)
            log.warning(
                "lease.unavailable",
                reason=f"Redis grants no lease ({reason}), so a second agent would deliver all again",
                advice="allow it as docs/scaling.md says, or see to it that there is one agent",
            )


def is_answer(error: Exception) -> bool:
    """Whether it shows that Redis is there, and grants no lease. Pure.

    redis-py takes some of Redis' answers for lost connections, wrong credentials among them.
    """
    return isinstance(
        error, (redis.ResponseError, redis.AuthenticationError, redis.BusyLoadingError)
    ) or "max number of clients" in str(error)
