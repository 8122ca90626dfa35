"""systemd's notification protocol, with a socket in systemd's place."""

import math
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from leekfanout.supervision.lifecycle import State
from leekfanout.supervision.systemd import Notifier
from tests.farming import Farm, entries
from tests.waiting import until


class FakeSystemd:
    """Receives what a service says."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.setblocking(False)
        self._seen: list[str] = []

    def seen(self) -> list[str]:
        """Return all messages so far."""
        while True:
            try:
                self._seen.append(self._socket.recv(4_096).decode())
            except BlockingIOError:
                return self._seen

    def wait_for(self, message: str, count: int = 1) -> None:
        until(lambda: self.seen().count(message) >= count, 20, f"{message!r} in {self._seen}")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[FakeSystemd]:
    fake = FakeSystemd(str(tmp_path / "notify"))
    yield fake
    fake.close()


def test_a_service_tells_when_it_is_ready_reloads_and_stops(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    with Farm(tmp_path, entries("shop-prod"), NOTIFY_SOCKET=systemd.address) as farm:
        systemd.wait_for("READY=1")
        farm.wait_for_states(shop_prod=State.RUNNING)
        systemd.wait_for("STATUS=1 subscription: 1 running")
        farm.write(entries("shop-prod", "blog-prod"))
        farm.signal(signal.SIGHUP)
        systemd.wait_for("READY=1", 2)
        systemd.wait_for("STATUS=2 subscriptions: 2 running")
        farm.write("no JSON")
        farm.signal(signal.SIGHUP)
        systemd.wait_for("READY=1", 3)
        assert farm.stop() == 0
        systemd.wait_for("STOPPING=1")
    seen = systemd.seen()
    begun = [index for index, message in enumerate(seen) if message.startswith("RELOADING=1\n")]
    assert len(begun) == 2
    for index in begun:
        _, stamp = seen[index].split("\n")
        assert stamp.startswith("MONOTONIC_USEC=")
        assert stamp.partition("=")[2].isdigit()
        assert "READY=1" in seen[index:]
    assert "WATCHDOG=1" not in seen  # systemd hasn't asked for it


def test_the_supervisors_loop_gives_signs_of_life_where_systemd_wants_them(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    env = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "400000"}
    with Farm(tmp_path, entries("shop-prod"), **env) as farm:
        systemd.wait_for("WATCHDOG=1", 3)
        assert farm.stop() == 0


def test_an_abstract_socket_is_found() -> None:
    fake = FakeSystemd(f"@leekfanout-test-{os.getpid()}")
    Notifier(fake.address).stopping()
    fake.wait_for("STOPPING=1")
    fake.close()


def test_variables_are_taken_once_and_the_watchdog_only_by_whom_it_is_meant_for() -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}
    notifier = Notifier.from_environment(environ)
    assert environ == {}
    notifier.ready(5.0)
    assert notifier.due == math.inf
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "2000000"})
    notifier.ready(5.0)
    notifier.tick(5.0)
    assert notifier.due == 6.0


def test_without_systemd_nothing_is_said_or_due() -> None:
    notifier = Notifier.from_environment({"WATCHDOG_USEC": "2000000"})
    notifier.ready(5.0)
    notifier.status("well")
    notifier.stopping()
    assert notifier.due == math.inf
