"""The commands by which people and scripts control an agent."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from leekfanout.cli import main
from leekfanout.supervision.lifecycle import State
from tests.farming import Farm, entries
from tests.waiting import until


class Done(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with Farm(tmp_path_factory.mktemp("farm"), entries("shop-prod", "blog-prod")) as farm:
        yield farm


@pytest.fixture
def farm(shared: Farm) -> Farm:
    """Return a farm whose two subscriptions run, whatever the test before did to them."""
    shared.write(entries("shop-prod", "blog-prod"))
    shared.client.call("leekfanout.reload")
    shared.client.call("supervisor.startAllProcesses")
    shared.wait_for_states(shop_prod=State.RUNNING, blog_prod=State.RUNNING)
    return shared


@pytest.fixture
def run(shared: Farm, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command on the farm."""

    def run(*words: str) -> Done:
        code = main([*words, "--state-dir", str(shared.state_dir)])
        return Done(code, *capsys.readouterr())

    return run


def test_status_is_a_table_and_0_while_all_run(farm: Farm, run: Run) -> None:
    done = run("status")
    head, *rows = done.out.splitlines()
    assert done.code == 0
    assert head.split()[:4] == ["SUBSCRIPTION", "STATE", "CONDITION", "UPTIME"]
    assert [row.split()[:3] for row in rows] == [
        ["blog-prod", "RUNNING", "delivering"],
        ["shop-prod", "RUNNING", "delivering"],
    ]


def test_status_is_3_when_one_does_not_run_and_says_which(farm: Farm, run: Run) -> None:
    run("stop", "shop-prod")
    done = run("status")
    assert done.code == 3
    assert "STOPPED" in done.out.splitlines()[2]
    assert run("status", "blog-prod").code == 0
    assert run("status", "agent:shop-prod").code == 3


def test_status_for_machines_has_everything(farm: Farm, run: Run) -> None:
    done = run("status", "--json")
    blog, shop = json.loads(done.out)
    assert done.code == 0
    assert (blog["name"], shop["name"]) == ("blog-prod", "shop-prod")
    assert shop["pid"] == farm.pid("shop-prod")
    assert shop["statename"] == "RUNNING"
    assert shop["diagnosis"]["words"] == "delivering"
    assert isinstance(shop["counters"]["events_delivered"], int)
    assert shop["broker"] == ["amqp://leek:***@localhost//"]
    assert shop["memory_bytes"] > 1_000_000
    assert "not-for-the-log" not in done.out


def test_a_name_that_is_not_there_is_2(farm: Farm, run: Run) -> None:
    for words in (("status",), ("start",), ("stop",), ("restart",), ("pid",)):
        done = run(*words, "nope-prod")
        assert done.code == 2
        assert "no subscription nope-prod" in done.err


def test_no_agent_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("status", "start", "stop", "restart", "reload", "pid"):
        assert main([command, "--state-dir", str(tmp_path)]) == 2
        assert f"No agent listens on {tmp_path}/control.sock" in capsys.readouterr().err


def test_stop_and_start_do_one_or_all_and_doing_it_again_is_no_failure(
    farm: Farm, run: Run
) -> None:
    assert run("stop", "shop-prod") == Done(0, "shop-prod: stopped\n", "")
    assert farm.status()["blog-prod"]["state"] == State.RUNNING
    assert run("stop", "shop-prod") == Done(0, "Nothing to do: shop-prod is stopped already.\n", "")
    assert run("stop").out == "blog-prod: stopped\n"
    assert not farm.children()
    assert sorted(run("start").out.splitlines()) == ["blog-prod: started", "shop-prod: started"]
    assert run("start").out == "Nothing to do: every subscription is started already.\n"


def test_restart_replaces_one_or_all(farm: Farm, run: Run) -> None:
    shop, blog = farm.pid("shop-prod"), farm.pid("blog-prod")
    assert run("restart", "shop-prod") == Done(0, "shop-prod: restarted\n", "")
    assert farm.pid("shop-prod") != shop
    assert farm.pid("blog-prod") == blog
    done = run("restart", "--json")
    assert {each["name"]: each["description"] for each in json.loads(done.out)} == {
        "shop-prod": "OK",
        "blog-prod": "OK",
    }
    assert farm.pid("blog-prod") != blog


def test_what_does_not_live_is_1_with_the_reason(farm: Farm, run: Run) -> None:
    farm.write([*entries("blog-prod"), *entries("shop-prod", behaviour="crashing")])
    run("reload")
    done = run("restart", "shop-prod")
    assert done.code == 1
    assert done.out == "shop-prod: The process crashed with RuntimeError: no luck with ***\n"


def test_reload_tells_what_has_changed(farm: Farm, run: Run) -> None:
    assert run("reload") == Done(0, "Nothing has changed.\n", "")
    farm.write([*entries("shop-prod", beat_s=1), *entries("docs-prod")])
    assert run("reload").out == "docs-prod: added\nshop-prod: changed\nblog-prod: removed\n"
    farm.write("nonsense")
    done = run("reload")
    assert done.code == 2
    assert "subscriptions.json can't be used" in done.err
    assert set(farm.status()) == {"shop-prod", "docs-prod"}


def test_pid_prints_it(farm: Farm, run: Run) -> None:
    assert run("pid") == Done(0, f"{farm.process.pid}\n", "")
    assert run("pid", "shop-prod") == Done(0, f"{farm.pid('shop-prod')}\n", "")
    assert json.loads(run("pid", "--json").out) == {"pid": farm.process.pid}
    run("stop", "shop-prod")
    assert run("pid", "shop-prod") == Done(3, "", "shop-prod has no process now.\n")


def test_the_socket_can_be_named(farm: Farm, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pid", "--socket", str(farm.socket)]) == 0
    assert capsys.readouterr().out == f"{farm.process.pid}\n"


def test_a_farm_without_subscriptions_says_so(farm: Farm, run: Run) -> None:
    farm.write([])
    run("reload")
    until(lambda: not farm.children(), 10, "the processes to end")
    assert run("status") == Done(0, "The agent runs, and has no subscriptions.\n", "")


def test_watch_on_a_terminal_redraws_until_ctrl_c(farm: Farm) -> None:
    leader, follower = pty.openpty()
    watching = subprocess.Popen(
        [sys.executable, "-m", "leekfanout", "status", "--watch", "--socket", str(farm.socket)],
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(follower)
    seen = b""
    try:
        while seen.count(b"SUBSCRIPTION") < 3:
            seen += os.read(leader, 65_536)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 0
    finally:
        watching.kill()
        watching.wait()
        os.close(leader)
    assert b"\x1b[32mRUNNING" in seen


def test_watch_for_machines_is_a_line_each_time(farm: Farm) -> None:
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "leekfanout", "status", "--watch", "--json"),
            *("--socket", str(farm.socket)),
        ],
        stdout=subprocess.PIPE,
    ) as watching:
        assert watching.stdout is not None
        try:
            for _ in range(2):
                assert len(json.loads(watching.stdout.readline())) == 2
            watching.send_signal(signal.SIGTERM)
            assert watching.wait(10) == 0
        finally:
            watching.kill()
