"""A run full of faults, every output of which is searched for the secrets that it was given."""

import json
import resource
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
import requests

from leekfanout.control.control_client import Client, RefusedError
from tests.agent import Agent, run_leekfanout, subscription
from tests.api_double import ApiDouble
from tests.api_exchange import Reply
from tests.brokers import RabbitMQ
from tests.load import Load, Message
from tests.processes import free_ports
from tests.publishers import publish_amqp
from tests.waiting import until

MARK = "s3cretmark"
PASSWORD, KEY, TOKEN = f"{MARK}-p@ss/1", f"{MARK}-key", f"{MARK}-a-long-token"
ENCODED = f"{MARK}-p%40ss%2F1"


def entries(
    rabbitmq: RabbitMQ, amqp_url: str, redis_url: str, api: ApiDouble, key_file: Path
) -> list[dict[str, Any]]:
    """Return subscriptions that work, are refused, and find nobody."""
    (nobody,) = free_ports(1)
    vhost = amqp_url.rpartition("/")[2]
    api_url = f"http://leek:{ENCODED}@127.0.0.1:{api.port}"
    works = {"broker": f"amqp://leek:${{PASSWORD}}@{rabbitmq.host}/{vhost}"}
    return [
        {
            **subscription(works["broker"], api, api_url=api_url, queue="works"),
            "app_key": f"file:{key_file}",
            "backend": "${BACKEND}",
            "broker_management_url": f"http://leek:{ENCODED}@127.0.0.1:{nobody}",
        },
        subscription(f"amqp://leek:{MARK}-wrong@{rabbitmq.host}/{vhost}", api, app_name="refused"),
        subscription(f"amqp://leek:{ENCODED}@127.0.0.1:{nobody}//", api, app_name="nobody"),
        subscription(redis_url.replace("//", f"//:{ENCODED}@", 1), api, app_name="redis"),
        subscription(
            works["broker"],
            api,
            app_name="apiless",
            api_url=f"http://u:{ENCODED}@127.0.0.1:{nobody}",
        ),
    ]


