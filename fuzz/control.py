"""Bytes on the control socket: each connection is answered or dropped, and none stays behind."""

import selectors
import socket
import tempfile
from pathlib import Path

from fuzz.api import methods
from fuzz.http_answers import check_answers
from leekfanout.control.control_server import ControlServer

SELECTOR = selectors.DefaultSelector()
FOLDER = tempfile.TemporaryDirectory(prefix="leekfanout-fuzz-")
PATH = Path(FOLDER.name, "control.sock")
SERVER = ControlServer(PATH, SELECTOR, methods())


def one_input(received: bytes) -> None:
    """Raise if the server does, gives a bad answer, or keeps a connection whose client has gone."""
    middle = len(received) // 2
    for pieces in ([received], [received[:middle], received[middle:]]):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(PATH))
            for piece in pieces:
                send(client, piece)
                turn()
            client.shutdown(socket.SHUT_WR)
            turn()
            check_answers(read(client))
        turn()
    assert len(SELECTOR.get_map()) == 1, "A connection has stayed behind."


def turn() -> None:
    """Do what the supervisor's loop does, until there is nothing to do."""
    while events := SELECTOR.select(0):
        for key, _ in events:
            key.data()


def send(client: socket.socket, piece: bytes) -> None:
    try:
        client.sendall(piece)
    except ConnectionError:
        return  # it has been answered already


def read(client: socket.socket) -> bytes:
    answer = b""
    try:
        while chunk := client.recv(65_536):
            answer += chunk
            turn()
    except ConnectionError:
        pass  # closed by the server, which hadn't read all
    return answer
