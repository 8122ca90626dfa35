"""The page's process: it ends when it is told to, and when the supervisor is gone."""

import contextlib
import os
import signal
import socket
from pathlib import Path

import psutil

from leekfanout.web import serve
from tests.agent import subscription
from tests.api_double import ApiDouble
from tests.waiting import until
from tests.web.page_agent import WAIT_S, PageAgent


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


def test_a_request_whose_head_doesnt_come_to_an_end_is_dropped(tmp_path: Path) -> None:
    begun = (b"", b"GET /agent/login HTTP/1.1\r\nHost: localhost\r\n")
    with PageAgent(tmp_path) as agent, contextlib.ExitStack() as stack:
        peers = [
            stack.enter_context(
                socket.create_connection(("127.0.0.1", agent.port), serve.HEAD_S + WAIT_S)
            )
            for _ in begun
        ]
        for peer, sent in zip(peers, begun, strict=True):
            peer.sendall(sent)
        assert [peer.recv(1) for peer in peers] == [b"", b""]
