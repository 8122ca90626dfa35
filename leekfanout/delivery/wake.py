"""Waking the main loop from a sender or a signal handler."""

import contextlib
import os


class Wake:
    """An eventfd that any thread, or a signal handler, may set to make the main loop turn."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def set(self) -> None:
        """Make the loop turn once more."""
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """Forget that it was set."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
