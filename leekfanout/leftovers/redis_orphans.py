"""What acking event consumers and dead monitors left in a Redis broker: found, told from the rest.

kombu emulates acknowledgements on Redis (``kombu/transport/redis.py``). A message that isn't acked
stays in the hash ``unacked``, its time in the sorted set ``unacked_index``. What a consumer hadn't
acked when it went is pushed onto the list of *every* queue in ``_kombu.binding.<exchange>``. Events
travel by PUB/SUB (their exchange is a fanout), whose consumers never pop a list, and a queue's
entry outlives its consumer: so these lists only ever grow.

The same keys hold tasks. A queue is left alone unless all of this is true: it is bound to the event
exchange as a fanout's queue is, it is bound to no other exchange, its keys are lists, and every
item that is to go has been read and is an event of that exchange.
"""

import base64
import binascii
import json
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import redis

SEPARATOR: Final = b"\x06\x16"
"""Between the parts of a binding, and between a queue's name and a priority."""

PRIORITIES: Final = range(10)
"""Priority steps that kombu may append to a queue's name; 0 is the bare name."""

VISIBILITY_TIMEOUT_S: Final = 3_600.0
"""kombu's own default: after that long it takes a message's consumer for dead."""

SCAN_COUNT: Final = 500
QUEUES_PER_STEP: Final = 50
SAMPLE_ITEMS: Final = 5

T = TypeVar("T")

Client = Any
"""A ``redis.Redis`` that returns bytes; its annotations mix in the asynchronous results."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Where kombu keeps things, for one event exchange in one database."""

    exchange: str = "celeryev"
    global_keyprefix: str = ""

    @property
    def bindings(self) -> bytes:
        """The set of all queues that were ever bound to the exchange."""
        return self.prefixed(b"_kombu.binding." + self.exchange.encode())

    @property
    def permanent_bindings(self) -> bytes:
        """The set of those that don't expire (kombu 5.7)."""
        return self.prefixed(b"_kombu.binding_permanent." + self.exchange.encode())

    @property
    def unacked(self) -> bytes:
        return self.prefixed(b"unacked")

    @property
    def unacked_index(self) -> bytes:
        return self.prefixed(b"unacked_index")

    def lists_of(self, queue: bytes) -> list[bytes]:
        """Return the keys of the lists that a queue may consist of, one for each priority."""
        bare = self.prefixed(queue)
        return [bare, *(bare + SEPARATOR + b"%d" % step for step in PRIORITIES[1:])]

    def prefixed(self, key: bytes) -> bytes:
        return self.global_keyprefix.encode() + key


@dataclass(frozen=True, slots=True)
class List:
    """One list in Redis, and what it takes of the server's memory."""

    key: bytes
    items: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class BoundQueue:
    """A queue that is bound to the event exchange."""

    name: bytes
    bindings: tuple[bytes, ...]
    """Its entries in the sets of bindings."""
    lists: tuple[List, ...] = ()
    kept_because: str | None = None
    """Why it is left alone, in plain words; None: it is an orphan."""

    @property
    def items(self) -> int:
        return sum(each.items for each in self.lists)

    @property
    def size_bytes(self) -> int:
        return sum(each.size_bytes for each in self.lists) + sum(map(len, self.bindings))


@dataclass(frozen=True, slots=True)
class Orphans:
    """All that was found."""

    queues: tuple[BoundQueue, ...] = ()
    """Queues that may be deleted."""
    kept: tuple[BoundQueue, ...] = ()
    """Queues that are left alone, each with the reason."""
    unacked: int = 0
    unacked_bytes: int = 0

    @property
    def items(self) -> int:
        return sum(queue.items for queue in self.queues)

    @property
    def size_bytes(self) -> int:
        return self.unacked_bytes + sum(queue.size_bytes for queue in self.queues)

    def __bool__(self) -> bool:
        return bool(self.queues or self.unacked)


def is_event(envelope: Any, exchange: str) -> bool:
    """Whether a message in kombu's envelope is an event of that exchange, beyond any doubt.

    A task is none, even one that was published to the event exchange; nor is what can't be read.
    """
    try:
        headers, properties = envelope["headers"], envelope["properties"]
        if properties["delivery_info"]["exchange"] != exchange or "task" in headers:
            return False
        body = envelope["body"]
        if properties.get("body_encoding") == "base64":
            body = base64.b64decode(body, validate=True)
        content = json.loads(body)
    except (AttributeError, KeyError, TypeError, ValueError, binascii.Error, RecursionError):
        return False
    events = content if isinstance(content, list) else [content]
    return bool(events) and all(
        isinstance(event, dict)
        and isinstance(event.get("type"), str)
        and isinstance(event.get("timestamp"), int | float)
        for event in events
    )


def find(client: Client, keys: Keys) -> Orphans:
    """Return what is orphaned in the client's database; reads only, in small steps.

    Raises redis.RedisError.
    """
    bound = _bound_queues(client, keys)
    elsewhere = bound_elsewhere(client, keys, bound.keys())
    queues = [
        queue
        for chunk in chunks(sorted(bound.items()), QUEUES_PER_STEP)
        for queue in _inspect(client, keys, dict(chunk), elsewhere)
    ]
    unacked = [entry for entries in old_unacked(client, keys) for entry in entries]
    return Orphans(
        queues=tuple(queue for queue in queues if queue.kept_because is None),
        kept=tuple(queue for queue in queues if queue.kept_because is not None),
        unacked=len(unacked),
        unacked_bytes=sum(size_bytes for _, size_bytes in unacked),
    )


