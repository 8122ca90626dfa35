"""A threaded HTTP server's handler, on this thread."""

import socket

from leekfanout.metrics.http_server import BoundedHTTPServer

SPACE_BYTES = 4_000_000
"""All answers to an input fit into it, since nobody reads while the handler writes."""


def answers(server: BoundedHTTPServer, received: bytes) -> bytes:
    """Return what the server sends to a client that sends this and no more; raise what it raises."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SPACE_BYTES)
            end.settimeout(5)
        ours.sendall(received)
        ours.shutdown(socket.SHUT_WR)
        server.finish_request(theirs, ("127.0.0.1", 1))
        theirs.shutdown(socket.SHUT_WR)
        sent = b""
        while chunk := ours.recv(65_536):
            sent += chunk
        return sent
