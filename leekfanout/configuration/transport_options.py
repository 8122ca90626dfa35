"""The names that ``transport_options`` may hold for each kind of broker (contract, section 5).

They are kombu's: for AMQP the arguments of py-amqp's ``Connection`` that JSON can express; for
Redis the names in kombu's ``Channel.from_transport_options``, for Sentinel those of
``SentinelChannel`` too. ``sentinel_kwargs`` holds arguments of redis-py's ``Redis``.

People paste Celery's ``broker_transport_options``: what there concerns publishing or task queues is
accepted, and has no effect on reading events.
"""

from typing import Any, Final

from leekfanout.configuration.rules import (
    Boolean,
    Choice,
    File,
    Key,
    Kind,
    Number,
    Object,
    TcpOptions,
    Text,
)

_SECONDS: Final = Number(above=0, most=600)
_NAME: Final = Text(r"[\x21-\x7e]+", "must be a string of printable ASCII without spaces")
_PREFIX: Final = Text(r"[\x21-\x7e]*", "must be a string of printable ASCII without spaces")
_SECRET: Final = Text(r"(?s:.+)", "must be a string that isn't empty", secret=True)


class _Anything:
    """Accepts whatever is given, since it has no effect."""

    rule = "has no effect"

    def accept(self, value: Any) -> Any:
        return value


class _FanoutPrefix:
    """kombu's ``fanout_prefix``: on (``/{db}.``), off, or the prefix itself."""

    rule = "must be true, false or a string, in which {db} stands for the database's number"

    def accept(self, value: Any) -> bool | str:
        if isinstance(value, bool):
            return value
        prefix = Text(r"[\x21-\x7e]+", self.rule).accept(value)
        try:
            prefix.format(db=0)  # as kombu does it
        except (KeyError, IndexError, ValueError, AttributeError):
            return Text(r"[^{}]+", self.rule).accept(prefix)
        return prefix


def _without_nulls(accepted: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in accepted.items() if value is not None}


def _no_effect(*names: str) -> tuple[Key, ...]:
    return tuple(Key(name, _Anything(), "Accepted, without effect on reading.") for name in names)


def _options(transport: str, *keys: Key) -> Object:
    return Object(
        keys,
        build=_without_nulls,
        rule="must be an object with kombu's names for options",
        unknown=f"unknown option for {transport}",
    )


_RETRIES = ("max_retries", "interval_start", "interval_step", "interval_max")

_AMQP = _options(
    "amqp",
    # Long ones would stop the main loop from turning, which counts as a hang after a minute.
    Key("connect_timeout", Number(above=0, most=30), "Seconds to wait for a connection."),
    Key("read_timeout", _SECONDS, "Seconds that a read of the socket may take."),
    Key("write_timeout", _SECONDS, "Seconds that a write to the socket may take."),
    Key("heartbeat", Number(least=0, most=600, whole=True), "Seconds between heartbeats; 0: none."),
    Key("login_method", Choice(("PLAIN", "AMQPLAIN", "EXTERNAL")), "How to log in."),
    Key("frame_max", Number(least=4096, most=2**31 - 1, whole=True), "Bytes in one frame."),
    Key("channel_max", Number(least=8, most=65535, whole=True), "Channels of one connection."),
    Key("socket_settings", TcpOptions(), "TCP options by name, such as TCP_USER_TIMEOUT."),
    *_no_effect("confirm_publish", *_RETRIES),
)

_TLS_CERTIFICATES: tuple[tuple[str, Kind], ...] = (
    ("ssl", Boolean()),
    ("ssl_cert_reqs", Choice(("required", "optional", "none"))),
    ("ssl_check_hostname", Boolean()),
    ("ssl_ca_certs", File()),
    ("ssl_certfile", File()),
    ("ssl_keyfile", File()),
)

_REDIS_SOCKET: tuple[Key, ...] = (
    Key("socket_timeout", _SECONDS, "Seconds that a command may take."),
    Key("socket_connect_timeout", Number(above=0, most=30), "Seconds to wait for a connection."),
    Key("socket_keepalive", Boolean(), "Whether TCP keepalive is on."),
    Key("socket_keepalive_options", TcpOptions(), "TCP options by name, such as TCP_KEEPIDLE."),
    Key("health_check_interval", Number(least=0, most=600), "Seconds between PINGs."),
    Key("client_name", _NAME, "The connection's name in CLIENT LIST."),
)

_REDIS: tuple[Key, ...] = (
    Key("global_keyprefix", _PREFIX, "The prefix of all keys and channels."),
    Key("fanout_prefix", _FanoutPrefix(), "Whether channels begin with /{db}., or with what."),
    Key("fanout_patterns", Boolean(), "Whether the routing key is part of a channel's name."),
    *_REDIS_SOCKET,
    *_no_effect(
        *("ack_emulation", "unacked_key", "unacked_index_key", "unacked_mutex_key"),
        *("unacked_mutex_expire", "unacked_restore_limit", "unacked_restore_interval"),
        *("unacked_restore_throttle", "visibility_timeout", "sep", "queue_order_strategy"),
        *("priority_steps", "max_connections", "retry_on_timeout", "body_encoding"),
        *("deadletter_queue", "polling_interval", *_RETRIES),
    ),
)

_SENTINEL: tuple[Key, ...] = (
    Key(
        "master_name",
        _NAME,
        "The name by which Sentinel knows the master.",
        required="Sentinel needs it",
    ),
    Key("min_other_sentinels", Number(least=0, most=100, whole=True), "Sentinels it must see."),
    Key(
        "sentinel_kwargs",
        Object(
            (
                Key("username", _NAME, "The user at the sentinels."),
                Key("password", _SECRET, "The password at the sentinels."),
                *_REDIS_SOCKET,
                *(Key(name, kind, "As redis-py has it.") for name, kind in _TLS_CERTIFICATES),
                *_no_effect("retry_on_timeout", "db"),
            ),
            build=_without_nulls,
            rule="must be an object with redis-py's names for options",
            unknown="unknown option for a connection to Sentinel",
        ),
        "How to connect to the sentinels themselves.",
    ),
    Key("sentinel_fanout_compat", Boolean(), "Also read the channels of kombu before 5.4."),
)

TRANSPORT_OPTIONS: Final[dict[str, Object]] = {
    "amqp": _AMQP,
    "redis": _options("redis", *_REDIS),
    "sentinel": _options("sentinel", *_REDIS, *_SENTINEL),
}
"""The options by kind of transport (see :func:`leekfanout.addresses.transport_of`)."""
