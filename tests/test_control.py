"""The control socket: Supervisor's own clients, and clients that mean no good."""

import os
import selectors
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from supervisor.xmlrpc import SupervisorTransport

from leekfanout.control.control_client import RefusedError
from leekfanout.control.control_server import ControlServer
from leekfanout.control.rpc import Fault, Rpc
from leekfanout.errors import AgentRunsError
from leekfanout.supervision.lifecycle import State
from tests.farming import Farm, entries
from tests.locks import lock_holder
from tests.waiting import until


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
    until(lambda: len(shared.children()) == 2, 10, "those that were removed to end")
    return shared


def supervisorctl(farm: Farm, *words: str) -> tuple[int, list[str]]:
    """Run the real supervisorctl, and return its exit code and lines."""
    settings = farm.folder / "supervisorctl.ini"  # none of this machine's own
    settings.write_text("[supervisorctl]\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "supervisor.supervisorctl"),
            *("-c", str(settings), "-s", f"unix://{farm.socket}", *words),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


def proxy(farm: Farm) -> xmlrpc.client.ServerProxy:
    """Return what Leek's API uses: a proxy with Supervisor's own transport."""
    transport = SupervisorTransport(None, None, serverurl=f"unix://{farm.socket}")
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)


def refusal(farm: Farm, method: str, *params: object) -> int:
    """Return the code with which a call is refused."""
    with pytest.raises(RefusedError) as raised:
        farm.client.call(method, *params)
    return raised.value.code


def test_supervisorctl_shows_the_status(farm: Farm) -> None:
    code, lines = supervisorctl(farm, "status")
    assert code == 0
    names_and_states = [line.split()[:2] for line in lines]
    assert names_and_states == [["agent:blog-prod", "RUNNING"], ["agent:shop-prod", "RUNNING"]]
    assert f"pid {farm.pid('blog-prod')}, uptime 0:0" in lines[0]
    _, of_group = supervisorctl(farm, "status", "agent:*")
    assert [line.split()[:2] for line in of_group] == names_and_states
    farm.client.call("supervisor.stopProcess", "agent:shop-prod")
    code, lines = supervisorctl(farm, "status", "agent:shop-prod")
    assert (code, lines[0].split()[1]) == (3, "STOPPED")


def test_supervisorctl_stops_starts_and_restarts_one_and_leaves_the_other(farm: Farm) -> None:
    shop, blog = farm.pid("shop-prod"), farm.pid("blog-prod")
    assert supervisorctl(farm, "stop", "agent:shop-prod") == (0, ["agent:shop-prod: stopped"])
    assert not psutil.pid_exists(shop)
    assert supervisorctl(farm, "start", "agent:shop-prod") == (0, ["agent:shop-prod: started"])
    assert supervisorctl(farm, "start", "agent:shop-prod") == (
        0,
        ["agent:shop-prod: ERROR (already started)"],
    )
    code, lines = supervisorctl(farm, "restart", "agent:shop-prod")
    assert (code, lines) == (0, ["agent:shop-prod: stopped", "agent:shop-prod: started"])
    assert farm.pid("blog-prod") == blog


def test_supervisorctl_acts_on_all(farm: Farm) -> None:
    for name in ("all", "agent:*"):
        code, lines = supervisorctl(farm, "stop", name)
        assert (code, sorted(lines)) == (
            0,
            ["agent:blog-prod: stopped", "agent:shop-prod: stopped"],
        )
        assert not farm.children()
        code, lines = supervisorctl(farm, "start", name)
        assert (code, sorted(lines)) == (
            0,
            ["agent:blog-prod: started", "agent:shop-prod: started"],
        )
    assert supervisorctl(farm, "restart", "agent") == (0, ["agent: stopped", "agent: started"])
    assert len(farm.children()) == 2


def test_supervisorctl_tells_process_ids(farm: Farm) -> None:
    assert supervisorctl(farm, "pid") == (0, [str(farm.process.pid)])
    assert supervisorctl(farm, "pid", "agent:shop-prod") == (0, [str(farm.pid("shop-prod"))])


