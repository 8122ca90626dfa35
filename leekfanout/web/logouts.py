"""Sessions that were closed before their time: kept on the disk, so that they stay closed."""

import os
import threading
from pathlib import Path
from typing import Final

from leekfanout import logs
from leekfanout.stores.whole_file import replace_file

FILE_NAME: Final = "web-logouts"

LOGOUTS_MAX: Final = 1_000
"""More than people log out in the lifetime of a session; beyond it, those that end first go."""

LINE_MAX_BYTES: Final = 60
"""An expiry of ten digits, a space, an id of 32 characters, a line feed, and some to spare."""

log = logs.get("web")


class Logouts:
    """The ids of closed sessions until these would have expired, a line ``<expiry> <id>`` for each.

    Any thread may use it; one process at a time. Times are epoch seconds. Without a file, or where
    it can't be written, what is closed stays so until the process ends.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._expiries = {} if path is None else _read(path)

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._expiries

    def add(self, session_id: str, expires_at: int, now: float) -> None:
        """Keep a session closed; it is on the disk when this returns, so this may block."""
        with self._lock:
            kept = {key: end for key, end in self._expiries.items() if end > now}
            kept[session_id] = expires_at
            latest = sorted(kept.items(), key=lambda item: item[1])[-LOGOUTS_MAX:]
            # Replaced whole, for readers that hold no lock.
            self._expiries = dict(latest)
            if self._path is None:
                return
            try:
                lines = (f"{end} {key}\n" for key, end in self._expiries.items())
                replace_file(self._path, "".join(lines))
            except OSError as error:
                log.warning(
                    "web.logout_lost",
                    path=self._path,
                    error=error.strerror,
                    advice="until the state folder is writable, a restart opens the session again",
                )


def _read(path: Path) -> dict[str, int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    except OSError as error:
        log.warning("web.logouts_unread", path=path, error=error.strerror)
        return {}
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as file:
        lines = file.read(LOGOUTS_MAX * LINE_MAX_BYTES).splitlines()
    parts = [line.split(" ") for line in lines]
    return {
        part[1]: int(part[0])
        for part in parts
        if len(part) == 2 and part[0].isascii() and part[0].isdigit() and len(part[0]) <= 12
    }
