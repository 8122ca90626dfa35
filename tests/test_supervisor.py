"""The supervisor with real processes and signals."""

import os
import signal
import stat
import time
from pathlib import Path

import psutil
import pytest

from leekfanout.supervision.lifecycle import State
from tests.farm_agent import SECRET
from tests.farming import Farm, entries
from tests.processes import wait_gone
from tests.waiting import until

DELAYS = [[1, second, third] for second in (2, 3) for third in (4, 5, 6)]
"""Whole seconds of the first three delays: doubled, and half as much again at random."""


def ends(farm: Farm) -> dict[str, int]:
    """Return how often shop-prod has ended, by the causes that there were."""
    return {cause: count for cause, count in farm.status()["shop-prod"]["ends"].items() if count}


def test_a_killed_process_is_replaced_and_the_reason_said(tmp_path: Path) -> None:
    with Farm(tmp_path, entries("shop-prod", "blog-prod")) as farm:
        farm.wait_for_states(shop_prod=State.RUNNING, blog_prod=State.RUNNING)
        other = farm.pid("blog-prod")
        before = farm.send("shop-prod", signal.SIGKILL)
        farm.wait_for_states(shop_prod=State.BACKOFF)
        status = farm.status()["shop-prod"]
        assert status["reason"] == "The process was killed by SIGKILL (perhaps out of memory)."
        assert 0 < status["next_start_in_s"] <= 1.5
        farm.wait_for_states(shop_prod=State.RUNNING)
        assert farm.pid("shop-prod") != before
        assert farm.pid("blog-prod") == other
        assert farm.status()["shop-prod"]["starts"] == 2
        assert ends(farm) == {"killed": 1}


def test_a_crash_loop_backs_off_and_shows_the_error_without_secrets(tmp_path: Path) -> None:
    with Farm(tmp_path, entries("shop-prod", behaviour="crashing")) as farm:
        until(lambda: len(farm.lines("process.ended")) >= 3, 20, "three crashes")
        farm.wait_for_states(shop_prod=State.BACKOFF)
        delays = [line["restart_in_s"] for line in farm.lines("process.ended")]
        assert [int(delay) for delay in delays[:3]] in DELAYS
        status = farm.status()["shop-prod"]
        assert status["reason"] == "The process crashed with RuntimeError: no luck with ***"
        assert status["advice"]
        assert ends(farm)["crash"] >= 3
        assert farm.stop() == 0
    assert "Traceback" in farm.log.read_text()
    assert SECRET not in farm.log.read_text()
    assert SECRET not in (farm.state_dir / "shop-prod" / "agent.log").read_text()


def test_a_process_that_ends_in_order_unasked_is_started_again(tmp_path: Path) -> None:
    with Farm(tmp_path, entries("shop-prod")) as farm:
        farm.wait_for_states(shop_prod=State.RUNNING)
        before = farm.send("shop-prod", signal.SIGTERM)
        farm.wait_for_states(shop_prod=State.EXITED)
        assert farm.status()["shop-prod"]["reason"] == "The process exited with code 0."
        assert ends(farm) == {"exited": 1}
        farm.wait_for_states(shop_prod=State.RUNNING)
        assert farm.pid("shop-prod") != before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_0(tmp_path: Path, number: int) -> None:
    with Farm(tmp_path, entries("shop-prod", "blog-prod", behaviour="slow")) as farm:
        farm.wait_for_states(shop_prod=State.RUNNING, blog_prod=State.RUNNING)
        farm.signal(number)
        assert farm.wait() == 0
        stopped = farm.lines("process.stopped", exit="exited with code 0")
        assert {line["subscription"] for line in stopped} == {"shop-prod", "blog-prod"}
    assert not farm.socket.exists()


def test_a_process_that_does_not_drain_is_killed_when_its_time_is_over(tmp_path: Path) -> None:
    both = [{"name": "shop-prod", "behaviour": "stubborn"}, {"name": "blog-prod"}]
    with Farm(tmp_path, both, DRAIN_S="0.5") as farm:
        farm.wait_for_states(shop_prod=State.RUNNING, blog_prod=State.RUNNING)
        begun = time.monotonic()
        assert farm.stop() == 0
        assert time.monotonic() - begun >= 1.5  # the drain time and the margin
        assert farm.lines("process.stopped", subscription="blog-prod", exit="exited with code 0")
        assert farm.lines("process.kill", subscription="shop-prod")


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with Farm(tmp_path, entries("shop-prod", behaviour="stubborn"), DRAIN_S="600") as farm:
        farm.wait_for_states(shop_prod=State.RUNNING)
        farm.signal(signal.SIGTERM)
        until(lambda: farm.lines("supervisor.stopping"), 10, "the first signal to be seen")
        farm.signal(signal.SIGTERM)
        assert farm.wait() == 0


