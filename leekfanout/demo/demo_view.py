"""What a person sees of the demo: a live table on a terminal, else lines; figures at the end."""

from types import TracebackType
from typing import Self, TextIO

from leekfanout.sink.arrivals import Arrivals
from leekfanout.terminal.screen import Screen, has_colour, is_live


class View:
    """Shows ``arrivals`` on ``out`` while its context is open, and their summary at its end."""

    def __init__(self, arrivals: Arrivals, out: TextIO) -> None:
        self._arrivals = arrivals
        self._out = out
        self._title = ""
        self._screen: Screen | None = None

    def __enter__(self) -> Self:
        if is_live(self._out):
            self._screen = Screen(self._out)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._screen is not None:
            self._screen.close()
        if kind is None:
            lines = self._arrivals.summary(colour=has_colour(self._out))
            print("\n".join(["", *lines]), file=self._out, flush=True)

    def show(self, title: str) -> None:
        """Show what goes on (empty: the same as before) and what has arrived since."""
        if self._screen is not None:
            self._title = title or self._title
            lines = self._arrivals.lines(
                self._title, self._screen.size, colour=has_colour(self._out)
            )
            self._screen.draw(lines)
            return
        lines = [*([title] if title else []), *self._arrivals.take_lines()]
        if lines:
            print("\n".join(lines), file=self._out, flush=True)
