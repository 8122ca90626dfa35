"""A sink's table as its threads fill it and another one shows it."""

import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from leekfanout.sink.sink_table import Table, task_line

LINES_MAX: Final = 1_000
"""Lines that wait to be taken; the oldest give way."""
LINES_AROUND_TASKS: Final = 4
SUMMARY_WIDTH: Final = 200


class Arrivals:
    """What has arrived; any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table = Table()
        self._lines: deque[str] = deque(maxlen=LINES_MAX)
        self.posts = 0

    def add(self, documents: list[dict[str, Any]], headers: Mapping[str, str]) -> None:
        """Take what a POST brought; it is a sink's ``on_documents``."""
        with self._lock:
            for task_id, task in self._table.add(documents, headers, time.monotonic()):
                self._lines.append(task_line(task_id, task))
            self.posts += 1

    @property
    def documents(self) -> int:
        with self._lock:
            return sum(figures.documents for figures in self._table.applications.values())

    @property
    def tasks_finished(self) -> int:
        with self._lock:
            return self._table.tasks_finished

    def take_lines(self) -> list[str]:
        """Return a line for each task's document that has come since the last call."""
        with self._lock:
            lines = list(self._lines)
            self._lines.clear()
        return lines

    def summary(self, *, colour: bool) -> list[str]:
        """Return the applications' lines, or that there are none."""
        with self._lock:
            if not self._table.applications:
                return ["Nothing has arrived."]
            now = time.monotonic()
            return self._table.application_lines(now, SUMMARY_WIDTH, colour=colour)

    def lines(self, title: str, size: tuple[int, int], *, colour: bool) -> list[str]:
        """Return what fills a terminal of ``size`` columns and rows."""
        width, height = size
        with self._lock:
            applications = self._table.application_lines(time.monotonic(), width, colour=colour)
            room = max(0, height - len(applications) - LINES_AROUND_TASKS)
            tasks = self._table.task_lines(width, room, colour=colour)
        return [title, "", *applications, "", *tasks]
