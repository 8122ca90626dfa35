"""Messages in, closed batches out: the bounds of a batch, and its bytes.

A batch closes at the first of: its number of events, its size, its window. It has no I/O and no
clock: time is passed in, and who calls decides what a due window or a full prefetch means.
"""

import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import orjson

from leekfanout import logs
from leekfanout.documents.events import Documents, EventTally, decode
from leekfanout.errors import BadEventError
from leekfanout.stores.deadletters import DeadLetter, Kind

log = logs.get("batcher")

FIRST_GROWTH: Final = 2.0
GROWTH_MARGIN: Final = 1.05
"""How much a message grows on its way to a document is learned; until then it is guessed."""
GROWTH_MIN: Final = 0.5
"""The least that is taken for the growth. Heartbeats merge to next to nothing, but what follows them
may not, and until it is known, the messages of a whole batch are in memory."""


class ClosedBy(Enum):
    """Why a batch was closed; also the name of its counter."""

    NUMBER = "number"
    SIZE = "size"
    WINDOW = "window"
    PREFETCH = "prefetch"
    DRAIN = "drain"


@dataclass(slots=True)
class Body:
    """What one POST carries: a JSON array of documents."""

    content: bytes
    ends: "array[int]"
    """Where in ``content`` each document ends, so that it can be cut without being parsed."""

    def __len__(self) -> int:
        return len(self.ends)

    def document(self, index: int) -> bytes:
        """Return one document's JSON."""
        # Each but the first document is preceded by a comma, the first by the bracket.
        start = self.ends[index - 1] + 1 if index else 1
        return self.content[start : self.ends[index]]


@dataclass(slots=True, eq=False)
class Batch:
    """What was in hand when a batch closed: messages, and what became of them."""

    first_tag: int
    last_tag: int
    messages: list[bytes]
    """The bodies of the messages ``first_tag`` to ``last_tag``; a message that was split over two
    batches stands in both. Empty where the source has no acks."""
    bodies: list[Body]
    dead_letters: list[DeadLetter]
    closed_by: ClosedBy
    events: int
    """Events that stand in its documents."""
    continues: bool
    """Whether the last message has more events, which the next batch holds."""
    begun: bool = False
    """Whether a part of it is settled, with the API or among the dead letters, so that dropping it
    would do that part twice."""
    size_bytes: int = field(init=False)
    """Bytes that it holds in memory: messages and bodies."""

    def __post_init__(self) -> None:
        self.size_bytes = self._message_bytes() + self._body_bytes()

    @property
    def message_count(self) -> int:
        """Messages that it covers, a message that it shares with the next one left out."""
        return self.last_tag - self.first_tag + 1 - self.continues

    def _message_bytes(self) -> int:
        return sum(map(len, self.messages))

    def _body_bytes(self) -> int:
        return sum(len(body.content) for body in self.bodies)

    def drop_bodies(self) -> int:
        """Let go of the bodies; return how many bytes that frees."""
        freed, self.bodies = self._body_bytes(), []
        self.size_bytes -= freed
        return freed

    def drop_messages(self) -> int:
        """Let go of the messages; return how many bytes that frees."""
        freed, self.messages = self._message_bytes(), []
        self.size_bytes -= freed
        return freed


def join_documents(documents: list[bytes]) -> Body:
    """Return the body that carries ``documents``."""
    ends = array("Q")
    position = 0
    for document in documents:
        position += 1 + len(document)
        ends.append(position)
    return Body(b"[" + b",".join(documents) + b"]", ends)


def parse_body(content: bytes) -> Body:
    """Return a body that was written down as bytes; what can't be cut counts as one document."""
    decoder = json.JSONDecoder()
    documents: list[bytes] = []
    position = 1
    try:
        text = content.decode()
        while position < len(text):
            _, end = decoder.raw_decode(text, position)
            documents.append(text[position:end].encode())
            position = end + 1  # the comma or the bracket
    except (ValueError, RecursionError):
        return Body(content, array("Q", [len(content) - 1]))
    return join_documents(documents)


def cut_into_bodies(documents: list[bytes], max_bytes: int) -> list[list[bytes]]:
    """Cut ``documents`` so that no body is above ``max_bytes``, unless it is a single document."""
    cut: list[list[bytes]] = []
    size = max_bytes + 1
    for document in documents:
        size += len(document) + 1  # the comma before it
        if size > max_bytes:
            cut.append([])
            size = len(document) + 2  # the brackets
        cut[-1].append(document)
    return cut


def document_id(document: bytes) -> str:
    """Return a document's id; it is empty where a damaged spool holds no document."""
    return str(_parsed(document).get("id", ""))


def events_in(document: bytes) -> int:
    """Return how many events were merged into a document."""
    return int(_parsed(document).get("events_count", 1))


