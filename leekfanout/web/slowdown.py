"""Slowing down whoever guesses tokens: pure, time is passed in."""

from ipaddress import ip_address, ip_network
from typing import Final

FREE_FAILURES: Final = 3
"""Typing errors that cost nothing."""

LONGEST_S: Final = 60.0
FORGOTTEN_AFTER_S: Final = 900.0
PEERS_MAX: Final = 1_000


class Slowdown:
    """After some failures a peer has to wait, twice as long each time, before its next try counts.

    Times are monotonic seconds. The number of peers that are remembered is bounded.
    """

    def __init__(self) -> None:
        self._failures: dict[str, tuple[int, float]] = {}

    def wait_s(self, peer: str, now: float) -> float:
        """Return how long ``peer`` has to wait before it may try."""
        failures, last = self._failures.get(_network(peer), (0, now))
        if failures < FREE_FAILURES or now - last > FORGOTTEN_AFTER_S:
            return 0.0
        delay = min(2.0 ** min(failures - FREE_FAILURES, 10), LONGEST_S)
        return max(0.0, last + delay - now)

    def failed(self, peer: str, now: float) -> None:
        """Take note that ``peer`` had a wrong token."""
        key = _network(peer)
        failures, last = self._failures.pop(key, (0, now))
        if now - last > FORGOTTEN_AFTER_S:
            failures = 0
        if len(self._failures) >= PEERS_MAX:
            del self._failures[next(iter(self._failures))]  # the one that failed longest ago
        self._failures[key] = (failures + 1, now)

    def succeeded(self, peer: str) -> None:
        """Forget the failures of ``peer``."""
        self._failures.pop(_network(peer), None)


def _network(peer: str) -> str:
    """Return what one party has: an IPv4 address, or the /64 from which it takes IPv6 addresses."""
    try:
        address = ip_address(peer)
    except ValueError:
        return peer
    return peer if address.version == 4 else str(ip_network(f"{peer}/64", strict=False))
