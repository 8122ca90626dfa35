"""What a client does to a listener: be slow, send a gigabyte, come in crowds, not read, go away."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from leekfanout.control.http_request import HEAD_MAX_BYTES
from leekfanout.sink import sink_http
from leekfanout.sink.leek_api import Sink
from tests.listeners import ALL, Bounds, Listener
from tests.waiting import until

WAIT_S = 20.0
PATIENCE_S = 1.0

GIGABYTE = 1_000_000_000
PIECE = b"x" * 1_000_000
TAKEN_MAX = 100_000_000
"""The sink discards 32 MB of what it refuses; and some of it fits into the system's buffers."""

Open = Callable[..., Listener]


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Return what opens a listener, by its name, for the time of the test."""
    with ExitStack() as stack:

        def listen(name: str, **bounds: float) -> Listener:
            return stack.enter_context(ALL[name](Bounds(**bounds), monkeypatch))

        yield listen


each = pytest.mark.parametrize("name", ALL)


def head(listener: Listener, *lines: str, method: str = "POST", host: str = "localhost") -> bytes:
    first = f"{method} {listener.path} HTTP/1.1"
    return "\r\n".join([first, f"Host: {host}", *lines, "", ""]).encode()


def is_cut(client: socket.socket, more: bytes = b"x") -> bool:
    """Send a little more; whether the other side has closed, with an answer or without."""
    client.settimeout(0.1)
    try:
        client.sendall(more)
        while client.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def taken_bytes(client: socket.socket, begin: bytes, piece: bytes) -> int:
    """Send up to a gigabyte, and return how much of it the other side has taken before it closed."""
    client.sendall(begin)
    taken = 0
    with suppress(ConnectionError):
        while taken < GIGABYTE:
            client.sendall(piece)
            taken += len(piece)
    return taken


@each
def test_a_head_that_trickles_in_is_cut_and_keeps_nobody_waiting(listen: Open, name: str) -> None:
    listener = listen(name, patience_s=PATIENCE_S)
    with listener.connect() as slow:
        slow.sendall(head(listener, method="GET").removesuffix(b"\r\n") + b"X-Slow: ")
        assert listener.is_answered()
        until(lambda: is_cut(slow), WAIT_S, "the connection to be cut")
    assert listener.is_answered()


@each
def test_a_body_that_trickles_in_is_cut_and_keeps_nobody_waiting(listen: Open, name: str) -> None:
    listener = listen(name, patience_s=PATIENCE_S)
    with listener.connect() as slow:
        slow.sendall(head(listener, "Content-Length: 1000"))
        assert listener.is_answered()
        until(lambda: is_cut(slow), WAIT_S, "the connection to be cut")
    assert listener.is_answered()


@each
def test_a_body_of_a_gigabyte_is_not_taken(listen: Open, name: str) -> None:
    listener = listen(name)
    with listener.connect() as large:
        begin = head(listener, f"Content-Length: {GIGABYTE}")
        assert taken_bytes(large, begin, PIECE) < TAKEN_MAX
    assert listener.is_answered()


@each
def test_a_body_without_an_end_is_not_taken(listen: Open, name: str) -> None:
    listener = listen(name)
    with listener.connect() as large:
        begin = head(listener, "Transfer-Encoding: chunked")
        chunk = b"%x\r\n%s\r\n" % (len(PIECE), PIECE)
        assert taken_bytes(large, begin, chunk) < TAKEN_MAX
    assert listener.is_answered()


@each
@pytest.mark.parametrize("piece", [PIECE, b"X-Large: 1\r\n" * 10_000], ids=["line", "lines"])
def test_a_head_without_an_end_is_not_taken(listen: Open, name: str, piece: bytes) -> None:
    listener = listen(name)
    with listener.connect() as large:
        begin = head(listener).removesuffix(b"\r\n")
        assert taken_bytes(large, begin, piece) < TAKEN_MAX
    assert listener.is_answered()


@pytest.mark.parametrize("name", ["control", "metrics", "sink"])
def test_a_head_above_the_bound_is_answered_with_431(listen: Open, name: str) -> None:
    listener = listen(name)
    with listener.connect() as large:
        large.sendall(head(listener, "X-Large: ".ljust(HEAD_MAX_BYTES, "x")))
        assert large.recv(12)[-3:] == b"431"


@each
def test_clients_that_say_nothing_keep_nobody_out_for_long(listen: Open, name: str) -> None:
    listener = listen(name, patience_s=PATIENCE_S, connections_max=20)
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(closing(listener.connect()))
        until(listener.is_answered, WAIT_S, "an answer in spite of idle connections")


@each
def test_a_connection_above_the_bound_is_closed_at_once(listen: Open, name: str) -> None:
    listener = listen(name, connections_max=5)
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(listener.connect())) for _ in range(6)]
        until(lambda: is_cut(clients[-1], b""), WAIT_S, "the sixth connection to be closed")
        assert not any(is_cut(client, b"") for client in clients[:-1])


@pytest.mark.parametrize("name", ["sink", "page"])
def test_a_client_that_asks_on_and_on_and_does_not_read_is_cut(listen: Open, name: str) -> None:
    listener = listen(name, patience_s=PATIENCE_S)
    with listener.connect() as silent:
        silent.settimeout(0.2)
        questions = head(listener, method="GET") * 100
        # The answers fill all buffers, then the questions do; or it has been cut by then.
        with suppress(TimeoutError, ConnectionError):
            while True:
                silent.sendall(questions)
        until(lambda: listener.connections() == 0, WAIT_S, "the connection to be cut")
    assert listener.is_answered()


def test_a_stranger_to_the_page_cannot_stay_by_sending_on(listen: Open) -> None:
    listener = listen("page", patience_s=PATIENCE_S)
    with listener.connect() as stranger:
        stranger.sendall(head(listener, "Transfer-Encoding: chunked", host="evil.example"))
        until(lambda: is_cut(stranger, b"1\r\nx\r\n"), WAIT_S, "the connection to be cut")


def test_the_sink_does_not_cut_a_client_that_it_keeps_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sink_http.Server, "lifetime_s", PATIENCE_S)
    with Sink(delay_s=3_600) as sink:
        address = ("127.0.0.1", int(sink.url.rpartition(":")[2]))
        waiting = socket.create_connection(address)
        slow = socket.create_connection(address)
        with waiting, slow:
            waiting.sendall(
                f"POST {sink_http.ENDPOINT} HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]".encode()
            )
            until(lambda: sink.posts_under_way_max == 1, WAIT_S, "the POST to arrive")
            slow.sendall(b"POST ")
            until(lambda: is_cut(slow), WAIT_S, "the slow connection to be cut")
            assert not is_cut(waiting, b"")


def test_an_address_that_is_none_is_a_bad_request(listen: Open) -> None:
    with listen("metrics").connect() as client:
        client.sendall(b"GET http://[::1/metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(12)[-3:] == b"400"


@each
def test_strangers_cannot_fill_the_log(
    listen: Open, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    listener = listen(name)
    for _ in range(20):
        for request in (b"nonsense\r\n\r\n", head(listener, method="GET"), b"GET / HTTP/1.1\r\n"):
            with listener.connect() as client:
                client.sendall(request)
                client.shutdown(socket.SHUT_WR)
                with suppress(ConnectionError):
                    client.recv(65_536)
    assert len(caplog.records) <= 1


def fail_with(error: Exception) -> None:
    raise error


def test_a_client_that_goes_away_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    with sink_http.Server("127.0.0.1", 0, {}) as server:
        for error in (ConnectionResetError(), BrokenPipeError(), TimeoutError(), KeyError()):
            try:
                fail_with(error)
            except Exception:
                server.handle_error(None, ("127.0.0.1", 1))
    assert [record.getMessage() for record in caplog.records] == ["request.failed"]
