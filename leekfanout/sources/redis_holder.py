"""Who holds a lease in Redis: what an agent writes into it, to know its own, and for people to read."""

import hashlib
import os
import re
import secrets
import socket
from pathlib import Path
from typing import Final

FILE_NAME: Final = "lease"
TOKEN_CHARACTERS: Final = 32

_TOKEN: Final = re.compile(r"[0-9a-f]{32}")
_HOST: Final = socket.gethostname()
_PLACE: Final = f"{_HOST}:{os.getpid()}"
"""The supervisor's process id, since that is what imports this."""
_RANDOM: Final = secrets.token_hex(TOKEN_CHARACTERS // 2)


def holder_in(folder: Path | None) -> str:
    """Return ``token host:pid`` for the subscription whose state folder this is.

    The token is kept there, so that an agent that was killed knows its own lease when it is back: else
    it would wait for its end. Of a folder that was copied to another host the token is another one.
    Where none can be kept, and without a folder, it is the running agent's. Never raises.
    """
    kept = _RANDOM if folder is None else _kept(folder / FILE_NAME)
    token = hashlib.sha256(f"{kept} {_HOST}".encode()).hexdigest()[:TOKEN_CHARACTERS]
    return f"{token} {_PLACE}"


def token_of(value: bytes) -> bytes:
    """Return the token in what some agent has written into a lease. Pure."""
    return value[:TOKEN_CHARACTERS]


def place_of(value: bytes) -> str:
    """Return ``host:pid`` of what some agent has written into a lease. Pure."""
    return value.decode("utf-8", "replace").rpartition(" ")[2]


def _kept(path: Path) -> str:
    try:
        kept = path.read_text("ascii", "replace") if path.exists() else ""
        if not _TOKEN.fullmatch(kept):  # new, or cut short by a power cut
            kept = secrets.token_hex(TOKEN_CHARACTERS // 2)
            fresh = path.with_suffix(".new")
            fresh.write_text(kept, "ascii")
            fresh.chmod(0o600)
            fresh.replace(path)
    except OSError:
        return _RANDOM
    return kept
