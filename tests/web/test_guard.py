"""Who gets in, and what those see who don't; over HTTP."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from leekfanout.version import VERSION
from leekfanout.web.app import build
from leekfanout.web.guard import (
    BODY_MAX_BYTES,
    BROWSER_COOKIE,
    COOKIE,
    CSRF_HEADER,
    LOGIN,
    PUBLIC,
    Door,
)
from leekfanout.web.options import WebOptions
from tests.web.page_agent import TOKEN
from tests.web.served import KNOWN, Served, made_up_agent

EVERYTHING = (
    "/v1/agent/control",
    "/v1/agent/subscriptions",
    "/v1/agent/openapi.json",
    "/agent/events",
    "/agent/api/session",
    "/agent/api/subscriptions/shop-prod/log",
    "/agent/api/subscriptions/shop-prod/letters",
    "/agent/static/page.js",
    "/nothing",
)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(made_up_agent(tmp_path)) as server:
        yield server


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def logged_in(served: Served) -> requests.Session:
    session = requests.Session()
    answer = session.post(
        f"{served.url}/agent/login", data={"token": TOKEN}, allow_redirects=False, timeout=10
    )
    assert answer.status_code == 303
    return session


def csrf_token(session: requests.Session, served: Served) -> str:
    html = session.get(f"{served.url}/agent", timeout=10).text
    return html.split('name="csrf-token" content="')[1].split('"')[0]


@pytest.mark.parametrize("path", EVERYTHING)
def test_an_outsider_gets_nothing_but_an_error(served: Served, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "PUT"):
        answer = requests.request(method, f"{served.url}{path}", timeout=10)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "401001"
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_no_route_tells_an_outsider_anything(tmp_path: Path, served: Served) -> None:
    routes = build(made_up_agent(tmp_path), Door(TOKEN, WebOptions())).routes
    paths = {re.sub(r"{id.*?}", "1", each.path).replace("{name}", KNOWN) for each in routes}
    assert {"/agent", f"/agent/api/subscriptions/{KNOWN}/letters/1"} < paths
    for path in sorted(paths - PUBLIC):
        for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "TRACE"):
            answer = requests.request(
                method, f"{served.url}{path}", timeout=10, allow_redirects=False
            )
            where = answer.headers.get("Location")
            assert (answer.status_code, where) in {(401, None), (303, LOGIN)}, (method, path)
            assert "Server" not in answer.headers
    login = requests.get(f"{served.url}{LOGIN}", timeout=10).text
    assert VERSION not in login
    assert KNOWN not in login


@pytest.mark.parametrize("path", ["/", "/agent", "/agent/"])
def test_an_outsider_who_opens_the_page_is_asked_for_the_token(served: Served, path: str) -> None:
    answer = requests.get(f"{served.url}{path}", timeout=10)
    assert answer.url.endswith("/agent/login")
    assert "Token" in answer.text
    assert "csrf" not in answer.text


def test_the_token_opens_leeks_routes_as_a_header(served: Served) -> None:
    answer = requests.get(f"{served.url}/v1/agent/control", headers=bearer(), timeout=10)
    assert answer.status_code == 200
    assert answer.json()["type"] == "local"


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(served: Served) -> None:
    answer = requests.post(
        f"{served.url}/agent/login", data={"token": TOKEN}, allow_redirects=False, timeout=10
    )
    cookie = answer.headers["Set-Cookie"].lower()
    assert cookie.count("httponly") == cookie.count("samesite=strict") == 2
    assert TOKEN not in cookie
    proxied = requests.post(
        f"{served.url}/agent/login",
        data={"token": TOKEN},
        headers={"X-Forwarded-Proto": "https"},
        allow_redirects=False,
        timeout=10,
    )
    assert proxied.headers["Set-Cookie"].lower().count("secure") == 2


def test_a_cookie_alone_changes_nothing(served: Served) -> None:
    session = logged_in(served)
    url = f"{served.url}/v1/agent/control"
    assert session.delete(url, timeout=10).status_code == 403
    assert session.delete(url, headers={CSRF_HEADER: "x"}, timeout=10).status_code == 403
    other = csrf_token(logged_in(served), served)
    assert session.delete(url, headers={CSRF_HEADER: other}, timeout=10).status_code == 403
    own = csrf_token(session, served)
    assert session.delete(url, headers={CSRF_HEADER: own}, timeout=10).status_code == 200


@pytest.mark.parametrize(
    "other",
    ['prefs={"a":1}', "x=a b", "version=1", "flag", 'rabbit="abc', "a[b]=c", "=", "\xe9=\xe9"],
)
def test_no_other_cookie_of_the_host_keeps_anybody_out(served: Served, other: str) -> None:
    own = f"{COOKIE}={logged_in(served).cookies[COOKIE]}"
    for header in (f"{other}; {own}", f"{own}; {other}", f"{other};{own}"):
        answer = requests.get(
            f"{served.url}/agent/api/session",
            headers={"Cookie": header.encode("latin-1")},
            timeout=10,
        )
        assert answer.status_code == 200, header


def test_a_login_with_too_many_fields_counts_as_a_wrong_token(served: Served) -> None:
    fields = {f"field{number}": "1" for number in range(11)}
    statuses = [
        requests.post(
            f"{served.url}/agent/login", data={**fields, "token": TOKEN}, timeout=10
        ).status_code
        for _ in range(4)
    ]
    assert statuses == [401, 401, 429, 429]


def test_logging_out_ends_the_session_even_for_a_copy_of_the_cookie(served: Served) -> None:
    session = logged_in(served)
    cookie = session.cookies[COOKIE]
    headers = {CSRF_HEADER: csrf_token(session, served)}
    assert session.post(f"{served.url}/agent/logout", headers=headers, timeout=10).ok
    answer = requests.get(f"{served.url}/agent/api/session", cookies={COOKIE: cookie}, timeout=10)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_another_sites_page_cant_log_anybody_in(served: Served, headers: dict[str, str]) -> None:
    answer = requests.post(
        f"{served.url}/agent/login",
        data={"token": TOKEN},
        headers=headers,
        allow_redirects=False,
        timeout=10,
    )
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


def test_whoever_guesses_has_to_wait_and_who_is_in_stays_in(served: Served) -> None:
    session = logged_in(served)
    statuses = [
        requests.get(
            f"{served.url}/v1/agent/control", headers=bearer(f"guess-{number}"), timeout=10
        ).status_code
        for number in range(5)
    ]
    assert statuses[:2] == [401, 401]
    assert statuses[-1] == 429
    refused = requests.post(f"{served.url}/agent/login", data={"token": TOKEN}, timeout=10)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert session.get(f"{served.url}/agent/api/session", timeout=10).ok


def test_a_browser_that_has_been_in_before_isnt_kept_out_by_others(served: Served) -> None:
    url = f"{served.url}/agent/login"
    owner = logged_in(served)
    owner.cookies.clear(domain="127.0.0.1", path="/")
    while requests.post(url, data={"token": "a guess"}, timeout=10).status_code != 429:
        pass
    assert requests.post(url, data={"token": TOKEN}, timeout=10).status_code == 429
    forged = {BROWSER_COOKIE: "somebody.AAAA"}
    assert requests.post(url, data={"token": TOKEN}, cookies=forged, timeout=10).status_code == 429
    right = owner.post(url, data={"token": TOKEN}, allow_redirects=False, timeout=10)
    assert right.status_code == 303
    # It has to wait for its own guesses.
    owner.cookies.clear(domain="127.0.0.1", path="/")
    statuses = [owner.post(url, data={"token": "a guess"}, timeout=10).status_code for _ in "four"]
    assert statuses[-1] == 429
    assert owner.post(url, data={"token": TOKEN}, timeout=10).status_code == 429


def test_what_marks_a_browser_opens_nothing(served: Served) -> None:
    mark = logged_in(served).cookies[BROWSER_COOKIE]
    answer = requests.get(
        f"{served.url}/agent/api/session", cookies={COOKIE: mark, BROWSER_COOKIE: mark}, timeout=10
    )
    assert answer.status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "10.0.0.1", "", "[::2]"])
def test_a_foreign_host_name_is_refused_whatever_else_is_right(served: Served, host: str) -> None:
    answer = requests.get(
        f"{served.url}/agent/login", headers={"Host": host, **bearer()}, timeout=10
    )
    assert answer.status_code == 400
    assert "Token" not in answer.text


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:8000", "agent.example.com"])
def test_the_pages_own_names_are_good(tmp_path: Path, host: str) -> None:
    options = WebOptions(hosts=frozenset({"agent.example.com"}))
    with Served(made_up_agent(tmp_path), options) as served:
        assert requests.get(f"{served.url}/agent/login", headers={"Host": host}, timeout=10).ok


def test_a_large_body_is_refused(served: Served) -> None:
    url = f"{served.url}/v1/agent/subscriptions"
    large = b"x" * (BODY_MAX_BYTES + 1)
    assert requests.post(url, data=large, headers=bearer(), timeout=10).status_code == 413
    chunks = (large[start : start + 10_000] for start in range(0, len(large), 10_000))
    assert requests.post(url, data=chunks, headers=bearer(), timeout=10).status_code == 413


def test_every_answer_has_the_security_headers(served: Served) -> None:
    for path in ("/agent/login", "/agent", "/v1/agent/control", "/nothing"):
        headers = requests.get(f"{served.url}{path}", timeout=10).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "cookie", ["", "x", "..", "1.a.b", "9999999999.id.", "x" * 4_000, "99999999999999.\xe9.\xe9"]
)
def test_a_made_up_cookie_is_worth_nothing(served: Served, cookie: str) -> None:
    answer = requests.get(
        f"{served.url}/agent/api/session",
        headers={"Cookie": f"{COOKIE}={cookie}".encode("latin-1")},
        timeout=10,
    )
    assert answer.status_code == 401
