"""References to secrets that stand elsewhere."""

import os
from pathlib import Path
from typing import Any

import pytest

from leekfanout.configuration import config
from leekfanout.configuration.references import refuse, resolve, variables_in
from leekfanout.errors import ConfigError
from leekfanout.web.agent import Agent
from leekfanout.web.fields import checked

ENTRY = {
    "broker": "amqp://leek:pw@rabbit//",
    "org_name": "mono",
    "app_name": "shop",
    "app_env": "prod",
    "app_key": "key",
    "api_url": "http://leek:5000",
}


def resolved(key: str, text: str, **environ: str) -> Any:
    (entry,) = resolve([{**ENTRY, key: text}], environ)
    return entry[key]


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("app_key", "${KEY}", "s3cret"),
        ("app_key", "a-${KEY}-z", "a-s3cret-z"),
        ("app_key", "$${KEY}", "${KEY}"),
        ("app_key", "$KEY{}$", "$KEY{}$"),
        ("broker", "${BROKER}", "amqp://u:p%40ss@h//"),
        ("broker", "amqp://leek:${PASSWORD}@rabbit//", "amqp://leek:p%40ss%2Fw%3Ard@rabbit//"),
        ("broker", "amqp://${USER}:${PASSWORD}@a;amqp://${USER}:x@b", None),
        ("broker", "amqp://leek:pw@${HOST}/v", "amqp://leek:pw@rabbit:5672/v"),
        ("backend", "redis://:${PASSWORD}@r/0", "redis://:p%40ss%2Fw%3Ard@r/0"),
        ("queue", "${KEY}", "${KEY}"),
    ],
)
def test_variables_are_put_in_and_passwords_encoded(
    key: str, text: str, expected: str | None
) -> None:
    environ = {
        "KEY": "s3cret",
        "BROKER": "amqp://u:p%40ss@h//",
        "PASSWORD": "p@ss/w:rd",
        "USER": "le@k",
        "HOST": "rabbit:5672",
    }
    if expected is None:
        expected = "amqp://le%40k:p%40ss%2Fw%3Ard@a;amqp://le%40k:x@b"
    assert resolved(key, text, **environ) == expected


