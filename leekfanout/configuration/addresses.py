"""Broker addresses: URLs taken apart as kombu takes them apart, or refused with a reason.

A URL's user, password, host and path are percent-decoded. Nothing here looks at the network.
"""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

BROKER_PORTS: Final = {
    "amqp": 5672,
    "pyamqp": 5672,
    "amqps": 5671,
    "redis": 6379,
    "rediss": 6379,
    "sentinel": 26379,
}
"""The schemes of brokers, each with the port that an address without one means."""

REDISS_PARAMETERS: Final = frozenset(
    {"ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"}
)
"""What a rediss URL may say behind its ``?``; Celery's users know these names."""

_ENCODE = "special characters in a user or a password must be percent-encoded (/ is %2F, @ is %40)"
_NEXT_ADDRESS = re.compile(r"\s*;\s*(?=[a-z][a-z0-9+.-]*://)", re.IGNORECASE)


class AddressError(ValueError):
    """A URL can't be used; the message is the rule that it breaks, and doesn't quote the URL."""


@dataclass(frozen=True, slots=True)
class Address:
    """One broker address, decoded, with the defaults in place of what it leaves out."""

    scheme: str
    host: str
    port: int
    user: str | None
    password: str | None = field(repr=False)
    path: str
    """AMQP's virtual host (``/`` by default), or the number of Redis' database."""
    parameters: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def place(self) -> str:
        """``amqp://rabbit:5672``: enough to tell addresses apart, and no secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def split_addresses(urls: str) -> list[str]:
    """Split failover addresses at each ``;`` that is followed by another URL's scheme.

    >>> split_addresses("amqp://a;amqp://b")
    ['amqp://a', 'amqp://b']
    """
    return _NEXT_ADDRESS.split(urls.strip().rstrip(";"))


def transport_of(scheme: str) -> str:
    """Return the kind of transport of a scheme: ``amqp``, ``redis`` or ``sentinel``."""
    if scheme == "sentinel":
        return "sentinel"
    return "redis" if scheme.startswith("redis") else "amqp"


def parse_address(url: str) -> Address:
    """Take one broker address apart; raise AddressError where kombu couldn't use it either."""
    scheme = _scheme(url, tuple(BROKER_PORTS))
    parts = _split(url)
    if "@" in parts.path or "@" in parts.query or parts.fragment or "#" in url:
        raise AddressError(_ENCODE)
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    _check_parameters(scheme, parameters)
    path = unquote(parts.path.removeprefix("/"))
    return Address(
        scheme=scheme,
        host=_host(parts) or "localhost",
        port=_port(parts) or BROKER_PORTS[scheme],
        user=_decoded(parts.username),
        password=_decoded(parts.password),
        path=(path or "/") if transport_of(scheme) == "amqp" else str(_database(path)),
        parameters=parameters,
    )


def check_http_url(url: str) -> str:
    """Return an HTTP URL without a trailing slash; raise AddressError if it can't be a base."""
    scheme = _scheme(url, ("http", "https"))
    parts = _split(url)
    if not _host(parts):
        raise AddressError("it must name a host")
    _port(parts)
    if "@" in parts.path:
        raise AddressError(_ENCODE)
    if "?" in url or "#" in url:
        raise AddressError("it must have no ? and no #")
    return f"{scheme}{url[len(scheme) :]}".rstrip("/")


def _scheme(url: str, known: tuple[str, ...]) -> str:
    scheme, separator, _ = url.partition("://")
    if not separator or scheme.lower() not in known:
        *most, last = (f"{name}://" for name in known)
        raise AddressError(f"it must begin with {', '.join(most)} or {last}")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise AddressError("it must hold no spaces and no control characters")
    return scheme.lower()


def _split(url: str) -> SplitResult:
    # With http as the scheme, as kombu does it: urllib's rules depend on the scheme.
    try:
        return urlsplit("http://" + url.partition("://")[2])
    except ValueError:
        raise AddressError(f"its host can't be read; {_ENCODE}") from None


def _host(parts: SplitResult) -> str:
    host = unquote(parts.hostname or "")
    try:
        host.encode("idna")
    except UnicodeError:
        raise AddressError("its host is no host name") from None
    if ";" in host or "," in host:
        raise AddressError("each address behind a ; must be a whole URL with its scheme")
    return host


def _port(parts: SplitResult) -> int | None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise AddressError(f"its port must be a number from 1 to 65535; {_ENCODE}")
    return port


def _database(path: str) -> int:
    number = path.strip("/")
    if number and not (number.isascii() and number.isdigit() and len(number) <= 9):
        raise AddressError("its path must be the number of a Redis database, as in /0")
    return int(number or 0)


def _check_parameters(scheme: str, parameters: dict[str, str]) -> None:
    known = REDISS_PARAMETERS if scheme == "rediss" else frozenset()
    if not parameters.keys() <= known:
        allowed = f"nothing but {', '.join(sorted(known))}" if known else "nothing"
        raise AddressError(
            f"{scheme} addresses take {allowed} behind a ?; use transport_options and broker_tls"
        )
    if parameters.get("ssl_cert_reqs", "none").lower().removeprefix("cert_") not in {
        *("required", "optional", "none")
    }:
        raise AddressError("its ssl_cert_reqs must be required, optional or none")


def _decoded(text: str | None) -> str | None:
    return unquote(text) if text else None
