"""The HTTP side: headers, keep-alive, slow and broken peers, proxies, TLS, errors in plain words."""

import contextlib
import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest
import trustme

from leekfanout.configuration.config import Subscription, Tls
from leekfanout.delivery.poster import ANSWER_MAX_BYTES, Poster, headers_of
from leekfanout.version import VERSION
from tests.api_double import ApiDouble
from tests.api_exchange import Reply
from tests.waiting import until

SECRET = "s3cret-app-key"
MB = 1_000_000


def subscription(api_url: str, **keys) -> Subscription:
    return Subscription(
        org_name="acme",
        app_name="shop",
        app_env="qa",
        broker=("amqp://broker",),
        app_key=SECRET,
        api_url=api_url,
        **{"api_connect_timeout_in_seconds": 1, "api_read_timeout_in_seconds": 10, **keys},
    )


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def api() -> Iterator[ApiDouble]:
    with ApiDouble(SECRET) as double:
        yield double


@pytest.fixture
def poster_to() -> Iterator[Callable[..., Poster]]:
    posters = []

    def make(api_url: str, **keys) -> Poster:
        posters.append(poster := Poster(subscription(api_url, **keys)))
        return poster

    yield make
    for poster in posters:
        poster.close()


@pytest.fixture
def poster(api, poster_to) -> Poster:
    return poster_to(api.url)


