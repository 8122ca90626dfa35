"""Who keeps what isn't delivered yet: the broker until it is acked, or our memory and then our disk.

A source with acks leaves its messages in the broker's custody, and reading stops while enough is in
flight. PUB/SUB keeps nothing, so there reading never stops, and what doesn't fit into memory goes to
the spool. Both are used by the main thread only.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Final, Protocol

from leekfanout import logs
from leekfanout.delivery.batcher import Batch, Body, ClosedBy, document_id, parse_body
from leekfanout.delivery.ledger import Ledger
from leekfanout.delivery.outbox import Outbox
from leekfanout.delivery.outcome import BreakerState
from leekfanout.documents.events import CONTENT_TYPE, decode
from leekfanout.errors import BadEventError, StoreError
from leekfanout.sources import Source
from leekfanout.status.stats import Stats
from leekfanout.stores.spool import Spool, SpoolEntry

log = logs.get("custody")

ACK_HELD_MAX_S: Final = 0.25
"""How long a delivered batch waits for one before it, so that a single ack serves for both."""
ACK_HELD_AT_LIMIT_S: Final = 0.02
"""The same while prefetch is used up: then nothing comes before the ack."""
BARRIER_EVERY_S: Final = 1.0
BARRIER_EVERY_BYTES: Final = 4_000_000
"""How often, and after how much, the broker is asked whether it has the acks."""
OPEN_BATCH_COST: Final = 3
"""An open batch is in memory as messages, as documents, and at its closing as bodies too."""
LOAD_RETRY_S: Final = 10.0
"""After how long an unreadable spool is tried again."""


class Custody(Protocol):
    """What the main loop needs to know and do about batches that are under way."""

    @property
    def bytes_in_flight(self) -> int:
        """Bytes in memory that aren't delivered, those of the open batch left out."""

    def messages_in_flight(self, last_tag: int) -> int:
        """Messages in hand that aren't delivered, ``last_tag`` being the last one so far."""

    def connection_begun(self) -> None:
        """Note that a connection, or a channel, has begun, whose first message has the tag 1."""

    def take(self, batch: Batch) -> None:
        """Take a closed batch, and see to its delivery."""

    def done(self, batches: Iterable[Batch], now: float) -> None:
        """Take batches as done: confirmed or dead-lettered in all parts."""

    def may_read(self, last_tag: int, open_bytes: int) -> bool:
        """Whether more messages may be taken in.

        ``last_tag`` is the last one so far; the open batch's messages have ``open_bytes`` bytes.
        """

    def all_have_come(self, last_tag: int) -> bool:
        """Whether the broker sends no more messages before it has some acks, but answers only."""

    def turn(self, now: float) -> float:
        """Do what is due; return when to call again (monotonic seconds)."""

    def leave(self, now: float) -> None:
        """See to what is left, since the process ends: no POST begins any more.

        Raises SourceError when the connection is lost.
        """


