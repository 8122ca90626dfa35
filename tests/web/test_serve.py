"""The page's process: it ends when it is told to, and when the supervisor is gone."""

import contextlib
import os
import signal
import socket
from pathlib import Path

import psutil
import pytest
import requests

from leekfanout.web import serve
from leekfanout.web.guard import COOKIE, CSRF_HEADER
from leekfanout.web.options import WebOptions
from tests.agent import subscription
from tests.api_double import ApiDouble
from tests.processes import free_ports
from tests.waiting import until
from tests.web.page_agent import TOKEN, WAIT_S, PageAgent
from tests.web.served import Served, made_up_agent


def test_an_open_stream_doesnt_keep_the_agent_from_stopping(tmp_path: Path) -> None:
    with PageAgent(tmp_path) as agent:
        stream = agent.get("/agent/events", stream=True)
        assert next(stream.iter_lines()) == b"event: history"
        assert agent.stop() == 0
        assert not agent.lines("side.ended")


def test_the_page_ends_with_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    with PageAgent(tmp_path) as agent:
        page = psutil.Process(agent.page_pid())
        agent.kill()
        until(lambda: not page.is_running(), WAIT_S, "the page's process to end")


def test_delivery_doesnt_notice_that_the_page_crashes(
    tmp_path: Path, redis_url: str, api: ApiDouble
) -> None:
    with PageAgent(tmp_path, [subscription(redis_url, api)]) as agent:
        agent.wait_until_connected()
        child, page = agent.status()["pid"], agent.page_pid()
        os.kill(page, signal.SIGSEGV)
        until(lambda: agent.page_pid() != page, WAIT_S, "another page")
        until(agent.answers, WAIT_S, "it to answer")
        assert agent.status()["pid"] == child
        assert agent.status()["starts"] == 1
        (ended,) = agent.lines("side.ended")
        assert ended["exit"] == "was killed by SIGSEGV"


def test_whoever_has_logged_out_stays_so_though_the_page_crashes(tmp_path: Path) -> None:
    with PageAgent(tmp_path) as agent:
        session, login = requests.Session(), f"{agent.url}/agent/login"
        assert session.post(login, data={"token": TOKEN}, timeout=WAIT_S).ok
        cookies = {COOKIE: session.cookies[COOKIE]}
        html = session.get(f"{agent.url}/agent", timeout=WAIT_S).text
        csrf_token = html.split('name="csrf-token" content="')[1].split('"')[0]
        headers = {CSRF_HEADER: csrf_token}
        assert session.post(f"{agent.url}/agent/logout", headers=headers, timeout=WAIT_S).ok
        page = agent.page_pid()
        os.kill(page, signal.SIGKILL)
        until(lambda: agent.page_pid() != page, WAIT_S, "another page")
        until(agent.answers, WAIT_S, "it to answer")
        url = f"{agent.url}/agent/api/session"
        assert requests.get(url, cookies=cookies, timeout=WAIT_S).status_code == 401


def test_a_request_whose_head_doesnt_come_to_an_end_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "HEAD_S", 0.5)
    begun = (b"", b"GET /agent/login HTTP/1.1\r\nHost: localhost\r\n")
    with Served(made_up_agent(tmp_path)) as served, contextlib.ExitStack() as stack:
        peers = [
            stack.enter_context(socket.create_connection(("127.0.0.1", served.port), WAIT_S))
            for _ in begun
        ]
        for peer, sent in zip(peers, begun, strict=True):
            peer.sendall(sent)
        assert [peer.recv(1) for peer in peers] == [b"", b""]


def test_the_pages_process_holds_no_key_and_shows_no_variable(
    tmp_path: Path, amqp_url: str, api: ApiDouble
) -> None:
    user, variable = "s3cretmark-of-the-broker", "s3cretmark-of-a-variable"
    key = api.app_key
    entry = subscription(amqp_url, api, app_key="${THE_KEY}")
    other = subscription(amqp_url.replace(":guest@", f":{user}@"), api, app_name="other")
    env = {"LEEKFANOUT_WEB_TOKEN": TOKEN, "THE_KEY": key, "UNRELATED": variable}
    with PageAgent(tmp_path, [entry, other], env=env) as agent:
        agent.wait_until_connected()
        stream = agent.get("/agent/events", stream=True)
        assert next(stream.iter_lines()) == b"event: history"
        supervisor, page = agent.supervisor_pid(), agent.page_pid()
        assert holds(supervisor, user)
        assert not holds(page, user)
        environ = Path(f"/proc/{page}/environ").read_bytes()
        assert not [name for name in (key, TOKEN, variable) if name.encode() in environ]


def test_whoever_connects_before_the_page_serves_is_not_refused() -> None:
    (port,) = free_ports(1)
    with (
        serve._listen(WebOptions(port=port)),
        socket.create_connection(("127.0.0.1", port), WAIT_S) as peer,
    ):
        assert peer.getpeername()[1] == port


def holds(pid: int, text: str) -> bool:
    """Whether a text is anywhere in a process's memory."""
    wanted = text.encode()
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            addresses, access, *_ = line.split()
            start, end = (int(address, 16) for address in addresses.split("-"))
            if access.startswith("r") and not line.rstrip().endswith("[vvar]"):
                with contextlib.suppress(OSError, ValueError):  # the kernel's own pages
                    memory.seek(start)
                    if wanted in memory.read(end - start):
                        return True
    return False
