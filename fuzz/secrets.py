"""Secrets in a configuration, right or wrong: none of what is said about it shows them.

An input is five lines: a user, the rest of a password, the rest of a URL behind it, the rest of a
key, and a JSON object with more of the subscription.
"""

import json
from typing import Any

from leekfanout.configuration import config
from leekfanout.errors import ConfigError
from leekfanout.redaction import Mask, redact_entry, secrets_of, secrets_of_url

MARK = "hunter2hunter2"
"""What each secret begins with, so that it can be searched for."""

USER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.%-")
URLS = ("broker", "backend", "api_url", "broker_management_url")


def one_input(lines: bytes) -> None:
    """Raise if a secret is shown."""
    fields = lines.decode("utf-8", "replace").split("\n", 4)
    if len(fields) < 5 or MARK in "".join(fields):
        return
    entry = subscription(*fields)
    if entry is None:
        return
    secretless(redact_entry(entry))
    text = json.dumps([entry])
    try:
        made = config.load_subscriptions({config.SUBSCRIPTIONS_VARIABLE: text}, None)
    except ConfigError as error:
        secretless(error.problems)
        return
    (first, *_) = made
    secretless(repr(first))
    hide = Mask(secrets_of(first))
    for url in first.broker:
        for secret in secrets_of_url(url):
            if secret.startswith(MARK):
                secretless(hide(f"It says {secret}, {secret!r} and {json.dumps(secret)}."))
    secretless(hide(f"The key is {first.app_key!r}."))


def subscription(user: str, password: str, rest: str, key: str, more: str) -> dict[str, Any] | None:
    """Return an entry with secrets wherever there may be some; None if ``more`` is no object."""
    try:
        entry = json.loads(more)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not set(user) <= USER:
        return None
    for name in URLS:
        scheme = entry.get(name)
        if isinstance(scheme, str) and scheme.isalpha():
            entry[name] = f"{scheme}://{user}:{MARK}{password}@{rest}"
    entry["app_key"] = MARK + key
    options = entry.get("transport_options")
    if isinstance(options, dict):
        options["password"] = MARK + key
        if isinstance(options.get("sentinel_kwargs"), dict):
            options["sentinel_kwargs"]["password"] = MARK + password
    return entry


def secretless(shown: Any) -> None:
    """Raise if a secret is in what is shown."""
    text = shown if isinstance(shown, str) else json.dumps(shown)
    assert MARK not in text, text
