"""Random kills, hangs, stops, starts and reloads in a row, under a load on RabbitMQ.

LEEKFANOUT_STORM_STEPS sets how many, LEEKFANOUT_STORM_SEED which ones.
"""

import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from leekfanout.control.control_client import Client, NoAgentError, RefusedError
from leekfanout.supervision.lifecycle import WAITING, State
from tests import accounting
from tests.accounting import assert_nothing_lost, of_documents, of_messages
from tests.agent import ROOT, subscription
from tests.api_double import ApiDouble
from tests.brokers import RabbitMQ
from tests.processes import ChildProcess, descendants, wait_gone
from tests.streams import streams
from tests.waiting import until

STEPS = int(os.environ.get("LEEKFANOUT_STORM_STEPS", "40"))
SEED = int(os.environ.get("LEEKFANOUT_STORM_SEED", "0")) or random.randrange(1, 1_000_000)
NAMES = ("shop-prod", "blog-prod", "docs-prod", "wiki-prod")
MESSAGES_PER_S = 50.0
HANG_AFTER_S = 3.0
SETTLE_S = 90.0


class Storm:
    """An agent, what was done to it, and what it should be like therefore."""

    def __init__(self, folder: Path, entries: dict[str, dict[str, Any]], seed: int) -> None:
        self.random = random.Random(seed)
        self.state_dir = folder / "state"
        self.client = Client(self.state_dir / "control.sock")
        self.counts: dict[str, int] = {}
        self._entries = entries
        self._file = folder / "subscriptions.json"
        self._windows = dict.fromkeys(entries, 0.2)
        self._configured = set(entries)
        self._wanted = set(entries)
        self._seen: set[psutil.Process] = set()
        self._write()
        self.process = ChildProcess(
            [
                *(sys.executable, "-m", "tests.impatient", str(HANG_AFTER_S), "run"),
                *("--config", str(self._file), "--state-dir", str(self.state_dir)),
            ],
            folder / "agent.log",
            {
                **{key: value for key, value in os.environ.items() if not key.startswith("LEEK")},
                **{"LEEK_ENABLE_AGENT": "true", "LEEK_ENABLE_API": "false"},
                **{"LEEKFANOUT_LOG_FORMAT": "json", "PYTHONPATH": str(ROOT)},
            },
        )
        until(self._answers, 30, "the agent to answer")

    def step(self) -> None:
        """Do one thing at random."""
        actions: list[tuple[int, Callable[[str], None]]] = [
            (4, self._kill),
            (1, self._hang),
            (2, self._stop),
            (3, self._start),
            (2, self._restart),
            (3, self._reload),
        ]
        weights = [weight for weight, _ in actions]
        (_, action), *_ = self.random.choices(actions, weights)
        self.counts[action.__name__] = self.counts.get(action.__name__, 0) + 1
        action(self.random.choice(NAMES))
        self.children()

    def everything(self) -> None:
        """Configure all subscriptions, and start them."""
        self._configured = set(self._entries)
        self._write()
        self.client.call("leekfanout.reload")
        self.client.call("supervisor.startAllProcesses", False)
        self._wanted = set(self._entries)

    def settle(self) -> None:
        """Wait until exactly those processes live that should, each of them running."""

        def settled() -> bool:
            last: dict[str, State] = {}
            for status in self._status():
                if status["state"] in WAITING and status["wanted"]:
                    self.client.call("leekfanout.restartProcesses", status["name"], False)
                last[status["name"]] = State(status["state"])
            running = {name for name, state in last.items() if state is State.RUNNING}
            return set(last) == self._configured and running == self._wanted & self._configured

        until(settled, SETTLE_S, f"{sorted(self._wanted & self._configured)} to run")
        until(
            lambda: sorted(self.children().values()) == sorted(self.expected_titles()),
            20,
            f"{self.expected_titles()} and nothing else: {self.children()}",
        )

    def expected_titles(self) -> list[str]:
        return [f"leekfanout: {name}" for name in self._wanted & self._configured]

    def children(self) -> dict[int, str]:
        """Return titles of all its descendants, zombies too, by process id."""
        found = descendants(self.process.pid)
        self._seen |= found.keys()
        return {child.pid: title for child, title in found.items()}

    def orphans(self) -> list[psutil.Process]:
        """Return the processes that it once had, that live and aren't its children any more."""
        children = self.children()
        return [one for one in self._seen if one.is_running() and one.pid not in children]

    def idle_descriptors(self) -> list[str]:
        """Return what the supervisor's descriptors are open on while nobody is connected to it.

        An answer's connection is closed a moment after the answer has come.
        """
        folder = Path(f"/proc/{self.process.pid}/fd")

        def none_but_the_listener() -> list[str]:
            with suppress(FileNotFoundError):  # one was closed meanwhile
                found = sorted(os.readlink(link).split(":")[0] for link in folder.iterdir())
                if found.count("socket") == 1:
                    return found
            return []

        return until(none_but_the_listener, 10, "the control connections to be closed")

    def close(self) -> None:
        if self.process.returncode is None:
            self.children()
            self.process.kill()
        for child in self._seen:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        wait_gone(self._seen, 5)
        print(self.process.output(20_000))  # shown where the test has failed

    def _kill(self, name: str) -> None:
        self._signal(name, signal.SIGKILL)

    def _hang(self, name: str) -> None:
        self._signal(name, signal.SIGSTOP)

    def _signal(self, name: str, number: int) -> None:
        for status in self._status():
            if status["name"] == name and status["pid"]:
                with suppress(ProcessLookupError):
                    os.kill(status["pid"], number)

    def _stop(self, name: str) -> None:
        self._ask("supervisor.stopProcess", name, False)
        self._wanted.discard(name)

    def _start(self, name: str) -> None:
        self._ask("supervisor.startProcess", name, False)
        if name in self._configured:
            self._wanted.add(name)

    def _restart(self, name: str) -> None:
        self._ask("leekfanout.restartProcesses", name, False)
        if name in self._configured:
            self._wanted.add(name)

    def _reload(self, name: str) -> None:
        """Remove, add or change a subscription, by SIGHUP or by a call."""
        if name not in self._configured:
            self._configured.add(name)
            self._wanted.add(name)
        elif self.random.random() < 0.5:
            self._configured.discard(name)
            self._wanted.discard(name)
        else:
            self._windows[name] = round(self.random.uniform(0.1, 0.4), 6)
        self._write()
        if self.random.random() < 0.5:
            self.process.signal(signal.SIGHUP)
            until(
                lambda: {status["name"] for status in self._status()} == self._configured,
                10,
                "the signal to be heard",
            )
        else:
            self.client.call("leekfanout.reload")

    def _ask(self, method: str, *params: Any) -> None:
        with suppress(RefusedError):
            self.client.call(method, *params)

    def _status(self) -> list[dict[str, Any]]:
        statuses: list[dict[str, Any]] = self.client.call("leekfanout.getStatus")
        return statuses

    def _answers(self) -> bool:
        try:
            return len(self._status()) == len(self._entries)
        except NoAgentError:
            return False

    def _write(self) -> None:
        entries = [
            {**self._entries[name], "batch_max_window_in_seconds": self._windows[name]}
            for name in sorted(self._configured)
        ]
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(entries))
        fresh.replace(self._file)


