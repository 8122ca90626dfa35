"""Whether the agent is well, in one word and a line for each subscription. Pure.

Two questions, for two readers. *Health*: does everything run that should? If not, restarting the agent
may help; a broker or an API that is away is no reason, since the agent waits for it by itself.
*Readiness*: is every subscription delivering now?
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

NO_AGENT = "The agent doesn't answer."

_READY: Final = frozenset({"DELIVERING", "STANDING_BY"})


@dataclass(frozen=True, slots=True)
class Health:
    """One answer, and a line for each subscription in plain words."""

    ok: bool
    lines: tuple[str, ...]


def health_of(statuses: Sequence[Mapping[str, Any]] | None) -> Health:
    """Return whether each subscription's process is up that is to be; None: the agent is silent."""
    return _report(statuses, lambda status: not status["wanted"] or _is_up(status))


def readiness_of(statuses: Sequence[Mapping[str, Any]] | None) -> Health:
    """Return whether each subscription that is to run is delivering, or ready to take over."""
    return _report(
        statuses,
        lambda status: not status["wanted"] or (_is_up(status) and status["condition"] in _READY),
    )


def _report(statuses: Sequence[Mapping[str, Any]] | None, is_well: Any) -> Health:
    if statuses is None:
        return Health(ok=False, lines=(NO_AGENT,))
    return Health(
        ok=all(is_well(status) for status in statuses),
        lines=tuple(_line(status, is_well(status)) for status in statuses),
    )


def _is_up(status: Mapping[str, Any]) -> bool:
    return status["statename"] in {"STARTING", "RUNNING"}


def _line(status: Mapping[str, Any], well: bool) -> str:
    words = status["statename"]
    if _is_up(status):
        words = f"{words}, {status['condition'].lower().replace('_', ' ')}"
    elif status["reason"]:
        words = f"{words}: {status['reason']}"
    if not well and status["last_error"] not in {"", status["reason"]}:
        words = f"{words}: {status['last_error']}"
    return f"{status['name']}: {'ok' if well else 'not ok'} ({words})"
