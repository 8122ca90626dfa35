"""Health checks of the API tell what is wrong, and don't carry the key elsewhere."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from leekfanout.health import Check, Kind, check_api
from tests.api_double import ApiDouble
from tests.processes import free_ports
from tests.silent import SilentServer
from tests.test_config import load_one

Answers = dict[str, tuple[int, bytes] | tuple[int, bytes, dict[str, str]]]


class _Handler(BaseHTTPRequestHandler):
    answers: Answers
    requests: list[tuple[str, str, dict[str, str]]]

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.requests.append((self.command, self.path, headers))
        status, body, *extra = self.answers[self.command]
        self.send_response(status)
        for name, value in (extra[0] if extra else {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_OPTIONS = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass


class Api:
    def __init__(self) -> None:
        self.handler = type("Handler", (_Handler,), {"requests": [], "answers": {}})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def check(self, get: tuple, options: tuple = (200, b"")) -> Check:
        self.handler.answers = {"GET": get, "OPTIONS": options}
        return check_api(load_one(api_url=self.url))


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    thread = threading.Thread(target=api.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield api
    api.server.shutdown()
    thread.join(10)
    api.server.server_close()


READY = (200, b'"Ready!"\n', {"Content-Type": "application/json"})
ERROR = b'{"error": {"code": "404001", "message": "Not found", "reason": "no such application"}}'


def test_an_api_that_is_ready_is_told_so(api: Api) -> None:
    check = api.check(READY)
    assert check.ok
    assert api.url in check.words
    assert [(method, path) for method, path, _ in api.handler.requests] == [
        ("OPTIONS", "/v1/events/process"),
        ("GET", "/v1/events/process"),
    ]
    headers = api.handler.requests[1][2]
    assert headers["x-leek-app-key"] == "the-app-key"
    assert headers["x-requested-with"] == "leek-agent"


@pytest.mark.parametrize(
    ("get", "options", "kind", "refused"),
    [
        ((401, ERROR), (200, b""), Kind.KEY, True),
        ((403, b""), (200, b""), Kind.KEY, True),
        ((404, ERROR), (200, b""), Kind.APPLICATION, True),
        ((400, ERROR), (200, b""), Kind.HEADERS, True),
        ((503, ERROR), (200, b""), Kind.BUSY, False),
        ((429, b""), (200, b""), Kind.BUSY, False),
        ((418, b""), (200, b""), Kind.UNEXPECTED, False),
        ((204, b""), (200, b""), Kind.UNEXPECTED, False),
        (READY, (502, b""), Kind.BUSY, False),
        (READY, (405, b""), Kind.OK, False),
        (READY, (204, b""), Kind.OK, False),
        ((404, b""), (404, b""), Kind.PROTOCOL, False),
        ((200, b"<html>", {"Content-Type": "text/html"}), (200, b""), Kind.PROTOCOL, False),
    ],
)
def test_each_answer_has_its_meaning(
    api: Api, get: tuple, options: tuple, kind: Kind, refused: bool
) -> None:
    check = api.check(get, options)
    assert (check.kind, check.refused) == (kind, refused)
    assert check.ok is (kind is Kind.OK)
    assert "the-app-key" not in str(check)
    assert check.ok or check.advice


@pytest.mark.parametrize("method", ["OPTIONS", "GET"])
def test_redirects_are_not_followed(api: Api, method: str) -> None:
    moved = (302, b"", {"Location": f"{api.url}/login?token=secret-token"})
    check = api.check(*((moved, (200, b"")) if method == "GET" else (READY, moved)))
    assert check.kind is Kind.REDIRECT
    assert f"{api.url}/login" in check.words
    assert "secret-token" not in str(check)
    assert {path for _, path, _ in api.handler.requests} == {"/v1/events/process"}


def test_the_whole_contract_is_understood() -> None:
    with ApiDouble(app_key="the-app-key") as double:
        assert check_api(load_one(api_url=double.url)).ok
        check = check_api(load_one(api_url=double.url, app_key="another-key"))
        assert check.kind is Kind.KEY


def unreachable(url: str) -> Check:
    check = check_api(load_one(api_url=url))
    assert not check.ok
    assert not check.refused
    assert "u-pw" not in str(check)
    return check


def test_an_api_that_is_not_there_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leekfanout.health.api.TIMEOUT_S", 0.2)
    (port,) = free_ports(1)
    assert unreachable(f"http://u:u-pw@127.0.0.1:{port}").kind is Kind.CONNECTION_REFUSED
    assert unreachable("http://u:u-pw@nowhere.invalid").kind is Kind.HOST_UNKNOWN
    with SilentServer() as port:
        assert unreachable(f"http://u:u-pw@127.0.0.1:{port}").kind is Kind.TIMEOUT
    with SilentServer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf") as port:
        assert unreachable(f"http://u:u-pw@127.0.0.1:{port}").kind is Kind.TIMEOUT
    with SilentServer(b"220 mail.example.com ESMTP\r\n") as port:
        assert unreachable(f"http://u:u-pw@127.0.0.1:{port}").kind is Kind.PROTOCOL
    with SilentServer(closes=True) as port:
        assert unreachable(f"http://u:u-pw@127.0.0.1:{port}").kind is Kind.PROTOCOL
    with SilentServer(b"220 mail.example.com ESMTP\r\n") as port:
        assert unreachable(f"https://u:u-pw@127.0.0.1:{port}").kind is Kind.TLS


def test_a_proxy_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("http_proxy", f"http://p:proxy-pw@127.0.0.1:{port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    check = check_api(load_one(api_url="http://leek.example"))
    assert "proxy" in check.words
    assert "proxy-pw" not in str(check)


def test_user_and_password_of_the_url_are_sent_but_not_shown(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.handler.answers = {"GET": READY, "OPTIONS": (200, b"")}
    check = check_api(load_one(api_url=api.url.replace("http://", "http://front:door-pw@")))
    assert check.ok
    assert "door-pw" not in str(check)
    assert api.handler.requests[0][2]["authorization"].startswith("Basic ")
