"""Being told to stop: SIGINT and SIGTERM as something that a loop waits for."""

import os
import select
import signal
import time
from types import FrameType, TracebackType
from typing import Self


class StopSignals:
    """Takes SIGINT and SIGTERM while its context is open, so that a loop ends where it likes.

    Main thread only, as Python's signal handlers are. :attr:`received` counts them: a second one
    says that the person has no patience.
    """

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._before = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received += 1
        try:
            os.write(self._writer, b"\0")
        except BlockingIOError:
            return  # the pipe is full, so the loop will wake up all the same

    def wait(self, timeout_s: float, signals: int = 1) -> bool:
        """Wait until ``signals`` have come, for ``timeout_s`` at most; return whether they have."""
        deadline = time.monotonic() + timeout_s
        while self.received < signals:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            if select.select([self._reader], [], [], left_s)[0]:
                os.read(self._reader, 64)
        return True
