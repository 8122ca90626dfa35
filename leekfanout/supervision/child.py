"""Forking a process off the supervisor, and what the child does before and after its own work."""

import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from typing import Final, NoReturn

from leekfanout import logs
from leekfanout.supervision import proctitle

EXIT_CRASHED: Final = 70
"""The work ended with an exception (sysexits.h, EX_SOFTWARE)."""

STACKS_SIGNAL: Final = signal.SIGUSR1
"""Makes a child write the stacks of its threads to standard error."""

log = logs.get("child")


def fork(title: str, release: Callable[[], None], work: Callable[[], int]) -> int:
    """Fork a process that does ``work`` and exits with its result; return its process id.

    ``release`` closes in the child what belongs to the parent alone. The calling process must have
    one thread. Raises OSError if the system has no room for another process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal that came to the child before it has let go of the parent's handlers would be lost.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _live(title, release, work, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _live(
    title: str,
    release: Callable[[], None],
    work: Callable[[], int],
    sigmask: set[int | signal.Signals],
) -> NoReturn:
    code = EXIT_CRASHED
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(
            signal.SIGHUP, signal.SIG_IGN
        )  # the supervisor reloads; here it has no meaning
        faulthandler.register(STACKS_SIGNAL, all_threads=True)
        # Ctrl-C on a terminal goes to the whole process group, and the supervisor passes it on:
        # in the same group a child would be told twice, which means "at once".
        os.setpgid(0, 0)
        release()
        proctitle.set_title(title)
        signal.pthread_sigmask(signal.SIG_SETMASK, sigmask)
        code = work()
    except BaseException:
        log.exception("child.crashed")
    finally:
        # Never back into the parent's loop, whose frames are below this one.
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
