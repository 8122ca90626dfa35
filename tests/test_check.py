"""``leekfanout check`` validates and asks, and says it in one line for each check."""

import json
from pathlib import Path
from typing import Any

import pytest

from leekfanout.cli import main
from tests.api_double import ApiDouble
from tests.brokers import RabbitMQ
from tests.processes import free_ports
from tests.test_config import GOOD


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEEK_AGENT_SUBSCRIPTIONS", "LEEK_ENABLE_API", "LEEK_ENABLE_AGENT"):
        monkeypatch.delenv(name, raising=False)


def write(folder: Path, *entries: dict[str, Any]) -> str:
    file = folder / "subscriptions.json"
    file.write_text(json.dumps(entries))
    return str(file)


def test_all_is_well(
    amqp_url: str, redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ApiDouble(app_key="the-app-key") as api:
        good = {**GOOD, "api_url": api.url}
        file = write(
            tmp_path,
            {**good, "broker": amqp_url},
            {**good, "broker": redis_url, "app_env": "qa"},
        )
        assert main(["check", "--config", file]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["shop-prod", "broker", "ok"],
        ["shop-prod", "api", "ok"],
        ["shop-qa", "broker", "ok"],
        ["shop-qa", "api", "ok"],
    ]


def test_each_failure_is_a_line_and_the_exit_code_is_2(
    rabbitmq: RabbitMQ, amqp_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (port,) = free_ports(1)
    with ApiDouble(app_key="the-app-key") as api:
        good = {**GOOD, "api_url": api.url, "broker": amqp_url}
        file = write(
            tmp_path,
            {**good, "app_key": "wrong-app-key"},
            {**good, "app_env": "qa", "broker": rabbitmq.url(password="wrong-pw")},
            {**good, "app_env": "dev", "api_url": f"http://127.0.0.1:{port}"},
        )
        assert main(["check", "--config", file]) == 2
        text = capsys.readouterr().out
        assert main(["check", "--config", file, "--json"]) == 2
        output = capsys.readouterr().out
    outcomes = [line.split()[:3] for line in text.splitlines()]
    assert outcomes == [
        ["shop-prod", "broker", "ok"],
        ["shop-prod", "api", "failed"],
        ["shop-qa", "broker", "failed"],
        ["shop-qa", "api", "ok"],
        ["shop-dev", "broker", "ok"],
        ["shop-dev", "api", "failed"],
    ]
    answer = json.loads(output)
    assert answer["ok"] is False
    assert [(each["subscription"], each["check"], each["kind"]) for each in answer["checks"]] == [
        ("shop-prod", "broker", "ok"),
        ("shop-prod", "api", "key"),
        ("shop-qa", "broker", "credentials"),
        ("shop-qa", "api", "ok"),
        ("shop-dev", "broker", "ok"),
        ("shop-dev", "api", "connection-refused"),
    ]
    assert all(each["advice"] for each in answer["checks"] if not each["ok"])
    for secret in ("wrong-pw", "wrong-app-key"):
        assert secret not in text + output
    assert rabbitmq.queues(amqp_url) == {}, "a check declares nothing"


def test_an_invalid_configuration_is_told_and_nobody_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ApiDouble() as api:
        file = write(tmp_path, {**GOOD, "api_url": api.url}, {**GOOD, "app_env": "QA", "x": 1})
        assert main(["check", "--config", file]) == 2
        assert api.options == 0
    error = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:3] for line in error] == [
        ["leekfanout", "subscription #2", "app_env"],
        ["leekfanout", "subscription #2", "x"],
    ]
    assert main(["check", "--config", file, "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert len(answer["problems"]) == 2


def test_a_file_that_is_not_read_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEEK_AGENT_SUBSCRIPTIONS", "[]")
    assert main(["check", "--config", write(tmp_path, GOOD)]) == 2
    note, problem = capsys.readouterr().err.splitlines()
    assert "LEEK_AGENT_SUBSCRIPTIONS is set and wins over" in note
    assert "LEEK_AGENT_SUBSCRIPTIONS holds an empty list" in problem
