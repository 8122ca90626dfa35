"""Whether the agent can live where it is told to: its state folder, and its control socket.

Asked once, before anything is started. What goes wrong with a disk later, or with one that is full
already, is no mistake of the configuration, and keeps nobody from delivering.
"""

import errno
import os
import stat
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from leekfanout.configuration.config import variable_of
from leekfanout.configuration.rules import shown
from leekfanout.errors import ConfigError

SOCKET_PATH_MAX_BYTES: Final = 107
"""unix(7): ``sun_path`` has 108, and the last is a zero."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def check(args: Namespace, environ: Mapping[str, str], state_dir: Path, socket_path: Path) -> None:
    """Make the state folder; raise ConfigError with a line for each place that can't be used.

    It names the option or variable that the place is from.
    """

    def origin(setting: str) -> str:
        option, variable = f"--{setting.replace('_', '-')}", variable_of(setting)
        given = getattr(args, setting) or not environ.get(variable, "").strip()
        return option if given else variable

    of_state, of_socket = origin("state_dir"), origin("socket")
    problems = [f"{of_state}: {shown(str(state_dir))}: {rule}" for rule in _of_state_dir(state_dir)]
    if socket_path.parent != state_dir:
        problems += [
            f"{of_socket}: {shown(str(socket_path))}: {rule}" for rule in _of_socket(socket_path)
        ]
    elif not problems:
        problems = [
            f"{of_state}: {shown(str(state_dir))}: {rule}, or the control socket elsewhere (--socket)"
            for rule in _of_length(socket_path)
        ]
    if problems:
        raise ConfigError(problems)


def _of_state_dir(folder: Path) -> Iterator[str]:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        yield "must be a folder, and is something else"
    except OSError as error:
        if error.errno not in _FULL:
            yield f"must be a folder, and can't be made: {error.strerror}"
    else:
        yield from _of_folder(folder, "must be a folder")


def _of_socket(path: Path) -> Iterator[str]:
    yield from _of_length(path)
    if path.parent.is_dir():
        yield from _of_folder(path.parent, "must be in a folder")
    else:
        yield "must be in a folder that exists"


def _of_length(path: Path) -> Iterator[str]:
    size_bytes = len(os.fsencode(path))
    if size_bytes > SOCKET_PATH_MAX_BYTES:
        yield (
            f"must be shorter: the path of a socket may have {SOCKET_PATH_MAX_BYTES} bytes, "
            f"and {path.name}'s has {size_bytes}"
        )


def _of_folder(folder: Path, rule: str) -> Iterator[str]:
    if os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return
    found = folder.stat()
    reason = f"it belongs to user {found.st_uid} and has mode {stat.S_IMODE(found.st_mode):04o}"
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        reason = "its file system is read-only"
    yield f"{rule} that user {os.geteuid()} can read and write: {reason}"
