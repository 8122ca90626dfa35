"""What a subscription may say, as data, and the check of all of them at once (contract, section 5).

The input is what the JSON text holds; the output is the accepted values, complete with defaults, or
every mistake in one go. Nothing here looks at the network.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from leekfanout.configuration.addresses import parse_address, transport_of
from leekfanout.configuration.rules import (
    AmqpName,
    AnyObject,
    AnyUrl,
    Boolean,
    BrokerUrls,
    Choice,
    File,
    HttpUrl,
    Key,
    Number,
    Object,
    Problem,
    Refused,
    Text,
    accept_keys,
    shown,
)
from leekfanout.configuration.transport_options import TRANSPORT_OPTIONS
from leekfanout.errors import ConfigError

LOCAL_API_URL: Final = "http://0.0.0.0:5000"
"""Where a local agent finds its API, whatever its subscriptions say."""

ORG_NAME_WITHOUT_AUTH: Final = "mono"
"""The only organisation of a Leek whose authentication is off."""

_LETTERS: Final = Text(r"[a-z]+", "must be lower-case letters (a to z) and nothing else")
# These become values of HTTP headers, where anything else would fail later (RFC 9110, 5.5).
_HEADER_RULE = "must be a string of printable ASCII, without a space at either end"
_HEADER_PATTERN = r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?"
_ORG_NAME: Final = Text(_HEADER_PATTERN, _HEADER_RULE)
_APP_KEY: Final = Text(_HEADER_PATTERN, _HEADER_RULE, secret=True)
_TIMEOUT: Final = Number(above=0, most=600)
_TLS: Final = Object(
    (
        Key("ca", File(), "Certificates of the authorities to trust, in PEM format."),
        Key("cert", File(), "Our certificate, in PEM format."),
        Key("key", File(), "Our certificate's private key, in PEM format."),
    ),
    rule="must be an object with ca, cert and key",
)

SUBSCRIPTION_KEYS: Final[tuple[Key, ...]] = (
    Key("broker", BrokerUrls(), "Where Celery's events are.", required="it is required"),
    Key("backend", AnyUrl(), "The result backend's URL."),
    Key("exchange", AmqpName(), "The exchange of Celery's events.", "celeryev"),
    Key("queue", AmqpName(), "The queue that is bound to it.", "leek.fanout"),
    Key("routing_key", AmqpName(), "Which events are wanted.", "#"),
    Key("org_name", _ORG_NAME, "The organisation in Leek.", required="it is required"),
    Key("app_name", _LETTERS, "The application in Leek.", required="it is required"),
    Key("app_env", _LETTERS, "The application's environment.", required="it is required"),
    Key(
        "app_key",
        _APP_KEY,
        "The application's key for agents.",
        required="a standalone agent needs it",
    ),
    Key(
        "api_url",
        HttpUrl("/v1/events/process"),
        "Where Leek's API is.",
        required="a standalone agent needs it",
    ),
    Key(
        "prefetch_count",
        Number(least=1_000, most=10_000, whole=True),
        "How many messages may be in flight.",
        1_000,
    ),
    Key(
        "concurrency_pool_size",
        Number(least=1, most=20, whole=True),
        "How many POSTs may be under way.",
        1,
    ),
    Key("batch_max_size_in_mb", Number(above=0, most=10), "How large a batch may be.", 1),
    Key(
        "batch_max_number_of_messages",
        Number(least=1, most=10_000, whole=True),
        "How many messages a batch may have; prefetch_count if it isn't given.",
    ),
    Key(
        "batch_max_window_in_seconds",
        Number(above=0, most=20),
        "How long a batch may wait for more.",
        5,
    ),
    Key("broker_management_url", HttpUrl(), "RabbitMQ's management API, for the queue's depth."),
    Key("transport_options", AnyObject(), "Options of the transport, with kombu's names.", {}),
    Key("queue_type", Choice(("classic", "quorum")), "What queue to declare.", "classic"),
    Key("in_flight_max_mb", Number(above=0, most=100_000), "Megabytes in flight at most.", 64),
    Key("api_connect_timeout_in_seconds", _TIMEOUT, "How long connecting may take.", 5),
    Key("api_read_timeout_in_seconds", _TIMEOUT, "How long the API may stay silent.", 30),
    Key("broker_tls", _TLS, "Certificates for an amqps, rediss or sentinel broker."),
    Key("api_tls", _TLS, "Certificates for an https API."),
    Key("max_memory_mb", Number(least=64, most=1_000_000), "Memory that means a restart."),
    Key(
        "processes",
        Number(least=1, most=64, whole=True),
        "How many processes share the queue; 1 for Redis.",
        1,
    ),
)


@dataclass(frozen=True, slots=True)
class Deployment:
    """What Leek's variables say about where this agent runs."""

    local: bool
    """The API runs beside the agent, which therefore knows its address and its key."""
    auth: bool
    api_secret: str | None = field(default=None, repr=False)

    def imposed(self) -> dict[str, Any]:
        """Return the values that hold for every subscription, whatever it says."""
        values: dict[str, Any] = {}
        if self.local:
            values |= {"app_key": self.api_secret, "api_url": LOCAL_API_URL, "api_tls": None}
        if not self.auth:
            values["org_name"] = ORG_NAME_WITHOUT_AUTH
        return values