class FaultyRun:
    """An agent with all that can be seen of it."""

    def __init__(self, agent: Agent, file: Path, env: Mapping[str, str], ports: list[int]) -> None:
        self.agent = agent
        self.file = file
        self.env = env
        self.web, self.metrics = (f"http://127.0.0.1:{port}" for port in ports)

    def command(self, *arguments: str) -> str:
        """Return what a command writes."""
        done = run_leekfanout(*arguments, env=self.env, stdin="")
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def page(self, path: str) -> str:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return requests.get(f"{self.web}{path}", headers=headers, timeout=20).text

    def posted(self, path: str, content: Any) -> str:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return requests.post(f"{self.web}{path}", json=content, headers=headers, timeout=40).text

    def live(self) -> str:
        """Return what the page shows once it is open: the first look at the agent."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url, seen = f"{self.web}/agent/events", b""
        with requests.get(url, headers=headers, timeout=20, stream=True) as answer:
            for line in answer.iter_lines():
                seen += line
                if line.startswith(b"data:") and b"shop-prod" in line and b"subscriptions" in line:
                    return seen.decode()
        raise AssertionError(f"The page shows no subscription: {seen!r}")

    def call(self, method: str, *params: Any) -> str:
        try:
            return repr(Client(self.agent.state_dir / "control.sock").call(method, *params))
        except RefusedError as error:
            return str(error)


@pytest.fixture
def faulty(
    rabbitmq: RabbitMQ, amqp_url: str, redis_url: str, tmp_path: Path
) -> Iterator[FaultyRun]:
    vhost = amqp_url.rpartition("/")[2]
    rabbitmq.call("PUT", "/api/users/leek", {"password": PASSWORD, "tags": ""})
    rabbitmq.call(
        "PUT", f"/api/permissions/{vhost}/leek", {"configure": ".*", "write": ".*", "read": ".*"}
    )
    key_file = tmp_path / "key"
    key_file.write_text(f"{KEY}\n")
    ports = free_ports(2)
    with ApiDouble(KEY) as api:
        answer_with_faults(api)
        file = tmp_path / "subscriptions.json"
        file.write_text(json.dumps(entries(rabbitmq, amqp_url, redis_url, api, key_file)))
        env = {
            "LEEK_AGENT_SUBSCRIPTIONS": "",
            "LEEK_AGENT_SUBSCRIPTIONS_FILE": str(file),
            "LEEK_AGENT_LOG_LEVEL": "DEBUG",
            "LEEKFANOUT_STATE_DIR": str(tmp_path / "state"),
            "LEEKFANOUT_WEB_TOKEN": TOKEN,
            "PASSWORD": PASSWORD,
            "BACKEND": f"redis://:{ENCODED}@127.0.0.1/0",
        }
        options = (*("--web", f"127.0.0.1:{ports[0]}", "--metrics", f"127.0.0.1:{ports[1]}"),)
        agent = Agent(orjson.loads(file.read_bytes()), tmp_path, options=options, env=env)
        with agent:
            agent.wait_for_line("metrics.started")
            agent.wait_for_line("web.started")
            agent.wait_for_line("broker.connected", subscription="shop-prod")
            send(amqp_url, api, agent)
            yield FaultyRun(agent, file, env, ports)
    rabbitmq.call("DELETE", "/api/users/leek")


def answer_with_faults(api: ApiDouble) -> None:
    """Let the API quote the key that it was sent, in every way that it can refuse."""

    def quoting(status: int) -> Reply:
        words = f"The key {KEY} and the header Basic {ENCODED} are wrong, {PASSWORD}."
        return Reply(status, {"error": {"code": str(status), "message": words, "reason": words}})

    refusals = [Reply(reset=True, cut_after_bytes=0), quoting(503), quoting(401), quoting(409)]
    api.script([*refusals, *(quoting(422) for _ in range(40))])


def send(amqp_url: str, api: ApiDouble, agent: Agent) -> None:
    """Publish events, bad ones too, and wait until the API has refused some for good."""
    publish_amqp(amqp_url, Load(seed=1).messages(5))
    bad = Message("task.sent", b'{"type": "task-sent", "uuid": 5}', ())
    publish_amqp(amqp_url, [bad, Message("task.sent", b"no JSON", ())])
    letters = agent.state_of() / "deadletters.sqlite3"
    until(lambda: b"are wrong" in read(letters), 120, "a dead letter with the API's answer")


def read(database: Path) -> bytes:
    """Return the bytes of an SQLite database and of its log."""
    files = (database, database.with_name(f"{database.name}-wal"))
    return b"".join(file.read_bytes() for file in files if file.exists())


def outputs(run: FaultyRun) -> Iterator[tuple[str, str]]:
    """Yield everything that the agent and its commands show, by name."""
    for path in ("/metrics", "/livez?verbose", "/readyz?verbose"):
        yield path, requests.get(f"{run.metrics}{path}", timeout=20).text
    for path in (
        *("/agent", "/agent/login", "/v1/agent/control", "/v1/agent/subscriptions"),
        "/v1/agent/none",
    ):
        yield f"page {path}", run.page(path)
    for path in ("letters", "letters/1", "letters/3", "log"):
        yield f"page, {path}", run.page(f"/agent/api/subscriptions/shop-prod/{path}")
    typed = typed_on_the_page(run)
    for order in ("validate", "check"):
        yield f"page, {order}", run.posted(f"/agent/api/{order}", typed)
        yield (
            f"page, {order} nonsense",
            run.posted(
                f"/agent/api/{order}", {**typed, "broker": f"amqp://leek:{ENCODED}@:port//"}
            ),
        )
    yield "page, add", run.posted("/v1/agent/subscriptions", typed)
    yield (
        "page, replay",
        run.posted("/agent/api/subscriptions/shop-prod/letters/replay", {"ids": [3]}),
    )
    yield "page, reload", run.posted("/agent/api/reload", {})
    yield "page, live", run.live()
    new = run.file.with_name("new.json")
    new.write_text(json.dumps(typed))
    commands = [
        *(["check"], ["check", "--json"], ["health"], ["health", "--ready"], ["pid"]),
        *(["status"], ["status", "--json"], ["status", "none"]),
        *(["subscriptions", "list"], ["subscriptions", "validate"]),
        *(["deadletters", "list"], ["deadletters", "list", "--json"]),
        *(["deadletters", "show", "shop-prod:1"], ["deadletters", "show", "shop-prod:1", "--json"]),
        *(
            ["deadletters", "show", "shop-prod:3"],
            ["redis-orphans", "redis-prod"],
        ),
        *(["deadletters", "replay", "shop-prod:3"], ["deadletters", "replay", "--all", "--json"]),
        *(["deadletters", "purge", "--reason", MARK[1:], "--yes"],),
        *(["subscriptions", "add", str(new)], ["subscriptions", "remove", "none-prod"]),
        *(["run"], ["documents", "--app-env", "prod", str(new)], ["completion", "bash"]),
        *(["reload"], ["restart", "nobody-prod"], ["stop", "refused-prod"], ["start", "none"]),
    ]
    for command in commands:
        yield " ".join(command), run.command(*command)
    for method, *params in (
        ("leekfanout.getStatus",),
        ("supervisor.getAllProcessInfo",),
        ("supervisor.readProcessStdoutLog", "agent:shop-prod", 0, 0),
        ("supervisor.getProcessInfo", f"agent:{MARK}"[:8]),
        ("leekfanout.reload",),
    ):
        yield method, run.call(method, *params)


def typed_on_the_page(run: FaultyRun) -> dict[str, Any]:
    """Return a subscription that the broker refuses, with secrets that the agent hasn't seen yet."""
    (entry,) = (each for each in json.loads(run.file.read_text()) if each["app_name"] == "refused")
    return {
        **entry,
        "app_name": "typed",
        "broker": entry["broker"].replace("-wrong@", "-typed@"),
        "app_key": f"{MARK}-typed-key",
    }


