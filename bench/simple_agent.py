"""The agent that anyone would write first: kombu's ConsumerMixin and requests.post.

It is here to be compared with, and it is honest work: events are collected, posted by the thousand or
after five seconds, and acked when the API has confirmed them. It makes plain documents: arguments are
not taken apart, errors not classified, and the events of one task not merged. It has one POST under
way at a time, and none of what a failure needs.
"""

import time
from typing import Any

import kombu
import requests
from kombu.mixins import ConsumerMixin

from bench.plain import Stopwatch

BATCH_EVENTS = 1_000
WINDOW_S = 5.0
QUIET_S = 6.0
HEADERS = {
    "x-requested-with": "leek-agent",
    "x-agent-version": "1",
    "x-leek-org-name": "mono",
    "x-leek-app-name": "shop",
    "x-leek-app-env": "bench",
    "x-leek-app-key": "bench",
}
_EXCHANGE_TYPES = {"amqp": "topic", "redis": "fanout"}


class SimpleAgent(ConsumerMixin):
    """Posts the events of one broker to one API until it has posted ``events``, or none come."""

    def __init__(self, url: str, api_url: str, events: int, prefetch_count: int = 1_000) -> None:
        self.connection = kombu.Connection(url)
        exchange_type = _EXCHANGE_TYPES[url.partition("://")[0]]
        exchange = kombu.Exchange("celeryev", exchange_type, durable=True)
        self._queue = kombu.Queue("leek.fanout", exchange, routing_key="#", durable=True)
        self._url = f"{api_url}/v1/events/process"
        self._wanted = events
        self._prefetch_count = prefetch_count
        self._events: list[dict[str, Any]] = []
        self._messages: list[kombu.Message] = []
        self._began = time.monotonic()
        self._watch = Stopwatch()
        self._posted = 0
        self.figures: dict[str, float] = {}

    def get_consumers(self, consumer_class: Any, channel: Any) -> list[Any]:
        return [
            consumer_class(
                [self._queue],
                callbacks=[self._take],
                accept=["json"],
                prefetch_count=self._prefetch_count,
            )
        ]

    def on_iteration(self) -> None:
        waited_s = time.monotonic() - self._began
        if self._events and waited_s >= WINDOW_S:
            self._post()
        elif waited_s >= QUIET_S:
            self.should_stop = True

    def _take(self, body: Any, message: kombu.Message) -> None:
        if not self._events:
            self._began = time.monotonic()
            if not self._posted:
                self._watch = Stopwatch()
        self._events += body if isinstance(body, list) else [body]
        self._messages.append(message)
        if len(self._events) >= BATCH_EVENTS:
            self._post()

    def _post(self) -> None:
        documents = [_document(event) for event in self._events]
        answer = requests.post(self._url, json=documents, headers=HEADERS, timeout=30)
        if answer.status_code != 201:
            raise RuntimeError(f"The API answered {answer.status_code}.")
        for message in self._messages:
            message.ack()
        self._posted += len(self._events)
        self._events, self._messages = [], []
        self._began = time.monotonic()
        missing = self._wanted - self._posted
        self.figures = {**self._watch.figures(self._posted), "missing": missing}
        self.should_stop = self._posted >= self._wanted


def _document(event: dict[str, Any]) -> dict[str, Any]:
    kind, _, verb = event["type"].partition("-")
    milliseconds = int(event["timestamp"] * 1000)
    return {
        **{key: value for key, value in event.items() if value is not None and key != "type"},
        "id": event["uuid"] if kind == "task" else event["hostname"],
        "kind": kind,
        "state": verb.upper(),
        "app_env": "bench",
        "timestamp": milliseconds,
        f"{verb}_at": milliseconds,
        "exact_timestamp": event["timestamp"],
        "updated_at": int(time.time() * 1000),
        "events": [verb.upper()],
        "events_count": 1,
    }


def deliver(url: str, api_url: str, events: int) -> dict[str, float]:
    """Let one deliver ``events`` events in this process, and return the figures."""
    agent = SimpleAgent(url, api_url, events)
    agent.run()
    return agent.figures
