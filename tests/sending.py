"""A sender that is driven by hand against an API that is a function: no network, no threads."""

import random
from collections import Counter
from collections.abc import Callable, Sequence

import orjson

from leekfanout.configuration.config import Subscription
from leekfanout.delivery.batcher import Batch, Body, ClosedBy, join_documents
from leekfanout.delivery.outbox import Outbox, Signal
from leekfanout.delivery.outcome import (
    Answer,
    Breaker,
)
from leekfanout.delivery.parcel import Parcel
from leekfanout.delivery.sender import Complaints, Sender
from leekfanout.errors import StoreError
from leekfanout.status.stats import Stats
from leekfanout.stores.deadletters import DeadLetter

SUBSCRIPTION = Subscription(
    org_name="acme",
    app_name="shop",
    app_env="qa",
    broker=("amqp://broker",),
    app_key="key",
    api_url="http://api",
)

Api = Callable[[list[str]], Answer]


def json_answer(status: int, body: object = "") -> Answer:
    return Answer(status, {}, orjson.dumps(body))


OK = json_answer(201, {"success": 1})
UNAVAILABLE = json_answer(503)
NO_ANSWER = Answer(None, error="no answer from the API in time")


def refusing(*entries: tuple[str, int], failed: int | None = None) -> Answer:
    errors = [{"update": {"_id": name, "status": status}} for name, status in entries]
    body = {"success": 1, "failed": len(errors) if failed is None else failed, "errors": errors}
    return json_answer(400, body)


class FakePoster:
    """An API that counts what it has indexed."""

    def __init__(self, _subscription: Subscription) -> None:
        self.api: Api = lambda names: OK
        self.ready = Answer(200)
        self.posts: list[list[str]] = []
        self.confirmed: Counter[str] = Counter()
        """How often each was in a POST that was answered with 201."""
        self.probes = 0
        self.closed = False

    def post(self, body: bytes) -> Answer:
        names = [document["id"] for document in orjson.loads(body)]
        self.posts.append(names)
        answer = self.api(names)
        if answer.status == 201:
            self.confirmed.update(names)
        return answer

    def probe(self) -> Answer:
        self.probes += 1
        return self.ready

    def close(self) -> None:
        self.closed = True


class FakeDeadLetters:
    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.full = False
        self.attempts = 0

    def put(self, letters: Sequence[DeadLetter]) -> int:
        self.attempts += 1
        if self.full:
            raise StoreError("The disk is full.")
        self.letters += letters
        return 0

    @property
    def names(self) -> list[str]:
        return [orjson.loads(letter.payload)["id"] for letter in self.letters]


def body(*names: str) -> Body:
    return join_documents([b'{"id":"%s","kind":"task"}' % name.encode() for name in names])


def batch(*bodies: Body) -> Batch:
    return Batch(1, 1, [b"message"], list(bodies), [], ClosedBy.NUMBER, len(bodies), False)


class Bench:
    """One sender that is driven by hand; time jumps to whatever is due next."""

    def __init__(self) -> None:
        self.now = 0.0
        self.breaker = Breaker(random.Random(1))
        self.outbox = Outbox(1, self.breaker, lambda: None, lambda: self.now)
        self.dead_letters = FakeDeadLetters()
        self.stats = Stats()
        self.complaints = Complaints(lambda: self.now)
        self.sender = Sender(
            1, SUBSCRIPTION, self.outbox, self.dead_letters, self.stats, complaints=self.complaints
        )
        self.sender._random = random.Random(2)
        self.poster: FakePoster = self.sender._poster
        self.done: list[Batch] = []
        self.delays: list[float] = []

    def api(self, api: Api | Answer) -> None:
        self.poster.api = api if callable(api) else lambda _: api

    def put(self, *names: str) -> Batch:
        self.outbox.put(new := batch(body(*names)))
        return new

    def step(self) -> Parcel | Signal:
        """Do the next thing that there is to do, whenever that is."""
        before = self.now
        while (work := self.outbox.take_now()) is None:
            assert self.now < before + 10_000, "nothing is ever due"
            self.now += 0.25
        self.delays.append(self.now - before)
        self.sender.handle(work)
        self.done += self.outbox.take_done()
        return work

    def run(self, until_posts: int = 10_000) -> None:
        """Go on until everything is done, or so many POSTs have been made."""
        while self.outbox.batches_held and len(self.poster.posts) < until_posts:
            self.step()

    @property
    def confirmed(self) -> Counter[str]:
        return self.poster.confirmed

    @property
    def posted(self) -> Counter[str]:
        return Counter(name for names in self.poster.posts for name in names)
