"""What a health check finds: whether it is well, what kind of trouble it is, and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What was found; the words of JSON output."""

    OK = "ok"
    HOST_UNKNOWN = "host-unknown"
    CONNECTION_REFUSED = "connection-refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    TLS = "tls"
    PROTOCOL = "protocol"
    """Something answers, but it isn't what the URL says."""
    BUSY = "busy"
    """It answers that it can't serve at the moment: starting, overloaded, search backend down."""
    REDIRECT = "redirect"
    UNEXPECTED = "unexpected"
    CREDENTIALS = "credentials"
    VIRTUAL_HOST = "virtual-host"
    PERMISSIONS = "permissions"
    DATABASE = "database"
    MASTER_UNKNOWN = "master-unknown"
    KEY = "key"
    APPLICATION = "application"
    HEADERS = "headers"


REFUSALS: Final = frozenset(
    {
        *(Kind.CREDENTIALS, Kind.VIRTUAL_HOST, Kind.PERMISSIONS, Kind.DATABASE),
        *(Kind.MASTER_UNKNOWN, Kind.KEY, Kind.APPLICATION, Kind.HEADERS),
    }
)

ADVICE: Final[dict[Kind, str]] = {
    Kind.HOST_UNKNOWN: "Check the host's name, and the name servers of this machine.",
    Kind.CONNECTION_REFUSED: "Check the port, and that the server runs and listens there.",
    Kind.UNREACHABLE: "Check the address, the network and the firewalls in between.",
    Kind.TIMEOUT: "Check the address and the firewalls in between, and whether the server hangs.",
    Kind.TLS: "Check the scheme, the port and the certificates.",
    Kind.PROTOCOL: "Check the scheme and the port: something else listens there.",
    Kind.BUSY: "Try again; if it stays so, look at the server's own log.",
    Kind.UNEXPECTED: "Look at the server's own log.",
}
"""What to do where the kind alone tells it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check's result, without any secret; ``words`` and ``advice`` are whole sentences."""

    kind: Kind
    words: str
    advice: str = ""

    @property
    def ok(self) -> bool:
        """Whether the agent could work with what was found."""
        return self.kind is Kind.OK

    @property
    def refused(self) -> bool:
        """Whether the other side answered with a no that only a person can change.

        Where this and :attr:`ok` are false, it was not reachable, or not able to serve.
        """
        return self.kind in REFUSALS

    def __str__(self) -> str:
        return f"{self.words} {self.advice}".strip()


def trouble(kind: Kind, words: str, advice: str | None = None) -> Check:
    """Return a failed check, with the usual advice for its kind unless there is a better one."""
    return Check(kind, words, ADVICE.get(kind, "") if advice is None else advice)


def combined(checks: Sequence[Check]) -> Check:
    """Return the result of failover addresses: one that is well suffices, but all are told of.

    Of several that failed, one that answered and refused weighs most: it tells most.
    """
    if len(checks) == 1:
        return checks[0]
    failed = [check for check in checks if not check.ok]
    if len(failed) == len(checks):
        worst = next((check for check in failed if check.refused), failed[0])
        return Check(worst.kind, " ".join(check.words for check in failed), worst.advice)
    well = next(check for check in checks if check.ok)
    advice = " ".join([well.advice, *(f"But: {check}" for check in failed)]).strip()
    return Check(Kind.OK, well.words, advice)