def test_supervisorctl_rereads_and_updates_by_difference(farm: Farm) -> None:
    shop = farm.pid("shop-prod")
    farm.write([*entries("shop-prod"), *entries("docs-prod"), *entries("wiki-prod", beat_s=1)])
    code, lines = supervisorctl(farm, "reread")
    assert (code, lines) == (
        0,
        [
            "agent:blog-prod: disappeared",
            "agent:docs-prod: available",
            "agent:wiki-prod: available",
        ],
    )
    assert set(farm.status()) == {"shop-prod", "blog-prod"}  # nothing has been done yet
    code, lines = supervisorctl(farm, "update")
    assert (code, lines) == (
        0,
        [
            "agent:blog-prod: stopped",
            "agent:blog-prod: removed process group",
            "agent:docs-prod: added process group",
            "agent:wiki-prod: added process group",
        ],
    )
    farm.write([*entries("shop-prod"), *entries("docs-prod"), *entries("wiki-prod", beat_s=2)])
    assert supervisorctl(farm, "reread") == (0, ["agent:wiki-prod: changed"])
    code, lines = supervisorctl(farm, "update")
    assert lines == ["agent:wiki-prod: stopped", "agent:wiki-prod: updated process group"]
    assert supervisorctl(farm, "update") == (0, [])
    assert farm.pid("shop-prod") == shop
    assert set(farm.status()) == {"shop-prod", "docs-prod", "wiki-prod"}


def test_supervisorctl_shows_the_end_of_the_log(farm: Farm) -> None:
    log = farm.state_dir / "shop-prod" / "agent.log"
    log.write_text("x" * 5_000 + "\nthe last words\n")
    code, lines = supervisorctl(farm, "tail", "agent:shop-prod")
    assert code == 0
    assert lines[-2:] == ["the last words", ""] or lines[-1] == "the last words"
    code, lines = supervisorctl(farm, "tail", "-11", "agent:shop-prod")
    assert "last words" in lines[0]
    assert "xxx" not in lines[0]


def test_supervisorctl_signals(farm: Farm) -> None:
    shop = farm.pid("shop-prod")
    code, lines = supervisorctl(farm, "signal", "KILL", "agent:shop-prod")
    assert (code, lines) == (0, ["agent:shop-prod: signalled"])
    until(lambda: farm.pid("shop-prod") not in {0, shop}, 10, "a new process")


def test_supervisorctl_shuts_down(tmp_path: Path) -> None:
    with Farm(tmp_path, entries("shop-prod")) as farm:
        assert supervisorctl(farm, "shutdown") == (0, ["Shut down"])
        assert farm.wait() == 0


def test_supervisorctl_restarts_the_whole_agent_with_fresh_subscriptions(farm: Farm) -> None:
    before = set(farm.children())
    farm.write(entries("shop-prod", "docs-prod"))
    assert supervisorctl(farm, "reload") == (0, ["Restarted supervisord"])
    farm.wait_for_states(shop_prod=State.RUNNING, docs_prod=State.RUNNING)
    assert set(farm.status()) == {"shop-prod", "docs-prod"}
    assert not before & set(farm.children())


def test_leek_stops_and_starts_the_agent_and_reads_how_it_is(farm: Farm) -> None:
    leek = proxy(farm).supervisor
    info = leek.getProcessInfo("agent")
    assert info["statename"] == "RUNNING"
    assert info["description"].startswith(f"pid {farm.process.pid}, uptime 0:00:")
    assert abs(info["start"] - time.time()) < 60
    # Leek writes the file, and then stops and starts the agent.
    farm.write(entries("shop-prod", "docs-prod"))
    assert leek.stopProcess("agent") is True
    info = leek.getProcessInfo("agent")
    assert (info["statename"], info["pid"]) == ("STOPPED", 0)
    assert info["stop"] >= info["start"]
    assert not farm.children()
    assert leek.startProcess("agent") is True
    farm.wait_for_states(shop_prod=State.RUNNING, docs_prod=State.RUNNING)
    assert set(farm.status()) == {"shop-prod", "docs-prod"}


