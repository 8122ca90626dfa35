"""The command ``sink``: a table on a terminal, lines elsewhere, a summary at the end."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import requests

from leekfanout.sink.sink_http import ENDPOINT
from tests.test_sink import HEADERS, task
from tests.waiting import until


def test_the_command_serves_and_ends_with_a_summary(tmp_path: Path) -> None:
    record = tmp_path / "documents.jsonl"
    command = [sys.executable, "-m", "leekfanout", "sink", "--port", "0", "--record", str(record)]
    environment = {**os.environ, "LEEKFANOUT_SINK_APP_KEY": "a-key"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        match = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert match is not None
        url = match[0] + ENDPOINT
        assert requests.post(url, json=[task()], headers=HEADERS, timeout=10).status_code == 201
        wrong = HEADERS | {"x-leek-app-key": "another"}
        assert requests.get(url, headers=wrong, timeout=10).status_code == 401
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait(10)
    assert process.returncode == 0
    assert re.search(r"shop-qa +1 +1 +1 .*1 SUCCEEDED", output)
    assert record.read_text().count("\n") == 1


def test_on_a_terminal_the_table_is_live_and_the_terminal_is_given_back() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [sys.executable, "-m", "leekfanout", "sink", "--port", "0"]
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen(command, env=environment, stdout=theirs)
    os.close(theirs)
    shown = ""

    def shows(pattern: str) -> re.Match[str] | None:
        nonlocal shown
        shown += os.read(ours, 65_536).decode()
        return re.search(pattern, shown)

    try:
        match = until(lambda: shows(r"http://127\.0\.0\.1:\d+"), 20, "the sink's address")
        document = task("some-id", name="shop.\x1b[31mpay", runtime=0.25)
        requests.post(match[0] + ENDPOINT, json=[document], headers=HEADERS, timeout=10)
        until(lambda: shows(r"shop\.�\[31mpay .*SUCCEEDED.* 0\.250 s"), 20, "the task's line")
        process.terminate()
        assert process.wait(10) == 0
        until(lambda: shows(r"\x1b\[\?1049l(?s:.*)1 SUCCEEDED"), 10, "the summary")
    finally:
        process.kill()
        process.wait(10)
        os.close(ours)


def test_bad_arguments_are_refused_in_plain_words() -> None:
    for option, value, word in [
        ("--port", "65536", "0 to 65535"),
        ("--delay-ms", "-1", "milliseconds"),
        ("--application", "shop", "ORGANISATION/NAME"),
    ]:
        done = subprocess.run(
            [sys.executable, "-m", "leekfanout", "sink", option, value],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 2
        assert word in done.stderr
