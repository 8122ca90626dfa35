"""A process group ends with its owner, however that one ends, and leaves no folder."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from leekfanout.supervision.lifeline import ProcessGroup
from leekfanout.terminal.stopping import StopSignals
from tests.waiting import until

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    " print('up', flush=True); time.sleep(600)",
]


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_nothing_is_left_of_a_group_whose_context_ends() -> None:
    with ProcessGroup() as group:
        folder = group.folder
        children = [group.start("one", SLEEP), group.start("two", STUBBORN)]
        until(lambda: children[1].last_words() == "up", 20, "the children to start")
    assert all(child.ended for child in children)
    assert not folder.exists()


def test_nothing_is_left_of_a_group_whose_owner_is_killed(tmp_path: Path) -> None:
    owner_code = """
        import time
        from leekfanout.supervision.lifeline import ProcessGroup
        with ProcessGroup() as group:
            command = ["/bin/sh", "-c", "sleep 600 & sleep 600"]
            child = group.start("shell", command)
            print(child.popen.pid, flush=True)
            time.sleep(600)
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(owner_code)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert owner.stdout is not None
        child = psutil.Process(int(owner.stdout.readline()))
        grandchildren = until(child.children, 20, "the shell's child")
        family = psutil.Process(owner.pid).children(recursive=True)
        assert {process.pid for process in family} > {child.pid, grandchildren[0].pid}
    finally:
        owner.kill()
        owner.communicate(timeout=10)
    until(lambda: not any(is_running(p.pid) for p in family), 20, "all processes to end")
    until(lambda: not list(tmp_path.iterdir()), 20, "the folder to go")


def test_ctrl_c_on_the_terminal_does_not_reach_the_group() -> None:
    with ProcessGroup() as group:
        child = group.start("one", SLEEP)
        assert os.getpgid(child.popen.pid) != os.getpgrp()


def test_a_guard_in_a_group_of_others_ends_none_of_them(tmp_path: Path) -> None:
    with subprocess.Popen(SLEEP, stdout=subprocess.PIPE, process_group=0) as bystander:
        try:
            assert bystander.stdout is not None
            assert bystander.stdout.readline() == b"up\n"
            subprocess.run(
                [sys.executable, "-m", "leekfanout.supervision.lifeline", str(tmp_path / "folder")],
                stdin=subprocess.DEVNULL,  # its owner has gone
                capture_output=True,
                process_group=bystander.pid,
                timeout=30,
                check=False,
            )
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_a_stopped_child_may_end_by_itself() -> None:
    code = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7));"
        " print('up', flush=True); time.sleep(600)"
    )
    with StopSignals() as stop, ProcessGroup() as group:
        child = group.start("one", [sys.executable, "-c", code])
        until(lambda: child.last_words() == "up", 20, "the child to start")
        assert group.stop(child, 20, stop)
        assert child.popen.returncode == 7


def test_a_child_that_does_not_stop_in_time_is_killed() -> None:
    with StopSignals() as stop, ProcessGroup() as group:
        child = group.start("one", STUBBORN)
        until(lambda: child.last_words() == "up", 20, "the child to start")
        assert not group.stop(child, 0.1, stop)
        assert child.popen.returncode == -signal.SIGKILL


def test_a_second_signal_ends_all_patience() -> None:
    with StopSignals() as stop, ProcessGroup() as group:
        child = group.start("one", STUBBORN)
        until(lambda: child.last_words() == "up", 20, "the child to start")
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(10)
        os.kill(os.getpid(), signal.SIGTERM)
        assert not group.stop(child, 600, stop)


def test_the_signals_are_taken_only_while_the_context_is_open(
    request: pytest.FixtureRequest,
) -> None:
    # A shell that starts the tests in the background has SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with StopSignals() as stop:
        assert not stop.wait(0)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(10)
        assert not stop.wait(0, signals=2)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_only_the_end_of_a_log_is_quoted() -> None:
    code = "for number in range(100_000): print(number)"
    with ProcessGroup() as group:
        child = group.start("one", [sys.executable, "-c", code])
        child.popen.wait(20)
        assert child.last_words(2) == "99998\n99999"