def test_a_process_whose_loop_stands_still_is_killed_and_replaced(tmp_path: Path) -> None:
    both = [{"name": "shop-prod", "behaviour": "hanging"}, {"name": "blog-prod"}]
    with Farm(tmp_path, both, HANG_AFTER_S="2") as farm:
        other = farm.pid("blog-prod")
        until(lambda: farm.lines("process.hung"), 20, "the hang to be noticed")
        farm.wait_for_states(shop_prod=State.BACKOFF)
        reason = farm.status()["shop-prod"]["reason"]
        assert reason == "The process was killed: its main loop had not turned for 2 s."
        assert "tests/farm_agent.py" in farm.log.read_text()  # its stacks
        assert set(ends(farm)) == {"hang"}
        farm.wait_for_states(shop_prod=State.RUNNING)
        assert farm.pid("blog-prod") == other
        assert all(line["subscription"] == "shop-prod" for line in farm.lines("process.hung"))


def test_a_pause_of_everything_is_no_hang(tmp_path: Path) -> None:
    with Farm(tmp_path, entries("shop-prod"), HANG_AFTER_S="2", OVERSLEPT_S="1") as farm:
        farm.wait_for_states(shop_prod=State.RUNNING)
        before = farm.pid("shop-prod")
        child = psutil.Process(before)
        farm.process.pause()
        child.suspend()
        time.sleep(4)  # beyond the hang and what counts as oversleeping
        farm.process.resume()
        time.sleep(0.5)
        child.resume()
        until(
            lambda: farm.status()["shop-prod"]["gauges"]["turned_at"] > time.monotonic() - 1,
            10,
            "the child to turn again",
        )
        assert farm.pid("shop-prod") == before
        assert not farm.lines("process.hung")


def test_a_process_beyond_its_memory_is_drained_and_started_again(tmp_path: Path) -> None:
    fat = [{"name": "shop-prod", "ballast_mb": 150, "max_memory_mb": 120}, {"name": "blog-prod"}]
    with Farm(tmp_path, fat, MEMORY_EVERY_S="1.5") as farm:
        other = farm.pid("blog-prod")
        until(lambda: farm.status()["shop-prod"]["starts"] >= 2, 20, "the restart")
        assert "above max_memory_mb 120." in farm.status()["shop-prod"]["reason"]
        assert farm.lines("process.stopped", exit="exited with code 0")
        assert set(ends(farm)) == {"memory"}
        assert farm.pid("blog-prod") == other


def test_children_drain_and_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    with Farm(tmp_path, entries("shop-prod", "blog-prod")) as farm:
        farm.wait_for_states(shop_prod=State.RUNNING, blog_prod=State.RUNNING)
        children = [psutil.Process(pid) for pid in farm.children()]
        assert len(children) == 2
        farm.process.kill()
        left = wait_gone(children, 10)
        assert not left


def test_a_new_supervisor_takes_over_the_socket_of_a_dead_one(tmp_path: Path) -> None:
    with Farm(tmp_path, entries("shop-prod")) as farm:
        farm.children()
        farm.process.kill()
        assert farm.socket.exists()
        farm.start()
        farm.wait_for_states(shop_prod=State.RUNNING)
        assert farm.stop() == 0


def test_titles_show_in_ps_without_secrets(tmp_path: Path) -> None:
    with Farm(tmp_path, entries("shop-prod")) as farm:
        farm.wait_for_states(shop_prod=State.RUNNING)
        assert list(farm.children().values()) == ["leekfanout: shop-prod"]
        supervisor = psutil.Process(farm.process.pid)
        assert " ".join(supervisor.cmdline()).strip() == "leekfanout: supervisor"
        assert supervisor.name() == "leekfanout: supervisor"


