"""Telling systemd how the service is, by its notification protocol (sd_notify(3)); silent elsewhere."""

import math
import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final

SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE: Final = "WATCHDOG_USEC"
WATCHDOG_PID_VARIABLE: Final = "WATCHDOG_PID"


class Notifier:
    """Sends datagrams to systemd's socket, and never waits for it.

    A descriptor lives for one message only, so that no child inherits it.
    """

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        """``watchdog_s``: systemd wants a sign of life within each such time; 0: it doesn't."""
        self._address = address
        self._every_s = watchdog_s / 2 if address and watchdog_s > 0 else math.inf
        self._status = ""
        self.due = math.inf
        """When :meth:`tick` has something to do, in monotonic seconds."""

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> "Notifier":
        """Take systemd's variables out of ``environ``: they are meant for this process alone."""
        address = environ.pop(SOCKET_VARIABLE, "")
        usec, pid = environ.pop(WATCHDOG_VARIABLE, ""), environ.pop(WATCHDOG_PID_VARIABLE, "")
        ours = usec.isascii() and usec.isdigit() and pid in {"", str(os.getpid())}
        return cls(address, int(usec) / 1_000_000 if ours else 0.0)

    def ready(self, now: float) -> None:
        """Say that the service is up, or that a reload is done; ``now`` is monotonic seconds."""
        self._send("READY=1")
        if self._every_s != math.inf:
            self.due = now

    def reloading(self) -> None:
        """Say that a reload begins; :meth:`ready` must follow."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1_000}")

    def stopping(self) -> None:
        """Say that the service is about to end."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Set the one line that ``systemctl status`` shows, if it is another one than before."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def tick(self, now: float) -> None:
        """Give the sign of life when it is due."""
        if now >= self.due:
            self.due = now + self._every_s
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # A leading @ stands for the NUL of Linux' abstract sockets.
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        flags = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, flags) as sender:
            sender.sendto(message.encode(), address)
