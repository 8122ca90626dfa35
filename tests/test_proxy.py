"""The TCP proxy spoils connections exactly as it is told, and forwards every byte otherwise."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.proxy import TcpProxy
from tests.waiting import until


class Echo:
    """A server that sends back whatever it gets."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    @staticmethod
    def _serve(peer: socket.socket) -> None:
        with peer:
            try:
                while chunk := peer.recv(65_536):
                    peer.sendall(chunk)
            except OSError:
                pass

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    echo = Echo()
    with TcpProxy(echo.port) as proxy:
        yield proxy
    echo.close()


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 5)


def receive(peer: socket.socket, count: int) -> bytes:
    """Return so many bytes, or fewer where the connection ends."""
    received = b""
    while len(received) < count and (chunk := peer.recv(count - len(received))):
        received += chunk
    return received


def test_every_byte_passes_both_ways(proxy: TcpProxy) -> None:
    payload = bytes(range(256)) * 8_192
    with connect(proxy) as peer:
        sender = threading.Thread(target=peer.sendall, args=(payload,))
        sender.start()
        assert receive(peer, len(payload)) == payload
        sender.join()
        assert proxy.connections_open == 1
    until(lambda: proxy.connections_open == 0, 5, "the connection to be forgotten")
    assert proxy.bytes_forwarded == {"up": len(payload), "down": len(payload)}


@pytest.mark.parametrize("byte", [0, 1, 7, 5_000])
def test_a_connection_is_cut_at_exactly_the_byte_that_was_named(proxy: TcpProxy, byte: int) -> None:
    proxy.cut_at("down", byte)
    with connect(proxy) as peer:
        peer.sendall(b"x" * 10_000)
        assert receive(peer, 10_000) == b"x" * byte
    proxy.cut_at("down", None)
    with connect(proxy) as peer:
        peer.sendall(b"x" * 10_000)
        assert len(receive(peer, 10_000)) == 10_000


def test_a_cut_on_the_way_up_keeps_the_rest_from_the_server(proxy: TcpProxy) -> None:
    proxy.cut_at("up", 100)
    with connect(proxy) as peer:
        peer.sendall(b"x" * 1_000)
        assert receive(peer, 1_000) in {b"x" * 100, b""}  # the answer races with the cut
    assert proxy.bytes_forwarded["up"] == 100


def test_a_cut_may_be_an_end_or_a_reset(proxy: TcpProxy) -> None:
    with connect(proxy) as peer:
        peer.sendall(b"hello")
        assert receive(peer, 5) == b"hello"
        assert proxy.cut() == 1
        assert peer.recv(1) == b""
    until(lambda: proxy.connections_open == 0, 5, "the connection to be forgotten")
    with connect(proxy) as peer:
        peer.sendall(b"hello")
        assert receive(peer, 5) == b"hello"
        assert proxy.cut(reset=True) == 1
        with pytest.raises(ConnectionResetError):
            peer.recv(1)


def test_a_connection_whose_receiver_takes_nothing_can_be_cut(proxy: TcpProxy) -> None:
    with connect(proxy) as peer:
        peer.setblocking(False)
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += peer.send(b"x" * 1_000_000)
        assert filled > 0
        proxy.cut(reset=True)
        until(lambda: proxy.connections_open == 0, 5, "the stuck connection to end")


def test_a_pause_holds_everything_back_and_loses_nothing(proxy: TcpProxy) -> None:
    with connect(proxy) as peer:
        proxy.pause()
        peer.sendall(b"hello")
        peer.settimeout(0.3)
        with pytest.raises(TimeoutError):
            peer.recv(1)
        proxy.resume()
        peer.settimeout(5)
        assert receive(peer, 5) == b"hello"


def test_a_black_hole_swallows_and_healing_cuts_what_was_swallowed(proxy: TcpProxy) -> None:
    with connect(proxy) as before:
        before.sendall(b"hello")
        assert receive(before, 5) == b"hello"
        proxy.black_hole = True
        with connect(proxy) as during:
            for peer in (before, during):
                peer.sendall(b"hello")
                peer.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    peer.recv(1)
            proxy.heal()
            for peer in (before, during):
                peer.settimeout(5)
                assert peer.recv(1) == b""
    with connect(proxy) as peer:
        peer.sendall(b"hello")
        assert receive(peer, 5) == b"hello"


def test_latency_and_pace_delay_what_passes(proxy: TcpProxy) -> None:
    with connect(proxy) as peer:
        proxy.latency_s = 0.1
        started = time.monotonic()
        peer.sendall(b"x")
        receive(peer, 1)
        assert time.monotonic() - started >= 0.2
        proxy.latency_s = 0.0
        proxy.bytes_per_s = 100_000
        started = time.monotonic()
        peer.sendall(b"x" * 20_000)
        receive(peer, 20_000)
        assert time.monotonic() - started >= 0.2


def test_a_url_can_be_led_through_the_proxy(proxy: TcpProxy) -> None:
    led = proxy.url("amqp://guest:p%40ss@broker:5672/a%2Fb?heartbeat=5")
    assert led == f"amqp://guest:p%40ss@127.0.0.1:{proxy.port}/a%2Fb?heartbeat=5"
    assert proxy.url("http://api:1") == f"http://127.0.0.1:{proxy.port}"


def test_down_refuses_and_healed_accepts_on_the_same_port(proxy: TcpProxy) -> None:
    with connect(proxy) as peer:
        until(lambda: proxy.connections_open == 1, 5, "the connection to be accepted")
        proxy.go_down()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        assert peer.recv(1) == b""
    proxy.heal()
    with connect(proxy) as peer:
        peer.sendall(b"hello")
        assert receive(peer, 5) == b"hello"
    assert proxy.connections_accepted == 2
