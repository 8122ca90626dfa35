"""Private RabbitMQ, Redis and Redis Sentinel servers, each on free loopback ports in a folder.

Each can be killed, stopped in mid-air, and started again on the same port with the same data.
"""

import base64
import http.client
import itertools
import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.processes import ChildProcess, free_ports, program
from tests.waiting import until

RABBITMQ_FOLDER = "/usr/lib/rabbitmq/bin"
START_TIMEOUT_S = 60.0
START_ATTEMPTS = 3
"""A port that was free may be taken before the server binds it."""


def client(port: int, timeout_s: float = 10.0) -> redis.Redis:
    """Return a client of a Redis on the loopback interface, which doesn't try anything twice."""
    return redis.Redis(port=port, socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0))


class Server:
    """A server process with a folder for its data; a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="leekfanout-test-"))
        self._process: ChildProcess | None = None

    @property
    def process(self) -> ChildProcess:
        assert self._process is not None, "The server has not been started."
        return self._process

    def start(self) -> Self:
        """Start it, on the same ports and data as before, and wait until it answers."""
        for attempt in itertools.count(1):
            self._process = self._spawn()
            try:
                until(self._settled, START_TIMEOUT_S, f"{type(self).__name__} to start")
            except AssertionError as error:
                output = self._process.output()
                self.kill()
                raise AssertionError(f"{error}\n{output}") from None
            if self._process.returncode is None:
                return self
            if attempt == START_ATTEMPTS:
                raise AssertionError(
                    f"{type(self).__name__} ends at once:\n{self._process.output()}"
                )
            self.kill()
            self._choose_ports()
        raise AssertionError("unreachable")

    def _settled(self) -> bool:
        return self.process.returncode is not None or self._answers()

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL, and nothing is flushed."""
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        """End it in good order."""
        self.process.stop(timeout_s=30.0)

    def pause(self) -> None:
        """Freeze it: connections stay, nothing is answered."""
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def restart(self) -> None:
        """Stop it in good order and start it again."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _choose_ports(self) -> None:
        raise NotImplementedError

    def _spawn(self) -> ChildProcess:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError


class RabbitMQ(Server):
    """A RabbitMQ node with an Erlang port mapper of its own.

    Debian's wrapper in /usr/sbin changes the user, which takes the node out of our process group,
    so the script below it is called. ``detached`` in its environment makes it exec Erlang: then the
    pid that was started is the node's. ``config`` is added to its rabbitmq.conf.
    """

    def __init__(self, *, management: bool = False, config: str = "") -> None:
        super().__init__()
        self._management = management
        self._config = config
        self._vhosts = itertools.count(1)
        self._epmd: ChildProcess | None = None
        self._choose_ports()

    def _choose_ports(self) -> None:
        self.port, self._dist_port, self._epmd_port, self.management_port = free_ports(4)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def management_url(self) -> str:
        """The management API's address with credentials; only with ``management``."""
        return f"http://guest:guest@127.0.0.1:{self.management_port}"

    def url(self, vhost: str = "/", user: str = "guest", password: str = "guest") -> str:
        return f"amqp://{user}:{password}@{self.host}/{quote(vhost, safe='')}"

    def new_vhost(self) -> str:
        """Create an empty virtual host and return the URL of it."""
        name = f"test{next(self._vhosts)}"
        if self._management:
            self.call("PUT", f"/api/vhosts/{name}")
            everything = {"configure": ".*", "write": ".*", "read": ".*"}
            self.call("PUT", f"/api/permissions/{name}/guest", everything)
        else:
            self.ctl("add_vhost", name)
            self.ctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        return self.url(name)

    def delete_vhost(self, url: str) -> None:
        name = url.rpartition("/")[2]
        if self._management:
            self.call("DELETE", f"/api/vhosts/{name}")
        else:
            self.ctl("delete_vhost", name)

    def call(self, method: str, path: str, body: object = None) -> object:
        """Call the management API; fail the test on any answer but a 2xx."""
        connection = http.client.HTTPConnection("127.0.0.1", self.management_port, timeout=10)
        try:
            connection.request(
                method,
                path,
                None if body is None else json.dumps(body),
                {
                    "Authorization": "Basic " + base64.b64encode(b"guest:guest").decode(),
                    "Content-Type": "application/json",
                },
            )
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        assert 200 <= answer.status < 300, f"{method} {path}: {answer.status} {text!r}"
        return json.loads(text) if text else None

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl on this node (about half a second each) and return its output."""
        command = [program("rabbitmqctl", "rabbitmq-server", RABBITMQ_FOLDER), "-q", *arguments]
        done = subprocess.run(
            command, env=self._env(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def queues(self, url: str) -> dict[str, tuple[int, int, int]]:
        """Return the vhost's queues: messages ready, messages unacked, consumers."""
        name = url.rpartition("/")[2].replace("%2F", "/")
        columns = ("name", "messages_ready", "messages_unacknowledged", "consumers")
        lines = self.ctl("list_queues", "-p", name, "--no-table-headers", *columns).splitlines()
        rows = [line.split("\t") for line in lines if line.count("\t") == 3]
        return {row[0]: (int(row[1]), int(row[2]), int(row[3])) for row in rows}

    def alarm(self, on: bool) -> None:
        """Raise or clear a memory alarm, which blocks every connection that publishes."""
        self.ctl("set_vm_memory_high_watermark", "0.00001" if on else "0.6")

    def kill(self) -> None:
        super().kill()
        if self._epmd is not None:
            self._epmd.kill()

    def stop(self) -> None:
        super().stop()
        if self._epmd is not None:
            self._epmd.kill()

    def _env(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"
                # Idle schedulers don't spin: the tests share the machine's few cores with the node.
                " +sbwt none +sbwtdcpu none +sbwtdio none"
            ),
            "detached": "yes",
        }

    def _spawn(self) -> ChildProcess:
        server = program("rabbitmq-server", "rabbitmq-server", RABBITMQ_FOLDER)
        (self.folder / "rabbitmq-env.conf").touch()
        plugins = "[rabbitmq_management]." if self._management else "[]."
        (self.folder / "plugins").write_text(plugins)
        config = "vm_memory_high_watermark.relative = 0.6\n"
        if self._management:
            config += (
                f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.management_port}\n"
            )
        (self.folder / "rabbitmq.conf").write_text(config + self._config)
        epmd = program("epmd", "erlang-base")
        self._epmd = ChildProcess(
            [epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1"],
            self.folder / "epmd.out",
        )
        return ChildProcess([server], self.folder / "server.out", self._env())

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as peer:
                peer.settimeout(2)
                peer.sendall(b"AMQP\x00\x00\x09\x01")
                if not peer.recv(1):
                    return False
            if self._management:
                self.call("GET", "/api/vhosts")
        except (OSError, AssertionError):
            return False
        return True


class Redis(Server):
    """A Redis server without persistence, unless ``appendonly``; ``options`` are its own flags."""

    def __init__(self, *options: str, appendonly: bool = False) -> None:
        super().__init__()
        self._options = options
        self._appendonly = appendonly
        self._databases = itertools.count(1)
        self._choose_ports()

    def _choose_ports(self) -> None:
        (self.port,) = free_ports(1)

    def url(self, database: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Return the URL of a database number that no other test uses."""
        return self.url(next(self._databases))

    def client(self) -> redis.Redis:
        return client(self.port)

    def _spawn(self) -> ChildProcess:
        command = [
            program("redis-server", "redis-server"),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--databases", "100000", "--save", "", "--daemonize", "no"),
            *("--appendonly", "yes" if self._appendonly else "no"),
            *self._options,
        ]
        return ChildProcess(command, self.folder / "server.out")

    def _answers(self) -> bool:
        try:
            with self.client() as peer:
                return bool(peer.ping())
        except redis.RedisError:
            return False


class Sentinel(Server):
    """One Redis Sentinel, a quorum by itself, that watches ``master`` as ``mymaster``."""

    NAME = "mymaster"

    def __init__(self, master: Redis, down_after_ms: int = 500) -> None:
        super().__init__()
        self._master = master
        self._down_after_ms = down_after_ms
        self._choose_ports()

    def _choose_ports(self) -> None:
        (self.port,) = free_ports(1)

    def url(self, database: int = 0) -> str:
        return f"sentinel://127.0.0.1:{self.port}/{database}"

    def master_port(self) -> int:
        """The port of the server that it holds for the master now."""
        with client(self.port) as peer:
            return int(peer.sentinel_get_master_addr_by_name(self.NAME)[1])

    def _spawn(self) -> ChildProcess:
        config = self.folder / "sentinel.conf"
        if not config.exists():  # Sentinel keeps its state in this file
            config.write_text(
                f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
                f"sentinel monitor {self.NAME} 127.0.0.1 {self._master.port} 1\n"
                f"sentinel down-after-milliseconds {self.NAME} {self._down_after_ms}\n"
                f"sentinel failover-timeout {self.NAME} 3000\n"
            )
        command = [program("redis-server", "redis-server"), str(config), "--sentinel"]
        return ChildProcess(command, self.folder / "server.out")

    def _answers(self) -> bool:
        try:
            with client(self.port) as peer:
                master = peer.sentinel_master(self.NAME)
                return bool(master["num-slaves"] >= 1)
        except redis.RedisError:
            return False


class SentinelSetup:
    """A master, a replica, and a Sentinel that promotes the replica when the master is away."""

    def __init__(self) -> None:
        self.master = Redis()
        self.replica: Redis | None = None
        self.sentinel: Sentinel | None = None

    def __enter__(self) -> Self:
        try:
            self.master.start()
            self.replica = Redis(
                *("--replicaof", f"127.0.0.1 {self.master.port}"),
                *("--repl-diskless-load", "swapdb"),
            ).start()
            self.sentinel = Sentinel(self.master).start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for server in (self.sentinel, self.replica, self.master):
            if server is not None:
                server.close()
