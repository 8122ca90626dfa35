"""Counting every event by id: what was sent against what the API, the disk and the broker have.

An event is ``(uuid, type)``; a worker's is ``(hostname, "worker")``, since worker documents don't
say which events they were made of.
"""

import base64
import contextlib
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import orjson
import redis

from tests.load import Event, Message, events_in
from tests.publishers import EXCHANGE, amqp_channel

STATES = {
    "QUEUED": "task-sent",
    "RECEIVED": "task-received",
    "STARTED": "task-started",
    "SUCCEEDED": "task-succeeded",
    "FAILED": "task-failed",
    "REJECTED": "task-rejected",
    "REVOKED": "task-revoked",
    "RETRY": "task-retried",
}
UNNAMED = "?"
"""The type of an event that a document counts but no longer lists (it lists the last 21)."""


def of_messages(messages: Iterable[Message]) -> Counter[Event]:
    """Count the events of messages."""
    return Counter(_counted(event) for message in messages for event in message.events)


def of_bodies(bodies: Iterable[bytes]) -> Counter[Event]:
    """Count the events of messages' bodies."""
    return Counter(_counted(event) for body in bodies for event in events_in(body))


def of_documents(documents: Iterable[dict[str, Any]]) -> Counter[Event]:
    """Count the events that stand behind Leek documents."""
    counts: Counter[Event] = Counter()
    for document in documents:
        if document["kind"] == "worker":
            counts[document["id"], "worker"] += document["events_count"]
            continue
        counts.update((document["id"], STATES[state]) for state in document["events"])
        unnamed = document["events_count"] - len(document["events"])
        if unnamed:
            counts[document["id"], UNNAMED] += unnamed
    return counts


def spooled(state_dir: Path) -> Counter[Event]:
    """Count the events in the spool of one subscription's state directory."""
    rows = _rows(state_dir / "spool.sqlite3", "SELECT body FROM batches")
    return of_documents(document for (body,) in rows for document in orjson.loads(body))


def dead_lettered(state_dir: Path) -> Counter[Event]:
    """Count the events among one subscription's dead letters that can be told by id."""
    counts: Counter[Event] = Counter()
    rows = _rows(state_dir / "deadletters.sqlite3", "SELECT kind, payload FROM letters")
    for kind, payload in rows:
        if kind == "document":
            counts += of_documents([orjson.loads(payload)])
        else:
            with contextlib.suppress(orjson.JSONDecodeError, KeyError, AttributeError):
                counts += of_bodies([payload])
    return counts


def at_broker(url: str, queue: str = "leek.fanout") -> Counter[Event]:
    """Take everything out of an AMQP queue that nobody consumes, and count its events."""
    bodies = []
    with amqp_channel(url) as channel:
        while (message := channel.basic_get(queue, no_ack=True)) is not None:
            bodies.append(_bytes(message.body))
    return of_bodies(bodies)


@dataclass(frozen=True, slots=True)
class Balance:
    """What is missing and what is too much, by event."""

    lost: Counter[Event]
    surplus: Counter[Event]
    """Events that are somewhere more often than they were sent."""

    def __str__(self) -> str:
        return (
            f"lost {self.lost.total()}: {self.lost.most_common(5)}, "
            f"surplus {self.surplus.total()}: {self.surplus.most_common(5)}"
        )


def balance(sent: Counter[Event], *places: Counter[Event]) -> Balance:
    """Weigh what was sent against all the places where events may have ended."""
    found: Counter[Event] = Counter()
    for place in places:
        found.update(place)
    lost, surplus = sent - found, found - sent
    for key in [event for event in surplus if event[1] == UNNAMED]:
        for event in [event for event in lost if event[0] == key[0]]:
            made_up = min(surplus[key], lost[event])  # by any event of the same task
            lost[event] -= made_up
            surplus[key] -= made_up
    return Balance(+lost, +surplus)


def assert_complete(sent: Counter[Event], *places: Counter[Event]) -> None:
    """Fail unless every event that was sent is found exactly once."""
    result = balance(sent, *places)
    assert not result.lost, str(result)
    assert not result.surplus, str(result)


def assert_nothing_lost(sent: Counter[Event], *places: Counter[Event]) -> int:
    """Fail if an event is missing or was never sent; return how many are surplus.

    For scenarios in which repeats can't be avoided: a crash, or a lost HTTP answer.
    """
    result = balance(sent, *places)
    assert not result.lost, str(result)
    unknown = [event for event in result.surplus if event not in sent]
    assert not unknown, f"never sent: {unknown[:5]}"
    return result.surplus.total()


class Recorder:
    """A second, independent consumer of the event exchange, in a thread; a context manager.

    It hears all that is published between entering and leaving.
    """

    def __init__(self, url: str, exchange: str = EXCHANGE) -> None:
        self.bodies: list[bytes] = []
        self._url = url
        self._exchange = exchange
        self._is_redis = url.startswith("redis")
        self._listening = threading.Event()
        self._leave = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def counted(self) -> Counter[Event]:
        """Count the events heard so far."""
        return of_bodies(self.bodies[:])

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(30), "The recorder can't listen to the broker."
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "The recorder doesn't end."
        assert self._failure is None, f"The recorder failed: {self._failure!r}"

    def _run(self) -> None:
        try:
            if self._is_redis:
                self._record_redis()
            else:
                self._record_amqp()
        except BaseException as error:
            self._failure = error
            self._listening.set()

    def _record_amqp(self) -> None:
        with amqp_channel(self._url) as channel:
            channel.exchange_declare(self._exchange, "topic", durable=True, auto_delete=False)
            queue = channel.queue_declare(exclusive=True).queue
            channel.queue_bind(queue, self._exchange, "#")
            channel.basic_consume(
                queue, no_ack=True, callback=lambda m: self.bodies.append(_bytes(m.body))
            )
            self._listening.set()
            silent = False
            while not (self._leave.is_set() and silent):
                try:
                    channel.connection.drain_events(timeout=0.2)
                    silent = False
                except TimeoutError:
                    silent = True

    def _record_redis(self) -> None:
        database = urlsplit(self._url).path.strip("/") or "0"
        with redis.Redis.from_url(self._url) as client, client.pubsub() as pubsub:
            pubsub.psubscribe(f"/{database}.{self._exchange}/*")
            silent = False
            while not (self._leave.is_set() and silent):
                message = pubsub.get_message(timeout=0.2)
                silent = message is None
                if message is None:
                    continue
                if message["type"] == "psubscribe":
                    self._listening.set()
                elif message["type"] == "pmessage":
                    self.bodies.append(_body_of(message["data"]))


def _body_of(envelope: bytes) -> bytes:
    return base64.b64decode(orjson.loads(envelope)["body"])


def _counted(event: Event) -> Event:
    return (event[0], "worker") if event[1].startswith("worker-") else event


def _bytes(body: bytes | str) -> bytes:
    return body.encode() if isinstance(body, str) else body


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """Return a query's rows from an SQLite file that may be in use, or none if there is no file."""
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as db:
        return db.execute(query).fetchall()