class BrokerCustody:
    """For sources with acks: nothing is ours until the API has it."""

    def __init__(
        self,
        source: Source,
        outbox: Outbox,
        stats: Stats,
        *,
        prefetch_count: int,
        in_flight_max_bytes: int,
    ) -> None:
        self._source = source
        self._outbox = outbox
        self._stats = stats
        self._prefetch_count = prefetch_count
        self._in_flight_max_bytes = in_flight_max_bytes
        self.ledger = Ledger()
        self.connected = False
        self._ack_held_s = ACK_HELD_MAX_S
        self._barrier_due = float("-inf")
        self._barrier_under_way = False

    @property
    def bytes_in_flight(self) -> int:
        return self.ledger.bytes_held

    def messages_in_flight(self, last_tag: int) -> int:
        return self.ledger.outstanding(last_tag) if self.connected else 0

    def take(self, batch: Batch) -> None:
        self.ledger.opened(batch)
        self._outbox.put(batch)

    def done(self, batches: Iterable[Batch], now: float) -> None:
        for batch in batches:
            if self.ledger.done(batch, now):
                self._stats.add("events_delivered", batch.events)
        if self.connected:
            # Before anything else is decided: until it is acked, a message takes a place of prefetch.
            self.ack(now, self._ack_held_s)

    def may_read(self, last_tag: int, open_bytes: int) -> bool:
        at_limit = self.all_have_come(last_tag)
        self._ack_held_s = ACK_HELD_AT_LIMIT_S if at_limit else ACK_HELD_MAX_S
        # Not those that are acked: they become free by an answer that has to be read.
        bytes_held = self.ledger.unacked_bytes + open_bytes * OPEN_BATCH_COST
        if at_limit or bytes_held >= self._in_flight_max_bytes:
            return False
        # Unread messages hide the answer behind them: how many more wait at the broker. A recognised
        # one takes no place in the outbox, and while the API is away there is no other way to see.
        api_is_away = self._outbox.breaker_state is BreakerState.OPEN
        return not self._outbox.is_full or api_is_away or self.ledger.remembers

    def all_have_come(self, last_tag: int) -> bool:
        return self.ledger.outstanding(last_tag) >= self._prefetch_count

    def turn(self, now: float) -> float:
        """Ack what may be acked, and ask from time to time whether the acks have arrived.

        Raises SourceError when the connection is lost.
        """
        ledger = self.ledger
        if not self.connected:
            return float("inf")
        ledger.forget_old(now)
        self.ack(now, self._ack_held_s)
        self._ack_parts(now, self._outbox.take_thinned())
        if ledger.unbarred_bytes and not self._barrier_under_way:
            if now >= self._barrier_due or ledger.unbarred_bytes >= BARRIER_EVERY_BYTES:
                self._barrier_due = now + BARRIER_EVERY_S
                self._barrier_under_way = True
                ledger.barrier_sent()
                self._source.barrier(self._barrier_reached)
            else:
                return min(self._barrier_due, ledger.held_until(self._ack_held_s) or float("inf"))
        return ledger.held_until(self._ack_held_s) or float("inf")

    def ack(self, now: float, held_for_s: float) -> None:
        """Send the acks that are due (see :meth:`Ledger.acks`)."""
        if acks := self.ledger.acks(now, held_for_s):
            self._source.ack(acks)

    def _barrier_reached(self) -> None:
        self._barrier_under_way = False
        self.ledger.barrier_reached()

    def connection_begun(self) -> None:
        """Note that a connection, or a channel, has begun (see :class:`Custody`): acks can be sent."""
        self.connected = True
        self._barrier_under_way = False

    def connection_lost(self, now: float) -> None:
        """Note that all delivery tags are void. The open batch must have been closed."""
        self.connected = False
        self.ledger.connection_lost()

    def hand_back(self, now: float) -> list[Batch]:
        """Return all messages to the broker; return the batches that are forgotten with them.

        Raises SourceError when the connection is lost meanwhile.
        """
        self.ack(now, 0.0)
        self.connected = False
        dropped = self.ledger.hand_back(self._outbox.withdraw)
        self._source.hand_back()
        return dropped

    def leave(self, now: float) -> None:
        """Ack what is done, down to single messages of batches that are done in part.

        The rest is the broker's.
        """
        left = self._outbox.drain()
        self.done((b for b in self._outbox.take_done() if not b.dead_letters), now)
        if not self.connected:
            return
        self.ack(now, 0.0)
        self._ack_parts(now, left)

    def _ack_parts(self, now: float, left: Mapping[Batch, Sequence[Body]]) -> None:
        """Ack messages of batches that aren't done; of some of them only what is ``left`` isn't.

        Else a document that fails again and again would take the place of its whole batch in what
        the broker lets us have (``prefetch_count``), which may be all of it.
        """
        for batch, bodies in left.items():
            if batch.begun:
                self.ledger.thinned(batch, ids_in(bodies))
        if acks := self.ledger.acks_of_parts(now, has_any_of):
            self._source.ack(acks)


