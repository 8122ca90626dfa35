"""The agent as the page reaches it: the control socket, the subscriptions' file, dead letters.

Every method blocks, and is called on a worker thread.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from leekfanout import logs
from leekfanout.configuration import config, enrolment, references
from leekfanout.configuration.config import BYTES_PER_MB, Settings, Subscription
from leekfanout.configuration.enrolment import Removed
from leekfanout.configuration.subscriptions_file import SubscriptionsFile
from leekfanout.configuration.validation import name_of
from leekfanout.control.control_client import Client
from leekfanout.control.process_info import GROUP
from leekfanout.errors import FixedConfigError, LeekfanoutError, SubscriptionUnknownError
from leekfanout.redaction import redact_entry, secrets_of
from leekfanout.stores.deadletters import FILE_NAME, DeadLetters
from leekfanout.web.view import subscription_of

WANTED: Final = frozenset({"STARTING", "RUNNING", "BACKOFF", "EXITED"})
"""Supervisor's words for what runs, or will again by itself."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Any thread may use it."""

    settings: Settings
    socket_path: Path
    config_file: Path
    fixed: Sequence[Any] | None = field(default=None, repr=False)
    """What the environment variable holds, if the subscriptions come from there: then the page can't
    change them."""

    def call(self, method: str, *params: Any) -> Any:
        """Call a method of the control socket; raises NoAgentError and RefusedError."""
        return Client(self.socket_path).call(method, *params)

    def info(self) -> dict[str, Any]:
        """Return Supervisor's struct for the whole farm."""
        info: dict[str, Any] = self.call("supervisor.getProcessInfo", GROUP)
        return info

    def entries(self) -> list[dict[str, Any]]:
        """Return all subscriptions as they are written down, with names and without secrets."""
        return [
            {"name": name_of(entry) or "", **redact_entry(entry)}
            for entry in self._written()
            if isinstance(entry, dict)
        ]

    def add(self, entry: dict[str, Any]) -> str:
        """Add a subscription and start it; return a remark if that isn't all.

        Raises as :func:`leekfanout.enrolment.add` does, with nothing written.
        """
        self.refuse_if_fixed()
        references.refuse(entry)
        subscription = enrolment.add(self.file, entry, os.environ)
        logs.hide(secrets_of(subscription))
        try:
            self.call("leekfanout.reload")
        except LeekfanoutError as error:
            return f"It is saved, but the agent has not taken it up: {error}"
        return ""

    def remove(self, name: str, *, queue_too: bool = False, force: bool = False) -> Removed:
        """Remove a subscription and drain its processes; its note tells what isn't done of that.

        With ``queue_too`` they are stopped before, since a queue that is read is not deleted.
        Raises as :func:`leekfanout.enrolment.remove` does.
        """
        self.refuse_if_fixed()
        stopped = self._running(name) if queue_too else []
        for process in stopped:
            self.call("supervisor.stopProcess", process)
        try:
            removed = enrolment.remove(
                self.file, name, os.environ, queue_too=queue_too, force=force
            )
        except BaseException:
            for process in stopped:
                self.call("supervisor.startProcess", process)
            raise
        try:
            self.call("leekfanout.reload")
        except LeekfanoutError as error:
            untold = f"The agent has not taken up that it is removed: {error}"
            return removed._replace(note=f"{removed.note} {untold}".lstrip())
        return removed

    def restart(self) -> None:
        """Start the agent, or restart it if it runs; either way with what the file says now.

        Raises RefusedError.
        """
        if self.info()["statename"] not in WANTED:
            self.call("supervisor.startProcess", GROUP)
            return
        if self.fixed is None:
            self.call("leekfanout.reload")
        self.call("leekfanout.restartProcesses", GROUP)

    def refuse_if_fixed(self) -> None:
        """Raise FixedConfigError if the subscriptions can't be changed."""
        if self.fixed is not None:
            raise FixedConfigError(
                [
                    f"The subscriptions come from the variable {config.SUBSCRIPTIONS_VARIABLE}: "
                    "change it and start the agent again, or unset it to use a file."
                ]
            )

    def subscription(self, name: str) -> Subscription:
        """Return what a process is for, with secrets; raises SubscriptionUnknownError, ConfigError."""
        subscriptions = config.subscriptions_of(list(self._written()), os.environ)
        for subscription in config.for_processes(subscriptions):
            if subscription.name == name:
                logs.hide(secrets_of(subscription))
                return subscription
        raise SubscriptionUnknownError(f"There is no subscription {name}.")

    @contextmanager
    def letters(self, name: str) -> Iterator[DeadLetters | None]:
        """Open the dead letters of a process that the agent has; None if it never had any.

        Raises RefusedError if there is no such process.
        """
        self.call("supervisor.getProcessInfo", name)
        path = self.settings.state_dir / name / FILE_NAME
        if not path.exists():
            yield None
            return
        max_bytes = int(self.settings.dead_letters_max_mb * BYTES_PER_MB)
        store = DeadLetters(path, name, max_bytes, owner=False)
        try:
            yield store
        finally:
            store.close()

    @property
    def file(self) -> SubscriptionsFile:
        """The subscriptions' file."""
        return SubscriptionsFile(self.config_file)

    def _written(self) -> Sequence[Any]:
        return self.file.entries() if self.fixed is None else self.fixed

    def _running(self, name: str) -> list[str]:
        """Return the names of a subscription's processes that are to run.

        Raises RefusedError if there is no such subscription.
        """
        self.call("supervisor.getProcessInfo", name)
        return [
            info["name"]
            for info in self.call("supervisor.getAllProcessInfo")
            if subscription_of(info["name"]) == name and info["statename"] in WANTED
        ]
