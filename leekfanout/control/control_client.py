"""The other end of the control socket: calls on an agent that runs."""

import argparse
import http.client
import os
import socket
import xmlrpc.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from xml.parsers import expat

from leekfanout.configuration import config
from leekfanout.control.process_info import GROUP
from leekfanout.errors import LeekfanoutError

SOCKET_VARIABLE: Final = "LEEKFANOUT_SOCKET"
SOCKET_NAME: Final = "control.sock"

CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 4_000.0
"""A stop may take as long as the longest drain time that can be set, an hour."""


class NoAgentError(LeekfanoutError):
    """No agent answers on the control socket."""


class RefusedError(LeekfanoutError):
    """The agent answers that it can't do what was asked; ``code`` is one of the Fault codes."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Client:
    """Calls methods of the agent that listens on ``path``; each call is a connection of its own.

    >>> Client(Path("/var/lib/leekfanout/control.sock")).call("supervisor.getState")
    {'statecode': 1, 'statename': 'RUNNING'}
    """

    def __init__(self, path: Path, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self.path = path
        self._proxy = xmlrpc.client.ServerProxy(
            "http://localhost/RPC2",
            transport=_Transport(path, answer_timeout_s),
            use_builtin_types=True,
        )

    def call(self, method: str, *params: Any) -> Any:
        """Call a method and return its answer. Raises NoAgentError and RefusedError."""
        try:
            return getattr(self._proxy, method)(*params)
        except xmlrpc.client.Fault as error:
            raise RefusedError(error.faultCode, error.faultString) from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoAgentError(
                f"No agent listens on {self.path}: it isn't running, or has another --state-dir or "
                "--socket."
            ) from None
        except PermissionError:
            raise NoAgentError(
                f"{self.path} belongs to another user: only the agent's own and root may use it."
            ) from None
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise NoAgentError(f"The agent on {self.path} doesn't answer: {error}.") from None
        except expat.ExpatError:
            # The agent cuts off whoever doesn't read for ten seconds, and xmlrpc.client doesn't
            # compare what has come with the length that was announced.
            raise NoAgentError(
                f"The agent on {self.path} has sent half an answer: the connection is lost."
            ) from None


def add_socket_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--socket``, for :func:`socket_path`."""
    parser.add_argument(
        "--socket",
        metavar="FILE",
        help=f"the agent's control socket (default: ${SOCKET_VARIABLE}, or {SOCKET_NAME} in the "
        "state folder)",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options by which a command finds the agent, for :func:`connect`."""
    add_socket_option(parser)
    config.add_state_dir_option(parser)


def connect(args: argparse.Namespace) -> Client:
    """Return a client of the agent that the command's options and the environment name."""
    return Client(socket_path(args, os.environ))


def bare(name: str) -> str:
    """Return a subscription's name without Supervisor's group: ``agent:shop-prod`` is allowed."""
    return name.removeprefix(f"{GROUP}:")


def socket_path(args: argparse.Namespace, environ: Mapping[str, str]) -> Path:
    """Return the path of the control socket: the option's, the variable's or the default."""
    given = args.socket or environ.get(SOCKET_VARIABLE, "").strip()
    if given:
        return Path(given).absolute()
    return config.load_settings(args, environ).state_dir / SOCKET_NAME


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path, answer_timeout_s: float) -> None:
        super().__init__(use_builtin_types=True)
        self._path = path
        self._answer_timeout_s = answer_timeout_s

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection(self._path, self._answer_timeout_s)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, answer_timeout_s: float) -> None:
        super().__init__("localhost")
        self._path = path
        self._answer_timeout_s = answer_timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_TIMEOUT_S)
        self.sock.connect(os.fspath(self._path))
        self.sock.settimeout(self._answer_timeout_s)
