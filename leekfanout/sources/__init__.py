"""Messages in, acks back: what the two kinds of broker have in common.

``amqp`` reads a queue and acks; ``redis`` reads PUB/SUB, which keeps nothing and knows no acks.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class Ack(NamedTuple):
    """One acknowledgement: of ``delivery_tag`` alone, or of all up to it if ``multiple``."""

    delivery_tag: int
    multiple: bool


class Inbox(Protocol):
    """Takes what a source reads; called on the thread that called :meth:`Source.receive`."""

    def message(self, delivery_tag: int, body: bytes, content_type: str | None) -> None:
        """Take a message's body, decoded from its envelope but not parsed.

        Delivery tags count up by one from 1 within a connection (AMQP 0-9-1, basic.deliver; the
        Redis source numbers its messages itself).
        """

    def unusable(self, delivery_tag: int, payload: bytes, reason: str) -> None:
        """Take a message whose envelope can't be read, with the reason in plain words."""


class Source(Protocol):
    """A subscription's side of one broker; used by one thread at a time.

    Any method but :meth:`close` raises :class:`~leekfanout.errors.SourceError` when the connection is
    lost or the broker refuses something; then the source is to be closed, and connected again later.
    """

    acks: bool
    """Whether the broker keeps a message until it is acked."""
    address: str
    """The broker address in use or tried last, without its password."""
    depth: int | None
    """Messages that wait at the broker, by its last answer; None where that can't be known."""
    still_arriving: bool
    """Whether messages that nobody else keeps are under way to us: until :meth:`receive` has seen
    the end of them, which it does some time after :meth:`stop_consuming`. Never where ``acks``."""

    def connect(self) -> None:
        """Connect to the next broker address, and consume. Blocks for some seconds at most.

        Delivery tags begin at 1 again. Raises SourceRefusedError where the broker answers with a no
        that only a person can change, SourceStandbyError where another agent hears the messages: then
        the next call waits until that one stops, for some ten seconds at most.
        """

    def fileno(self) -> int:
        """The socket to wait on for more messages; -1 while none are to be read."""

    def receive(self, inbox: Inbox, limit: int) -> bool:
        """Give ``inbox`` what has arrived, without blocking, but no more than ``limit`` messages.

        True: more may be at hand, so call again before waiting on :meth:`fileno`.
        """

    def ack(self, acks: Sequence[Ack]) -> None:
        """Acknowledge; nothing where :attr:`acks` is false."""

    def barrier(self, reached: Callable[[], None]) -> None:
        """Call ``reached`` during a later :meth:`receive`, once the broker has all acks sent so far.

        Only where ``acks``.
        """

    def tick(self, now: float) -> float:
        """Do what is due at ``now`` (monotonic seconds): heartbeats, and whether any came.

        Return when to call next. To be called right after :meth:`stop_consuming`, too."""

    def stop_consuming(self) -> None:
        """Take no new messages, but keep the connection, so that acks still arrive."""

    def hand_back(self) -> None:
        """Return all unacked messages to the broker and stop consuming; only where ``acks``."""

    def resume(self) -> None:
        """Consume again after :meth:`hand_back`; delivery tags begin at 1 again."""

    def ask_depth(self) -> None:
        """Ask for :attr:`depth`. Doesn't block: the answer comes with a :meth:`receive`."""

    def close(self, wait_s: float = 0.0) -> None:
        """Close the connection, quietly whatever its state; nothing is acked by this.

        With ``wait_s``, wait that long for the broker's goodbye, which proves that it has all acks;
        raises SourceError if it doesn't come.
        """
