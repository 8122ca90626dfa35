"""The client of the control socket, where what answers is no agent that is well."""

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from leekfanout.control.control_client import Client, NoAgentError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 100000\r\n\r\n"
BEGUN = b"<?xml version='1.0'?><methodResponse><params><param><value><string>"


@pytest.mark.parametrize(
    "sent",
    [b"", HEAD[:20], HEAD, HEAD + BEGUN + b"x" * 5_000],
    ids=["at once", "in its head", "before its body", "in its body"],
)
def test_an_answer_that_breaks_off_is_a_lost_connection(tmp_path: Path, sent: bytes) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            with contextlib.suppress(OSError):  # the listener is closed
                while True:
                    client, _ = listener.accept()
                    with client:
                        client.recv(65_536)
                        client.sendall(sent)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(NoAgentError, match=r"control\.sock"):
            Client(path, answer_timeout_s=10).call("leekfanout.getStatus")
        listener.shutdown(socket.SHUT_RDWR)
