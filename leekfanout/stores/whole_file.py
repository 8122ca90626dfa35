"""Replacing a small file so that nobody, and no power cut, ever sees half of it."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def replace_file(
    path: Path, text: str, prepare: Callable[[int], None] = lambda _descriptor: None
) -> None:
    """Replace the file by a complete new one, which is on the disk before it has the name.

    The new one is its owner's alone (mode 0600), unless ``prepare``, which is given its descriptor,
    changes that. Raises OSError, with the old file as it was and nothing left of the new one.
    """
    descriptor, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            prepare(descriptor)
            os.fsync(descriptor)
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
    _fsync_folder(path.parent)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