class DiskCustody:
    """For PUB/SUB: what the API doesn't take waits in memory, then on disk, oldest delivered first."""

    def __init__(
        self, outbox: Outbox, spool: Spool, stats: Stats, *, memory_max_bytes: int
    ) -> None:
        self._outbox = outbox
        self._spool = spool
        self._stats = stats
        self._memory_max_bytes = memory_max_bytes
        self._loaded_up_to = 0
        self._all_loaded = spool.stock_taken and spool.batches == 0
        """Whether memory has all that is on disk, so that a new batch needn't queue up behind it."""
        self._load_due = float("-inf")
        self._entries: dict[Batch, SpoolEntry] = {}
        """Batches in memory that came from the spool."""
        self._messages_held = 0
        self._last_taken_tag = 0
        self._complaint = logs.RateLimit(60.0)

    @property
    def bytes_in_flight(self) -> int:
        return self._outbox.bytes_held

    def messages_in_flight(self, last_tag: int) -> int:
        return self._messages_held + last_tag - self._last_taken_tag

    def connection_begun(self) -> None:
        # What came over an earlier one is still here.
        self._last_taken_tag = 0

    def take(self, batch: Batch) -> None:
        self._last_taken_tag = batch.last_tag
        # There is no queueing up behind what can't be opened.
        in_turn = self._all_loaded or not self._spool.stock_taken
        if in_turn and self._outbox.bytes_held < self._memory_max_bytes:
            self._messages_held += batch.message_count
            self._outbox.put(batch)
        else:
            self._keep_on_disk(batch, batch.bodies)

    def _keep_on_disk(self, batch: Batch, bodies: Sequence[Body]) -> None:
        """Put what is left of a batch behind all others in the spool; drop it if the disk refuses."""
        for index, body in enumerate(bodies):
            # How the events spread over the bodies isn't known; the first one counts them all.
            events = batch.events if index == 0 else 0
            try:
                self._append(body, events)
            except StoreError as error:
                self._stats.problem(str(error), "Make room in the state directory.")
                self._drop(events, "disk", str(error))
            else:
                self._all_loaded = False
                self._stats.add("events_spooled", events)

    def _append(self, body: Body, events: int) -> None:
        """Put a body into the spool; raises StoreError if the disk refuses."""
        if dropped := self._spool.append(body.content, events):
            self._drop(dropped, "bound", "the spool is as large as it may be")

    def _drop(self, events: int, by: str, reason: str) -> None:
        self._stats.add(f"events_dropped_by_{by}", events)
        if (held_back := self._complaint.allow()) is not None:
            log.error("spool.dropped", events=events, by=by, reason=reason, held_back=held_back)

    def done(self, batches: Iterable[Batch], now: float) -> None:
        removed = []
        for batch in batches:
            self._stats.add("events_delivered", batch.events)
            if entry := self._entries.pop(batch, None):
                removed.append(entry.id)
            else:
                self._messages_held -= batch.message_count
        if removed:
            self._spool.remove(removed)

    def may_read(self, last_tag: int, open_bytes: int) -> bool:
        return True

    def all_have_come(self, last_tag: int) -> bool:
        return False

    def turn(self, now: float) -> float:
        """Load what is next in the spool as memory becomes free."""
        if self._all_loaded or self._outbox.bytes_held >= self._memory_max_bytes / 2:
            return float("inf")
        if now >= self._load_due:
            self._load(now)
        return self._load_due

    def _load(self, now: float) -> None:
        try:
            entries = self._spool.after(self._loaded_up_to, self._memory_max_bytes // 2)
        except StoreError as error:
            self._load_due = now + LOAD_RETRY_S
            self._stats.problem(str(error), "The spooled events stay on disk; look at the disk.")
            return
        self._all_loaded = not entries
        for entry in entries:
            self._loaded_up_to = entry.id
            batch = as_batch(entry)
            self._entries[batch] = entry
            self._outbox.put(batch)

    def leave(self, now: float) -> None:
        """Put what is in memory on disk; what came from there is there still."""
        left = self._outbox.drain()
        self.done(self._outbox.take_done(), now)
        for batch, bodies in left.items():
            entry = self._entries.get(batch)
            if entry is None:
                self._keep_on_disk(batch, bodies)
            elif batch.begun:
                self._keep_rest(entry, bodies)
        self._spool.close()

    def _keep_rest(self, entry: SpoolEntry, bodies: Sequence[Body]) -> None:
        """Put what is left of a spooled batch in its place; else the whole stays, and comes twice."""
        try:
            for index, body in enumerate(bodies):
                self._append(body, entry.events if index == 0 else 0)
        except StoreError as error:
            self._stats.problem(str(error), "Make room in the state directory.")
        else:
            self._spool.remove([entry.id])


def ids_in(bodies: Iterable[Body]) -> set[str]:
    """Return the ids of the documents in ``bodies``."""
    return {document_id(body.document(i)) for body in bodies for i in range(len(body))}


def has_any_of(message: bytes, ids: Set[str]) -> bool:
    """Whether a message has an event that belongs to a document whose id is among ``ids``.

    A task's document has the task's id, a worker's has the worker's name (contract, section 3).
    """
    if not ids:
        return False
    try:
        events = decode(message, CONTENT_TYPE)
    except BadEventError:
        return False  # dead-lettered as a whole
    return any(_document_of(event) in ids for event in events if isinstance(event, dict))


def _document_of(event: dict[str, Any]) -> str:
    is_workers = str(event.get("type")).startswith("worker-")
    value = event.get("hostname" if is_workers else "uuid")
    return value if isinstance(value, str) else ""


def as_batch(entry: SpoolEntry) -> Batch:
    """Return a spooled body as a batch of its own."""
    return Batch(
        first_tag=0,
        last_tag=0,
        messages=[],
        bodies=[parse_body(entry.body)],
        dead_letters=[],
        closed_by=ClosedBy.DRAIN,
        events=entry.events,
        continues=False,
    )