def deployment_of(environ: Mapping[str, str]) -> tuple[Deployment, list[str]]:
    """Return what Leek's variables say, and one line for each mistake in them.

    Without any variable this is a standalone agent: whoever starts it wants it to run.
    """
    problems: list[str] = []

    def enabled(variable: str, default: bool) -> bool:
        text = environ.get(variable, "").strip().lower()
        if text not in {"", "true", "false"}:
            problems.append(f"{variable}: {shown(environ[variable])}: {Boolean().rule}")
        return default if text not in {"true", "false"} else text == "true"

    agent = enabled("LEEK_ENABLE_AGENT", default=True)
    api = enabled("LEEK_ENABLE_API", default=False)
    enabled("LEEK_ENABLE_WEB", default=False)
    auth = enabled("LEEK_API_ENABLE_AUTH", default=True)
    if not agent:
        problems.append(
            "LEEK_ENABLE_AGENT: false: the agent is switched off here; "
            "set it to true, or don't start leekfanout"
        )
    secret = environ.get("LEEK_AGENT_API_SECRET") or None
    if agent and api:
        if secret is None:
            problems.append(
                "LEEK_AGENT_API_SECRET: missing: a local agent (LEEK_ENABLE_AGENT and "
                "LEEK_ENABLE_API are both true) needs the secret that the API has"
            )
        else:
            try:
                _APP_KEY.accept(secret)
            except Refused as refused:
                problems += [str(each.below("LEEK_AGENT_API_SECRET")) for each in refused.problems]
    return Deployment(local=api, auth=auth, api_secret=secret if api else None), problems


def validate(entries: Sequence[Any], environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the accepted values of each entry; raise ConfigError with all mistakes of all.

    The environment's part is what Leek's variables impose on every subscription.
    """
    deployment, lines = deployment_of(environ)
    names = Counter(name for entry in entries if (name := name_of(entry)) is not None)
    first: dict[str, int] = {}
    accepted = []
    for number, entry in enumerate(entries, 1):
        values, problems = _validate_one(entry, deployment)
        name = name_of(entry)
        if name is not None and first.setdefault(name, number) != number:
            problems.append(
                Problem("app_name, app_env", name, f"must differ from those of #{first[name]}")
            )
        who = f"#{number}" if name is None else name
        if name is not None and names[name] > 1:
            who = f"{name} (#{number})"
        lines += [f"subscription {who}: {problem}" for problem in problems]
        accepted.append(values)
    if lines:
        raise ConfigError(lines)
    return accepted


def problems_of(entry: Any, environ: Mapping[str, str]) -> list[Problem]:
    """Return every mistake in one entry, apart from its name being taken; none if it is valid."""
    deployment, _ = deployment_of(environ)
    return _validate_one(entry, deployment)[1]


def name_of(entry: Any) -> str | None:
    """Return the name of a subscription as it stands in the file, or None if it has no good one."""
    if not isinstance(entry, Mapping):
        return None
    try:
        return "-".join(_LETTERS.accept(entry.get(key)) for key in ("app_name", "app_env"))
    except Refused:
        return None


def _validate_one(entry: Any, deployment: Deployment) -> tuple[dict[str, Any], list[Problem]]:
    if not isinstance(entry, Mapping):
        return {}, [Problem("", shown(entry), "must be an object")]
    imposed = deployment.imposed()
    # What the deployment imposes isn't looked at in the entry, right or wrong.
    given = {key: None if key in imposed else value for key, value in entry.items()}
    keys = [_not_required(key) if key.name in imposed else key for key in SUBSCRIPTION_KEYS]
    values, problems = accept_keys(given, keys)
    values |= imposed
    wrong = {problem.path.partition(".")[0] for problem in problems}
    problems += _check_batch(values, wrong)
    if "broker" not in wrong:
        problems += _check_transport(values, wrong)
    if values["api_tls"] and "api_url" not in wrong and values["api_url"].startswith("http://"):
        problems.append(Problem("api_tls", "an object", "needs an api_url that begins with https"))
    for key in ("broker_tls", "api_tls"):
        if values[key] and values[key]["key"] and not values[key]["cert"]:
            problems.append(Problem(f"{key}.key", "given", "needs a cert that it belongs to"))
    return values, problems


def _not_required(key: Key) -> Key:
    return Key(key.name, key.kind, key.meaning, key.default)


def _check_batch(values: dict[str, Any], wrong: set[str]) -> list[Problem]:
    """Apply the bound of a batch's number of messages, which is the prefetch count."""
    key, prefetch_count = "batch_max_number_of_messages", values["prefetch_count"]
    number = values[key]
    if number is None:
        values[key] = prefetch_count
    elif number > prefetch_count and "prefetch_count" not in wrong:
        rule = f"must be a whole number from 1 to prefetch_count, which is {prefetch_count:,}"
        return [Problem(key, shown(number), rule)]
    return []


def _check_transport(values: dict[str, Any], wrong: set[str]) -> list[Problem]:
    """Apply the rules that depend on the kind of broker."""
    problems = []
    schemes = {parse_address(url).scheme for url in values["broker"]}
    transport = transport_of(next(iter(schemes)))
    if "transport_options" not in wrong:
        try:
            options = TRANSPORT_OPTIONS[transport].accept(values["transport_options"])
            values["transport_options"] = options
        except Refused as refused:
            problems += [problem.below("transport_options") for problem in refused.problems]
    if values["broker_tls"] and schemes & {"amqp", "pyamqp", "redis"}:
        rule = "needs a broker whose addresses begin with amqps, rediss or sentinel"
        problems.append(Problem("broker_tls", "an object", rule))
    if transport != "amqp" and values["processes"] > 1:
        rule = "must be 1 for Redis, whose PUB/SUB would give every event to each process"
        problems.append(Problem("processes", shown(values["processes"]), rule))
    if transport != "amqp" and values["queue_type"] == "quorum":
        problems.append(Problem("queue_type", '"quorum"', "is RabbitMQ's; Redis has no queue here"))
    return problems
