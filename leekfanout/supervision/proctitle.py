"""What other users of the host see of this process in ``/proc``: its title, and its environment.

Linux keeps the arguments and the environment that a program was started with in its memory and
shows them as ``/proc/<pid>/cmdline`` and ``environ``. Both are overwritten in place, through
``/proc/self/mem``, where a mistake is an error and no crash. Where the system doesn't allow that,
the title stays as it was.
"""

import os
from typing import Final

_COMM_BYTES: Final = 15
"""The kernel's bound on a thread's name (prctl(2), PR_SET_NAME)."""

# Positions in /proc/<pid>/stat, counted from the state, the first field after the name (proc(5)).
_ARG_START, _ARG_END, _ENV_START, _ENV_END = 45, 46, 47, 48


def set_title(title: str) -> None:
    """Show ``title`` in ``ps`` and ``top``, cut to the room that the command line took."""
    encoded = title.encode()
    try:
        start, end = _memory()[:2]
        # The last byte stays NUL: were it not, Linux would go on reading in the environment.
        room = end - start - 1
        _overwrite(start, encoded[:room].ljust(end - start, b"\0"))
        with open("/proc/self/comm", "wb") as comm:
            comm.write(encoded[:_COMM_BYTES])
    except OSError:
        pass


def forget_variable(name: str) -> None:
    """Take a variable out of the environment, and its value out of ``/proc/self/environ``."""
    os.environ.pop(name, None)
    _blot_out(name)


def hide_variable(name: str) -> None:
    """Keep a variable for this process, and take it out of ``/proc/self/environ``."""
    value = os.environ.get(name)
    if value is None:
        return
    _blot_out(name)
    # The C library's environment points into what was overwritten: this gives it a copy.
    os.environ[name] = value


def _blot_out(name: str) -> None:
    try:
        with open("/proc/self/environ", "rb") as file:
            block = file.read()
        start, end = _memory()[2:]
        if len(block) != end - start:
            return
        wanted = name.encode() + b"="
        position = 0
        for entry in block.split(b"\0"):
            if entry.startswith(wanted):
                _overwrite(start + position, bytes(len(entry)))
            position += len(entry) + 1
    except OSError:
        pass


def _memory() -> tuple[int, int, int, int]:
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    try:
        arg_start, arg_end, env_start, env_end = (
            int(fields[index]) for index in (_ARG_START, _ARG_END, _ENV_START, _ENV_END)
        )
    except IndexError:  # not Linux' own /proc
        raise OSError("/proc/self/stat is too short") from None
    if not 0 < arg_start < arg_end <= env_start <= env_end:
        raise OSError("/proc/self/stat tells no addresses")
    return arg_start, arg_end, env_start, env_end


def _overwrite(address: int, content: bytes) -> None:
    memory = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(memory, content, address)
    finally:
        os.close(memory)
