"""What a run has found, in memory and as JSON."""

import json
import os
import platform
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.plan import Case, Part

FOLDER = Path(__file__).parent / "results"
BUSY_LOAD = 1.0
"""The machine's load average above which something else runs on it, and figures are doubtful."""
_LIBRARIES = ("amqp", "hiredis", "kombu", "orjson", "redis", "requests")

Figures = dict[str, float]


def machine() -> dict[str, Any]:
    """Return what a figure depends on, without anything that names the machine."""
    return {
        "at": time.strftime("%Y-%m-%d %H:%M"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "versions": {name: version(name) for name in _LIBRARIES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


@dataclass(slots=True)
class Found:
    """One case: its settings, and the figures of each round; ``error`` where there are none."""

    part: str
    name: str
    settings: dict[str, Any]
    rounds: list[Figures] = field(default_factory=list)
    error: str = ""

    @property
    def figures(self) -> Figures:
        """The median of each figure."""
        if not self.rounds:
            return {}
        names = self.rounds[0]
        return {name: statistics.median(each[name] for each in self.rounds) for name in names}


class Results:
    """The cases of a run, in their order."""

    def __init__(self, about: dict[str, Any], found: Iterable[Found] = ()) -> None:
        self.about = about
        self.found = {(each.part, each.name): each for each in found}

    def case(self, part: Part, case: Case) -> Found:
        """Return what was found in a case so far."""
        settings = dict(case.settings)
        return self.found.setdefault((part.name, case.name), Found(part.name, case.name, settings))

    def of(self, part: str) -> list[Found]:
        """Return the cases of a part."""
        return [each for each in self.found.values() if each.part == part]

    def figure(self, part: str, name: str, figure: str) -> float | None:
        """Return the median of a figure, or None where it wasn't measured."""
        each = self.found.get((part, name))
        return each.figures.get(figure) if each else None

    def save(self, path: Path) -> None:
        """Write everything as JSON, the medians too, for other programs."""
        cases = [
            {
                "part": each.part,
                "name": each.name,
                "settings": each.settings,
                "figures": each.figures,
                "rounds": each.rounds,
                "error": each.error,
            }
            for each in self.found.values()
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"about": self.about, "cases": cases}, indent=1) + "\n")


def load(path: Path) -> Results:
    """Read what :meth:`Results.save` has written."""
    told = json.loads(path.read_text())
    found = [
        Found(case["part"], case["name"], case["settings"], case["rounds"], case["error"])
        for case in told["cases"]
    ]
    return Results(told["about"], found)
