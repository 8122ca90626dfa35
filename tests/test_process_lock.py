"""The lock that ends with its process."""

import os
import signal
from pathlib import Path

from leekfanout.stores.process_lock import ProcessLock
from tests.locks import lock_holder


def test_what_one_process_has_no_other_gets_until_it_is_killed(tmp_path: Path) -> None:
    lock = ProcessLock(tmp_path / "lock")
    with lock_holder(lock.path):
        assert not lock.take()
        assert not lock.take()
    assert lock.take()
    lock.close()


def test_the_children_of_a_process_keep_nothing_of_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = ProcessLock(path)
    assert lock.take()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(tell, b"taken" if lock.take() else b"refused")
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(told, 10) == b"refused"
        lock.close()
        with lock_holder(path):  # it gets it though the child lives
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(told)
        os.close(tell)


def test_a_lock_is_private(tmp_path: Path) -> None:
    lock = ProcessLock(tmp_path / "lock")
    assert lock.take()
    assert lock.path.stat().st_mode & 0o077 == 0
    lock.close()
