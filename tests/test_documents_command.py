"""``leekfanout documents`` as it is used: lines in, lines out."""

import gzip
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.event_factory import documents_of, strictly, task, worker

EXAMPLES = Path(__file__).parent / "data" / "example_batches.jsonl.gz"


def run(*arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "leekfanout", "documents", *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )


def lines_of(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def test_each_line_of_events_becomes_a_line_of_documents() -> None:
    batches = [json.loads(line) for line in gzip.decompress(EXAMPLES.read_bytes()).splitlines()]
    before = int(time.time() * 1000)

    result = run("--app-env", "qa", stdin=lines_of(*(batch["events"] for batch in batches)))

    assert (result.returncode, result.stderr) == (0, b"")
    lines = [strictly(line) for line in result.stdout.splitlines()]
    for documents in lines:
        for document in documents:
            assert before <= document.pop("updated_at") <= time.time() * 1000
    assert lines == [batch["docs"] for batch in batches]


def test_a_file_is_read_as_standard_input_is(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines_of([task("sent")], []))

    result = run("--app-env", "prod", str(file))

    first, second = (strictly(line) for line in result.stdout.splitlines())
    assert result.returncode == 0
    assert first[0]["app_env"] == "prod"
    assert second == []


def test_bad_events_are_reported_and_stop_nothing() -> None:
    batch = [task("sent"), None, task("sent", pid="x"), {"type": "shop-sold"}, worker("online")]

    result = run("--app-env", "qa", stdin=lines_of([], batch, [task("started")]))

    assert result.returncode == 0
    assert result.stderr.decode().splitlines() == [
        "line 2, event 1: It is no object.",
        "line 2, event 2: Its pid is not a whole number of 64 bits.",
    ]
    lines = [strictly(line) for line in result.stdout.splitlines()]
    for document in (document for documents in lines for document in documents):
        document["updated_at"] = 5
    assert lines == [
        [],
        documents_of(task("sent"), worker("online")),
        documents_of(task("started")),
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "It is no JSON list."),
        (b'{"type": "task-sent"}', "It is no JSON list."),
        (b"5", "It is no JSON list."),
        (b"[1, 2", "It is no JSON: "),
        (b"[" * 100_000, "It is nested too deeply to be read."),
    ],
)
def test_a_line_that_is_no_list_is_reported_and_ends_in_2(line: bytes, why: str) -> None:
    result = run("--app-env", "qa", stdin=line + b"\n" + lines_of([task("sent")]))

    assert result.returncode == 2
    assert result.stderr.decode().startswith(f"line 1: {why}")
    assert len(result.stderr.splitlines()) == 1
    assert len(result.stdout.splitlines()) == 1


def test_a_file_that_cant_be_read_is_one_clear_line(tmp_path: Path) -> None:
    missing = tmp_path / "missing.jsonl"

    result = run("--app-env", "qa", str(missing))

    assert result.returncode == 2
    assert result.stderr.decode() == (
        f"leekfanout: {missing} can't be read: No such file or directory.\n"
    )


def test_the_environment_has_to_be_named() -> None:
    result = run()

    assert result.returncode == 2
    assert b"--app-env" in result.stderr
