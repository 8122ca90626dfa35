"""Which delivery tags may be acked: what is outstanding, what is done, what came again.

Batches cover runs of delivery tags, since a channel counts its messages. A batch that is done has all
of its events confirmed or dead-lettered, and then its messages may be acked; a message that was split
over two batches belongs to the later one, which waits for the earlier. Where a few documents of a
batch fail again and again, the other messages are acked before it is done, and so are those of the
batches that wait for it. Pure: no sockets and no clocks; used by the main thread only.

After a lost connection all its tags are void, and the broker delivers again whatever it has seen no
ack for. The ledger then remembers those messages by a digest of their bodies. One that comes again is
*recognised*: it waits for the batch that it is in already and isn't posted a second time.
"""

from collections import deque
from collections.abc import Callable, Iterator, Set
from typing import Final

from leekfanout.delivery.batcher import Batch
from leekfanout.delivery.ledger_entry import Entry, digest_of
from leekfanout.sources import Ack

REMEMBERED_MAX: Final = 100_000
"""Messages that are remembered over lost connections; beyond it the oldest are forgotten."""
REMEMBERED_FOR_S: Final = 600.0
"""A redelivery goes to the head of its queue (RabbitMQ: "Consumer Acknowledgements"): it comes soon,
or to another consumer."""

ACKED_BODIES_MAX_BYTES: Final = 8_000_000
"""Bodies of acked messages that are kept until the broker has said that it knows the acks. Its word
stands behind all deliveries under way, which may be hundreds of large ones: of more, digests do."""


