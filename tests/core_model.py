"""Models of what stands around the delivery core: a broker, an API, and the dead letters.

They are as simple as what they stand for allows, and check what they are asked to do: a broker closes
a channel that acks what it may not, and nothing may be acked that isn't settled.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from leekfanout.delivery.outcome import Answer
from leekfanout.errors import SourceError, StoreError
from leekfanout.sources import Ack, Inbox
from leekfanout.stores.deadletters import DeadLetter

JSON = "application/json"
STATES = {"task-sent": "QUEUED", "task-started": "STARTED", "task-succeeded": "SUCCEEDED"}

Event = tuple[str, str]
"""A task's uuid and the state that it came into; of an event that is bad, its type."""


@dataclass
class Accounts:
    """What has become of each event."""

    sent: set[Event] = field(default_factory=set)
    indexed: Counter[Event] = field(default_factory=Counter)
    """How often the API has it."""
    confirmed: Counter[Event] = field(default_factory=Counter)
    """How often the API has said so."""
    dead: Counter[Event] = field(default_factory=Counter)
    ignored: set[Event] = field(default_factory=set)
    excused: Counter[Event] = field(default_factory=Counter)
    """How often an answer was lost, or the process ended, so that it may be there once more."""

    def settled(self, event: Event) -> bool:
        return bool(self.confirmed[event] or self.dead[event]) or event in self.ignored

    def check_duplicates(self) -> None:
        for event, times in (self.indexed + self.dead).items():
            assert times <= 1 + self.excused[event], (
                f"{event} is indexed {self.indexed[event]} times and dead-lettered "
                f"{self.dead[event]} times, excused {self.excused[event]} times"
            )


class ModelBroker:
    """A queue with one consumer, as RabbitMQ does it; a :class:`~leekfanout.sources.Source`.

    What the client sends is under way until the broker deals with it, in order; a connection that
    breaks cuts that off at any point.
    """

    acks = True
    address = "model"
    still_arriving = False

    def __init__(self, accounts: Accounts, prefetch: int) -> None:
        self._accounts = accounts
        self._prefetch = prefetch
        self.queue: deque[tuple[bytes, tuple[Event, ...]]] = deque()
        self.unacked: dict[int, tuple[bytes, tuple[Event, ...]]] = {}
        self._tag = 0
        self._under_way: deque[Ack | Callable[[], None]] = deque()
        self._answers: deque[Callable[[], None]] = deque()
        self.breaks_in: int | None = None
        """How many of the things under way it deals with before the next call fails."""

    def publish(self, body: bytes, events: Sequence[Event]) -> None:
        self.queue.append((body, tuple(events)))
        self._accounts.sent.update(events)

    # The client's side

    def receive(self, inbox: Inbox, limit: int) -> bool:
        self._fail_if_told()
        while self._answers:
            self._answers.popleft()()
        for _ in range(limit):
            if not self.queue or len(self.unacked) >= self._prefetch:
                return False
            self._tag += 1
            self.unacked[self._tag] = self.queue.popleft()
            inbox.message(self._tag, self.unacked[self._tag][0], JSON)
        return True

    def ack(self, acks: Sequence[Ack]) -> None:
        self._fail_if_told()
        self._under_way.extend(acks)

    def barrier(self, reached: Callable[[], None]) -> None:
        self._fail_if_told()
        assert not any(callable(each) for each in self._under_way), "two barriers at once"
        self._under_way.append(reached)

    def hand_back(self) -> None:
        self._fail_if_told()
        self.work()
        self._begin_channel()

    def _fail_if_told(self) -> None:
        if self.breaks_in is not None:
            self.cut(self.breaks_in)
            raise SourceError("The connection was lost.")

    # The broker's side

    def work(self, limit: int | None = None) -> None:
        """Deal with what the client has sent."""
        count = len(self._under_way) if limit is None else min(limit, len(self._under_way))
        for _ in range(count):
            each = self._under_way.popleft()
            if isinstance(each, Ack):
                self._deal_with(each)
            else:
                self._answers.append(each)

    def _deal_with(self, ack: Ack) -> None:
        tag = ack.delivery_tag
        # RabbitMQ: PRECONDITION_FAILED - unknown delivery tag.
        assert tag in self.unacked, f"{ack} names no message that is unacked"
        for acked in [t for t in self.unacked if t == tag or (ack.multiple and t < tag)]:
            _, events = self.unacked.pop(acked)
            for event in events:
                assert self._accounts.settled(event), f"{event} was acked and isn't settled"

    def cut(self, arrived: int) -> None:
        """Lose the connection after so many of the things under way have arrived."""
        self.work(arrived)
        self._begin_channel()
        self.breaks_in = None

    def _begin_channel(self) -> None:
        """Queue again what is unacked, at the head and in order (RabbitMQ: "Message Ordering")."""
        self._under_way.clear()
        self._answers.clear()
        self.queue.extendleft(self.unacked[tag] for tag in sorted(self.unacked, reverse=True))
        self.unacked.clear()
        self._tag = 0

    @property
    def tags_not_acked(self) -> set[int]:
        """Tags of which no ack is under way."""
        tags = set(self.unacked)
        for each in self._under_way:
            if isinstance(each, Ack):
                tag = each.delivery_tag
                tags -= {t for t in tags if t == tag or (each.multiple and t < tag)}
        return tags


