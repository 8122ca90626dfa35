"""Subscriptions and settings: what they are, loading, validating, redacting (contract, section 5)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

BYTES_PER_MB = 1_000_000
"""A megabyte is 1,000,000 bytes here, the smaller reading: it is within the limit under both."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates for one peer: files in PEM format; None leaves it to the system's defaults."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """One broker's events on their way to one application of one Leek API; checked and complete.

    The keys and their bounds are the contract's (section 5); durations are seconds.
    Secrets (``app_key``, the passwords in URLs) are kept out of ``repr``.
    """

    org_name: str
    app_name: str
    app_env: str
    broker: tuple[str, ...] = field(repr=False)
    """Failover addresses, each a whole URL; all of one transport."""
    app_key: str = field(repr=False)
    api_url: str = field(repr=False)
    """Without a trailing slash and without ``/v1/events/process``; may hold a user and password."""
    backend: str | None = field(default=None, repr=False)
    exchange: str = "celeryev"
    queue: str = "leek.fanout"
    routing_key: str = "#"
    prefetch_count: int = 1_000
    concurrency_pool_size: int = 1
    batch_max_size_in_mb: float = 1
    batch_max_number_of_messages: int = 1_000
    batch_max_window_in_seconds: float = 5
    broker_management_url: str | None = field(default=None, repr=False)
    transport_options: dict[str, Any] = field(default_factory=dict, repr=False)
    queue_type: Literal["classic", "quorum"] = "classic"
    in_flight_max_mb: float = 64
    api_connect_timeout_in_seconds: float = 5
    api_read_timeout_in_seconds: float = 30
    broker_tls: Tls | None = None
    api_tls: Tls | None = None
    max_memory_mb: float | None = None

    @property
    def name(self) -> str:
        """The subscription's name in logs, status, metrics, ``ps`` and folders."""
        return f"{self.app_name}-{self.app_env}"

    @property
    def transport(self) -> Literal["amqp", "redis"]:
        """Which source reads it: ``redis`` for redis, rediss and sentinel URLs, else ``amqp``."""
        scheme = self.broker[0].partition("://")[0].lower()
        return "redis" if scheme in {"redis", "rediss", "sentinel"} else "amqp"

    @property
    def batch_max_size_bytes(self) -> int:
        return int(self.batch_max_size_in_mb * BYTES_PER_MB)

    @property
    def in_flight_max_bytes(self) -> int:
        return int(self.in_flight_max_mb * BYTES_PER_MB)


@dataclass(frozen=True, slots=True)
class Settings:
    """The agent's own settings; each is an option of ``run`` and a variable ``LEEKFANOUT_<NAME>``."""

    state_dir: Path
    drain_timeout_s: float = 8.0
    log_level: str = "INFO"
    log_format: Literal["text", "json"] | None = None
    dead_letters_max_mb: float = 100
    spool_max_mb: float = 1_000
    spool_memory_max_mb: float = 32
