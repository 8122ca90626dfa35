"""A server that takes connections and says nothing, or one thing."""

import socket
import threading
from types import TracebackType


class SilentServer:
    """Accepts on a free loopback port; the context manager gives the port.

    Each connection gets ``greeting``, and is closed at once if ``closes``; else it stays open.
    """

    def __init__(self, greeting: bytes = b"", closes: bool = False) -> None:
        self._greeting = greeting
        self._closes = closes
        self._peers: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, name="silent", daemon=True)

    def __enter__(self) -> int:
        self._thread.start()
        return int(self._listener.getsockname()[1])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        for each in (self._listener, *self._peers):
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            peer.sendall(self._greeting)
            if self._closes:
                peer.close()
            else:
                self._peers.append(peer)
