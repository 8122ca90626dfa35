"""A synthetic load in the shape of Celery's events: fast to make, and every event is known by id.

Clients send ``task-sent`` one by one; workers send theirs as lists under ``task.multi``, as
Celery's buffered event dispatcher does.
"""

import random
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

Event = tuple[str, str]
"""A task's uuid or a worker's host name, and the event's type."""

TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/lib/python3.11/site-packages/celery/app/trace.py", line 564, in trace_task
    R = retval = fun(*args, **kwargs)
  File "/srv/shop/lib/python3.11/site-packages/celery/app/trace.py", line 883, in __protected_call__
    return self.run(*args, **kwargs)
  File "/srv/shop/tasks.py", line 8, in pay
    raise ValueError("card declined")
ValueError: card declined
"""


class Message(NamedTuple):
    """One message as it is published to the event exchange."""

    routing_key: str
    body: bytes
    events: tuple[Event, ...]


def events_in(body: bytes) -> list[Event]:
    """Return the events of a message's body by id and type."""
    parsed = orjson.loads(body)
    events = parsed if isinstance(parsed, list) else [parsed]
    return [(event.get("uuid") or event["hostname"], event["type"]) for event in events]


def one(event: dict[str, Any]) -> Message:
    """Return a message that holds one event."""
    body = orjson.dumps(event)
    return Message(event["type"].replace("-", "."), body, tuple(events_in(body)))


def many(events: list[dict[str, Any]]) -> Message:
    """Return a message that holds a list of events, as workers send them."""
    body = orjson.dumps(events)
    return Message("task.multi", body, tuple(events_in(body)))


class Load:
    """Makes events of tasks whose uuids come only once, from ``seed``; not thread-safe."""

    def __init__(self, seed: int = 1, padding: int = 0, failing: float = 0.05) -> None:
        """``padding`` characters go into each task's arguments; ``failing`` is a share of tasks."""
        self._random = random.Random(seed)
        self._run = f"{seed & 0xFFFFFFFF:08x}-{time.time_ns() & 0xFFFF:04x}"
        self._padding = "p" * padding
        self._failing = failing
        self._tasks = 0
        self._clock = 0

    def task(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the events of one task's life: the client's, and those of the worker."""
        self._tasks += 1
        number = self._tasks
        uuid = f"{self._run}-4000-8000-{number:012x}"
        call = {
            "uuid": uuid,
            "name": "shop.tasks.pay",
            "args": f"({number}, {number * 1.5!r}, {self._padding!r})",
            "kwargs": f"{{'currency': 'USD', 'items': [{{'sku': 'a{number}', 'qty': {number}}}]}}",
            "root_id": uuid,
            "parent_id": None,
            "retries": 0,
            "eta": None,
            "expires": None,
        }
        queue = {"queue": "celery", "exchange": "", "routing_key": "celery"}
        sent = self._event("task-sent", "gen6115@client", {**call, **queue})
        worker = [
            self._event("task-received", "celery@worker", call),
            self._event("task-started", "celery@worker", {"uuid": uuid}),
        ]
        if self._random.random() < self._failing:
            end = {"exception": "ValueError('card declined')", "traceback": TRACEBACK}
            worker.append(self._event("task-failed", "celery@worker", {"uuid": uuid, **end}))
        else:
            end = {"result": f"{{'order': {number}, 'ok': True}}", "runtime": 0.00152}
            worker.append(self._event("task-succeeded", "celery@worker", {"uuid": uuid, **end}))
        return sent, worker

    def heartbeat(self, hostname: str = "celery@worker") -> Message:
        """Return a worker's heartbeat."""
        fields = {
            "freq": 2.0,
            "active": 0,
            "processed": 0,
            "loadavg": [0.15, 0.06, 0.02],
            "sw_ident": "py-celery",
            "sw_ver": "5.7.0",
            "sw_sys": "Linux",
        }
        return one(self._event("worker-heartbeat", hostname, fields))

    def messages(self, count: int, longest_list: int = 6) -> Iterator[Message]:
        """Yield exactly so many messages of whole task lives; lists hold 1 to ``longest_list``."""
        pending: list[dict[str, Any]] = []
        left = count
        while left > 0:
            # A task's own message may leave room for no more than those that are pending.
            lists_due = -(-len(pending) // longest_list)
            if left > lists_due + 1:
                sent, worker = self.task()
                pending += worker
                left -= 1
                yield one(sent)
            size = self._random.randint(1, longest_list)
            if pending and (len(pending) >= size or left <= -(-len(pending) // longest_list)):
                size = max(size, -(-len(pending) // left))
                left -= 1
                yield many(pending[:size])
                del pending[:size]
            elif not pending and left == 1:
                left = 0
                yield self.heartbeat()

    def _event(self, kind: str, hostname: str, fields: dict[str, Any]) -> dict[str, Any]:
        self._clock += 1
        return {
            "hostname": hostname,
            "utcoffset": 0.0,
            "pid": 6115,
            "clock": self._clock,
            **fields,
            "timestamp": time.time(),
            "type": kind,
        }