def leaks_in(found: Mapping[str, str]) -> dict[str, str]:
    """Return, by name, the surroundings of the first secret in each text that holds one."""
    return {
        name: text[max(0, text.index(MARK) - 200) : text.index(MARK) + 100]
        for name, text in found.items()
        if MARK in text
    }


def text_of(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")


def test_no_output_of_a_run_full_of_faults_holds_a_secret(faulty: FaultyRun) -> None:
    agent = faulty.agent
    found = dict(outputs(faulty))
    agent.process.signal(signal.SIGUSR1)
    agent.wait_for_line("dump.process", 5)
    agent.kill_child()
    agent.wait_for_line("process.ended")
    children = psutil.Process(agent.process.pid).children()
    assert len(children) >= 5
    for pid in (agent.process.pid, *(child.pid for child in children)):
        for name in ("cmdline", "environ", "comm"):
            found[f"/proc/{pid}/{name}"] = text_of(Path(f"/proc/{pid}/{name}"))
        # A core file would hold all of them.
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    entries = json.loads(faulty.file.read_text())
    entries[0]["broker"] = f"amqp://leek:{PASSWORD}@:port//"
    faulty.file.write_text(json.dumps(entries))
    bad = ("check", "reload", "run", "status", "subscriptions validate", "deadletters replay --all")
    found["a bad file"] = "".join(faulty.command(*command.split()) for command in bad)
    assert agent.stop() == 0
    found["standard error"] = agent.log.read_text()
    for path in agent.state_dir.rglob("*"):
        if path.is_file():
            found[f"file {path.name} of {path.parent.name}"] = text_of(path)
    assert leaks_in(found) == {}
    # The run was what it claims to be.
    assert "The key *** and the header" in found["deadletters show shop-prod:3"]
    assert "dump.process" in found["standard error"]
    assert '"level":"debug"' in found["standard error"]
    assert '"kind": "' in found["check --json"]
    assert "refuses the credentials" in found["status"]
    assert "refused-prod" in found["page, live"]
    assert "refuses the credentials" in found["page, check"]
    assert (
        "refuses the credentials" in found[f"subscriptions add {faulty.file.parent / 'new.json'}"]
    )
    assert "Another agent runs" in found["run"]
    assert "The key *** and the header" in found["page, letters/3"]
    assert "port" in found["a bad file"]


def test_a_variable_serves_a_reload_though_it_is_hidden(faulty: FaultyRun) -> None:
    entries = json.loads(faulty.file.read_text())
    faulty.file.write_text(json.dumps([{**entries[0], "batch_max_window_in_seconds": 1}]))
    assert "'changed': ['shop-prod']" in faulty.call("leekfanout.reload")