class Ledger:
    """The delivery tags of one subscription's connection, one connection after another."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        """This connection's that aren't behind the multiple ack yet, in the order of their tags."""
        self._not_done: dict[Batch, Entry] = {}
        """Of this connection and of earlier ones."""
        self._acked: deque[Entry] = deque()
        """Acked, but the broker may not know it yet."""
        self._acked_whole: deque[Entry] = deque()
        """Those of them whose messages are kept."""
        self._barred = 0
        self._remembered: dict[bytes, list[Entry]] = {}
        self._remembered_count = 0
        self._forget_at: float | None = None
        self._recognised_in_open: list[Entry] = []
        self._stirred: dict[Entry, None] = {}
        """Those of which messages may be done that weren't when they were looked at last."""
        self._acked_up_to = 0
        self._acked_beyond = 0
        self._last_tag = 0
        self._last_continues = False
        self._acked_bytes = 0
        self.bytes_held = 0
        """Bytes of the batches that aren't done, and of messages whose ack may not have arrived."""

    # Deliveries and batches

    def opened(self, batch: Batch) -> None:
        """Take a closed batch: it is under way from now on."""
        entry = Entry(batch)
        entry.follows = self._last_continues
        if entry.follows and self._entries:  # else it is acked already
            entry.wait_for(self._entries[-1])
        for awaited in self._recognised_in_open:
            entry.recognised = True
            entry.wait_for(awaited)
        self._recognised_in_open = []
        self._last_tag = batch.last_tag
        self._last_continues = batch.continues
        self._entries.append(entry)
        self._not_done[batch] = entry
        self.bytes_held += batch.size_bytes

    def done(self, batch: Batch, now: float) -> bool:
        """Take a batch as done. False if it is not known, having been handed back."""
        entry = self._not_done.pop(batch, None)
        if entry is None:
            return False
        self.bytes_held -= batch.drop_bodies()
        entry.left = frozenset()
        self._settle(entry, now)
        return True

    def thinned(self, batch: Batch, left: Set[str]) -> None:
        """Note that a batch is done but for the documents whose ids are ``left``."""
        entry = self._not_done.get(batch)
        if entry is not None:
            entry.left = left
            self._stir(entry)

    def _settle(self, entry: Entry, now: float) -> None:
        """Take one off what the entry waits for, and so on with those for which that is the last."""
        settling = [entry]
        while settling:
            current = settling.pop()
            if current.done:
                continue
            current.waiting_for -= 1
            if current.waiting_for:
                self._stir(current)
                continue
            current.done, current.done_at = True, now
            settling += current.waiters
            current.waiters, current.awaits = [], []

    def _stir(self, entry: Entry) -> None:
        stirring = [entry]
        while stirring:
            current = stirring.pop()
            if not current.done and current not in self._stirred:
                self._stirred[current] = None
                stirring += current.waiters

    def outstanding(self, last_tag: int) -> int:
        """Return how many messages are unacked once ``last_tag`` has been delivered."""
        return max(last_tag, self._last_tag) - self._acked_up_to - self._acked_beyond

    # Acks

    def acks(self, now: float, held_for_s: float) -> list[Ack]:
        """Return what may be acked now, each tag once.

        Up to the first gap a single multiple ack is enough. Beyond it, batches that have been done
        for ``held_for_s`` are acked message by message, so that a batch that is being retried holds
        up nobody else.
        """
        acks = []
        entries = self._entries
        # RabbitMQ takes a multiple ack of a tag that is acked already for an error.
        multiple = 0
        rest: list[int] = []
        while entries and entries[0].done:
            entry = entries.popleft()
            own = range(self._acked_up_to + 1, entry.last_own_tag + 1)
            self._acked_up_to = entry.last_own_tag
            if entry.singly_acked:
                self._acked_beyond -= len(own)
                continue
            self._note_ack(entry)
            if entry.acked_early:
                self._acked_beyond -= len(entry.acked_early)
                rest += (tag for tag in own if tag not in entry.acked_early)
            elif own:
                multiple = entry.last_own_tag
        if multiple:
            acks.append(Ack(multiple, multiple=True))
        acks += (Ack(tag, multiple=False) for tag in rest if tag > multiple)
        acks += self._acks_beyond_gap(now - held_for_s)
        return acks

    def _acks_beyond_gap(self, done_before: float) -> Iterator[Ack]:
        acked_up_to = self._acked_up_to
        for entry in self._entries:
            if entry.done and not entry.singly_acked and entry.done_at <= done_before:
                entry.singly_acked = True
                self._note_ack(entry)
                own = range(acked_up_to + 1, entry.last_own_tag + 1)
                self._acked_beyond += len(own) - len(entry.acked_early)
                for tag in own:
                    if tag not in entry.acked_early:
                        yield Ack(tag, multiple=False)
            acked_up_to = entry.last_own_tag

    def _note_ack(self, entry: Entry) -> None:
        self._acked.append(entry)
        self._acked_whole.append(entry)
        self._acked_bytes += entry.batch.size_bytes
        while self._acked_bytes > ACKED_BODIES_MAX_BYTES and len(self._acked_whole) > 1:
            oldest = self._acked_whole.popleft()
            oldest.digests = oldest.own_digests()
            self._drop_acked(oldest)

    def acks_of_parts(self, now: float, has_any_of: Callable[[bytes, Set[str]], bool]) -> list[Ack]:
        """Return acks for those messages of batches that aren't done which are done all the same.

        ``has_any_of`` says whether a message has an event that belongs to one of some documents.
        Looks only at what :meth:`done` or :meth:`thinned` has changed since the last call.
        """
        stirred, self._stirred = self._stirred, {}
        acks: list[Ack] = []
        if stirred:
            here = set(self._entries)
            for entry in stirred:
                if entry in here and not entry.done and (left := entry.left_of_all()) is not None:
                    acks += self._acks_in(entry, left, has_any_of)
                    # Its own documents are through, too: whatever it waits for, no message does. But
                    # one without a message of its own is the middle of one that began before it.
                    early = len(entry.acked_early)
                    if early and not entry.left and early == len(entry.own_messages()):
                        entry.waiting_for = 1
                        self._settle(entry, now)
        return acks

    def _acks_in(
        self, entry: Entry, left: Set[str], has_any_of: Callable[[bytes, Set[str]], bool]
    ) -> list[Ack]:
        tags = [
            tag
            for tag, message in enumerate(entry.own_messages(), entry.batch.first_tag)
            if tag not in entry.acked_early and not has_any_of(message, left)
        ]
        entry.acked_early.update(tags)
        self._acked_beyond += len(tags)
        return [Ack(tag, multiple=False) for tag in tags]

    def held_until(self, held_for_s: float) -> float | None:
        """Return when :meth:`acks` will have acks beyond a gap to give, or None if there are none."""
        held = [e.done_at for e in self._entries if e.done and not e.singly_acked]
        return min(held) + held_for_s if held else None

    @property
    def unacked_bytes(self) -> int:
        """Bytes of :attr:`bytes_held` that no ack was sent for."""
        return self.bytes_held - self._acked_bytes

    # Barriers: since when the broker knows of an ack

    @property
    def unbarred_bytes(self) -> int:
        """Bytes of messages that are acked without the broker having said so."""
        return self._acked_bytes if not self._barred else 0

    def barrier_sent(self) -> None:
        """Note that the broker was asked something after all acks so far."""
        self._barred = len(self._acked)

    def barrier_reached(self) -> None:
        """Take the answer: the broker knows of every ack before :meth:`barrier_sent`."""
        for _ in range(self._barred):
            entry = self._acked.popleft()
            if entry.digests is None:
                self._acked_whole.popleft()
                self._drop_acked(entry)
        self._barred = 0

    def _drop_acked(self, entry: Entry) -> None:
        freed = entry.batch.drop_messages()
        self.bytes_held -= freed
        self._acked_bytes -= freed

    # Lost connections

    def connection_lost(self) -> None:
        """Void all tags, and remember the messages that the broker may deliver again.

        The open batch must have been closed before.
        """
        for entry in (*self._acked, *(e for e in self._entries if not e.singly_acked)):
            self._remember(entry)
        self._begin_connection()

    def hand_back(self, withdraw: Callable[[list[Batch]], bool]) -> list[Batch]:
        """Void all tags since all messages are handed back; return the batches that are dropped.

        ``withdraw`` takes batches from the senders, all or none: False where it is too late for one.
        What is done must have been acked before; it is remembered in case the connection breaks
        before the broker has said that it has those acks.

        A batch is kept where dropping it would post something twice: one that can't be withdrawn, has
        been posted in part, has messages of earlier batches, or shares a message with a batch that is
        kept or done.
        """
        dropped: list[Batch] = []
        for entry in self._acked:
            self._remember(entry)
        for chain in self._chains():
            waiting = [entry.batch for entry in chain if entry.batch in self._not_done]
            # A chain whose first entry follows another one lacks that one, which is done, then.
            tied = chain[0].follows or any(e.done or e.batch.begun or e.recognised for e in chain)
            if tied or not withdraw(waiting):
                for entry in chain:
                    if not entry.singly_acked:
                        self._remember(entry)
                continue
            for entry in chain:
                self.bytes_held -= entry.batch.drop_bodies() + entry.batch.drop_messages()
                self._not_done.pop(entry.batch, None)
            dropped += waiting
        self._begin_connection()
        return dropped

    def _chains(self) -> Iterator[list[Entry]]:
        """Give the entries of this connection in groups that share messages."""
        chain: list[Entry] = []
        for entry in self._entries:
            chain.append(entry)
            if not entry.batch.continues:
                yield chain
                chain = []
        if chain:
            yield chain

    def _begin_connection(self) -> None:
        self._acked.clear()
        self._acked_whole.clear()
        self._stirred.clear()
        self._entries.clear()
        self._barred = self._acked_up_to = self._acked_beyond = self._last_tag = 0
        self._acked_bytes = 0
        self._last_continues = False
        self._forget_at = None

    def _remember(self, entry: Entry) -> None:
        for digest in entry.own_digests():
            self._remembered.setdefault(digest, []).append(entry)
            self._remembered_count += 1
        self.bytes_held -= entry.batch.drop_messages()
        while self._remembered_count > REMEMBERED_MAX:
            self._remembered_count -= len(self._remembered.pop(next(iter(self._remembered))))

    @property
    def remembers(self) -> bool:
        """Whether any message is remembered, so that :meth:`recognise` is worth asking."""
        return bool(self._remembered)

    @property
    def open_batch_is_tied(self) -> bool:
        """Whether events of the open batch's messages are in earlier batches too.

        Either a message was recognised, or its first one began in the batch before it. Such a batch
        can't be discarded: its messages are done only with the others.
        """
        return bool(self._recognised_in_open) or self._last_continues

    def recognise(self, body: bytes) -> bool:
        """Whether a message is one that was remembered; it then goes with the open batch."""
        entries = self._remembered.get(digest := digest_of(body))
        if not entries:
            return False
        self._recognised_in_open.append(entries.pop())
        self._remembered_count -= 1
        if not entries:
            del self._remembered[digest]
        return True

    def forget_old(self, now: float) -> None:
        """Forget the messages that didn't come again for so long that they won't.

        To be called while connected: the time begins with the first call after a loss, since nothing
        can come before. What is still under way stays, or it would be posted twice.
        """
        if not self._remembered:
            return
        if self._forget_at is None:
            self._forget_at = now + REMEMBERED_FOR_S
        elif now > self._forget_at:
            self._forget_at = now + REMEMBERED_FOR_S
            under_way = {
                digest: kept
                for digest, entries in self._remembered.items()
                if (kept := [entry for entry in entries if not entry.done])
            }
            self._remembered = under_way
            self._remembered_count = sum(map(len, under_way.values()))
