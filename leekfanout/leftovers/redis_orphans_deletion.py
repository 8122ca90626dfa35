"""Deleting orphans from a Redis broker: in small steps, and nothing that isn't looked at once more.

Each step is a transaction on watched keys: if anybody else changes them between the look and the
deletion, nothing is deleted and the step begins again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import redis

from leekfanout.leftovers.redis_orphans import (
    BoundQueue,
    Client,
    Keys,
    List,
    Orphans,
    bound_elsewhere,
    chunks,
    is_event_item,
    old_unacked,
)

T = TypeVar("T")

STEP_MAX_ITEMS: Final = 500
STEP_TARGET_BYTES: Final = 500_000
"""How much of a list is read and cut off at a time: a millisecond or so of the server's time."""
STEP_QUEUES: Final = 10
"""Queues that are unbound at a time. Redis 7 looks at all keys a client watches for each new one."""
STEP_ATTEMPTS: Final = 100
"""How often a step begins again because somebody else has changed a key in between."""


@dataclass(slots=True)
class Deleted:
    """What has been deleted, and which queues were left alone after all."""

    items: int = 0
    bindings: int = 0
    unacked: int = 0
    kept: dict[bytes, str] = field(default_factory=dict)
    """Queues that were left alone, or what is left of them, each with the reason in plain words."""


class _KeptError(Exception):
    """A queue turns out to be something that must not be deleted; the message is the reason."""


def delete(
    client: Client,
    keys: Keys,
    orphans: Orphans,
    on_step: Callable[[Deleted], None] = lambda _: None,
) -> Deleted:
    """Delete what :func:`~leekfanout.leftovers.redis_orphans.find` has found, if it still is orphaned.

    A queue's binding goes after its lists, so that a deletion that is broken off can be repeated.
    ``on_step`` is told from time to time how far it is. Raises redis.RedisError.
    """
    deleted = Deleted()
    # First, since workers put what is here onto the lists once it is old enough.
    for entries in old_unacked(client, keys):
        deleted.unacked += _delete_unacked(client, keys, [tag for tag, _ in entries])
    elsewhere = bound_elsewhere(client, keys, {queue.name for queue in orphans.queues})
    emptied = []
    for queue in orphans.queues:
        if queue.name in elsewhere:
            deleted.kept[queue.name] = "it was bound to another exchange meanwhile"
            continue
        try:
            for each in queue.lists:
                for _ in _delete_list(client, each, keys.exchange, deleted):
                    on_step(deleted)
        except _KeptError as reason:
            deleted.kept[queue.name] = str(reason)
        else:
            emptied.append(queue)
    for queues in chunks(emptied, STEP_QUEUES):
        _delete_bindings(client, keys, queues, deleted)
        on_step(deleted)
    return deleted


def _delete_unacked(client: Client, keys: Keys, tags: Sequence[bytes]) -> int:
    """Delete entries by delivery tag: a tag is made for one message, so no task can come by it."""
    if not tags:
        return 0
    with client.pipeline() as pipe:
        pipe.hdel(keys.unacked, *tags)
        pipe.zrem(keys.unacked_index, *tags)
        return int(pipe.execute()[0])


def _delete_list(client: Client, found: List, exchange: str, deleted: Deleted) -> Iterator[None]:
    """Cut a list down, step by step, from its end; _KeptError if it is no orphan."""
    expected = found.items
    items_per_byte = found.items / max(1, found.size_bytes)
    step_items = max(1, min(STEP_MAX_ITEMS, int(STEP_TARGET_BYTES * items_per_byte)))

    def cut(pipe: Any) -> tuple[int, int]:
        length = pipe.llen(found.key)
        if length == 0:  # it expired, or its monitor has tidied up after itself
            return 0, 0
        if length < expected:
            raise _KeptError("somebody takes items from it")
        items = pipe.lrange(found.key, -step_items, -1)
        if not all(is_event_item(item, exchange) for item in items):
            raise _KeptError("it holds items that are no events")
        pipe.multi()
        # The last ones: where kombu puts back what wasn't acked, and where BRPOP would take from.
        pipe.ltrim(found.key, 0, -len(items) - 1)
        return len(items), length - len(items)

    while expected:
        gone, expected = _transact(client, [found.key], cut)
        deleted.items += gone
        yield


def _delete_bindings(
    client: Client, keys: Keys, queues: Sequence[BoundQueue], deleted: Deleted
) -> None:
    """Take queues out of the sets of bindings, unless they have lists again."""
    lists = [key for queue in queues for key in keys.lists_of(queue.name)]
    members = [member for queue in queues for member in queue.bindings]

    def unbind(pipe: Any) -> None:
        if pipe.exists(*lists):
            raise _KeptError("it has new items: run the command again")
        pipe.multi()
        pipe.srem(keys.bindings, *members)
        pipe.srem(keys.permanent_bindings, *members)

    try:
        _transact(client, lists, unbind)
    except _KeptError as reason:
        if len(queues) == 1:
            deleted.kept[queues[0].name] = str(reason)
            return
        for queue in queues:
            _delete_bindings(client, keys, [queue], deleted)
    else:
        deleted.bindings += len(members)


def _transact(client: Client, watched: Sequence[bytes], step: Callable[[Any], T]) -> T:
    """Run ``step``, and what it queues after MULTI, with no change of ``watched`` in between."""
    with client.pipeline() as pipe:
        for _ in range(STEP_ATTEMPTS):
            try:
                pipe.watch(*watched)
                result = step(pipe)
                pipe.execute()
            except redis.WatchError:
                continue
            return result
    raise _KeptError("it changes all the time")
