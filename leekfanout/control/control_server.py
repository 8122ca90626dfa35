"""The control socket: XML-RPC over HTTP on a Unix socket, within the supervisor's selector.

One request for each connection. Nothing here blocks: a client that is slow, silent or gone costs
a descriptor until its deadline, and no more.
"""

import errno
import math
import os
import selectors
import socket
import stat
import struct
import time
from collections.abc import Generator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final

from leekfanout import logs
from leekfanout.control.http_request import HttpError, Request, RequestReader, response
from leekfanout.control.rpc import BadRequestError, Rpc
from leekfanout.errors import AgentRunsError, LeekfanoutError
from leekfanout.stores.process_lock import ProcessLock

PATH: Final = "/RPC2"

REQUEST_S: Final = 10.0
"""A request must have come in full within this time of the connection."""

RESPONSE_S: Final = 10.0
"""An answer must have been taken within this time."""

CONNECTIONS_MAX: Final = 64
"""More are turned away."""

RECEIVE_BYTES: Final = 65_536

log = logs.get("control")


class ControlServer:
    """Listens for the agent's own user and for root, and answers with an :class:`Rpc`.

    Used by the supervisor's only thread; times are monotonic seconds.
    """

    def __init__(self, path: Path, selector: selectors.BaseSelector, rpc: Rpc) -> None:
        """Raises AgentRunsError: another agent has the socket; LeekfanoutError: it can't be made."""
        self._path = path
        self._selector = selector
        self._rpc = rpc
        self._connections: set[_Connection] = set()
        # Beside the socket: two agents that find the socket of a third one gone would both replace it.
        self._lock = ProcessLock(path.with_name(f"{path.name}.lock"))
        self._listener = _listen(path, self._lock)
        self._inode = os.stat(path).st_ino
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def due(self) -> float:
        """Return when :meth:`tick` has something to do, unless something else happens before."""
        return min((connection.deadline for connection in self._connections), default=math.inf)

    def tick(self, now: float) -> None:
        """Answer those calls whose wait is over, and drop the clients whose time is."""
        for connection in list(self._connections):
            if now >= connection.deadline:
                self._drop(connection)
            elif connection.call is not None:
                self._advance(connection)

    def close(self) -> None:
        """Stop listening, and remove the socket's file if it is still this one's."""
        with suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:
                self._path.unlink()
        self.release()

    def release(self) -> None:
        """Close the descriptors, in a forked child that has no business with them."""
        self._lock.close()
        self._listener.close()
        for connection in self._connections:
            connection.socket.close()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # gone again, or no descriptor is left
            return
        if len(self._connections) >= CONNECTIONS_MAX or not _is_permitted(client):
            client.close()
            return
        client.setblocking(False)
        connection = _Connection(client, time.monotonic() + REQUEST_S)
        self._connections.add(connection)
        self._selector.register(client, selectors.EVENT_READ, lambda: self._read(connection))

    def _read(self, connection: "_Connection") -> None:
        try:
            received = connection.socket.recv(RECEIVE_BYTES)
            request = connection.reader.feed(received) if received else None
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        except HttpError as error:
            self._answer(connection, response(error.status))
            return
        if not received:
            self._drop(connection)
        elif request is not None:
            self._begin(connection, request)

    def _begin(self, connection: "_Connection", request: Request) -> None:
        if request.path != PATH:
            self._answer(connection, response(HTTPStatus.NOT_FOUND))
        elif request.method != "POST":
            self._answer(connection, response(HTTPStatus.METHOD_NOT_ALLOWED))
        else:
            # What was begun goes on to its end even if the client doesn't wait for it, so it isn't
            # listened to any more; every wait has an end (a start's second, a stop's drain time).
            self._selector.unregister(connection.socket)
            connection.deadline = math.inf
            connection.call = self._rpc.respond(request.body)
            self._advance(connection)

    def _advance(self, connection: "_Connection") -> None:
        assert connection.call is not None
        try:
            next(connection.call)
        except StopIteration as end:
            self._answer(connection, response(HTTPStatus.OK, end.value, "text/xml"))
        except BadRequestError as error:
            log.debug("control.bad_request", error=error)
            self._answer(connection, response(HTTPStatus.BAD_REQUEST))

    def _answer(self, connection: "_Connection", answer: bytes) -> None:
        connection.call = None
        connection.deadline = time.monotonic() + RESPONSE_S
        connection.answer = memoryview(answer)
        with suppress(KeyError):
            self._selector.unregister(connection.socket)
        self._selector.register(
            connection.socket, selectors.EVENT_WRITE, lambda: self._write(connection)
        )
        self._write(connection)

    def _write(self, connection: "_Connection") -> None:
        try:
            sent = connection.socket.send(connection.answer)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        connection.answer = connection.answer[sent:]
        if not connection.answer:
            self._drop(connection)

    def _drop(self, connection: "_Connection") -> None:
        with suppress(KeyError):
            self._selector.unregister(connection.socket)
        connection.socket.close()
        self._connections.discard(connection)


class _Connection:
    """A client: its request comes in, or its call is under way, or its answer goes out."""

    __slots__ = ("answer", "call", "deadline", "reader", "socket")

    def __init__(self, client: socket.socket, deadline: float) -> None:
        self.socket = client
        self.deadline = deadline
        self.reader = RequestReader()
        self.call: Generator[None, None, bytes] | None = None
        self.answer = memoryview(b"")


def _listen(path: Path, lock: ProcessLock) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path, lock)
        umask = os.umask(0o177)  # so that there is no moment in which others might connect
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(umask)
        listener.listen(CONNECTIONS_MAX)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        lock.close()
        raise LeekfanoutError(
            f"The control socket {path} can't be made: {error.strerror or error}."
        ) from None
    except BaseException:
        listener.close()
        lock.close()
        raise
    return listener


def _clear(path: Path, lock: ProcessLock) -> None:
    """Remove the socket of an agent that is gone; OSError: something else has the name."""
    if not lock.take() or _answers(path):
        raise AgentRunsError(
            f"Another agent runs and listens on {path}: stop it first, or give this one a "
            "--state-dir and a --socket of its own."
        )
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "something that is no socket has this name")
        path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:  # its queue is full: it is there, and busy
            return True
        return True


def _is_permitted(client: socket.socket) -> bool:
    # unix(7), SO_PEERCRED: struct ucred holds pid, uid and gid of who connected.
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    if uid in {0, os.geteuid()}:
        return True
    log.warning("control.denied", uid=uid)
    return False