def _parsed(document: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(document)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


class Batcher:
    """The open batch of one subscription; its owner's main thread only.

    It is the :class:`~leekfanout.sources.Inbox` of the source, and gives every closed batch to
    ``emit``. Events count towards the number bound whether or not they are merged, ignored or bad:
    each of them takes a place of what is in flight.
    """

    def __init__(
        self,
        *,
        app_env: str,
        max_events: int,
        max_bytes: int,
        keep_messages: bool,
        emit: Callable[[Batch], None],
        wall_clock: Callable[[], float],
        tally: EventTally,
    ) -> None:
        self._app_env = app_env
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._keep_messages = keep_messages
        self._emit = emit
        self._wall_clock = wall_clock
        self.tally = tally
        self._growth_is_known = False
        self._max_raw_bytes = 0
        self.messages_taken = 0
        self.last_tag = 0
        """The delivery tag taken last on this channel; 0: none yet."""
        self.opened = False
        """Whether a batch has begun since this was last set to False: its window is to be timed."""
        self._set_growth(FIRST_GROWTH)
        self._begin()

    def _begin(self) -> None:
        self._documents = Documents(self._app_env, self.tally)
        self._messages: list[bytes] = []
        self._dead_letters: list[DeadLetter] = []
        self._first_tag = 0
        self._covers = False
        self._events = 0
        self._usable_events = 0
        self.raw_bytes = 0

    def __len__(self) -> int:
        """Events in the open batch, those included that make no document."""
        return self._events

    @property
    def has_documents(self) -> bool:
        """Whether closing the open batch would make something to post."""
        return len(self._documents) > 0

    @property
    def is_empty(self) -> bool:
        """Whether the open batch covers no message at all."""
        return not self._covers

    def message(self, delivery_tag: int, body: bytes, content_type: str | None) -> None:
        """Take one message (see :class:`~leekfanout.sources.Inbox`)."""
        self._cover(delivery_tag, body, len(body))
        self.messages_taken += 1
        try:
            events = decode(body, content_type)
        except BadEventError as error:
            self._set_aside("message", str(error), body, content_type or "")
            self._close_if_full()
            return
        if len(events) == 1:
            self._add(events[0], body, alone=True)
            self._close_if_full()
            return
        self._add_list(events, delivery_tag, body)

    def _add_list(self, events: list[object], delivery_tag: int, body: bytes) -> None:
        left = len(events)
        for event in events:
            self._add(event, body, alone=False)
            left -= 1
            if self._events >= self._max_events and left:
                rest_bytes = len(body) * left // len(events)
                self.raw_bytes -= rest_bytes
                self.close(ClosedBy.NUMBER, continues=True)
                self._cover(delivery_tag, body, rest_bytes)
        self._close_if_full()

    def unusable(self, delivery_tag: int, payload: bytes, reason: str) -> None:
        """Take a message whose envelope can't be read (see :class:`~leekfanout.sources.Inbox`)."""
        self._cover(delivery_tag, payload, len(payload))
        self.messages_taken += 1
        self._set_aside("message", reason, payload)
        self._close_if_full()

    def recognised(self, delivery_tag: int, body: bytes) -> None:
        """Take a redelivered message whose events are being delivered, or were, already."""
        self._cover(delivery_tag, body, len(body))
        self.messages_taken += 1
        self._events += 1
        self._close_if_full()

    def _cover(self, delivery_tag: int, body: bytes, raw_bytes: int) -> None:
        if not self._covers:
            self._covers = True
            self._first_tag = delivery_tag
            self.opened = True
        self.last_tag = delivery_tag
        self.raw_bytes += raw_bytes
        if self._keep_messages:
            self._messages.append(body)

    def _add(self, event: object, body: bytes, *, alone: bool) -> None:
        self._events += 1
        try:
            if self._documents.add(event):
                self._usable_events += 1
        except BadEventError as error:
            self._events -= 1  # _set_aside counts it
            self._set_aside("event", str(error), body if alone else as_payload(event, body))
        except Exception as error:  # a mistake of ours must cost one event at the most
            log.exception("event.unexpected")
            self._events -= 1
            reason = f"An unexpected {type(error).__name__} in leekfanout."
            self._set_aside("event", reason, as_payload(event) if body is None else body)

    def _set_aside(
        self, kind: Kind, reason: str, payload: bytes, content_type: str | None = None
    ) -> None:
        self._events += 1
        self.tally.bad += 1
        self._dead_letters.append(
            DeadLetter(kind, reason, None, payload, self._wall_clock(), content_type)
        )

    def _close_if_full(self) -> None:
        if self._events >= self._max_events:
            self.close(ClosedBy.NUMBER)
        elif self.raw_bytes >= self._max_raw_bytes:
            self.close(ClosedBy.SIZE)

    def close(self, closed_by: ClosedBy, *, continues: bool = False) -> None:
        """Close the open batch, unless it covers nothing, and give it to ``emit``.

        ``continues``: the last message isn't through yet, and goes on in the next batch.
        """
        if self.is_empty:
            return
        documents = self._documents.close(int(self._wall_clock() * 1000))
        bodies = [join_documents(cut) for cut in cut_into_bodies(documents, self._max_bytes)]
        batch = Batch(
            self._first_tag,
            self.last_tag,
            self._messages,
            bodies,
            self._dead_letters,
            closed_by,
            self._usable_events,
            continues,
            begun=bool(self._dead_letters),
        )
        if bodies:
            self._learn(sum(len(body.content) for body in bodies))
        self._begin()
        self._emit(batch)

    def discard(self) -> None:
        """Forget the open batch: its messages have been handed back to the broker."""
        self._begin()

    def tags_begin_again(self) -> None:
        """Note that the next message's delivery tag is 1: a channel begins."""
        self.last_tag = 0

    def _learn(self, posted_bytes: int) -> None:
        # Up at once and down slowly: a guess that is too low costs a second, small body.
        seen = posted_bytes / max(self.raw_bytes, 1)
        if self._growth_is_known and seen < self._growth:
            seen = 0.7 * self._growth + 0.3 * seen
        self._growth_is_known = True
        self._set_growth(seen)

    def _set_growth(self, growth: float) -> None:
        self._growth = max(growth, GROWTH_MIN)
        self._max_raw_bytes = max(1, int(self._max_bytes / (self._growth * GROWTH_MARGIN)))


def as_payload(event: object, message: bytes) -> bytes:
    """Return one event of a list ``message`` as JSON, for the dead letters.

    It is the whole message if the event is nested so deeply that it was only just read.
    """
    try:
        return json.dumps(event, ensure_ascii=True).encode()
    except RecursionError:
        return message