def test_process_info_has_supervisors_fields(farm: Farm) -> None:
    info = proxy(farm).supervisor.getProcessInfo("agent:shop-prod")
    assert info == {
        "name": "shop-prod",
        "group": "agent",
        "start": info["start"],
        "stop": info["stop"],
        "now": info["now"],
        "state": 20,
        "statename": "RUNNING",
        "spawnerr": "",
        "exitstatus": 0,
        "logfile": str(farm.state_dir / "shop-prod" / "agent.log"),
        "stdout_logfile": str(farm.state_dir / "shop-prod" / "agent.log"),
        "stderr_logfile": "",
        "pid": farm.pid("shop-prod"),
        "description": info["description"],
    }


def test_every_method_of_the_interface_is_there(farm: Farm) -> None:
    wanted = {
        *("getState", "getPID", "getAPIVersion", "getSupervisorVersion", "getIdentification"),
        *("getProcessInfo", "getAllProcessInfo", "signalProcess", "reloadConfig"),
        *("startProcess", "startProcessGroup", "startAllProcesses"),
        *("stopProcess", "stopProcessGroup", "stopAllProcesses"),
        *("addProcessGroup", "removeProcessGroup", "shutdown", "restart"),
        *("tailProcessStdoutLog", "readProcessStdoutLog"),
    }
    methods = proxy(farm).system.listMethods()
    assert {f"supervisor.{name}" for name in wanted} <= set(methods)
    assert {"system.listMethods", "system.methodHelp", "system.multicall"} <= set(methods)
    assert all(proxy(farm).system.methodHelp(name) for name in methods)
    assert farm.client.call("supervisor.getState") == {"statecode": 1, "statename": "RUNNING"}
    assert farm.client.call("supervisor.getAPIVersion") == "3.0"


def test_faults_have_supervisors_codes(farm: Farm) -> None:
    assert refusal(farm, "supervisor.getProcessInfo", "agent:nope") == Fault.BAD_NAME
    assert refusal(farm, "supervisor.startProcess", "nope") == Fault.BAD_NAME
    assert refusal(farm, "supervisor.startProcess", "agent:shop-prod") == Fault.ALREADY_STARTED
    assert refusal(farm, "supervisor.startProcess", "agent") == Fault.ALREADY_STARTED
    assert refusal(farm, "supervisor.signalProcess", "shop-prod", "LOUD") == Fault.BAD_SIGNAL
    assert refusal(farm, "supervisor.addProcessGroup", "agent:shop-prod") == Fault.ALREADY_ADDED
    assert refusal(farm, "supervisor.addProcessGroup", "agent:docs-prod") == Fault.BAD_NAME
    assert refusal(farm, "supervisor.removeProcessGroup", "agent:shop-prod") == Fault.STILL_RUNNING
    assert refusal(farm, "supervisor.readProcessStdoutLog", "shop-prod", -1, 1) == (
        Fault.BAD_ARGUMENTS
    )
    farm.client.call("supervisor.stopProcess", "agent")
    assert refusal(farm, "supervisor.stopProcess", "agent") == Fault.NOT_RUNNING
    assert refusal(farm, "supervisor.stopProcess", "agent:shop-prod") == Fault.NOT_RUNNING
    assert refusal(farm, "supervisor.signalProcess", "shop-prod", "HUP") == Fault.NOT_RUNNING


def test_a_process_that_does_not_live_is_an_abnormal_termination(tmp_path: Path) -> None:
    both = [*entries("shop-prod"), *entries("blog-prod", behaviour="crashing")]
    with Farm(tmp_path, both) as farm:
        farm.client.call("supervisor.stopProcess", "agent")
        assert refusal(farm, "supervisor.startProcess", "blog-prod") == Fault.ABNORMAL_TERMINATION
        farm.client.call("supervisor.stopProcess", "agent")
        # One that fails doesn't make a failure of the whole.
        assert farm.client.call("supervisor.startProcess", "agent") is True


def test_an_agent_that_is_too_busy_to_answer_is_not_replaced() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        selectors.DefaultSelector() as selector,
        socket.socket(socket.AF_UNIX) as busy,
        socket.socket(socket.AF_UNIX) as waiting,
    ):
        path = Path(folder, "control.sock")
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(AgentRunsError):
            ControlServer(path, selector, Rpc({}))
        assert path.exists()


