"""The page's parts that need no server: options, tokens, sessions, waiting, and what is shown."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from leekfanout.errors import ConfigError
from leekfanout.status.stats import COUNTERS, GAUGES
from leekfanout.supervision.lifecycle import State
from leekfanout.web import fields, options, tokens
from leekfanout.web.logouts import LOGOUTS_MAX, Logouts
from leekfanout.web.options import WebOptions
from leekfanout.web.sessions import LIFETIME_S, Sessions
from leekfanout.web.slowdown import FREE_FAILURES, LONGEST_S, PEERS_MAX, Slowdown
from leekfanout.web.view import overview, steady
from leekfanout.web.watch import pending_words


def loaded(*arguments: str, **environ: str) -> WebOptions | None:
    parser = argparse.ArgumentParser()
    options.add_options(parser)
    return options.load(parser.parse_args(arguments), environ)


def test_there_is_no_page_unless_somebody_wants_one() -> None:
    assert loaded() is None
    assert loaded(LEEK_ENABLE_WEB="false") is None


def test_leeks_variable_serves_the_page_on_this_machine_only() -> None:
    page = loaded(LEEK_ENABLE_WEB="true")
    assert page == WebOptions("127.0.0.1", 8_000)
    assert page.loopback


def test_the_option_wins_over_the_variables() -> None:
    page = loaded(
        *("--web", "[::1]:9000", "--web-host", "Agent.example.com"),
        LEEKFANOUT_WEB="0.0.0.0:1",
        LEEKFANOUT_WEB_HOSTS="other.example.com",
        LEEK_ENABLE_WEB="true",
    )
    assert page == WebOptions("::1", 9_000, frozenset({"agent.example.com"}))


@pytest.mark.parametrize("address", ["8000", "example.com:80", "1.2.3:80", "127.0.0.1:99999", "x"])
def test_an_address_that_cant_be_bound_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="must be an IP address and a port"):
        loaded("--web", address)


@pytest.mark.parametrize("name", ["https://example.com", "example.com:80", "*"])
def test_a_host_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="must be a host name"):
        loaded("--web", "127.0.0.1:80", "--web-host", name)


def test_without_its_packages_the_option_is_refused_and_leeks_variable_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(options, "PACKAGES", ("no_such_package",))
    with pytest.raises(ConfigError, match=r"install leekfanout\[web\]"):
        loaded("--web", "127.0.0.1:80")
    assert loaded(LEEK_ENABLE_WEB="true") is None


def test_a_page_for_others_answers_to_addresses_but_to_no_unknown_name() -> None:
    page = WebOptions("0.0.0.0", 80, frozenset({"agent.example.com"}))
    assert page.answers_to("192.0.2.7:80")
    assert page.answers_to("AGENT.example.com")
    assert not page.answers_to("evil.example.com")
    assert not WebOptions().answers_to("192.0.2.7:80")


def test_a_token_is_made_once_and_is_nobody_elses_business(tmp_path: Path) -> None:
    token = tokens.load({}, tmp_path)
    path = tmp_path / tokens.FILE_NAME
    assert len(token) >= 43
    assert path.stat().st_mode & 0o777 == 0o600
    assert tokens.load({}, tmp_path) == token
    assert list(tmp_path.iterdir()) == [path]


def test_variables_win_over_the_file_in_their_order(tmp_path: Path) -> None:
    both = {"LEEKFANOUT_WEB_TOKEN": "one", "LEEK_AGENT_API_SECRET": "two"}
    assert tokens.load(both, tmp_path) == "one"
    assert tokens.load({"LEEK_AGENT_API_SECRET": "two"}, tmp_path) == "two"
    assert list(tmp_path.iterdir()) == []


def test_an_empty_token_file_is_replaced_and_an_open_one_closed(tmp_path: Path) -> None:
    path = tmp_path / tokens.FILE_NAME
    path.write_text("\n")
    assert tokens.load({}, tmp_path)
    path.chmod(0o644)
    tokens.load({}, tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_state_folder_the_token_is_random_and_nobody_gets_in(tmp_path: Path) -> None:
    assert tokens.load({}, tmp_path / "none") != tokens.load({}, tmp_path / "none")


def test_a_session_ends_in_time_or_when_it_is_closed() -> None:
    sessions = Sessions("token")
    cookie = sessions.open(1_000.0)
    session = sessions.find(cookie, 1_000.0)
    assert session is not None
    assert sessions.find(cookie, 1_000.0 + LIFETIME_S) is None
    sessions.close(session, 1_000.0)
    assert sessions.find(cookie, 1_000.0) is None


def test_a_session_outlives_the_process_but_not_the_token() -> None:
    cookie = Sessions("token").open(1_000.0)
    assert Sessions("token").find(cookie, 1_000.0) is not None
    assert Sessions("another").find(cookie, 1_000.0) is None


def test_a_closed_session_stays_closed_in_the_next_process_until_it_has_expired(
    tmp_path: Path,
) -> None:
    path = tmp_path / "web-logouts"

    def restarted() -> Sessions:
        return Sessions("token", Logouts(path))

    cookies = [restarted().open(start) for start in (0.0, 10.0, 20.0)]
    for cookie in cookies[:2]:
        sessions = restarted()
        session = sessions.find(cookie, 20.0)
        assert session is not None
        sessions.close(session, 20.0)
    assert [restarted().find(cookie, 20.0) is None for cookie in cookies] == [True, True, False]
    assert path.stat().st_mode & 0o777 == 0o600
    last = restarted().find(cookies[2], 20.0)
    assert last is not None
    restarted().close(last, LIFETIME_S + 5)
    assert [restarted().find(cookie, 5.0) is None for cookie in cookies] == [False, True, True]
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_of_logouts_is_bounded_and_may_hold_anything(tmp_path: Path) -> None:
    path = tmp_path / "web-logouts"
    path.write_bytes(b"\n\xff\x00 \n9 a b\nx y\n9999999999 good\n\xb2 z\n" + b"9" * 9_000_000)
    logouts = Logouts(path)
    assert "good" in logouts
    assert not [each for each in ("", "a", "b", "y", "z") if each in logouts]
    path.write_text("".join(f"{9_000_000_000 + n} {n:032}\n" for n in range(LOGOUTS_MAX)))
    logouts = Logouts(path)
    logouts.add("one-more", 9_999_999_999, 0.0)
    assert len(path.read_text().splitlines()) == LOGOUTS_MAX
    assert "one-more" in Logouts(path)
    assert f"{LOGOUTS_MAX - 1:032}" in Logouts(path)


def test_without_a_state_folder_a_logout_holds_for_the_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logouts = Logouts(tmp_path / "none" / "web-logouts")
    logouts.add("an-id", 2_000, 1_000.0)
    assert "an-id" in logouts
    assert "web.logout_lost" in caplog.messages


def test_each_session_has_its_own_csrf_token() -> None:
    sessions = Sessions("token")
    found = [sessions.find(sessions.open(0.0), 0.0) for _ in range(2)]
    assert len({sessions.csrf_token(session) for session in found if session}) == 2


def test_waiting_doubles_with_each_failure_up_to_a_minute() -> None:
    slowdown = Slowdown()
    waits = []
    now = 0.0
    for _ in range(FREE_FAILURES + 8):
        slowdown.failed("192.0.2.1", now)
        waits.append(slowdown.wait_s("192.0.2.1", now))
        now += waits[-1]
    assert waits[: FREE_FAILURES - 1] == [0.0] * (FREE_FAILURES - 1)
    assert waits[FREE_FAILURES - 1 :] == [1, 2, 4, 8, 16, 32, LONGEST_S, LONGEST_S, LONGEST_S]
    assert slowdown.wait_s("192.0.2.2", now) == 0.0
    slowdown.succeeded("192.0.2.1")
    assert slowdown.wait_s("192.0.2.1", now) == 0.0


def test_one_network_of_ipv6_is_one_guesser() -> None:
    slowdown = Slowdown()
    for number in range(FREE_FAILURES):
        slowdown.failed(f"2001:db8::{number:x}", 0.0)
    assert slowdown.wait_s("2001:db8::ffff", 0.0) > 0
    assert slowdown.wait_s("2001:db8:0:1::1", 0.0) == 0.0


def test_memory_of_guessers_is_bounded() -> None:
    slowdown = Slowdown()
    for number in range(PEERS_MAX + 10):
        slowdown.failed(f"10.{number >> 8}.{number & 255}.1", float(number))
    assert len(slowdown._failures) == PEERS_MAX


def status(**changed: Any) -> dict[str, Any]:
    known = {
        "name": "shop-prod",
        "transport": "amqp",
        "broker": ["amqp://h"],
        "api_url": "http://a",
        "state": int(State.RUNNING),
        "wanted": True,
        "reason": "",
        "pid": 7,
        "started_at": 900.0,
        "starts": 1,
        "next_start_in_s": 0.0,
        "condition": "DELIVERING",
        "memory_bytes": 40e6,
        "cpu_seconds": 1.0,
        "counters": dict.fromkeys(COUNTERS, 0.0),
        "gauges": {**dict.fromkeys(GAUGES, 0.0), "broker_backlog": -1.0},
        "last_error": "",
        "advice": "",
    }
    return {**known, **changed}


def test_rates_and_cpu_are_those_of_the_time_between_two_looks() -> None:
    counters = {**dict.fromkeys(COUNTERS, 0.0), "events_received": 50.0}
    after = status(counters=counters, cpu_seconds=1.5)
    (row,) = overview([after], [status()], 2.0, 1_000.0)
    assert row["events_per_s"] == 25.0
    assert row["cpu_percent"] == 25.0
    assert row["backlog"] is None


def test_a_new_process_has_no_cpu_share_yet_and_a_stopped_one_no_rate() -> None:
    (row,) = overview([status(pid=8)], [status()], 2.0, 1_000.0)
    assert row["cpu_percent"] is None
    (row,) = overview([status(state=int(State.STOPPED))], [status()], 2.0, 1_000.0)
    assert (row["events_per_s"], row["level"], row["started_at"]) == (0.0, "off", None)


def test_a_look_that_comes_soon_keeps_the_rates_of_processes_that_are_still_there() -> None:
    busy = {**dict.fromkeys(COUNTERS, 0.0), "events_received": 50.0}
    before = overview([status(counters=busy, cpu_seconds=1.5)], [status()], 2.0, 1_000.0)

    def soon(**changed: Any) -> tuple[Any, Any]:
        (row,) = steady(overview([status(**changed)], [status()], 0.01, 1_000.1), before)
        return row["events_per_s"], row["cpu_percent"]

    assert soon(counters=busy, cpu_seconds=1.6) == (25.0, 25.0)
    assert soon(pid=8) == (0.0, None)
    assert soon(pid=0, state=int(State.STOPPED)) == (0.0, None)


def test_a_hint_is_given_only_if_the_file_differs() -> None:
    assert pending_words([], [], []) == ""
    words = pending_words(["agent:shop-prod"], [], ["agent:a-b", "agent:c-d"])
    assert words.endswith("new: shop-prod; removed: a-b, c-d.")


def test_the_form_has_every_key_once_but_for_those_that_a_local_agent_decides() -> None:
    def names(**environ: str) -> list[str]:
        return [field.name for group in fields.groups(environ) for field in group.fields]

    standalone = names()
    assert sorted(standalone) == sorted(key.name for key in fields.SUBSCRIPTION_KEYS)
    local = names(LEEK_ENABLE_API="true", LEEK_AGENT_API_SECRET="s", LEEK_API_ENABLE_AUTH="false")
    assert set(standalone) - set(local) == {"app_key", "api_url", "api_tls", "org_name"}
