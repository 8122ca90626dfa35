"""Whether the agent is well, in one word and a line for each subscription. Pure.

Two questions, for two readers. *Liveness*: might restarting the agent help? Only where it doesn't
answer, or where no process stays up: one subscription that can't be kept up is no reason to stop the
others, and a broker or an API that is away is none at all, since the agent waits for it by itself.
*Readiness*: is every subscription delivering now?
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

NO_AGENT = "The agent doesn't answer."

HANGS_AFTER_S: Final = 90.0
"""The supervisor kills a process whose main loop hasn't turned for 60 s: where one hasn't turned for
so long, not even that has helped (a disk that answers nobody)."""

_READY: Final = frozenset({"DELIVERING", "STANDING_BY"})
_UP: Final = frozenset({"STARTING", "RUNNING"})
_NOT_KEPT_UP: Final = frozenset({"BACKOFF", "EXITED", "FATAL"})


@dataclass(frozen=True, slots=True)
class Health:
    """One answer, and a line for each subscription in plain words."""

    ok: bool
    lines: tuple[str, ...]


def liveness_of(statuses: Sequence[Mapping[str, Any]] | None, now: float) -> Health:
    """Return whether any of the processes that are to be up is kept up; None: the agent is silent.

    An agent whose subscriptions are all stopped, or which has none, is alive. ``now`` is monotonic
    seconds, by the clock of the agent's host.
    """

    def is_kept_up(status: Mapping[str, Any]) -> bool:
        return status["statename"] not in _NOT_KEPT_UP and not _silent_s(status, now)

    def line(status: Mapping[str, Any]) -> str:
        silent_s = _silent_s(status, now)
        more = f"its main loop has not turned for {silent_s:.0f} s" if silent_s else ""
        return _line(status, is_kept_up(status) or not status["wanted"], more)

    wanted = [status for status in statuses or () if status["wanted"]]
    return _report(statuses, not wanted or any(is_kept_up(status) for status in wanted), line)


def readiness_of(statuses: Sequence[Mapping[str, Any]] | None) -> Health:
    """Return whether each subscription that is to run is delivering, or ready to take over."""

    def is_ready(status: Mapping[str, Any]) -> bool:
        return not status["wanted"] or (
            status["statename"] in _UP and status["condition"] in _READY
        )

    ok = all(is_ready(status) for status in statuses or ())
    return _report(statuses, ok, lambda status: _line(status, is_ready(status)))


def _report(
    statuses: Sequence[Mapping[str, Any]] | None,
    ok: bool,
    line: Callable[[Mapping[str, Any]], str],
) -> Health:
    if statuses is None:
        return Health(ok=False, lines=(NO_AGENT,))
    return Health(ok=ok, lines=tuple(line(status) for status in statuses))


def _silent_s(status: Mapping[str, Any], now: float) -> float:
    """Return for how long a process has been hanging; 0: it hasn't."""
    silent_s = float(now - status["gauges"]["turned_at"])
    return silent_s if status["statename"] in _UP and silent_s >= HANGS_AFTER_S else 0.0


def _line(status: Mapping[str, Any], well: bool, more: str = "") -> str:
    words = status["statename"]
    if words in _UP:
        words = f"{words}, {status['condition'].lower().replace('_', ' ')}"
    elif status["reason"]:
        words = f"{words}: {status['reason']}"
    if not well and status["last_error"] not in {"", status["reason"]}:
        words = f"{words}: {status['last_error']}"
    if more:
        words = f"{words}: {more}"
    return f"{status['name']}: {'ok' if well else 'not ok'} ({words})"