@pytest.fixture
def raw_server() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """A server below HTTP: each connection is a function's."""
    listeners, threads = [], []

    def serve(handler: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def handle(peer: socket.socket) -> None:
            with peer, contextlib.suppress(OSError):
                handler(peer)

        def accept() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threads.append(thread := threading.Thread(target=handle, args=(peer,), daemon=True))
                thread.start()

        threads.append(thread := threading.Thread(target=accept, daemon=True))
        thread.start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


# Headers and paths


def test_a_post_carries_the_headers_of_the_contract(api, poster):
    assert poster.post(b'[{"id":"a"}]').status == 201
    (post,) = api.posts
    expected = {
        "content-type": "application/json",
        "x-requested-with": "leek-agent",
        "x-agent-version": VERSION,
        "x-leek-org-name": "acme",
        "x-leek-app-name": "shop",
        "x-leek-app-env": "qa",
        "x-leek-app-key": SECRET,
        "content-length": "12",
    }
    assert {name: post.request.headers[name] for name in expected} == expected
    assert headers_of(subscription("http://api")) == {
        name: value for name, value in expected.items() if name != "content-length"
    }
    assert "transfer-encoding" not in post.request.headers
    assert post.request.path == "/v1/events/process"
    assert post.body == b'[{"id":"a"}]'


def test_a_url_with_a_path_keeps_its_path(raw_server, poster_to):
    seen = []

    def handler(peer: socket.socket) -> None:
        seen.append(peer.recv(65_536))
        peer.sendall(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")

    assert poster_to(raw_server(handler) + "/leek/api").post(b"[]").status == 201
    assert seen[0].startswith(b"POST /leek/api/v1/events/process HTTP/1.1\r\n")


def test_a_probe_is_a_get_with_the_same_headers_and_no_body(raw_server, poster_to):
    seen = []

    def handler(peer: socket.socket) -> None:
        seen.append(peer.recv(65_536))
        peer.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n"Ready!"')

    answer = poster_to(raw_server(handler)).probe()
    assert (answer.status, answer.body) == (200, b'"Ready!"')
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"GET /v1/events/process HTTP/1.1\r\n")
    assert b"x-leek-app-key: " + SECRET.encode() in head
    assert body == b""


def test_user_and_password_of_the_url_go_into_a_header(api, poster_to):
    answer = poster_to(api.url.replace("//", "//alice:wonder@")).post(b"[]")
    assert answer.status == 201
    assert api.posts[0].request.headers["authorization"] == "Basic YWxpY2U6d29uZGVy"
    assert "wonder" not in api.posts[0].request.path


def test_cookies_are_not_kept(api, poster):
    api.script([Reply(201, headers={"set-cookie": "session=1"}), None])
    poster.post(b"[]")
    poster.post(b"[]")
    assert "cookie" not in api.posts[1].request.headers


# Answers


@pytest.mark.parametrize("status", [200, 201, 204, 302, 400, 401, 409, 413, 429, 500, 503])
def test_status_headers_and_body_come_back_as_they_are(api, poster, status):
    body = b"" if status == 204 else b'{"a": 1}'
    api.script([Reply(status, body, headers={"Retry-After": "7"})])
    answer = poster.post(b"[]")
    assert (answer.status, answer.body, answer.error) == (status, body, "")
    assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(api, poster, status):
    with ApiDouble(SECRET) as elsewhere:
        reply = Reply(status, headers={"location": f"{elsewhere.url}/v1/events/process"})
        api.always(reply)
        assert poster.post(b"[]").status == status
        assert poster.probe().status == status
        assert elsewhere.connections_accepted == 0


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("missing", [1, 5])
def test_half_an_answer_is_none(api, poster, reset, missing):
    reply = Reply(201, b'{"success": 1}')
    whole = len(
        b"HTTP/1.1 201 Created\r\ncontent-length: 14\r\ncontent-type: application/json\r\n\r\n"
    )
    cut = Reply(201, reply.body, cut_after_bytes=whole + 14 - missing, reset=reset)
    api.script([cut, None])
    answer = poster.post(b"[]")
    assert answer.status is None
    assert answer.error == "the API closed the connection before it had answered"
    assert poster.post(b"[]").status == 201


def test_a_connection_that_is_closed_before_the_answer_gives_none(api, poster):
    api.script([Reply(201, cut_after_bytes=0), None])
    assert poster.post(b"[]").status is None
    assert poster.post(b"[]").status == 201


def test_rubbish_instead_of_http_is_no_answer(raw_server, poster_to):
    def handler(peer: socket.socket) -> None:
        peer.recv(65_536)
        peer.sendall(b"\x15\x03\x01\x00\x02\x02\x46" * 10 + b"\r\n\r\n")

    answer = poster_to(raw_server(handler)).post(b"[]")
    assert answer.status is None
    assert answer.error


@pytest.mark.parametrize("encoded", [False, True])
def test_of_a_huge_answer_only_the_beginning_is_read(api, poster, encoded):
    body = b" " * (30 * MB)
    headers = {}
    if encoded:
        body, headers = gzip.compress(body), {"content-encoding": "gzip"}
    api.script([Reply(500, body, headers=headers), None])
    answer = poster.post(b"[]")
    assert answer.status == 500
    assert len(answer.body) <= ANSWER_MAX_BYTES + 100_000
    assert poster.post(b"[]").status == 201


# Connections


def test_a_connection_is_kept_and_used_again(api, poster):
    for _ in range(5):
        assert poster.post(b"[]").status == 201
    poster.probe()
    assert api.connections_accepted == 1


@pytest.mark.parametrize("status", [302, 400, 413, 503])
def test_refusals_leave_the_connection_usable(api, poster, status):
    api.script([Reply(status, {"error": {}})] * 3 + [None])
    for _ in range(4):
        poster.post(b"[]")
    assert api.connections_accepted == 1


def test_a_connection_that_was_closed_while_idle_is_made_anew(api, poster):
    for _ in range(3):
        assert poster.post(b"[]").status == 201
        until(lambda: api.cut_connections(idle_only=True) == 1, 5, "the connection to be idle")
        until(lambda: api.connections_open == 0, 5, "the connection to be closed")
    assert api.connections_accepted == 3


def test_nothing_is_posted_twice_by_itself(api, poster):
    api.script([Reply(201, cut_after_bytes=0, reset=True)])
    assert poster.post(b"[]").status is None
    assert len(api.posts) == 1


def test_an_api_that_comes_back_is_found_again(api, poster):
    assert poster.post(b"[]").status == 201
    api.go_down()
    assert poster.post(b"[]").error == "the API refuses connections"
    assert poster.probe().status is None
    api.come_up()
    assert poster.post(b"[]").status == 201


# Time


def test_a_slow_upload_is_no_reason_to_give_up(api, poster):
    api.read_bytes_per_s = 4 * MB
    assert poster.post(b"[]").status == 201
    # The second one is sent on the kept connection, which must be as patient as a new one.
    for _ in range(2):
        # More than the system's buffers take, so that sending takes longer than the connect timeout.
        assert poster.post(b"[" + b" " * (9 * MB) + b"]").status == 201
    assert api.connections_accepted == 1


def test_a_small_body_on_a_slow_line_goes_through(api, poster_to):
    api.read_bytes_per_s = 100_000
    poster = poster_to(api.url, api_read_timeout_in_seconds=0.5)
    assert poster.post(b"[" + b" " * 150_000 + b"]").status == 201


def test_an_api_that_never_answers_is_given_up_after_the_read_timeout(api, poster_to):
    api.script([Reply(201, silent=True), None])
    poster = poster_to(api.url, api_read_timeout_in_seconds=0.2)
    answer = poster.post(b"[]")
    assert (answer.status, answer.error) == (None, "no answer from the API in time")
    assert poster.post(b"[]").status == 201
    assert api.connections_accepted == 2


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 201 Created\r\ncontent-length: 1000000\r\n\r\n",
        b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\nffff\r\n",
        b"HTTP/1.1 201 Created\r\n\r\n",
    ],
)
def test_an_answer_that_trickles_in_without_end_is_given_up(raw_server, poster_to, head):
    ended = threading.Event()

    def handler(peer: socket.socket) -> None:
        peer.recv(65_536)
        peer.sendall(head)
        while not ended.wait(0.05):
            peer.sendall(b" ")

    poster = poster_to(
        raw_server(handler), api_connect_timeout_in_seconds=0.2, api_read_timeout_in_seconds=0.7
    )
    answers = []
    thread = threading.Thread(target=lambda: answers.append(poster.post(b"[]")), daemon=True)
    thread.start()
    try:
        until(lambda: answers, 5, "the POST to be given up")
    finally:
        ended.set()
        thread.join(10)
    assert answers[0].status is None
    assert answers[0].error == "no answer from the API in time"