@pytest.mark.timeout(120 + STEPS * 2)
def test_a_storm_leaves_what_the_configuration_asks_for_and_loses_nothing(
    rabbitmq: RabbitMQ, api: ApiDouble, tmp_path: Path
) -> None:
    print(f"LEEKFANOUT_STORM_SEED={SEED}")
    urls = {name: rabbitmq.new_vhost() for name in NAMES}
    entries = {
        name: subscription(url, api, app_name=name.partition("-")[0]) for name, url in urls.items()
    }
    storm = Storm(tmp_path, entries, SEED)
    try:
        for url in urls.values():
            until(lambda url=url: rabbitmq.queues(url), 30, "the queues to be there")  # type: ignore[misc]
        storm.settle()
        descriptors = storm.idle_descriptors()
        with streams(list(urls.values()), MESSAGES_PER_S, SEED) as published:
            for _ in range(STEPS):
                storm.step()
                time.sleep(storm.random.uniform(0, 0.2))
            storm.settle()
            assert storm.orphans() == []
            storm.everything()
            storm.settle()
            assert storm.orphans() == []
            assert storm.idle_descriptors() == descriptors
        sent = of_messages(itertools.chain.from_iterable(published))
        until(
            lambda: not (sent - of_documents(api.confirmed())).total(), 60, "every event to arrive"
        )
        storm.process.signal(signal.SIGTERM)
        assert storm.process.wait(20) == 0
        places = [accounting.at_broker(url) for url in urls.values()]
        repeated = assert_nothing_lost(sent, of_documents(api.confirmed()), *places)
        print(f"{STEPS} steps {storm.counts}; {sent.total()} events sent, {repeated} repeated")
    finally:
        storm.close()
        for url in urls.values():
            rabbitmq.delete_vhost(url)
