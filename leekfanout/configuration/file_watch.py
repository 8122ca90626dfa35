"""Noticing that a file has changed, without polling: Linux' inotify(7) on its folder."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_IN_CLOSE_WRITE: Final = 0x008
_IN_MOVED_TO: Final = 0x080
# Of a link that is created: Kubernetes puts a new version of a mounted file in place by renaming a
# link in the same folder.
_IN_CREATE: Final = 0x100

_READ_BYTES: Final = 65_536


class FileWatch:
    """Watches one file, which may be replaced, and may not exist yet; its folder must.

    Where it is a link, what that points to is watched too. Closed with :meth:`close`. The file's folder
    has to stay the same one.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError where the folder can't be watched."""
        self._path = path
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _last_error()
        try:
            self._watch(path.parent)
        except OSError:
            self.close()
            raise
        self._watch_target()
        self._seen = self._identity()

    def fileno(self) -> int:
        """The descriptor that is readable when something may have changed."""
        return self._fd

    def changed(self) -> bool:
        """Take what has happened, and return whether the file is another one than before."""
        with suppress(BlockingIOError):
            while os.read(self._fd, _READ_BYTES):
                pass
        self._watch_target()
        before, self._seen = self._seen, self._identity()
        return self._seen not in {before, None}

    def close(self) -> None:
        os.close(self._fd)

    def _watch_target(self) -> None:
        """Watch the folder of what the path points to now; watching one again changes nothing."""
        with suppress(OSError):
            self._watch(self._path.resolve().parent)

    def _watch(self, folder: Path) -> None:
        mask = _IN_CLOSE_WRITE | _IN_MOVED_TO | _IN_CREATE
        if self._libc.inotify_add_watch(self._fd, os.fsencode(folder), mask) < 0:
            raise _last_error()

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