def test_files_are_read_without_their_last_line_end(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\r\n")
    assert resolved("app_key", f"file:{tmp_path}/key") == "s3cret"
    url = f"amqp://leek:${{file:{tmp_path}/key}}@rabbit//"
    assert resolved("broker", url) == "amqp://leek:s3cret@rabbit//"


def test_secrets_in_transport_options_may_be_references() -> None:
    options = {"sentinel_kwargs": {"password": "${PW}", "username": "${PW}"}, "master_name": "m"}
    (entry,) = resolve([{**ENTRY, "transport_options": options}], {"PW": "s3cret"})
    assert entry["transport_options"] == {
        "sentinel_kwargs": {"password": "s3cret", "username": "${PW}"},
        "master_name": "m",
    }


def test_what_leads_nowhere_is_named_with_subscription_key_and_rule(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    os.mkfifo(tmp_path / "fifo")
    entries = [
        {**ENTRY, "app_key": "${MISSING}", "broker": "amqp://u:${EMPTY}@h"},
        {"app_key": f"file:{tmp_path}/none", "backend": f"file:{tmp_path}/empty"},
        {"app_key": f"file:{tmp_path}/binary", "backend": f"file:{tmp_path}/large"},
        {"app_key": f"file:{tmp_path}/fifo", "backend": f"${{file:{tmp_path}}}"},
    ]
    with pytest.raises(ConfigError) as raised:
        config.subscriptions_of(entries, {"EMPTY": ""})
    assert raised.value.problems == [
        "subscription shop-prod: app_key: ${MISSING}: the variable MISSING is not set",
        "subscription shop-prod: broker: ${EMPTY}: the variable EMPTY is empty",
        f"subscription #2: app_key: file:{tmp_path}/none: the file can't be read: "
        "No such file or directory",
        f"subscription #2: backend: file:{tmp_path}/empty: the file is empty",
        f"subscription #3: app_key: file:{tmp_path}/binary: the file is not UTF-8 text",
        f"subscription #3: backend: file:{tmp_path}/large: the file is larger than 65,536 bytes",
        f"subscription #4: app_key: file:{tmp_path}/fifo: it is no regular file",
        f"subscription #4: backend: ${{file:{tmp_path}}}: it is no regular file",
    ]


@pytest.mark.parametrize(
    ("key", "text", "problem"),
    [
        ("app_key", "file:leek_key", "file:leek_key: a reference to a file has its whole path"),
        ("app_key", "${LEEK_KEY", "${: ${ begins a reference: ${NAME} or ${file:/path}"),
        ("app_key", "${9}", "${: ${ begins a reference"),
        ("broker", "amqp://u:${PASSWORD@h/", "${: ${ begins a reference"),
        ("broker", "amqp://u:${file:relative}@h/", "${: ${ begins a reference"),
    ],
)
def test_what_only_looks_like_a_reference_is_no_secret(key: str, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config.subscriptions_of([{**ENTRY, key: text}], {"PASSWORD": "secret"})
    assert raised.value.problems[0].startswith(f"subscription shop-prod: {key}: {problem}")


def test_the_beginning_of_a_reference_may_be_meant_literally() -> None:
    (subscription,) = config.subscriptions_of([{**ENTRY, "app_key": "a$${b"}], {})
    assert subscription.app_key == "a${b"


def test_what_leads_nowhere_is_one_line_whatever_it_is_called() -> None:
    options = {"pass\nword": "file:/\x1b[31m", "password": "file:/\ud800"}
    entry = {**ENTRY, "app_key": "file:/a\nb", "transport_options": options}
    with pytest.raises(ConfigError) as raised:
        config.subscriptions_of([entry], {})
    assert len(raised.value.problems) == 3
    assert all(line.isprintable() for line in raised.value.problems)


def test_a_mistake_in_what_was_put_in_is_reported_without_it() -> None:
    with pytest.raises(ConfigError) as raised:
        config.subscriptions_of(
            [{**ENTRY, "app_key": "${KEY}", "broker": "${BROKER}"}],
            {"KEY": "s3cret \u20ac", "BROKER": "amqq://u:s3cret@h"},
        )
    assert len(raised.value.problems) == 2
    assert "s3cret" not in str(raised.value)


def test_what_is_no_entry_is_left_to_validation() -> None:
    assert resolve([1, None, {"app_key": 5}], {}) == [1, None, {"app_key": 5}]


def test_variables_are_known_so_that_they_can_be_hidden() -> None:
    entry = {
        **ENTRY,
        "app_key": "${A}$${B}${file:/c}",
        "transport_options": {"x": {"password": "${D}"}},
    }
    assert variables_in([entry, 5]) == {"A", "D"}


def test_entries_from_the_network_may_not_refer_to_anything() -> None:
    refuse(ENTRY)
    refuse({**ENTRY, "app_key": "$${KEY}"})
    for key, text in [("app_key", "file:/etc/shadow"), ("api_url", "http://x/${TOKEN}")]:
        with pytest.raises(ConfigError, match=f"shop-prod: {key}: references"):
            refuse({**ENTRY, key: text})


def test_the_subscriptions_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    variable = tmp_path / "variable.json"
    environ = {"LEEK_AGENT_SUBSCRIPTIONS_FILE": str(variable)}
    assert config.subscriptions_file(None, environ) == variable
    assert config.subscriptions_file(tmp_path / "option.json", environ) == tmp_path / "option.json"
    assert config.subscriptions_file(None, {}) == config.SUBSCRIPTIONS_FILE


def test_the_page_refuses_references_before_anybody_is_asked(tmp_path: Path) -> None:
    entry = {**ENTRY, "app_key": "file:/etc/shadow"}
    file = tmp_path / "subscriptions.json"
    agent = Agent(config.Settings(tmp_path), tmp_path / "none.sock", file)
    for add in (agent.add, checked):
        with pytest.raises(ConfigError, match="app_key: references"):
            add(entry)
    assert not file.exists()
