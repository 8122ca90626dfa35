"""What has arrived at a sink, as a table: figures per application, and the last tasks."""

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from leekfanout.terminal.screen import Cell, columns, printable

TASKS_MAX: Final = 1_000
"""Tasks that are remembered, those that changed last; so memory is bounded."""
APPLICATIONS_MAX: Final = 50
RATE_WINDOW_S: Final = 10

STATE_TIMES: Final = {
    "QUEUED": "queued_at",
    "RECEIVED": "received_at",
    "STARTED": "started_at",
    "RETRY": "retried_at",
    "SUCCEEDED": "succeeded_at",
    "FAILED": "failed_at",
    "REJECTED": "rejected_at",
    "REVOKED": "revoked_at",
}
"""A task's states in their usual order, and the field of each that says when it was reached."""

TERMINAL_STATES: Final = {
    "SUCCEEDED": "green",
    "RECOVERED": "green",
    "FAILED": "red",
    "CRITICAL": "red",
    "REJECTED": "red",
    "REVOKED": "magenta",
}
"""States after which nothing more is to come, with their colours."""
STATE_STYLES: Final = TERMINAL_STATES | {"STARTED": "cyan", "RETRY": "yellow"}
HEAD_STYLE: Final = "bold"


@dataclass(slots=True)
class Task:
    """A task as its documents tell it, merged by their sums and times.

    Simpler than Leek's own merging: good enough to see what happens to a task.
    """

    application: str
    name: str = ""
    state: str = ""
    worker: str = ""
    runtime_s: float | None = None
    exception: str = ""
    events: int = 0
    changed_ms: float = 0
    reached: set[str] = field(default_factory=set)
    seen: Counter[str] = field(default_factory=Counter)

    @property
    def finished(self) -> bool:
        return self.state in TERMINAL_STATES

    def merge(self, document: Mapping[str, Any]) -> None:
        """Take a document of this task; a terminal state gives way to no other kind."""
        self.events += document.get("events_count", 1)
        state = document["state"]
        moment = _number(document.get("timestamp"), 0)
        if state in TERMINAL_STATES or (not self.finished and moment >= self.changed_ms):
            self.state, self.changed_ms = _text(state), moment
        self.name = _text(document.get("name")) or self.name
        self.worker = _text(document.get("worker")) or self.worker
        self.exception = _text(document.get("exception")) or self.exception
        if document.get("runtime") is not None:
            self.runtime_s = _number(document["runtime"], 0)
        self.reached.update(name for name, key in STATE_TIMES.items() if key in document)
        events = document.get("events")
        if isinstance(events, list):
            self.seen.update(e for e in events if isinstance(e, str) and e in STATE_TIMES)

    def path(self) -> str:
        """Return the states it has been in, in their usual order: ``QUEUED → STARTED (2) → RETRY``.

        Not in that of their times: of a state that came twice, only the last time is known.
        """
        return " → ".join(
            f"{state} ({self.seen[state]})" if self.seen[state] > 1 else state
            for state in STATE_TIMES
            if state in self.reached
        )


@dataclass(slots=True)
class Application:
    """The figures of one application; ``recent`` counts documents by second, for the rate."""

    posts: int = 0
    documents: int = 0
    events: int = 0
    recent: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=RATE_WINDOW_S + 1))

    def add(self, documents: int, events: int, now: float) -> None:
        self.posts += 1
        self.documents += documents
        self.events += events
        second = int(now)
        if self.recent and self.recent[-1][0] == second:
            second, before = self.recent.pop()
            documents += before
        self.recent.append((second, documents))

    def rate(self, now: float) -> float:
        """Return the documents per second of the last :data:`RATE_WINDOW_S` whole seconds."""
        since = int(now) - RATE_WINDOW_S
        return sum(n for second, n in self.recent if since <= second < int(now)) / RATE_WINDOW_S


