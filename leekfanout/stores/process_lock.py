"""A lock which one process has at a time, and which ends with that process."""

import fcntl
import os
from pathlib import Path
from typing import Final

FOLDER_LOCK: Final = "lock"
"""The file in a folder that is locked by the process that uses the folder."""


class ProcessLock:
    """A lock on a file that stays; a process has one object for it at most.

    It is a record lock (fcntl(2)), which belongs to the process alone. flock(2) belongs to the
    descriptor: children that are forked would keep it after their parent's death.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def take(self) -> bool:
        """Take it, or return False because another process has it.

        Raises OSError where nothing can be locked there.
        """
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # which of them is the system's choice: fcntl(2)
            return False
        return True

    def close(self) -> None:
        """Give it back; in a forked child, close what is left of it there: it has no lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
