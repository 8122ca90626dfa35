"""What Supervisor's clients read of a process, and of the whole farm as the process ``agent``."""

import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from leekfanout.supervision.lifecycle import UP, WAITING, State
from leekfanout.supervision.process import Process

GROUP: Final = "agent"
"""The group that every subscription's process is in, and the name of the whole farm."""

_PRECEDENCE: Final = (
    State.RUNNING,
    State.STARTING,
    State.BACKOFF,
    State.EXITED,
    State.STOPPING,
    State.STOPPED,
)


def process_info(process: Process, now: float) -> dict[str, Any]:
    """Return Supervisor's struct for one process; ``now`` is epoch seconds."""
    return _info(
        name=process.name,
        state=process.state,
        start=process.started_at,
        stop=process.stopped_at,
        now=now,
        reason=process.reason if process.state is not State.RUNNING else "",
        exit_status=process.exit_status,
        log_file=str(process.log_file),
        pid=process.pid,
    )


def farm_info(processes: Iterable[Process], now: float, pid: int) -> dict[str, Any]:
    """Return Supervisor's struct for the whole farm, whose process id is the supervisor's."""
    members = list(processes)
    states = {process.state for process in members}
    state = next((state for state in _PRECEDENCE if state in states), State.STOPPED)
    leading = [process for process in members if process.state is state]
    return _info(
        name=GROUP,
        state=state,
        start=min((process.started_at for process in leading), default=0.0),
        stop=max((process.stopped_at for process in members), default=0.0),
        now=now,
        reason=next((p.reason for p in leading if p.reason and state is not State.RUNNING), ""),
        exit_status=next((process.exit_status for process in leading), 0),
        log_file="",
        pid=pid if state in UP else 0,
    )


def _info(
    *,
    name: str,
    state: State,
    start: float,
    stop: float,
    now: float,
    reason: str,
    exit_status: int,
    log_file: str,
    pid: int,
) -> dict[str, Any]:
    return {
        "name": name,
        "group": GROUP,
        "start": int(start),
        "stop": int(stop),
        "now": int(now),
        "state": int(state),
        "statename": state.name,
        "spawnerr": reason,
        "exitstatus": exit_status,
        "logfile": log_file,
        "stdout_logfile": log_file,
        "stderr_logfile": "",
        "pid": pid,
        "description": _description(
            state=state, start=start, stop=stop, now=now, reason=reason, pid=pid
        ),
    }


def _description(
    *, state: State, start: float, stop: float, now: float, reason: str, pid: int
) -> str:
    if state is State.RUNNING:
        uptime = timedelta(seconds=max(0, int(now) - int(start)))
        return f"pid {pid}, uptime {uptime}"
    if state in WAITING:
        return reason
    if state is State.STOPPED:
        return time.strftime("%b %d %I:%M %p", time.localtime(stop)) if start else "Not started"
    return ""
