"""Parts of a log file, by the rules of Supervisor itself."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from supervisor.options import readFile, tailFile

from leekfanout.control import log_files

CONTENT = b"0123456789"
offsets = st.integers(-15, 15)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "agent.log"
    path.write_bytes(CONTENT)
    return path


@given(offset=offsets, length=offsets)
def test_a_read_gives_what_supervisor_gives(path: Path, offset: int, length: int) -> None:
    try:
        expected = readFile(str(path), offset, length)
    except ValueError:
        with pytest.raises(ValueError, match="offset"):
            log_files.read(path, offset, length)
    else:
        assert log_files.read(path, offset, length) == expected


@given(offset=offsets, length=offsets)
def test_a_tail_gives_what_supervisor_gives(path: Path, offset: int, length: int) -> None:
    tail = log_files.tail(path, offset, length)
    assert [tail.content.decode(), tail.offset, tail.overflow] == tailFile(
        str(path), offset, length
    )


def test_no_call_reads_more_than_the_bound(tmp_path: Path) -> None:
    large = tmp_path / "agent.log"
    large.write_bytes(b"x" * (log_files.READ_MAX_BYTES + 10))
    assert len(log_files.read(large, 0, 0)) == log_files.READ_MAX_BYTES
    assert len(log_files.read(large, -2 * log_files.READ_MAX_BYTES, 0)) == log_files.READ_MAX_BYTES
    assert len(log_files.tail(large, 0, 2**31).content) == log_files.READ_MAX_BYTES