def bound_elsewhere(client: Client, keys: Keys, queues: Container[bytes]) -> dict[bytes, bytes]:
    """Return those of ``queues`` that are bound to another exchange too, each with that one."""
    found = {}
    own = {keys.bindings, keys.permanent_bindings}
    for table in (b"_kombu.binding.", b"_kombu.binding_permanent."):
        prefix = keys.prefixed(table)
        for key in client.scan_iter(match=_glob_escaped(prefix) + b"*", count=SCAN_COUNT):
            if key in own or client.type(key) != b"set":
                continue
            for member in client.sscan_iter(key, count=SCAN_COUNT):
                queue = member.rpartition(SEPARATOR)[2]
                if queue in queues:
                    found[queue] = key.removeprefix(prefix)
    return found


def old_unacked(client: Client, keys: Keys) -> Iterator[list[tuple[bytes, int]]]:
    """Give, step by step, the events that nobody has acked in time: delivery tag and size in bytes.

    An entry that no index knows is as old: kombu adds and removes the two together, and will never
    find it again.
    """
    oldest_alive = client.time()[0] - VISIBILITY_TIMEOUT_S
    cursor = 0
    while True:
        cursor, entries = client.hscan(keys.unacked, cursor, count=SCAN_COUNT)
        events = [tag for tag, value in entries.items() if _is_unacked_event(value, keys.exchange)]
        with client.pipeline(transaction=False) as pipe:
            for tag in events:
                pipe.zscore(keys.unacked_index, tag)
            scores = pipe.execute()
        yield [
            (tag, len(tag) + len(entries[tag]))
            for tag, score in zip(events, scores, strict=True)
            if score is None or score < oldest_alive
        ]
        if cursor == 0:
            return


def _is_unacked_event(value: bytes, exchange: str) -> bool:
    try:
        envelope, exchange_of_message, _ = json.loads(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return bool(exchange_of_message == exchange) and is_event(envelope, exchange)


def _bound_queues(client: Client, keys: Keys) -> dict[bytes, list[bytes]]:
    """Return the queues bound to the event exchange, each with its entries."""
    bound: dict[bytes, list[bytes]] = {}
    for key in (keys.bindings, keys.permanent_bindings):
        for member in client.sscan_iter(key, count=SCAN_COUNT):
            parts = member.split(SEPARATOR)
            if len(parts) == 3 and parts[2] and member not in bound.setdefault(parts[2], []):
                bound[parts[2]].append(member)
    return bound


def _inspect(
    client: Client, keys: Keys, bound: dict[bytes, list[bytes]], elsewhere: dict[bytes, bytes]
) -> Iterator[BoundQueue]:
    """Give the queues of one step with their lists, each kept or not."""
    owners = {key: queue for queue in bound for key in keys.lists_of(queue)}
    with client.pipeline(transaction=False) as pipe:
        for key in owners:
            pipe.type(key)
        types = dict(zip(owners, pipe.execute(), strict=True))
    for queue, bindings in bound.items():
        lists = []
        reason = None
        for key in keys.lists_of(queue):
            if types[key] == b"list":
                each, all_events = _measure(client, key, keys.exchange)
                lists.append(each)
                if not all_events:
                    reason = "it holds items that are no events"
            elif types[key] != b"none":
                reason = f"its key holds a {types[key].decode()}, no list"
        if any(member.split(SEPARATOR)[1] for member in bindings):
            reason = "it is bound with a pattern, as queues are that somebody consumes"
        if queue in elsewhere:
            reason = f"it is bound to the exchange {elsewhere[queue].decode(errors='replace')} too"
        yield BoundQueue(queue, tuple(bindings), tuple(lists), reason)


def _measure(client: Client, key: bytes, exchange: str) -> tuple[List, bool]:
    """Return a list's size, and whether the items at its ends are events."""
    with client.pipeline(transaction=False) as pipe:
        pipe.llen(key)
        pipe.lrange(key, 0, SAMPLE_ITEMS - 1)
        pipe.lrange(key, -SAMPLE_ITEMS, -1)
        pipe.memory_usage(key)
        items, first, last, size_bytes = pipe.execute(raise_on_error=False)
    for result in (items, first, last):
        if isinstance(result, redis.RedisError):
            raise result
    sample = [*first, *last]
    if not isinstance(size_bytes, int):  # refused to this user, or not known to this server
        size_bytes = items * sum(map(len, sample)) // len(sample) if sample else 0
    return List(key, items, size_bytes), all(is_event_item(item, exchange) for item in sample)


def is_event_item(item: bytes, exchange: str) -> bool:
    """Whether a list's item is an event of that exchange, beyond any doubt."""
    try:
        return is_event(json.loads(item), exchange)
    except (ValueError, RecursionError):
        return False


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Give ``items`` in pieces of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _glob_escaped(text: bytes) -> bytes:
    return re.sub(rb"([*?\[\]\\^-])", rb"\\\1", text)
