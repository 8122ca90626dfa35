"""The section for supervisord in a Leek container, run by the real supervisord."""

import json
import os
import sys
import xmlrpc.client
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from tests import accounting
from tests.accounting import assert_complete, of_documents, of_messages
from tests.agent import ROOT, subscription
from tests.api_double import ApiDouble
from tests.load import Load
from tests.processes import ChildProcess
from tests.publishers import publish_amqp
from tests.waiting import until

SECTION = ROOT / "deploy" / "supervisord-agent.conf"


def settings(folder: Path) -> str:
    """Return a supervisord.conf with the section, its paths moved into ``folder``."""
    section = SECTION.read_text()
    moved = {
        "leekfanout run": f"{sys.executable} -m leekfanout run",
        "/opt/app/conf/": f"{folder}/",
        "/var/lib/leekfanout": f"{folder}/state",
        "/dev/stdout": f"{folder}/agent.log",
    }
    for path, place in moved.items():
        assert path in section
        section = section.replace(path, place)
    return f"""
[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
[unix_http_server]
file={folder}/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
{section}"""


def test_leek_controls_the_agent_by_its_name_and_nothing_is_lost(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    (tmp_path / "supervisord.conf").write_text(settings(tmp_path))
    entry = subscription(amqp_url, api)
    (tmp_path / "subscriptions.json").write_text(json.dumps([entry]))
    supervisord = ChildProcess(
        [
            *(sys.executable, "-m", "supervisor.supervisord"),
            *("-n", "-c", str(tmp_path / "supervisord.conf")),
        ],
        tmp_path / "output.log",
        {
            **{name: value for name, value in os.environ.items() if not name.startswith("LEEK")},
            **{"LEEK_ENABLE_AGENT": "true", "LEEK_ENABLE_API": "false", "PYTHONPATH": str(ROOT)},
        },
    )
    socket = tmp_path / "supervisor.sock"
    transport = SupervisorTransport(None, None, serverurl=f"unix://{socket}")
    leek: Any = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor
    log = tmp_path / "agent.log"
    try:
        until(socket.exists, 20, "supervisord to listen")
        until(
            lambda: leek.getProcessInfo("agent")["statename"] == "RUNNING", 30, "the agent to run"
        )
        until(lambda: "broker.connected" in log.read_text(), 30, "the broker to be connected")
        sent = of_messages(publish_amqp(amqp_url, Load(seed=1).messages(300)))
        assert leek.stopProcess("agent") is True
        assert leek.getProcessInfo("agent")["statename"] == "STOPPED"
        assert "process.kill" not in log.read_text()  # it has drained within its time
        left = accounting.at_broker(amqp_url)
        assert_complete(sent, of_documents(api.confirmed()), left)
        assert leek.startProcess("agent") is True
        assert leek.getProcessInfo("agent")["statename"] == "RUNNING"
        until(lambda: log.read_text().count("broker.connected") == 2, 30, "it to connect again")
        before = api.confirmed_events()
        more = of_messages(publish_amqp(amqp_url, Load(seed=2).messages(300)))
        api.wait_for_events(before + more.total())
    finally:
        assert supervisord.stop(30) == 0
