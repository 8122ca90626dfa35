"""The secret that opens the page: given by a variable, or made once and kept on the disk."""

import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from leekfanout import logs

VARIABLES: Final = ("LEEKFANOUT_WEB_TOKEN", "LEEK_AGENT_API_SECRET")
"""Where a token may be given, the first that is set wins."""

FILE_NAME: Final = "web-token"

SHORT_CHARACTERS: Final = 16
"""A shorter token may be guessed in time, and is warned of."""

log = logs.get("web")


def load(environ: Mapping[str, str], state_dir: Path) -> str:
    """Return the token, and log where it is to be found, never what it is."""
    for variable in VARIABLES:
        if token := environ.get(variable, "").strip():
            log.info("web.token", variable=variable)
            if len(token) < SHORT_CHARACTERS:
                log.warning("web.token_short", variable=variable, advice="use a longer one")
            return token
    path = state_dir / FILE_NAME
    try:
        token = _read(path) or _make(path)
    except OSError as error:
        log.warning(
            "web.token_lost",
            path=path,
            error=error.strerror,
            advice=f"nobody can log in: set {VARIABLES[0]}, or make the state folder writable",
        )
        return secrets.token_urlsafe(32)
    log.info("web.token", path=path)
    return token


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        if os.fstat(descriptor).st_mode & 0o077:
            log.warning("web.token_mode", path=path, advice="others could read it: made private")
            os.fchmod(descriptor, 0o600)
        return file.read(1_000).strip()


def _make(path: Path) -> str:
    """Write a new token; of two processes that do so at once, both return the same."""
    token = secrets.token_urlsafe(32)
    descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{token}\n")
            file.flush()
            os.fsync(descriptor)
        if path.exists() and not _read(path):
            path.unlink()
        with suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        os.unlink(fresh)
    return _read(path)