def test_a_proxy_that_refuses_a_large_body_early_is_heard(raw_server, poster_to):
    def handler(peer: socket.socket) -> None:
        peer.recv(4096)
        peer.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65_536):  # as nginx does: "lingering_close"
            pass

    assert poster_to(raw_server(handler)).post(b"[" + b" " * (3 * MB) + b"]").status == 413


# Proxies


def test_proxies_are_taken_from_the_environment(api, poster_to, monkeypatch):
    monkeypatch.setenv("http_proxy", api.url.replace("//", "//proxy:proxy-secret@"))
    api.script(lambda _: Reply(201))
    poster = poster_to("http://leek.example:5000")
    assert [poster.post(b"[]").status for _ in range(3)] == [201] * 3
    request = api.posts[0].request
    assert request.path == "http://leek.example:5000/v1/events/process"
    assert request.headers["proxy-authorization"] == "Basic cHJveHk6cHJveHktc2VjcmV0"
    assert request.headers["x-leek-app-key"] == SECRET
    assert api.connections_accepted == 1


def test_no_proxy_is_honoured(api, poster_to, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert poster_to(api.url).post(b"[]").status == 201


def test_a_proxy_that_is_away_is_told_apart(poster_to, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    monkeypatch.setenv("http_proxy", f"http://proxy:proxy-secret@127.0.0.1:{port}")
    answer = poster_to("http://leek.example").post(b"[]")
    assert answer.status is None
    assert "proxy" in answer.error
    assert "proxy-secret" not in answer.error


# TLS


@pytest.fixture
def tls_api(tmp_path) -> Iterator[tuple[str, str]]:
    """The URL of a TLS server, and the file of the authority that vouches for it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
                with context.wrap_socket(peer, server_side=True) as secured:
                    while secured.recv(65_536):
                        secured.sendall(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
            except OSError:
                if listener.fileno() < 0:
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"localhost:{listener.getsockname()[1]}", str(ca_file)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)
    assert not thread.is_alive()


def test_an_authority_of_ones_own_is_trusted_if_told_so(tls_api, poster_to):
    address, ca_file = tls_api
    poster = poster_to(f"https://{address}", api_tls=Tls(ca=ca_file))
    assert [poster.post(b"[]").status for _ in range(2)] == [201, 201]
    poster.close()


def test_the_environments_bundle_is_used_as_requests_uses_it(tls_api, poster_to, monkeypatch):
    address, ca_file = tls_api
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ca_file)
    poster = poster_to(f"https://{address}")
    assert poster.post(b"[]").status == 201
    poster.close()


def test_an_unknown_authority_is_told_in_plain_words(tls_api, poster_to):
    address, _ = tls_api
    answer = poster_to(f"https://{address}").post(b"[]")
    assert answer.status is None
    assert answer.error.startswith("the API's certificate can't be verified: ")


def test_https_to_a_plain_server_is_told_in_plain_words(raw_server, poster_to):
    def handler(peer: socket.socket) -> None:
        peer.recv(65_536)
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    answer = poster_to(raw_server(handler).replace("http:", "https:")).post(b"[]")
    assert (answer.status, answer.error) == (None, "TLS with the API failed")


# Errors in plain words


def test_a_host_name_that_doesnt_exist_is_told_in_plain_words(poster_to):
    answer = poster_to("http://leek.invalid").post(b"[]")
    assert (answer.status, answer.error) == (None, "the API's host name can't be resolved")


@pytest.mark.parametrize("reply", [Reply(201, cut_after_bytes=0), Reply(201, silent=True)])
def test_no_error_shows_a_secret(api, poster_to, reply):
    url = api.url.replace("//", "//alice:pass-word@")
    poster = poster_to(url, api_read_timeout_in_seconds=0.2)
    api.script(lambda _: reply)
    answers = [poster.post(b"[]")]
    api.go_down()
    answers += [poster.post(b"[]"), poster.probe()]
    for answer in answers:
        assert answer.status is None
        for secret in ("pass-word", SECRET, "127.0.0.1"):
            assert secret not in repr(answer)