def test_a_call_that_waits_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    both = [*entries("shop-prod", behaviour="stubborn"), *entries("blog-prod")]
    with Farm(tmp_path, both, DRAIN_S="2") as farm, socket.socket(socket.AF_UNIX) as waiting:
        farm.wait_for_states(shop_prod=State.RUNNING)
        body = xmlrpc.client.dumps(("agent:shop-prod",), "supervisor.stopProcess").encode()
        waiting.connect(str(farm.socket))
        waiting.sendall(b"POST /RPC2 HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        farm.wait_for_states(shop_prod=State.STOPPING)
        assert farm.client.call("supervisor.stopProcess", "blog-prod") is True
        assert farm.status()["shop-prod"]["state"] == State.STOPPING
        waiting.settimeout(20)
        assert b"<boolean>1</boolean>" in waiting.recv(65_536)
        assert farm.status()["shop-prod"]["state"] == State.STOPPED


def test_a_restart_goes_on_though_its_client_has_gone(farm: Farm) -> None:
    before = farm.pid("shop-prod")
    body = xmlrpc.client.dumps(("shop-prod",), "leekfanout.restartProcesses").encode()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(farm.socket))
        client.sendall(b"POST /RPC2 HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    until(lambda: farm.pid("shop-prod") not in {0, before}, 10, "the restart")
    farm.wait_for_states(shop_prod=State.RUNNING)


def test_slow_and_silent_clients_keep_nobody_waiting(farm: Farm) -> None:
    clients = [socket.socket(socket.AF_UNIX) for _ in range(63)]
    try:
        for client in clients:
            client.connect(str(farm.socket))
            client.sendall(b"POST /RPC2 HTTP/1.1\r\nContent-Length: 100\r\n\r\n<methodC")
        assert len(farm.status()) == 2
        clients.append(socket.socket(socket.AF_UNIX))
        clients[-1].connect(str(farm.socket))
        clients.append(socket.socket(socket.AF_UNIX))
        clients[-1].connect(str(farm.socket))
        clients[-1].settimeout(10)
        assert clients[-1].recv(1) == b""  # one too many
        clients[0].settimeout(20)
        assert clients[0].recv(1) == b""  # its time is over
    finally:
        for client in clients:
            client.close()
    until(lambda: len(farm.status()) == 2, 10, "an answer")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /RPC2 HTTP/1.1\r\n\r\n", b"405"),
        (b"POST /else HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"404"),
        (b"POST /RPC2 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", b"400"),
        (b"POST /RPC2 HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\nabc", b"413"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
)
def test_what_is_no_call_gets_its_http_status(
    farm: Farm, request_bytes: bytes, status: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(farm.socket))
        client.sendall(request_bytes)
        assert client.recv(65_536).startswith(b"HTTP/1.1 " + status)
    assert len(farm.status()) == 2


def test_the_socket_is_for_its_owner_alone(farm: Farm) -> None:
    assert stat.S_IMODE(farm.socket.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as another user")
def test_another_user_is_turned_away_even_where_the_file_would_let_him_in(
    farm: Farm,
) -> None:
    temporary = Path(tempfile.gettempdir())
    for folder in (farm.state_dir, *farm.state_dir.parents):
        if temporary in folder.parents:
            folder.chmod(0o755)
    farm.socket.chmod(0o666)
    code = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534);"
        "c = socket.socket(socket.AF_UNIX); c.settimeout(10); c.connect(sys.argv[1]);"
        "sys.exit(0 if c.recv(1) == b'' else 1)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(farm.socket)], check=False, timeout=30)
    assert done.returncode == 0
    assert farm.lines("control.denied", uid=65534)
    farm.socket.chmod(0o600)


def test_of_two_agents_that_find_a_socket_of_one_that_is_gone_only_one_gets_it() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        selectors.DefaultSelector() as selector,
        socket.socket(socket.AF_UNIX) as stale,
    ):
        path = Path(folder, "control.sock")
        stale.bind(str(path))
        stale.close()
        with (
            lock_holder(path.with_name("control.sock.lock")) as other,
            pytest.raises(AgentRunsError),
        ):
            ControlServer(path, selector, Rpc({}))
        assert other.returncode == -signal.SIGKILL
        server = ControlServer(path, selector, Rpc({}))
        server.close()


def test_a_second_agent_in_the_same_folder_is_refused(farm: Farm) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.farm_agent", str(farm.state_dir), str(farm.file)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert f"Another agent runs with the state folder {farm.state_dir}" in done.stderr
    assert len(farm.status()) == 2


def test_a_file_in_the_sockets_place_is_left_alone_and_the_agent_delivers(tmp_path: Path) -> None:
    farm = Farm(tmp_path, entries("shop-prod"))
    farm.socket.write_text("precious")
    try:
        farm.start(wait=False)
        until(lambda: farm.lines("process.started"), 20, "the agent to start")
        assert farm.lines("control.unavailable")
        assert farm.socket.read_text() == "precious"
        assert farm.stop() == 0
        assert farm.socket.read_text() == "precious"
    finally:
        farm.close()


def test_others_miss_no_second_while_one_restarts(tmp_path: Path) -> None:
    names = ("shop-prod", "blog-prod", "docs-prod")
    with Farm(tmp_path, entries(*names, beat_s=0.1, behaviour="slow")) as farm:
        farm.wait_for_states(**{name.replace("-", "_"): State.RUNNING for name in names})
        delivered = []
        for _ in range(3):
            farm.client.call("leekfanout.restartProcesses", "shop-prod")
            status = farm.status()
            delivered.append([status[name]["counters"]["events_delivered"] for name in names[1:]])
            assert [status[name]["starts"] for name in names[1:]] == [1, 1]
        # Each restart takes over a second; a process that noticed would have beaten less often.
        for before, after in pairwise(delivered):
            assert all(late - early >= 5 for early, late in zip(before, after, strict=True))


def test_a_reload_touches_only_what_differs(farm: Farm) -> None:
    blog = farm.pid("blog-prod")
    farm.write([*entries("blog-prod"), *entries("shop-prod", beat_s=1), *entries("docs-prod")])
    shop = farm.pid("shop-prod")
    what = farm.client.call("leekfanout.reload")
    assert what == {"added": ["docs-prod"], "changed": ["shop-prod"], "removed": []}
    until(lambda: farm.pid("shop-prod") not in {0, shop}, 10, "the changed one to restart")
    farm.wait_for_states(shop_prod=State.RUNNING, docs_prod=State.RUNNING)
    assert farm.pid("blog-prod") == blog


def test_a_file_that_cannot_be_used_changes_nothing_and_says_why(farm: Farm) -> None:
    before = farm.children()
    farm.write("[{")
    refused = len(farm.lines("reload.refused"))
    with pytest.raises(RefusedError, match=r"CANT_REREAD: subscriptions\.json can't be used"):
        farm.client.call("leekfanout.reload")
    assert refusal(farm, "supervisor.reloadConfig") == Fault.CANT_REREAD
    farm.signal(signal.SIGHUP)
    until(lambda: len(farm.lines("reload.refused")) > refused, 10, "the reason in the log")
    assert "subscriptions.json can't be used" in farm.lines("reload.refused")[-1]["problem"]
    assert farm.children() == before


def test_sighup_reloads(farm: Farm) -> None:
    farm.write(entries("shop-prod"))
    farm.signal(signal.SIGHUP)
    until(lambda: set(farm.status()) == {"shop-prod"}, 10, "the removed one to go")
    until(lambda: len(farm.children()) == 1, 10, "its process to end")


def test_one_that_is_removed_and_added_again_waits_for_its_forerunner(tmp_path: Path) -> None:
    with Farm(tmp_path, entries("shop-prod", behaviour="slow")) as farm:
        farm.wait_for_states(shop_prod=State.RUNNING)
        farm.write([])
        farm.client.call("leekfanout.reload")
        farm.write(entries("shop-prod"))
        farm.client.call("leekfanout.reload")
        assert len(farm.children()) == 1
        farm.wait_for_states(shop_prod=State.RUNNING)
        assert len(farm.children()) == 1
        assert farm.status()["shop-prod"]["starts"] == 1


def test_a_stopped_one_stays_stopped_when_it_changes(farm: Farm) -> None:
    farm.client.call("supervisor.stopProcess", "shop-prod")
    farm.write([*entries("shop-prod", beat_s=1), *entries("blog-prod")])
    assert farm.client.call("leekfanout.reload")["changed"] == ["shop-prod"]
    assert farm.status()["shop-prod"]["state"] == State.STOPPED
