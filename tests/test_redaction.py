"""Secrets stay out of URLs that are shown, of any text, and of every log line."""

import io
import json
import logging
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from leekfanout import logs
from leekfanout.configuration.config import Subscription
from leekfanout.redaction import Mask, mask, redact_entry, redact_url, secrets_of


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://leek:s3cret@rabbit:5672/prod", "amqp://leek:***@rabbit:5672/prod"),
        ("amqp://leek@rabbit", "amqp://leek@rabbit"),
        ("redis://:s3cret@cache:6379/0", "redis://:***@cache:6379/0"),
        ("redis://s3cret@cache", "redis://***@cache"),
        ("redis://cache:6379/0?password=s3cret&x=1", "redis://cache:6379/0?password=***&x=1"),
        ("amqp://u:s3cret@h/v?note=a@b", "amqp://u:***@h/v?note=a@b"),
        ("amqp://u:s3@a;amqp://u:s3@b", "amqp://u:***@a;amqp://u:***@b"),
        ("http://[::1]:5000/leek", "http://[::1]:5000/leek"),
        ("rediss://h?ssl_cert_reqs=none", "rediss://h?ssl_cert_reqs=none"),
        ("postgresql+psycopg://u:s3cret@h/db", "postgresql+psycopg://u:***@h/db"),
    ],
)
def test_a_url_is_shown_without_its_passwords(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "amqp://u:s3#cr/et@h:5672/v",
        "amqp://u:s3?cret@h/",
        "amqp://u:s3?cr=et@h/",
        "amqp://u:12;cret@h",
        "amqp://u:s3 cret@h",
        "amqp://u:cret",
        "u:cret@h",
        "amqp:u:cret@h",
        "amqp//u:cret@h",
    ],
)
def test_a_password_in_a_malformed_url_is_not_shown(url: str) -> None:
    assert "cret" not in redact_url(url)
    assert "et@" not in redact_url(url)


@given(password=st.text(min_size=1), host=st.sampled_from(["h", "h:5672", "[::1]:5672"]))
@example(password="s3cret@with/all:the?rest#of;it", host="h")
def test_no_password_survives_whatever_it_holds(password: str, host: str) -> None:
    # The marks make the password's end recognisable.
    secret = f"<{password}>"
    assert redact_url(f"amqp://leek:{secret}@{host}/v").endswith("***@" + host + "/v")
    assert "<" not in redact_url(f"amqp://leek:{secret}@{host}/v")


@given(secret=st.text(min_size=4), before=st.text(), after=st.text())
def test_a_known_secret_is_masked_in_all_its_forms(secret: str, before: str, after: str) -> None:
    assume("*" not in secret)
    hide = Mask({secret})
    encodable = secret.encode("utf-8", "surrogatepass")
    for form in (secret, quote(encodable, safe=""), repr(secret)[1:-1], json.dumps(secret)[1:-1]):
        assert form not in hide(f"{before}{form}{after}")


def test_a_secret_that_begins_with_another_one_leaves_no_end() -> None:
    assert mask("key=topsecret2", {"topsecret", "topsecret2"}) == "key=***"


def test_a_short_secret_is_masked_in_urls_only() -> None:
    assert mask("a lone a in amqp://a:a@h", {"a"}) == "a lone a in amqp://a:***@h"


def subscription() -> Subscription:
    return Subscription(
        org_name="acme",
        app_name="shop",
        app_env="prod",
        broker=("sentinel://u:br%2Foker-pw@h:1/0", "sentinel://u:other-pw@h:2/0"),
        app_key="the-app-key",
        api_url="https://u:api-pw@leek",
        backend="redis://:backend-pw@h/1",
        broker_management_url="http://u:management-pw@h",
        transport_options={"sentinel_kwargs": {"password": "sentinel-pw"}, "master_name": "main"},
    )


def test_all_secrets_of_a_subscription_are_known() -> None:
    secrets = secrets_of(subscription())
    assert secrets == {
        *("the-app-key", "br/oker-pw", "br%2Foker-pw", "other-pw", "api-pw"),
        *("backend-pw", "management-pw", "sentinel-pw"),
    }
    assert not any(secret in repr(subscription()) for secret in secrets)


def test_an_entry_is_shown_without_its_secrets() -> None:
    entry = {
        "app_key": "the-app-key",
        "broker": "redis://:pw@a;redis://:pw@b",
        "transport_options": {"sentinel_kwargs": {"password": "pw", "username": "leek"}},
        "new": {"tokens": ["pw"], "urls": ["http://u:pw@h"], "port": 1, "nothing": None},
    }
    assert redact_entry(entry) == {
        "app_key": "***",
        "broker": "redis://:***@a;redis://:***@b",
        "transport_options": {"sentinel_kwargs": {"password": "***", "username": "leek"}},
        "new": {"tokens": "***", "urls": ["http://u:***@h"], "port": 1, "nothing": None},
    }


@pytest.mark.parametrize("formatter", [logs.TextFormatter(), logs.JsonFormatter()])
def test_no_log_line_holds_a_hidden_secret(
    formatter: logging.Formatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_mask", Mask())
    monkeypatch.setattr(logs, "_secrets", set())
    logs.hide({"k3y-of-shop"})
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    library = logging.getLogger("some.library")
    ours = logging.getLogger("leekfanout.part")
    for logger in (library, ours):
        monkeypatch.setattr(logger, "handlers", [handler])
        monkeypatch.setattr(logger, "propagate", False)
    library.warning("refused %s at %s", "k3y-of-shop", "amqp://u:pw@h")
    logs.get("part").error(
        "api.refused", answer={"key": "k3y-of-shop"}, padding="x" * 995 + "k3y-of-shop"
    )
    try:
        int("k3y-of-shop")
    except ValueError:
        logs.get("part").exception("it.broke")
    text = stream.getvalue()
    assert "k3y-of-shop" not in text
    assert "k3y" not in text, "a value that is cut must not keep the secret's beginning"
    assert "pw@" not in text
    assert text.count("***") >= 4
