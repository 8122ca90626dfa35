"""Subscriptions are loaded, or refused with every mistake in one line each."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leekfanout.configuration.config import (
    Subscription,
    Tls,
    load_subscriptions,
    parse_entries,
    subscriptions_from_variable,
)
from leekfanout.errors import ConfigError

GOOD: dict[str, Any] = {
    "broker": "amqp://leek:broker-pw@rabbit:5672/prod",
    "org_name": "example.com",
    "app_name": "shop",
    "app_env": "prod",
    "app_key": "the-app-key",
    "api_url": "http://leek:5000",
}
SENTINEL = {**GOOD, "broker": "sentinel://a;sentinel://b"}
REDIS = {**GOOD, "broker": "redis://cache"}


def load(*entries: Any, **environ: str) -> list[Subscription]:
    return load_subscriptions({"LEEK_AGENT_SUBSCRIPTIONS": json.dumps(entries), **environ}, None)


def load_one(**keys: Any) -> Subscription:
    (subscription,) = load({**GOOD, **keys})
    return subscription


def problems_of(*entries: Any, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*entries, **environ)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def problem_of(entry: Any) -> str:
    (problem,) = problems_of(entry)
    return problem


def test_a_subscription_with_the_required_keys_is_complete() -> None:
    assert load_one() == Subscription(
        org_name="example.com",
        app_name="shop",
        app_env="prod",
        broker=("amqp://leek:broker-pw@rabbit:5672/prod",),
        app_key="the-app-key",
        api_url="http://leek:5000",
    )


def test_null_counts_as_the_default() -> None:
    optional = {
        *("backend", "exchange", "queue", "routing_key", "prefetch_count", "concurrency_pool_size"),
        *("batch_max_size_in_mb", "batch_max_number_of_messages", "batch_max_window_in_seconds"),
        *("broker_management_url", "transport_options", "queue_type", "in_flight_max_mb"),
        *("api_connect_timeout_in_seconds", "api_read_timeout_in_seconds", "broker_tls", "api_tls"),
        "max_memory_mb",
    }
    assert load_one(**dict.fromkeys(optional)) == load_one()


def test_null_for_a_required_key_is_missing() -> None:
    assert problem_of({**GOOD, "org_name": None}).startswith(
        "subscription shop-prod: org_name: missing: it is required"
    )


def test_an_empty_subscription_lacks_every_required_key_at_once() -> None:
    keys = [problem.split(": ")[1] for problem in problems_of({})]
    assert keys == ["broker", "org_name", "app_name", "app_env", "app_key", "api_url"]


@pytest.mark.parametrize(
    ("key", "accepted", "refused"),
    [
        ("prefetch_count", [1_000, 10_000, 2_000.0], [999, 10_001, 1_000.5, True, "1000", [], {}]),
        ("concurrency_pool_size", [1, 20], [0, 21, 1.5, False, "1"]),
        ("batch_max_size_in_mb", [0.001, 1, 10], [0, -1, 10.001, True, "1", float("nan")]),
        ("batch_max_window_in_seconds", [0.1, 20], [0, 20.1, float("inf"), float("-inf"), 10**400]),
        ("in_flight_max_mb", [0.5, 64], [0, -64, 1e300]),
        ("api_connect_timeout_in_seconds", [0.5, 600], [0, 601]),
        ("api_read_timeout_in_seconds", [0.5, 600], [0, 601]),
        ("max_memory_mb", [64, 512.5], [0, 63, "512"]),
        ("queue_type", ["classic", "quorum"], ["Quorum", "stream", 1, ""]),
        ("app_name", ["a", "shop"], ["Shop", "shop1", "my-shop", "shöp", "", " shop", 1, "shop\n"]),
        ("app_env", ["qa", "prod"], ["QA", "prod2", "", True]),
        ("org_name", ["mono", "example.com", "Our Org"], ["", " x", "x\ny", "é", 3]),
        ("exchange", ["celeryev", "événements"], ["", "x" * 256, "é" * 128, "a\0b", 1]),
        ("queue", ["leek.fanout", "x" * 255], ["", "x" * 256, "\ud800"]),
        ("routing_key", ["#", "task.*"], ["", 1]),
        (
            "backend",
            ["redis://h/1", "db+postgresql://u:p@h/d", "rpc://"],
            ["", "redis", 1, "a b://", "redis://a b", "redis://h\n", "redis://\ud800h"],
        ),
        ("broker_management_url", ["http://h:15672", "https://u:p@h"], ["amqp://h", "h:15672", 1]),
        ("transport_options", [{}], [[], "x", 1]),
        ("broker_tls", [], [{}, {"ca": "/nope"}, [], "x"]),
    ],
)
def test_each_key_has_its_bounds(key: str, accepted: list[Any], refused: list[Any]) -> None:
    for value in accepted:
        assert getattr(load_one(**{key: value}), key) == value
    for value in refused:
        assert f": {key}" in problem_of({**GOOD, key: value}), value


def test_a_batch_may_have_as_many_messages_as_the_prefetch_count() -> None:
    assert load_one(prefetch_count=2_000).batch_max_number_of_messages == 2_000
    assert load_one(batch_max_number_of_messages=1).batch_max_number_of_messages == 1
    assert problem_of({**GOOD, "prefetch_count": 2_000, "batch_max_number_of_messages": 2_001}) == (
        "subscription shop-prod: batch_max_number_of_messages: 2001: "
        "must be a whole number from 1 to prefetch_count, which is 2,000"
    )


def test_one_mistake_is_not_told_twice() -> None:
    (problem,) = problems_of({**GOOD, "prefetch_count": 5, "batch_max_number_of_messages": 1_500})
    assert "prefetch_count: 5:" in problem


def test_an_unknown_key_is_told_with_the_nearest_known_one_and_without_its_value() -> None:
    assert problem_of({**GOOD, "app_kye": "secret"}) == (
        "subscription shop-prod: app_kye: unknown key; the nearest known one is app_key"
    )


def test_all_mistakes_of_all_subscriptions_are_told_at_once() -> None:
    problems = problems_of(
        {**GOOD, "app_key": "bad key ", "prefetch_count": 1},
        {**GOOD, "app_env": "QA", "broker": "mysql://u:broker-pw@h"},
        17,
        LEEK_ENABLE_WEB="perhaps",
    )
    assert [problem.split(": ")[:2] for problem in problems] == [
        ["LEEK_ENABLE_WEB", '"perhaps"'],
        ["subscription shop-prod", "app_key"],
        ["subscription shop-prod", "prefetch_count"],
        ["subscription #2", "broker"],
        ["subscription #2", "app_env"],
        ["subscription #3", "17"],
    ]
    assert "bad key" not in "".join(problems)
    assert "broker-pw" not in "".join(problems)


def test_two_subscriptions_of_the_same_name_are_refused() -> None:
    assert problems_of(GOOD, {**GOOD, "app_env": "qa"}, {**GOOD, "queue": "other"}) == [
        "subscription shop-prod (#3): app_name, app_env: shop-prod: must differ from those of #1"
    ]


def test_a_message_is_one_line_whatever_the_value_holds() -> None:
    problem = problem_of({**GOOD, "queue_type": "x\r\n\x1b[31mleekfanout: all is well" + "x" * 500})
    assert problem.isprintable()
    assert len(problem) < 300


@pytest.mark.parametrize(
    "broker",
    [
        *("amqp://h", "amqps://u:p@h:5671/vh", "pyamqp://h//", "redis://:p@h:6379/0"),
        *("rediss://h/1?ssl_cert_reqs=none", "amqp://", "amqp://u:%2F%40@[::1]:5672/%2F"),
    ],
)
def test_urls_of_each_transport_are_accepted(broker: str) -> None:
    assert load_one(broker=broker).broker == (broker,)


def test_failover_addresses_are_split_at_semicolons() -> None:
    broker = "amqp://u:p@a ; amqps://u:p@b:5671/x;amqp://c;"
    assert load_one(broker=broker).broker == ("amqp://u:p@a", "amqps://u:p@b:5671/x", "amqp://c")


@pytest.mark.parametrize(
    ("broker", "rule"),
    [
        ("rabbit:5672", "must begin with amqp://"),
        ("http://rabbit", "must begin with amqp://"),
        ("", "must begin with amqp://"),
        ("amqp://u:broker-pw#1@h", "percent-encoded"),
        ("amqp://u:broker-pw/1@h", "percent-encoded"),
        ("amqp://u/broker-pw@h", "percent-encoded"),
        ("amqp://u:broker-pw@h:port", "port must be a number"),
        ("amqp://h:0", "port must be a number"),
        ("amqp://h:65536", "port must be a number"),
        ("amqp://[::1", "host can't be read"),
        ("amqp://" + "x" * 64, "no host name"),
        ("amqp://a..b", "no host name"),
        ("amqp://h/v h", "no spaces"),
        ("amqp://a;b", "a whole URL"),
        ("amqp://h?heartbeat=3", "transport_options"),
        ("redis://h?ssl_cert_reqs=none", "transport_options"),
        ("rediss://h?ssl_cert_reqs=perhaps", "required, optional or none"),
        ("redis://h/celery", "number of a Redis database"),
        ("redis://a;amqp://b", "of one transport"),
        ("redis://a;sentinel://b", "of one transport"),
    ],
)
def test_a_broker_that_cannot_be_used_is_refused_with_the_reason(broker: str, rule: str) -> None:
    problem = problem_of({**GOOD, "broker": broker})
    assert problem.startswith("subscription shop-prod: broker: ")
    assert rule in problem
    assert "broker-pw" not in problem


def test_a_broker_that_is_no_string_is_not_shown() -> None:
    assert "secret" not in problem_of({**GOOD, "broker": ["amqp://u:secret@h"]})
    assert "12345" not in problem_of({**GOOD, "app_key": 12345})


@pytest.mark.parametrize(
    ("api_url", "kept"),
    [
        ("http://leek:5000/", "http://leek:5000"),
        ("HTTPS://leek.example.com/base/path//", "https://leek.example.com/base/path"),
        ("http://leek/v1/events/process", "http://leek"),
        ("http://[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_an_api_url_keeps_its_path_and_loses_its_end(api_url: str, kept: str) -> None:
    assert load_one(api_url=api_url).api_url == kept


@pytest.mark.parametrize(
    "api_url",
    [
        "leek:5000",
        "ftp://leek",
        "http://",
        "http://leek:x",
        "http://l?x=1",
        "http://l#x",
        "http:// l",
    ],
)
def test_an_api_url_that_cannot_be_a_base_is_refused(api_url: str) -> None:
    assert ": api_url: " in problem_of({**GOOD, "api_url": api_url})


def test_tls_needs_files_that_can_be_read_and_a_peer_that_speaks_it(tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text("")
    files = {"ca": str(pem), "cert": str(pem), "key": str(pem)}
    secure = {"broker": "amqps://h", "api_url": "https://leek"}
    subscription = load_one(**secure, broker_tls=files, api_tls={"ca": str(pem)})
    assert subscription.broker_tls == Tls(str(pem), str(pem), str(pem))
    assert subscription.api_tls == Tls(str(pem))
    assert "https" in problem_of({**GOOD, "api_tls": files})
    assert "amqps" in problem_of({**GOOD, "broker_tls": files})
    without_cert = {**GOOD, **secure, "api_tls": {"key": str(pem)}}
    assert ": api_tls.key: " in problem_of(without_cert)
    unknown = {**GOOD, **secure, "api_tls": {"certificate": str(pem)}}
    assert "api_tls.certificate: unknown key; the nearest known one is cert" in problem_of(unknown)


@pytest.mark.parametrize(
    ("entry", "options"),
    [
        (GOOD, {"read_timeout": 5, "heartbeat": 10, "login_method": "AMQPLAIN"}),
        (GOOD, {"confirm_publish": True}),
        (REDIS, {"global_keyprefix": "shop:", "fanout_prefix": False, "fanout_patterns": False}),
        (REDIS, {"fanout_prefix": "/{db}.other.", "visibility_timeout": 3600}),
        (SENTINEL, {"master_name": "main", "sentinel_kwargs": {"password": "x", "ssl": True}}),
    ],
)
def test_kombu_names_of_the_transport_are_accepted(
    entry: dict[str, Any], options: dict[str, Any]
) -> None:
    (subscription,) = load({**entry, "transport_options": options})
    assert subscription.transport_options == options


def test_tcp_options_become_the_numbers_that_sockets_take() -> None:
    options = {"socket_settings": {"TCP_USER_TIMEOUT": 2_000}}
    assert load_one(transport_options=options).transport_options == {"socket_settings": {18: 2_000}}
    bad = {**GOOD, "transport_options": {"socket_settings": {"TCP_NONSENSE": 1}}}
    assert "transport_options.socket_settings.TCP_NONSENSE: 1: must be" in problem_of(bad)


@pytest.mark.parametrize("number", [-1, 2**31, 1.5, True])
def test_a_tcp_option_is_a_number_that_the_system_takes(number: object) -> None:
    bad = {**GOOD, "transport_options": {"socket_settings": {"TCP_USER_TIMEOUT": number}}}
    assert "from 0 to 2,147,483,647" in problem_of(bad)


def test_a_mistake_is_one_line_whatever_a_key_is_called() -> None:
    options = {"socket_settings": {"TCP_\n\x1b[31m\ud800": 1}}
    assert problem_of({**GOOD, "transport_options": options}).isprintable()


@pytest.mark.parametrize(
    ("entry", "options", "path"),
    [
        (GOOD, {"global_keyprefix": "x"}, "global_keyprefix: unknown option for amqp"),
        (
            GOOD,
            {"read_timout": 5},
            "read_timout: unknown option for amqp; the nearest known one is read",
        ),
        (GOOD, {"read_timeout": "5"}, 'read_timeout: "5": must be a number'),
        (GOOD, {"connect_timeout": 31}, "connect_timeout: 31: must be a number"),
        (REDIS, {"read_timeout": 5}, "read_timeout: unknown option for redis"),
        (REDIS, {"master_name": "main"}, "master_name: unknown option for redis"),
        (REDIS, {"fanout_prefix": "/{database}."}, "fanout_prefix: "),
        (REDIS, {"fanout_prefix": 1}, "fanout_prefix: 1: must be"),
        (SENTINEL, {}, "master_name: missing"),
        (
            SENTINEL,
            {"master_name": "main", "sentinel_kwargs": {"pasword": "x"}},
            "sentinel_kwargs.pasword: unknown option for a connection to Sentinel",
        ),
    ],
)
def test_options_that_the_transport_does_not_have_are_refused(
    entry: dict[str, Any], options: dict[str, Any], path: str
) -> None:
    assert f": transport_options.{path}" in problem_of({**entry, "transport_options": options})


def test_a_quorum_queue_needs_rabbitmq() -> None:
    assert ": queue_type: " in problem_of({**REDIS, "queue_type": "quorum"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.one_of(JSON, st.dictionaries(st.sampled_from(sorted(GOOD)), JSON)), min_size=1))
def test_any_json_is_refused_in_single_lines(entries: list[Any]) -> None:
    problems = problems_of(*entries)  # no key's value is right by chance
    assert problems
    assert all(problem.isprintable() for problem in problems)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[{]", "LEEK_AGENT_SUBSCRIPTIONS is not JSON: "),
        ("[" * 100_000, "LEEK_AGENT_SUBSCRIPTIONS is not JSON"),
        ("[" + "1" * 10_000 + "]", "LEEK_AGENT_SUBSCRIPTIONS is not JSON"),
        ("{}", "LEEK_AGENT_SUBSCRIPTIONS holds a JSON object, which is the format of old versions"),
        ("[]", "LEEK_AGENT_SUBSCRIPTIONS holds an empty list: "),
        ('"x"', 'LEEK_AGENT_SUBSCRIPTIONS holds "x": it must be a JSON array.'),
        ("null", "LEEK_AGENT_SUBSCRIPTIONS holds null: it must be a JSON array."),
    ],
)
def test_what_is_no_list_of_subscriptions_has_its_own_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_subscriptions({"LEEK_AGENT_SUBSCRIPTIONS": text}, None)
    (problem,) = caught.value.problems
    assert problem.startswith(sentence)


def test_the_variable_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "subscriptions.json"
    file.write_text(json.dumps([{**GOOD, "app_env": "qa"}]))
    variable = {"LEEK_AGENT_SUBSCRIPTIONS": json.dumps([GOOD])}
    assert [each.name for each in load_subscriptions(variable, file)] == ["shop-prod"]
    assert subscriptions_from_variable(variable)
    blank = {"LEEK_AGENT_SUBSCRIPTIONS": " "}
    assert [each.name for each in load_subscriptions(blank, file)] == ["shop-qa"]
    assert not subscriptions_from_variable(blank)


def file_problem(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_subscriptions({}, file)
    (problem,) = caught.value.problems
    return problem


def test_a_file_that_cannot_be_used_has_its_own_sentence(tmp_path: Path) -> None:
    file = tmp_path / "subscriptions.json"
    assert file_problem(file).startswith(f"There is no file {file}")
    assert file_problem(tmp_path) == f"{tmp_path} can't be read: Is a directory."
    assert file_problem(Path("a\0b")) == "'a\\x00b' is no file name."
    file.write_bytes(b'["\xff"]')
    assert file_problem(file) == f"{file} is not UTF-8 text (byte 2 can't be decoded)."
    file.write_text("[]")
    assert file_problem(file).startswith(f"{file} holds an empty list")
    assert load_subscriptions({}, file, allow_none=True) == []


def test_an_unreadable_file_has_its_own_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root could read any file that we make
    file = tmp_path / "subscriptions.json"
    assert file_problem(file) == f"{file} can't be read: Permission denied."


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "subscriptions.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps([GOOD]).encode())
    assert load_subscriptions({}, file) == [load_one()]


def test_a_key_that_stands_twice_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"the key .app_name. stands twice"):
        parse_entries('[{"app_name": "a", "app_env": "qa", "app_name": "b"}]', "f.json")
