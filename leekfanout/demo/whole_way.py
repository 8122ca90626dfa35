"""The whole way with nothing to configure: broker, Celery, agent and API, private to one demo."""

import importlib.util
import math
import os
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TextIO

import orjson

from leekfanout.demo.demo_brokers import Broker, start_rabbitmq, start_redis, stop_broker
from leekfanout.demo.demo_view import View
from leekfanout.errors import LeekfanoutError
from leekfanout.sink.arrivals import Arrivals
from leekfanout.sink.leek_api import Sink
from leekfanout.supervision.lifeline import Child, ProcessGroup
from leekfanout.terminal.stopping import StopSignals

BROKER_VARIABLE: Final = "LEEKFANOUT_DEMO_BROKER"
"""Holds the broker's URL for Celery: a command line could be read by every user of the machine."""

ORGANISATION: Final = "mono"
APPLICATION: Final = "shop"
ENVIRONMENT: Final = "demo"
WINDOW_S: Final = 0.5
"""Short, so that one sees the states of a task come one after the other."""

REDRAW_S: Final = 0.25
FIRST_DOCUMENT_TIMEOUT_S: Final = 60.0
"""A worker sends a heartbeat every two seconds, so the first document comes without any task."""
LAST_TASK_TIMEOUT_S: Final = 30.0
"""How long a task may take to its end, once the client has sent all of them."""
DRAIN_TIMEOUT_S: Final = 5
STOP_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the demo runs on, and how much of it: ``seconds``, ``tasks``, or until it is stopped."""

    broker: Literal["redis", "rabbitmq"] = "redis"
    seconds: float | None = None
    tasks: int | None = None


def run(options: Options, out: TextIO) -> int:
    """Run the demo, showing it on ``out``; main thread only. Return 0 if documents arrived.

    LeekfanoutError: something that it needs is not there, or a part of it has failed.
    """
    if importlib.util.find_spec("celery") is None:
        raise LeekfanoutError("The demo needs Celery: pip install 'leekfanout[demo]'.")
    arrivals = Arrivals()
    with StopSignals() as stop, ProcessGroup() as group, View(arrivals, out) as view:
        demo = Demo(options, arrivals, stop, group, view.show)
        try:
            demo.start()
            demo.watch()
        finally:
            demo.stop()
    return 0 if arrivals.documents else 1


class Demo:
    """The parts, each a process of its own but for the API, which is threads of this one.

    ``show`` takes a line that says what goes on, and shows what has arrived.
    """

    def __init__(
        self,
        options: Options,
        arrivals: Arrivals,
        stop: StopSignals,
        group: ProcessGroup,
        show: Callable[[str], None],
    ) -> None:
        self._options = options
        self._arrivals = arrivals
        self._stop = stop
        self._group = group
        self._show = show
        self._app_key = secrets.token_hex(16)
        self._sink = Sink(
            app_key=self._app_key,
            applications=[(ORGANISATION, APPLICATION)],
            on_documents=arrivals.add,
        )
        self._broker: Broker | None = None
        self._agent: Child | None = None
        self._worker: Child | None = None
        self._client: Child | None = None

    def start(self) -> None:
        """Start all parts, the client when the worker's first event has made the whole way."""
        self._show(f"Starting the broker ({self._options.broker}).")
        start_broker = start_redis if self._options.broker == "redis" else start_rabbitmq
        self._broker = start_broker(self._group, self._stop)
        self._show(f"{self._broker.label} is up; starting the API, the agent and a Celery worker.")
        self._sink.start()
        self._agent = self._start_agent(self._broker.url)
        self._worker = self._start_celery(self._broker.url, "worker")
        if not self._until(lambda: self._arrivals.documents > 0, FIRST_DOCUMENT_TIMEOUT_S):
            if self._stop.received:
                return
            raise self._failure(f"Nothing has arrived within {FIRST_DOCUMENT_TIMEOUT_S:g} s.")
        count = [] if self._options.tasks is None else [str(self._options.tasks)]
        self._client = self._start_celery(self._broker.url, "client", *count)

    def watch(self) -> None:
        """Show what arrives, until that is all, the time is over, or a signal has come."""
        label = self._broker.label if self._broker else ""
        self._show(f"Celery on {label}, delivered to {self._sink.url}. Ctrl-C ends all of it.")
        if self._options.tasks is None:
            self._until(lambda: False, self._options.seconds)
            return
        self._until(self._client_has_ended, None)
        if not self._until(self._all_finished, LAST_TASK_TIMEOUT_S) and not self._stop.received:
            finished = self._arrivals.tasks_finished
            raise self._failure(f"{finished} of {self._options.tasks} tasks came to their end.")

    def stop(self) -> None:
        """End the parts in the order of the data, so that what was sent still arrives."""
        for child in (self._client, self._worker, self._agent):
            if child is not None:
                self._show(f"Stopping the {child.name}.")
                self._group.stop(child, STOP_TIMEOUT_S, self._stop)
        self._sink.stop()
        if self._broker is not None:
            self._show("Stopping the broker.")
            stop_broker(self._broker, self._group, self._stop)

    def _start_agent(self, broker_url: str) -> Child:
        subscription = {
            "org_name": ORGANISATION,
            "app_name": APPLICATION,
            "app_env": ENVIRONMENT,
            "app_key": self._app_key,
            "api_url": self._sink.url,
            "broker": broker_url,
            "batch_max_window_in_seconds": WINDOW_S,
        }
        options = ("--state-dir", str(self._group.folder / "state"))
        return self._group.start(
            "agent",
            _python("leekfanout", "run", *options, "--drain-timeout", str(DRAIN_TIMEOUT_S)),
            _environment(
                LEEK_ENABLE_AGENT="true",
                LEEK_ENABLE_API="false",
                LEEK_ENABLE_WEB="false",
                LEEK_AGENT_SUBSCRIPTIONS=orjson.dumps([subscription]).decode(),
            ),
        )

    def _start_celery(self, broker_url: str, *arguments: str) -> Child:
        command = _python("leekfanout.demo.demo_celery", *arguments)
        return self._group.start(
            arguments[0], command, _environment(**{BROKER_VARIABLE: broker_url})
        )

    def _until(self, done: Callable[[], bool], timeout_s: float | None) -> bool:
        """Show what arrives until ``done``; False if a signal came, or the timeout, before that."""
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while not done():
            if self._stop.wait(REDRAW_S) or time.monotonic() > deadline:
                return False
            self._show("")
            for child in (self._agent, self._worker, self._client):
                if child is not None and child.ended and child.popen.returncode != 0:
                    raise self._failure(f"The {child.name} has failed.")
        return True

    def _failure(self, what: str) -> LeekfanoutError:
        """Return an error that quotes the ends of the logs, since these go with the folder."""
        logs = [
            f"The {child.name}'s log ends with:\n{child.last_words()}"
            for child in (self._agent, self._worker, self._client)
            if child is not None and child.last_words()
        ]
        return LeekfanoutError("\n".join([what, *logs]))

    def _all_finished(self) -> bool:
        return self._arrivals.tasks_finished >= (self._options.tasks or 0)

    def _client_has_ended(self) -> bool:
        return self._client is not None and self._client.ended


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def _environment(**more: str) -> dict[str, str]:
    """Return our environment without what would configure an agent or Celery, and with ``more``."""
    prefixes = ("LEEK_", "LEEKFANOUT_", "CELERY_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return kept | more