def test_a_child_holds_no_descriptor_of_the_supervisor(tmp_path: Path) -> None:
    with Farm(tmp_path, entries("shop-prod", "blog-prod")) as farm:
        farm.wait_for_states(shop_prod=State.RUNNING, blog_prod=State.RUNNING)
        own = Path(f"/proc/{farm.process.pid}/fd")
        inherited = {os.readlink(own / fd) for fd in ("0", "1", "2")}
        lifeline = None
        for pid in farm.children():
            held = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
            log = str(farm.state_dir / farm.children()[pid].split()[-1] / "agent.log")
            pipes = [target for target in held if target.startswith("pipe:")]
            # The lifeline's read end, and both ends of the stand-in's own wake-up pipe.
            assert len(pipes) == 3
            shared = {target for target in pipes if pipes.count(target) == 1}
            assert lifeline in {None, *shared}
            lifeline = shared.pop()
            assert set(held) - set(pipes) - inherited == {log}


def test_ctrl_c_reaches_children_once(tmp_path: Path) -> None:
    with Farm(tmp_path, entries("shop-prod")) as farm:
        farm.wait_for_states(shop_prod=State.RUNNING)
        for pid in farm.children():
            assert os.getpgid(pid) == pid != os.getpgid(farm.process.pid)


def test_nothing_wakes_an_idle_supervisor(tmp_path: Path) -> None:
    quiet = entries("shop-prod", "blog-prod", beat_s=30)
    with Farm(tmp_path, quiet) as farm:
        farm.wait_for_states(shop_prod=State.RUNNING, blog_prod=State.RUNNING)
        status = Path(f"/proc/{farm.process.pid}/status")

        def switches() -> int:
            lines = status.read_text().splitlines()
            return sum(int(x.split()[1]) for x in lines if x.startswith("voluntary_ctxt_switches"))

        until(lambda: not farm.status()["shop-prod"]["next_start_in_s"], 5, "an answer")
        time.sleep(0.2)
        before = switches()
        time.sleep(3)
        assert switches() == before


def test_the_log_of_each_subscription_is_a_private_file_too(tmp_path: Path) -> None:
    with Farm(tmp_path, entries("shop-prod", behaviour="crashing")) as farm:
        path = farm.state_dir / "shop-prod" / "agent.log"
        until(lambda: path.exists() and "child.crashed" in path.read_text(), 10, "the log file")
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_hundred_subscriptions_start(tmp_path: Path) -> None:
    names = [f"app{chr(97 + n // 26)}{chr(97 + n % 26)}-prod" for n in range(100)]
    with Farm(tmp_path, entries(*names, beat_s=10)) as farm:
        until(lambda: len(farm.children()) == 100, 30, "a hundred processes")
        until(
            lambda: all(each["state"] == State.RUNNING for each in farm.status().values()),
            30,
            "all to run",
        )
        assert farm.stop() == 0


def test_the_supervisor_reaps_orphans_as_process_1(tmp_path: Path) -> None:
    with Farm(tmp_path, entries("shop-prod", behaviour="littering"), SUBREAPER="1") as farm:
        until(lambda: farm.lines("littered"), 10, "orphans to be made")
        until(lambda: len(farm.children()) == 1, 10, "the orphans to be reaped")
        assert farm.children() == {farm.pid("shop-prod"): "leekfanout: shop-prod"}


def test_sigusr1_writes_stacks_and_states_and_disturbs_nothing(tmp_path: Path) -> None:
    both = [{"name": "shop-prod"}, {"name": "blog-prod", "behaviour": "crashing"}]
    with Farm(tmp_path, both) as farm:
        farm.wait_for_states(shop_prod=State.RUNNING, blog_prod=State.BACKOFF)
        before = farm.pid("shop-prod")
        farm.signal(signal.SIGUSR1)
        until(lambda: len(farm.lines("dump.process")) == 2, 10, "the states")
        (shop,) = farm.lines("dump.process", subscription="shop-prod")
        (blog,) = farm.lines("dump.process", subscription="blog-prod")
        assert (shop["state"], shop["pid"]) == ("RUNNING", before)
        assert blog["pid"] == 0
        assert "no luck with ***" in blog["last_error"]
        # The supervisor's stack ends in its loop, the child's in what it does.
        until(lambda: "in handle_usr1" in farm.log.read_text(), 10, "the supervisor's stack")
        until(lambda: "in live" in farm.log.read_text(), 10, "the child's stack")
        assert farm.pid("shop-prod") == before
        assert farm.stop() == 0
    assert SECRET not in farm.log.read_text()
