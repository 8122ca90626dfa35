"""A lock of leekfanout's that another process holds."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HOLD = """
import sys, time
from pathlib import Path
from leekfanout.stores.process_lock import ProcessLock
lock = ProcessLock(Path(sys.argv[1]))
assert lock.take()
print("taken", flush=True)
time.sleep(60)
"""


@contextmanager
def lock_holder(path: Path) -> "Iterator[subprocess.Popen[str]]":
    """Have another process hold the lock, and kill it at the end."""
    command = [sys.executable, "-c", _HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline()
            yield other
        finally:
            other.kill()
