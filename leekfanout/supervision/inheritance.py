"""Starting a module of ours anew in this process, which then knows only what is left to it.

For a child that has no business with the keys that the supervisor has read: forked, it would have them
all in its memory, unused, for whatever fault shows that memory to somebody. The environment goes
through memory too, since what a program is started with is shown in ``/proc/<pid>/environ``.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from leekfanout.supervision import child

_STARTERS: Final = ("PYTHON", "LANG", "LC_", "LD_", "MALLOC_", "GLIBC_")
"""What the interpreter, the C library and its allocator read before any code of ours runs."""


def leave(module: str, given: Mapping[str, Any], environ: Mapping[str, str], keep: int) -> NoReturn:
    """Become ``python -m module``, which gets ``given``, as JSON has it, by :func:`take`.

    ``environ`` will be its environment; ``keep`` is a file descriptor that stays open, as the
    standard ones do. Raises OSError if the interpreter can't be started.
    """
    estate = os.memfd_create("leekfanout", 0)
    with os.fdopen(os.dup(estate), "w", encoding="utf-8") as file:
        json.dump({"given": given, "environ": dict(environ)}, file)
    os.lseek(estate, 0, os.SEEK_SET)
    os.set_inheritable(keep, True)
    # Until the new program can write its stacks, the signal mustn't end it.
    signal.signal(child.STACKS_SIGNAL, signal.SIG_IGN)
    starters = {name: value for name, value in environ.items() if name.startswith(_STARTERS)}
    # It finds the modules where this one does, and so with -P none in the working directory.
    starters["PYTHONPATH"] = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    command = [sys.executable, "-P", "-m", module, str(estate)]
    os.execve(sys.executable, command, starters)  # noqa: S606  # it is this interpreter itself


def take(estate: int) -> dict[str, Any]:
    """Return what was given to this process, and make the environment what was left to it; once."""
    with os.fdopen(estate, encoding="utf-8") as file:
        left = json.load(file)
    os.environ.clear()
    os.environ.update(left["environ"])
    given: dict[str, Any] = left["given"]
    return given
