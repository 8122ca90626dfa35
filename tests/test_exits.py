"""Why a process ended, in words."""

import signal
from pathlib import Path

import pytest

from leekfanout.supervision.child import EXIT_CRASHED
from leekfanout.supervision.exits import Cause, OomKills, cause_of, describe, signal_name


@pytest.mark.parametrize(
    ("status", "oom_killed", "words"),
    [
        (0, False, "exited with code 0"),
        (3 << 8, False, "exited with code 3"),
        (EXIT_CRASHED << 8, False, "crashed (its log has the traceback)"),
        (signal.SIGSEGV, False, "was killed by SIGSEGV"),
        (signal.SIGSEGV | 0x80, False, "was killed by SIGSEGV"),  # with a core dump
        (signal.SIGKILL, False, "was killed by SIGKILL (perhaps out of memory)"),
        (
            signal.SIGKILL,
            True,
            "was killed by SIGKILL: oom, no memory was left in the container or host",
        ),
        (signal.SIGTERM, True, "was killed by SIGTERM"),
    ],
)
def test_an_end_is_described(status: int, oom_killed: bool, words: str) -> None:
    assert describe(status, oom_killed) == words


@pytest.mark.parametrize(
    ("status", "oom_killed", "cause"),
    [
        (0, False, Cause.EXITED),
        (3 << 8, False, Cause.EXITED),
        (EXIT_CRASHED << 8, True, Cause.CRASH),
        (signal.SIGSEGV, True, Cause.CRASH),
        (signal.SIGABRT | 0x80, False, Cause.CRASH),
        (signal.SIGKILL, False, Cause.KILLED),
        (signal.SIGKILL, True, Cause.OOM),
        (signal.SIGTERM, True, Cause.KILLED),
    ],
)
def test_an_end_has_a_cause(status: int, oom_killed: bool, cause: Cause) -> None:
    assert cause_of(status, oom_killed) is cause


def test_a_signal_without_a_name_has_its_number() -> None:
    assert signal_name(signal.SIGRTMIN + 1) == f"signal {signal.SIGRTMIN + 1}"


@pytest.mark.parametrize(
    ("own", "file", "content"),
    [
        (
            "0::/system.slice/leekfanout.service\n",
            "system.slice/leekfanout.service/memory.events",
            "max 0\noom 2\noom_kill {}\noom_group_kill 9\n",
        ),
        ("0::/\n", "memory.events", "oom_kill {}\n"),
        (
            "5:cpu:/a\n4:memory:/docker/x\n0::/\n",
            "memory/docker/x/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
        ),
    ],
)
def test_kills_for_want_of_memory_are_noticed_once(
    tmp_path: Path, own: str, file: str, content: str
) -> None:
    (tmp_path / "own").write_text(own)
    events = tmp_path / "cgroup" / file
    events.parent.mkdir(parents=True)
    events.write_text(content.format(4))
    kills = OomKills(tmp_path / "cgroup", tmp_path / "own")
    assert not kills.happened()
    events.write_text(content.format(5))
    assert kills.happened()
    assert not kills.happened()
    events.unlink()
    assert not kills.happened()


def test_a_system_that_tells_nothing_is_no_error(tmp_path: Path) -> None:
    assert not OomKills(tmp_path, tmp_path / "nothing").happened()
    (tmp_path / "own").write_text("0::/here\n")
    assert not OomKills(tmp_path, tmp_path / "own").happened()
