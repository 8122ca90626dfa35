"""The form for a new subscription: made of the same rules as everything else that checks one."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from leekfanout.configuration import config, references, validation
from leekfanout.configuration.config import Subscription
from leekfanout.configuration.rules import AnyObject, Choice, Key, Number, Object, Text
from leekfanout.configuration.validation import SUBSCRIPTION_KEYS, deployment_of

_GROUPS: Final = (
    ("", ("app_name", "app_env", "org_name", "app_key", "api_url", "broker")),
    (
        "Batches and speed",
        (
            "prefetch_count",
            "concurrency_pool_size",
            "batch_max_number_of_messages",
            "batch_max_size_in_mb",
            "batch_max_window_in_seconds",
            "in_flight_max_mb",
        ),
    ),
    (
        "Broker",
        (
            "exchange",
            "queue",
            "queue_type",
            "routing_key",
            "backend",
            "broker_management_url",
            "transport_options",
            "broker_tls",
        ),
    ),
    ("API and process", ()),
)
"""The last one takes all keys that have no other place."""

_LABELS: Final = {
    "app_name": "Application",
    "app_env": "Environment",
    "org_name": "Organisation",
    "app_key": "Application key",
    "api_url": "API address",
    "broker": "Broker address",
    "prefetch_count": "Messages in flight",
    "concurrency_pool_size": "POSTs at once",
    "batch_max_number_of_messages": "Messages per batch",
    "batch_max_size_in_mb": "Batch size (MB)",
    "batch_max_window_in_seconds": "Batch window (s)",
    "in_flight_max_mb": "Memory in flight (MB)",
    "exchange": "Exchange",
    "queue": "Queue",
    "queue_type": "Queue type",
    "routing_key": "Routing key",
    "backend": "Result backend",
    "broker_management_url": "RabbitMQ management",
    "transport_options": "Transport options",
    "broker_tls": "Broker certificates",
    "api_tls": "API certificates",
    "api_connect_timeout_in_seconds": "API connect timeout (s)",
    "api_read_timeout_in_seconds": "API read timeout (s)",
    "max_memory_mb": "Memory limit (MB)",
}

_PLACEHOLDERS: Final = {
    "app_name": "shop",
    "app_env": "prod",
    "org_name": "mono",
    "api_url": "https://leek.example.com",
    "broker": "amqp://user:password@rabbitmq:5672/vhost",
    "broker_management_url": "http://user:password@rabbitmq:15672",
    "transport_options": '{"global_keyprefix": "shop:"}',
    "broker_tls": '{"ca": "/etc/ssl/broker-ca.pem"}',
    "api_tls": '{"ca": "/etc/ssl/api-ca.pem"}',
}


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a subscription as a form shows it."""

    name: str
    label: str
    meaning: str
    rule: str
    kind: str
    """``text``, ``secret``, ``number``, ``choice`` or ``json``."""
    default: str
    placeholder: str
    required: bool
    choices: Sequence[str] = ()
    least: float | None = None
    most: float | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Fields that belong together; the first group has no title."""

    title: str
    fields: Sequence[Field]


def groups(environ: Mapping[str, str]) -> list[Group]:
    """Return the form's fields, without those that the deployment decides."""
    deployment, _ = deployment_of(environ)
    keys = {key.name: key for key in SUBSCRIPTION_KEYS if key.name not in deployment.imposed()}
    placed = {name for _, names in _GROUPS for name in names}
    others = tuple(name for name in keys if name not in placed)
    return [
        Group(title, [_field(keys[name]) for name in names or others if name in keys])
        for title, names in _GROUPS
    ]


def problems_of(entry: dict[str, Any]) -> list[dict[str, str]]:
    """Return the mistakes in a subscription, each with the key that it is in."""
    return [
        {"key": problem.path.partition(".")[0], "path": problem.path, "rule": problem.rule}
        for problem in validation.problems_of(entry, os.environ)
    ]


def checked(entry: dict[str, Any]) -> Subscription:
    """Return a subscription that is valid; ConfigError says what isn't."""
    references.refuse(entry)
    (subscription,) = config.subscriptions_of([entry], os.environ)
    return subscription


def _field(key: Key) -> Field:
    kind = key.kind
    number = kind if isinstance(kind, Number) else None
    return Field(
        name=key.name,
        label=_LABELS.get(key.name, key.name),
        meaning=key.meaning,
        rule=kind.rule,
        kind=_kind(key),
        default="" if key.default in (None, {}) else str(key.default),
        placeholder=_PLACEHOLDERS.get(key.name, ""),
        required=bool(key.required),
        choices=kind.values if isinstance(kind, Choice) else (),
        least=None if number is None else number.least,
        most=None if number is None else number.most,
        whole=number is not None and number.whole,
    )


def _kind(key: Key) -> str:
    match key.kind:
        case Number():
            return "number"
        case Choice():
            return "choice"
        case Object() | AnyObject():
            return "json"
        case Text(secret=True):
            return "secret"
        case _:
            return "text"
