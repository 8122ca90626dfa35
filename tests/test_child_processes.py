"""What the tests see of processes."""

import os
import subprocess

import psutil

from tests.processes import descendants
from tests.waiting import until


def test_a_process_that_nobody_has_reaped_is_seen_as_a_zombie() -> None:
    child = subprocess.Popen(["/bin/true"])
    seen = psutil.Process(child.pid)
    try:
        until(lambda: seen.status() == psutil.STATUS_ZOMBIE, 10, "its end")
        assert descendants(os.getpid())[seen] == "zombie"
    finally:
        child.wait()
    assert seen not in descendants(os.getpid())
