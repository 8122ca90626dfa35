"""``leekfanout run`` as a whole, with brokers and APIs that can't be reached."""

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from leekfanout.control.control_client import Client, RefusedError
from leekfanout.control.rpc import Fault
from tests.agent import Agent, FileAgent, run_as_nobody, run_leekfanout
from tests.processes import free_ports
from tests.waiting import until

USS_MAX_BYTES = 24_000_000
"""Far above what a child has, and far below what it would have without shared pages."""

PASSWORD, KEY = "broker-s3cret", "app-key-s3cret"


def entry(name: str, **more: Any) -> dict[str, Any]:
    """Return a subscription whose broker and API refuse connections."""
    port, api_port = free_ports(2)
    app_name, _, app_env = name.partition("-")
    return {
        "broker": f"amqp://leek:{PASSWORD}@127.0.0.1:{port}//",
        "org_name": "mono",
        "app_name": app_name,
        "app_env": app_env,
        "app_key": KEY,
        "api_url": f"http://127.0.0.1:{api_port}",
        **more,
    }


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent whose subscriptions come from the variable."""
    with Agent([entry("shop-prod"), entry("blog-prod")], tmp_path) as agent:
        yield agent


def client(agent: Agent) -> Client:
    return Client(agent.state_dir / "control.sock")


def names(agent: Agent) -> set[str]:
    return {status["name"] for status in client(agent).call("leekfanout.getStatus")}


def test_proc_tells_no_secret_of_any_process(agent: Agent) -> None:
    for pid in (agent.process.pid, *agent.children().values()):
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"LEEK_AGENT_SUBSCRIPTIONS" not in environ
        assert b"LEEK_ENABLE_AGENT=true" in environ
        for text in (environ, Path(f"/proc/{pid}/cmdline").read_bytes()):
            assert PASSWORD.encode() not in text
            assert KEY.encode() not in text

    def titles() -> set[bytes]:
        pids = agent.children().values()
        return {Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") for pid in pids}

    wanted = {b"leekfanout: shop-prod", b"leekfanout: blog-prod"}
    until(lambda: titles() == wanted, 10, "the titles")


def test_subscriptions_from_the_variable_cannot_change_and_the_reason_is_said(
    agent: Agent,
) -> None:
    with pytest.raises(RefusedError, match="come from LEEK_AGENT_SUBSCRIPTIONS") as raised:
        client(agent).call("leekfanout.reload")
    assert raised.value.code == Fault.CANT_REREAD
    agent.process.signal(signal.SIGHUP)
    (line,) = agent.wait_for_line("reload.refused")
    assert "come from LEEK_AGENT_SUBSCRIPTIONS" in line["problem"]
    # Leek stops and starts the agent, which needs no new subscriptions.
    assert client(agent).call("supervisor.stopProcess", "agent") is True
    assert client(agent).call("supervisor.startProcess", "agent") is True
    assert names(agent) == {"shop-prod", "blog-prod"}


def test_each_broker_and_api_is_reported_in_one_line(agent: Agent) -> None:
    lines = agent.wait_for_line("check.done", 2)
    assert {line["subscription"] for line in lines} == {"shop-prod", "blog-prod"}
    for line in lines:
        assert "refuses connections" in line["broker"]
        assert "refuses connections" in line["api"]
    assert PASSWORD not in agent.log.read_text()


def test_the_state_is_private(agent: Agent) -> None:
    agent.wait_for_line("broker.down")
    for path in (agent.state_dir, *agent.state_dir.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_an_agent_that_stops_leaves_nothing(agent: Agent) -> None:
    assert agent.stop() == 0
    assert not (agent.state_dir / "control.sock").exists()


def test_a_watched_file_is_applied_by_itself(tmp_path: Path) -> None:
    first = entry("shop-prod")
    with FileAgent(tmp_path, [first], "--watch-config") as agent:
        shop = agent.children()["shop-prod"]
        agent.write([first, entry("blog-prod")])
        until(lambda: names(agent) == {"shop-prod", "blog-prod"}, 20, "the new one")
        agent.write([{**first, "app_name": "Shop"}])
        agent.wait_for_line("reload.refused")
        assert names(agent) == {"shop-prod", "blog-prod"}
        agent.write([first])
        until(lambda: names(agent) == {"shop-prod"}, 20, "the old one to go")
        assert agent.children()["shop-prod"] == shop


def test_the_last_subscription_can_be_removed_and_one_added_again(tmp_path: Path) -> None:
    with FileAgent(tmp_path, [entry("shop-prod")]) as agent:
        agent.write([])
        assert client(agent).call("leekfanout.reload")["removed"] == ["shop-prod"]
        assert client(agent).call("supervisor.getProcessInfo", "agent")["statename"] == "STOPPED"
        agent.write([entry("blog-prod")])
        assert client(agent).call("leekfanout.reload")["added"] == ["blog-prod"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--state-dir", "{theirs}"], "runs with the state folder {theirs}"),
        # Each would deliver what is in the one spool.
        (
            ["--state-dir", "{theirs}", "--socket", "{own}.sock"],
            "runs with the state folder {theirs}",
        ),
        (
            ["--state-dir", "{own}", "--socket", "{theirs}/control.sock"],
            "runs and listens on {theirs}/control.sock",
        ),
    ],
)
def test_a_second_agent_with_the_same_state_or_socket_is_refused(
    agent: Agent, tmp_path: Path, options: list[str], problem: str
) -> None:
    places = {"theirs": agent.state_dir, "own": tmp_path / "own"}
    done = run_leekfanout(
        "run",
        *(option.format_map(places) for option in options),
        env={"LEEK_AGENT_SUBSCRIPTIONS": json.dumps([entry("docs-prod")])},
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"leekfanout: Another agent {problem.format_map(places)}: stop it first")
    assert names(agent) == {"shop-prod", "blog-prod"}


STATE, SOCKET = "--state-dir={tmp}/state", "--socket={tmp}/a.sock"
LONG = "x" * 100


@pytest.mark.parametrize(
    ("options", "origin", "rule"),
    [
        (["--state-dir={tmp}/file"], "--state-dir", "must be a folder, and is something else"),
        (
            ["--state-dir={tmp}/file/state", SOCKET],
            "--state-dir",
            "must be a folder, and can't be made: Not a directory",
        ),
        ([STATE, "--socket={tmp}/nowhere/a.sock"], "--socket", "must be in a folder that exists"),
        (
            [STATE, f"--socket=/tmp/{LONG}xyz"],
            "--socket",
            f"must be shorter: the path of a socket may have 107 bytes, and {LONG}xyz's has 108",
        ),
        (
            [f"--state-dir={{tmp}}/{LONG}"],
            "--state-dir",
            "must be shorter: the path of a socket may have 107 bytes, and control.sock's has {long}, "
            "or the control socket elsewhere (--socket)",
        ),
    ],
)
@pytest.mark.parametrize("by_variable", [False, True])
def test_a_place_that_cannot_be_used_is_one_line_and_nothing_is_started(
    tmp_path: Path, options: list[str], origin: str, rule: str, by_variable: bool
) -> None:
    (tmp_path / "file").write_text("precious")
    places = {"tmp": tmp_path, "long": len(str(tmp_path / LONG / "control.sock"))}
    given = [option.format_map(places) for option in options]
    variables = {"--state-dir": "LEEKFANOUT_STATE_DIR", "--socket": "LEEKFANOUT_SOCKET"}
    env = {"LEEK_AGENT_SUBSCRIPTIONS": json.dumps([entry("docs-prod")])}
    if by_variable:
        env |= {variables[option]: path for option, path in (each.split("=") for each in given)}
        given, origin = [], variables[origin]
    done = run_leekfanout("run", *given, env=env)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f'leekfanout: {origin}: "/')
    assert line.endswith(f": {rule.format_map(places)}")
    assert not list(tmp_path.rglob("*lock"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("option", ["--state-dir", "--socket"])
def test_a_folder_of_somebody_elses_is_no_place(option: str) -> None:
    with tempfile.TemporaryDirectory() as shared:
        Path(shared).chmod(0o755)
        own = Path(shared, "own")
        own.mkdir(mode=0o700)
        os.chown(own, 65_534, 65_534)
        places = {"--state-dir": str(own), "--socket": str(own / "a.sock")}
        places[option] = shared if option == "--state-dir" else f"{shared}/a.sock"
        done = run_as_nobody(
            "run",
            *(word for pair in places.items() for word in pair),
            env={"LEEK_AGENT_SUBSCRIPTIONS": json.dumps([entry("docs-prod")])},
        )
    assert done.returncode == 2
    rule = "must be a folder" if option == "--state-dir" else "must be in a folder"
    assert done.stderr == (
        f'leekfanout: {option}: "{places[option]}": {rule} that user 65534 can read and write: '
        "it belongs to user 0 and has mode 0755\n"
    )


def test_a_folder_that_takes_no_lock_keeps_nobody_from_delivering(tmp_path: Path) -> None:
    for folder in ("state", "state/shop-prod"):
        (tmp_path / folder / "lock").mkdir(mode=0o700, parents=True)
    with Agent([entry("shop-prod")], tmp_path) as agent:
        agent.wait_for_line("lock.unavailable", 2, error="Is a directory")
        agent.wait_for_line("broker.down")
        assert names(agent) == {"shop-prod"}


def test_the_socket_may_be_elsewhere(tmp_path: Path) -> None:
    socket = tmp_path / "elsewhere.sock"
    with FileAgent(tmp_path, [entry("shop-prod")], "--socket", str(socket)) as agent:
        until(socket.exists, 10, "the socket")
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        assert not (agent.state_dir / "control.sock").exists()
        for words, env in (
            (("pid", "--socket", str(socket)), {}),
            (("pid",), {"LEEKFANOUT_SOCKET": str(socket)}),
        ):
            done = run_leekfanout(*words, env=env)
            assert (done.returncode, done.stdout) == (0, f"{agent.process.pid}\n"), done.stderr


def test_watching_needs_a_file(agent: Agent) -> None:
    env = {**os.environ, "LEEK_AGENT_SUBSCRIPTIONS": json.dumps([entry("docs-prod")])}
    done = subprocess.run(
        [sys.executable, "-m", "leekfanout", "run", "--watch-config"],
        env={**env, "LEEKFANOUT_STATE_DIR": str(agent.state_dir)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no file to watch" in done.stderr


def test_an_idle_child_has_little_memory_of_its_own(agent: Agent) -> None:
    agent.wait_for_line("broker.down", 2)
    for pid in agent.children().values():
        assert psutil.Process(pid).memory_full_info().uss < USS_MAX_BYTES
