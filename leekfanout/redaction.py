"""Keeping secrets out of text: URLs without their passwords, and known secrets replaced by ``***``.

Two lines of defence. :func:`redact_url` is for a URL that is to be shown; :class:`Mask` is for text
that others wrote (a library's exception, a traceback) and that may quote a secret.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

if TYPE_CHECKING:
    from leekfanout.configuration.config import Subscription

MASK: Final = "***"

SECRET_MIN_CHARACTERS: Final = 4
"""Shorter secrets are masked only where they stand in a URL: elsewhere they would hit any word."""

_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)?|pwd|secret|token|credential|(^|[_-])(api|app|access)?[_-]?key$|(^|_)auth$",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"^\s*[a-z][a-z0-9+.-]*:/+", re.IGNORECASE)
_NEXT_ADDRESS = re.compile(r";(?=\s*[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
# The greedy part takes everything up to the last @ of a word, so that a password that holds an @,
# a / or a # goes with it.
_USERINFO_IN_TEXT = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)(?P<user>[^\s:@/?#\"'<>]*):(?P<password>[^\s\"'<>;]*)@",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Whether a key or parameter of this name holds a secret.

    >>> is_secret_name("app_key"), is_secret_name("ssl_keyfile")
    (True, False)
    """
    return _SECRET_NAME.search(name) is not None


def redact_url(url: str) -> str:
    """Return ``url`` with every password in it replaced by ``***``; the user's name is kept.

    Takes failover lists and anything that only resembles a URL: what can't be told apart from a
    password is masked too.

    >>> redact_url("amqp://leek:s3cret@rabbit:5672/prod")
    'amqp://leek:***@rabbit:5672/prod'
    """
    return ";".join(_redact_address(address) for address in _NEXT_ADDRESS.split(url))


def _redact_address(url: str) -> str:
    scheme_match = _SCHEME.match(url)
    scheme = scheme_match.group() if scheme_match else ""
    rest = url[len(scheme) :]
    # The last @ ends the user's part even where it stands behind a slash: then a password was
    # written without percent-encoding, and showing "the path" would show its end.
    before_query, question_mark, query = rest.partition("?")
    if "@" in query and not _query_is_plain(before_query, query):
        before_query, question_mark, query = rest, "", ""
    userinfo, at, remainder = before_query.rpartition("@")
    if at:
        remainder = f"{_redact_userinfo(userinfo, scheme)}@{remainder}"
    elif not _port_is_plain(remainder):
        remainder = f"{remainder.partition(':')[0]}:{MASK}"
    return f"{scheme}{remainder}{question_mark}{_redact_query(query)}"


def _redact_userinfo(userinfo: str, scheme: str) -> str:
    user, colon, _ = userinfo.partition(":")
    if colon:
        return f"{user}:{MASK}"
    # redis://word@host is nearly always a password in the wrong place; and a name with a slash in
    # it is the end of something that was not percent-encoded.
    if scheme.lower().startswith(("redis", "sentinel")) or "/" in user:
        return MASK
    return user


def _query_is_plain(before_query: str, query: str) -> bool:
    """Whether the ``?`` starts a query, rather than standing inside of a password."""
    return "=" in query.partition("@")[0] and ("@" in before_query or ":" not in before_query)


def _port_is_plain(remainder: str) -> bool:
    """Whether what follows the host's colon, if anything, is a port and no forgotten password."""
    authority = re.split(r"[/#]", remainder, maxsplit=1)[0]
    if authority.startswith("["):
        authority = authority.rpartition("]")[2]
    _, colon, port = authority.partition(":")
    return not colon or port == "" or (port.isascii() and port.isdigit() and len(port) <= 5)


def _redact_query(query: str) -> str:
    def redact(pair: str) -> str:
        name, equals, _ = pair.partition("=")
        return f"{name}={MASK}" if equals and is_secret_name(unquote(name)) else pair

    return "&".join(redact(pair) for pair in query.split("&"))


class Mask:
    """Replaces known secrets in text by ``***``, in each form in which text may hold them.

    Passwords in anything that looks like a URL are replaced too, known or not. Immutable; any
    thread may call it.
    """

    __slots__ = ("_pattern",)

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        # Longest first: a secret that begins with another one must not leave its end behind.
        words = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(re.escape, words))) if words else None

    def __call__(self, text: str) -> str:
        """Return ``text`` without the secrets."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        if "://" in text:
            text = _USERINFO_IN_TEXT.sub(rf"\g<scheme>\g<user>:{MASK}@", text)
        return text


def mask(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` without ``secrets``; for many texts build one :class:`Mask`.

    >>> mask("Invalid key: 's3cret'", {"s3cret"})
    "Invalid key: '***'"
    """
    return Mask(secrets)(text)


def _forms(secret: str) -> Iterator[str]:
    """Yield the secret raw, percent-encoded in the usual ways, and as repr() and JSON escape it."""
    if len(secret) < SECRET_MIN_CHARACTERS:
        return
    yield secret
    encodable = secret.encode("utf-8", "surrogatepass")
    for encoded in (quote(encodable), quote(encodable, safe=""), quote_plus(encodable)):
        yield encoded
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match.group().lower(), encoded)
    yield from (repr(secret)[1:-1], repr(encodable)[2:-1])
    yield from (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])


def secrets_of(subscription: "Subscription") -> set[str]:
    """Return every secret of a subscription, decoded and as it was written, for a :class:`Mask`."""
    secrets = {subscription.app_key}
    urls = [subscription.api_url, subscription.backend, subscription.broker_management_url]
    for url in (*subscription.broker, *urls):
        if url:
            secrets.update(secrets_of_url(url))
    secrets.update(_secrets_in(subscription.transport_options))
    return secrets - {""}


def secrets_of_url(url: str) -> set[str]:
    """Return the secrets in a well-formed URL: its password, and parameters that are named so."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return set()
    userinfo = parts.netloc.rpartition("@")[0]
    user, colon, password = userinfo.partition(":")
    if not colon and url.lower().startswith(("redis", "sentinel")):
        password = user
    secrets = {password, unquote(password)}
    secrets |= {value for name, value in parse_qsl(parts.query) if is_secret_name(name)}
    return secrets - {""}


def redact_entry(value: Any, name: str = "") -> Any:
    """Return what a configuration holds, JSON as it was written, without any secret.

    >>> redact_entry({"app_key": "s3cret", "broker": "amqp://u:s3cret@h"})
    {'app_key': '***', 'broker': 'amqp://u:***@h'}
    """
    if is_secret_name(name) and value is not None:
        return MASK
    if isinstance(value, Mapping):
        return {key: redact_entry(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [redact_entry(inner) for inner in value]
    if isinstance(value, str) and ("://" in value or "@" in value):
        return redact_url(value)
    return value


def _secrets_in(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _secrets_in(inner, str(key))
    elif isinstance(value, str) and is_secret_name(name):
        yield value