class ModelApi:
    """The API, and the poster that talks to it; a mood is a way to answer."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self.moods = {
            "good": self._good,
            "names one": self._names_one,
            "conflict": self._conflict,
            "nameless": self._nameless,
            "stumbling": self._stumbling,
            "narrow": self._narrow,
            "overloaded": lambda _: Answer(503),
            "patient": lambda _: Answer(429, {"Retry-After": "20"}),
            "wrong key": lambda _: Answer(401),
            "away": lambda _: Answer(None, error="the API refuses connections"),
            "mute": self._mute,
        }
        self.mood = "good"
        self.ready = True
        self.doubted: set[Event] = set()
        """Events that may be dead-lettered though nothing is wrong with them."""

    def post(self, body: bytes) -> Answer:
        documents = orjson.loads(body)
        return self.moods[self.mood](documents)

    def probe(self) -> Answer:
        return Answer(200 if self.ready else 503)

    def close(self) -> None:
        pass

    def _good(self, documents: list[dict[str, Any]]) -> Answer:
        refused = [d for d in documents if d["id"].startswith("refused")]
        self._take([d for d in documents if d not in refused], told=True)
        if not refused:
            return Answer(201)
        errors = [{"update": {"_id": d["id"], "status": 400}} for d in refused]
        return _json(400, {"failed": len(refused), "errors": errors})

    def _names_one(self, documents: list[dict[str, Any]]) -> Answer:
        """Refuse by name, but name only one; what is not named is not known to be indexed."""
        refused = [d for d in documents if d["id"].startswith("refused")]
        if len(refused) < 2:
            return self._good(documents)
        self._take([d for d in documents if d not in refused], told=False)
        errors = [{"update": {"_id": refused[0]["id"], "status": 400}}]
        return _json(400, {"failed": len(refused), "errors": errors})

    def _conflict(self, documents: list[dict[str, Any]]) -> Answer:
        """Refuse for now one document by name, for good if it stays so."""
        self._take(documents[1:], told=True)
        self.doubted.update(events_of(documents[0]))
        return _json(
            400, {"failed": 1, "errors": [{"update": {"_id": documents[0]["id"], "status": 409}}]}
        )

    def _nameless(self, documents: list[dict[str, Any]]) -> Answer:
        if any(d["id"].startswith("refused") for d in documents):
            return _json(409, "Conflict")
        return self._good(documents)

    def _stumbling(self, documents: list[dict[str, Any]]) -> Answer:
        """Fail on what it refuses else, which might as well be an outage."""
        if any(d["id"].startswith("refused") for d in documents):
            return Answer(500)
        return self._good(documents)

    def _narrow(self, documents: list[dict[str, Any]]) -> Answer:
        return Answer(413) if len(documents) > 1 else self._good(documents)

    def _mute(self, documents: list[dict[str, Any]]) -> Answer:
        """Index everything, and be cut off before saying so."""
        self._take([d for d in documents if not d["id"].startswith("refused")], told=False)
        return Answer(None, error="no answer from the API in time")

    def _take(self, documents: list[dict[str, Any]], *, told: bool) -> None:
        for document in documents:
            for event in events_of(document):
                self._accounts.indexed[event] += 1
                if told:
                    self._accounts.confirmed[event] += 1
                else:
                    self._accounts.excused[event] += 1


class ModelDeadLetters:
    """A disk that may be full."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self.full = False

    def put(self, letters: Sequence[DeadLetter]) -> int:
        if self.full:
            raise StoreError("The disk is full.")
        for letter in letters:
            parsed = json.loads(letter.payload)
            events = events_of(parsed) if letter.kind == "document" else [event_of(parsed)]
            for event in events:
                self._accounts.dead[event] += 1
        return 0

    def close(self) -> None:
        pass


def events_of(document: dict[str, Any]) -> list[Event]:
    """Return the events that were merged into a document."""
    return [(document["id"], state) for state in document["events"]]


def event_of(event: dict[str, Any]) -> Event:
    """Return a bad event as it is accounted for."""
    return event["uuid"], event["type"]


def _json(status: int, body: object) -> Answer:
    return Answer(status, {}, orjson.dumps(body))
