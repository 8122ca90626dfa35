"""Live tables on a terminal: cells, columns and redrawing in place."""

import os
import shutil
import unicodedata
from collections.abc import Sequence
from typing import Final, NamedTuple, TextIO

COLOURS: Final = {
    "green": "\x1b[32m",
    "red": "\x1b[31m",
    "yellow": "\x1b[33m",
    "magenta": "\x1b[35m",
    "cyan": "\x1b[36m",
    "bold": "\x1b[1m",
    "dim": "\x1b[2m",
}
RESET: Final = "\x1b[0m"
GAP: Final = "  "


class Cell(NamedTuple):
    """A table's cell: any text, made safe for the terminal when it is drawn."""

    text: str
    style: str = ""
    """A key of :data:`COLOURS`, or nothing."""
    right: bool = False


def printable(text: str) -> str:
    """Return ``text`` with all that a terminal would obey, or that has no shape, replaced."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "�" for c in text)


def width_of(text: str) -> int:
    """Return how many columns a terminal needs for printable text."""
    return len(text) if text.isascii() else sum(_width_of_character(c) for c in text)


def _width_of_character(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """Return ``text`` within ``width`` columns, with an ellipsis where something is missing."""
    if width_of(text) <= width:
        return text
    kept, left = [], width - 1
    for character in text:
        left -= _width_of_character(character)
        if left < 0:
            break
        kept.append(character)
    return "".join(kept) + "…" if width > 0 else ""


def columns(
    rows: Sequence[Sequence[Cell]], widths_max: Sequence[int], width: int, *, colour: bool
) -> list[str]:
    """Return a line for each row, its cells aligned and no line wider than ``width`` columns."""
    texts = [
        [cut(printable(cell.text), limit) for cell, limit in zip(row, widths_max, strict=True)]
        for row in rows
    ]
    widths = [max(width_of(text) for text in column) for column in zip(*texts, strict=True)]
    return [
        _line(row, row_texts, widths, width, colour)
        for row, row_texts in zip(rows, texts, strict=True)
    ]


def _line(
    row: Sequence[Cell], texts: Sequence[str], widths: Sequence[int], width: int, colour: bool
) -> str:
    parts: list[str] = []
    for cell, text, column_width in zip(row, texts, widths, strict=True):
        if width <= 0:
            break
        padding = " " * (column_width - width_of(text))
        shown = cut(padding + text if cell.right else text + padding, width)
        width -= column_width + len(GAP)
        parts.append(f"{COLOURS[cell.style]}{shown}{RESET}" if colour and cell.style else shown)
    return GAP.join(parts).rstrip()


def is_live(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal on which text can be redrawn."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def has_colour(stream: TextIO) -> bool:
    """Whether to use colour: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return is_live(stream) and not os.environ.get("NO_COLOR")


class Screen:
    """Draws on a terminal's alternate screen, which leaves what was there before as it was."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        # The alternate screen, no cursor, and no wrapping of lines that are wider than expected.
        stream.write("\x1b[?1049h\x1b[?25l\x1b[?7l")

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows that :meth:`draw` may use."""
        size = shutil.get_terminal_size()
        return size.columns, size.lines

    def draw(self, lines: Sequence[str]) -> None:
        """Show ``lines`` in place of those before; what is below the last row is left out."""
        shown = "\x1b[K\r\n".join(lines[: self.size[1]])
        self._stream.write(f"\x1b[H{shown}\x1b[K\x1b[J")
        self._stream.flush()

    def close(self) -> None:
        """Give the terminal back."""
        self._stream.write("\x1b[?7h\x1b[?25h\x1b[?1049l")
        self._stream.flush()
