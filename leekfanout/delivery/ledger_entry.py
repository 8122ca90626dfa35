"""A batch as the ledger sees it: its messages, and what they still wait for."""

from collections.abc import Set
from hashlib import blake2b

from leekfanout.delivery.batcher import Batch


class Entry:
    """A batch in the ledger. Pure; used by the main thread only."""

    __slots__ = (
        "acked_early",
        "awaits",
        "batch",
        "digests",
        "done",
        "done_at",
        "follows",
        "left",
        "recognised",
        "singly_acked",
        "waiters",
        "waiting_for",
    )

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.digests: list[bytes] | None = None
        """Of its own messages, once they are dropped."""
        self.waiting_for = 1
        """How many it waits for: itself, and :attr:`awaits`."""
        self.awaits: list[Entry] = []
        """Batches that other events of its messages are in."""
        self.waiters: list[Entry] = []
        self.done = False
        self.done_at = 0.0
        self.left: Set[str] | None = None
        """Ids of its own documents that aren't done; None: nobody has looked, so it may be all."""
        self.singly_acked = False
        self.acked_early: set[int] = set()
        """Tags that were acked before the batch was done."""
        self.recognised = False
        """Whether some of its messages came again and are in earlier batches."""
        self.follows = False
        """Whether its first message began in the batch before it."""

    def wait_for(self, other: "Entry") -> None:
        """Let the batch be done no sooner than ``other``."""
        if not other.done:
            self.waiting_for += 1
            self.awaits.append(other)
            other.waiters.append(self)

    def left_of_all(self) -> Set[str] | None:
        """Return the ids of all documents that its messages may still wait for; None: not known."""
        left: set[str] = set()
        looking, seen = [self], {self}
        while looking:
            entry = looking.pop()
            # A dead letter that the disk hasn't taken yet is no document, but not done either.
            if entry.left is None or entry.batch.dead_letters:
                return None
            left |= entry.left
            fresh = [each for each in entry.awaits if not each.done and each not in seen]
            seen.update(fresh)
            looking += fresh
        return left

    @property
    def last_own_tag(self) -> int:
        """The last tag that is acked with this batch."""
        return self.batch.last_tag - self.batch.continues

    def own_messages(self) -> list[bytes]:
        """The messages that are acked with this batch, while they are kept."""
        return self.batch.messages[: len(self.batch.messages) - self.batch.continues]

    def own_digests(self) -> list[bytes]:
        """Digests of these messages, by which they are recognised when they come again."""
        if self.digests is not None:
            return self.digests
        return [digest_of(message) for message in self.own_messages()]


def digest_of(message: bytes) -> bytes:
    """Return what stands for a message that isn't kept."""
    return blake2b(message, digest_size=16).digest()