class Table:
    """Collects what arrives. Not thread-safe: its owner guards it. ``now`` is monotonic seconds."""

    def __init__(self) -> None:
        self.applications: dict[str, Application] = {}
        self.tasks: OrderedDict[tuple[str, str], Task] = OrderedDict()
        self.tasks_finished = 0
        """Tasks that have reached a terminal state."""

    def add(
        self, documents: list[dict[str, Any]], headers: Mapping[str, str], now: float
    ) -> list[tuple[str, Task]]:
        """Take the documents of one POST, and return the tasks that they changed, by their ids."""
        name = _text(f"{headers['x-leek-app-name']}-{headers['x-leek-app-env']}")
        if name not in self.applications and len(self.applications) >= APPLICATIONS_MAX:
            name = "(others)"
        application = self.applications.setdefault(name, Application())
        events = sum(document.get("events_count", 1) for document in documents)
        application.add(len(documents), events, now)
        return [self._merge(name, doc) for doc in documents if doc["kind"] == "task"]

    def _merge(self, application: str, document: Mapping[str, Any]) -> tuple[str, Task]:
        key = (application, _text(document["id"]))
        task = self.tasks.setdefault(key, Task(application))
        had_finished = task.finished
        task.merge(document)
        self.tasks_finished += task.finished and not had_finished
        self.tasks.move_to_end(key)
        if len(self.tasks) > TASKS_MAX:
            self.tasks.popitem(last=False)
        return key[1], task

    def states(self, application: str) -> Counter[str]:
        """Count the remembered tasks of an application by the state they are in."""
        return Counter(t.state for t in self.tasks.values() if t.application == application)

    def application_lines(self, now: float, width: int, *, colour: bool) -> list[str]:
        """Return the figures of each application, under a head."""
        head = ("APPLICATION", "POSTS", "DOCUMENTS", "EVENTS", "DOCS/S", "LAST TASKS BY STATE")
        rows = [[Cell(text, HEAD_STYLE, right=text in head[1:5]) for text in head]]
        for name, figures in sorted(self.applications.items()):
            numbers = (f"{figures.posts:,}", f"{figures.documents:,}", f"{figures.events:,}")
            rates = f"{figures.rate(now):.1f}"
            states = ", ".join(f"{n} {state}" for state, n in self.states(name).most_common())
            rows.append(
                [
                    Cell(name),
                    *(Cell(number, right=True) for number in (*numbers, rates)),
                    Cell(states),
                ]
            )
        return columns(rows, (40, 12, 12, 12, 10, 200), width, colour=colour)

    def task_lines(self, width: int, count: int, *, colour: bool) -> list[str]:
        """Return up to ``count`` tasks, the one that changed last first, under a head."""
        head = ("TASK", "ID", "STATE", "RUNTIME", "WORKER", "WAY")
        rows = [[Cell(text, HEAD_STYLE, right=text == "RUNTIME") for text in head]]
        for (_, task_id), task in list(reversed(self.tasks.items()))[:count]:
            rows.append(task_cells(task_id, task))
        return columns(rows, (36, 8, 9, 9, 24, 200), width, colour=colour)


def task_cells(task_id: str, task: Task) -> list[Cell]:
    """Return a task's row, under the head of :meth:`Table.task_lines`."""
    return [
        Cell(task.name),
        Cell(task_id[:8], "dim"),
        Cell(task.state, STATE_STYLES.get(task.state, "")),
        Cell(_runtime(task), right=True),
        Cell(task.worker),
        Cell(_way(task)),
    ]


def task_line(task_id: str, task: Task) -> str:
    """Return a task as a line for where there is no terminal."""
    start = f"{task.name:<20}  {task_id[:8]:<8}  {task.state:<9}"
    parts = (start, task.worker, _runtime(task), _way(task))
    return printable("  ".join(part for part in parts if part))


def _runtime(task: Task) -> str:
    return "" if task.runtime_s is None else f"{task.runtime_s:.3f} s"


def _way(task: Task) -> str:
    """Return what the task went through, and the exception where that is still of interest."""
    shown = task.exception and STATE_STYLES.get(task.state) != "green"
    return f"{task.path()}  {task.exception}" if shown else task.path()


TEXT_MAX_CHARACTERS: Final = 200


def _text(value: Any) -> str:
    return value[:TEXT_MAX_CHARACTERS] if isinstance(value, str) else ""


def _number(value: Any, otherwise: float) -> float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else otherwise
