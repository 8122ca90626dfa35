"""The methods of the XML-RPC namespace ``leekfanout``: what Supervisor's interface has no word for."""

import time
from collections.abc import Callable
from typing import Any

import psutil

from leekfanout.control.process_info import GROUP
from leekfanout.control.rpc import Fault, Reply, fault
from leekfanout.control.supervisor_api import (
    Mood,
    for_each,
    members,
    refuse_unless_running,
    running,
)
from leekfanout.errors import ConfigError
from leekfanout.redaction import redact_url
from leekfanout.status.stats import COUNTERS, GAUGES, TEXTS, Condition
from leekfanout.supervision.farm import Difference, Farm
from leekfanout.supervision.lifecycle import UP
from leekfanout.supervision.process import Process


class AgentApi:
    """leekfanout's own methods, for its command line and its page."""

    def __init__(
        self, farm: Farm, mood: Callable[[], Mood], reload: Callable[[], Difference]
    ) -> None:
        """``reload`` applies changed subscriptions, or raises ConfigError."""
        self._farm = farm
        self._mood = mood
        self._reload = reload

    def getStatus(self) -> list[dict[str, Any]]:
        """Return all that is known of each subscription; times are epoch seconds, 0 for never."""
        return [_status(process) for process in members(self._farm, GROUP)]

    def reload(self) -> dict[str, list[str]]:
        """Read the subscriptions again, apply the difference, and return it by names."""
        refuse_unless_running(self._mood())
        try:
            what = self._reload()
        except ConfigError as error:
            raise fault(Fault.CANT_REREAD, str(error)) from None
        return {
            "added": list(what.added),
            "changed": list(what.changed),
            "removed": list(what.removed),
        }

    def restartProcesses(self, name: str, wait: bool = True) -> Reply:
        """Drain, stop and start one subscription's process, or all (``agent``).

        Returns a result for each, as ``startAllProcesses`` does. Goes on to the end even if the
        client goes away, so that nothing stays stopped.
        """
        refuse_unless_running(self._mood())
        processes = members(self._farm, name)
        return (yield from for_each(processes, lambda process: _restart(process, wait)))


def _restart(process: Process, wait: bool) -> Reply:
    process.restart(time.monotonic())
    return (yield from running(process, wait))


def _status(process: Process) -> dict[str, Any]:
    subscription, stats = process.subscription, process.stats
    counters_and_gauges = stats.snapshot()
    memory_bytes, cpu_seconds = _resources(process.pid) if process.state in UP else (0.0, 0.0)
    return {
        "name": process.name,
        "transport": subscription.transport,
        "broker": [redact_url(url) for url in subscription.broker],
        "api_url": redact_url(subscription.api_url),
        "state": int(process.state),
        "statename": process.state.name,
        "wanted": process.wanted,
        "reason": process.reason,
        "pid": process.pid,
        "started_at": process.started_at,
        "stopped_at": process.stopped_at,
        "starts": process.starts,
        "ends": {cause.value: count for cause, count in process.ends.items()},
        "next_start_in_s": process.next_start_in_s(time.monotonic()),
        "condition": Condition(int(stats.get("condition"))).name,
        "memory_bytes": memory_bytes,
        "cpu_seconds": cpu_seconds,
        "counters": {name: counters_and_gauges[name] for name in COUNTERS},
        "gauges": {name: counters_and_gauges[name] for name in GAUGES},
        **{name: stats.read_text(name) for name in TEXTS},
    }


def _resources(pid: int) -> tuple[float, float]:
    """Return resident bytes and CPU seconds; as floats, since XML-RPC's integers have 32 bits."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return float(process.memory_info().rss), times.user + times.system
    except psutil.Error:
        return 0.0, 0.0
