"""``leekfanout subscriptions``: list, add, remove and validate, on a real broker."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue

from leekfanout.cli import main
from tests.api_double import ApiDouble
from tests.brokers import RabbitMQ
from tests.processes import free_ports
from tests.test_config import GOOD

SECRETS = ("the-app-key", "guest:guest", "backend-pw", "wrong-pw")


class Command:
    """Runs the command with a file of its own, and keeps what it wrote."""

    def __init__(
        self,
        file: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.file = file
        self.error = ""
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, action: str, *arguments: str, stdin: Any = None, code: int = 0) -> Any:
        """Return the JSON that was written, None if there was none."""
        text = stdin if isinstance(stdin, str) else json.dumps(stdin)
        self._monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        result = main(["subscriptions", action, "--config", str(self.file), *arguments])
        output, self.error = self._capsys.readouterr()
        assert result == code, self.error
        assert not any(secret in output + self.error for secret in SECRETS)
        return json.loads(output) if output else None

    def entries(self) -> list[dict[str, Any]]:
        return json.loads(self.file.read_text()) if self.file.exists() else []


@pytest.fixture
def command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    for name in ("LEEK_AGENT_SUBSCRIPTIONS", "LEEK_ENABLE_API", "LEEK_ENABLE_AGENT"):
        monkeypatch.delenv(name, raising=False)
    return Command(tmp_path / "subscriptions.json", capsys, monkeypatch)


@pytest.fixture
def good(amqp_url: str) -> Iterator[dict[str, Any]]:
    with ApiDouble(app_key="the-app-key") as api:
        yield {**GOOD, "broker": amqp_url, "api_url": api.url}


def test_one_that_is_taken_by_broker_and_api_is_added_and_listed(
    command: Command, good: dict[str, Any]
) -> None:
    assert command("list") == []
    good["backend"] = "redis://:backend-pw@cache/1"
    added = command("add", stdin=good)
    assert added["name"] == "shop-prod"
    assert command.entries() == [good]
    (listed,) = command("list")
    assert listed == added
    assert listed["app_key"] == "***"
    assert listed["backend"] == "redis://:***@cache/1"
    assert listed["broker"] == good["broker"].replace("guest:guest", "guest:***")


def test_one_may_come_from_a_file(command: Command, good: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "new.json"
    file.write_text(json.dumps(good))
    assert command("add", str(file))["name"] == "shop-prod"


def test_one_that_is_refused_is_not_written(
    command: Command, good: dict[str, Any], rabbitmq: RabbitMQ
) -> None:
    (port,) = free_ports(1)
    for keys, reason in (
        ({"broker": rabbitmq.url(password="wrong-pw")}, "refuses the credentials"),
        ({"broker": f"amqp://127.0.0.1:{port}"}, "refuses connections"),
        ({"app_key": "another-key"}, "refuses the key of the application shop"),
        ({"api_url": f"http://127.0.0.1:{port}"}, "refuses connections"),
    ):
        assert command("add", stdin={**good, **keys}, code=2) is None
        assert "The subscription shop-prod is not added." in command.error
        assert reason in command.error
        assert len(command.error.splitlines()) == 1
    assert not command.file.exists()


def test_one_that_is_invalid_or_there_already_is_not_asked_about(
    command: Command, good: dict[str, Any]
) -> None:
    command("add", stdin=good)
    assert command("add", stdin={**good, "broker": "amqp://nowhere.invalid"}, code=2) is None
    assert "has a subscription shop-prod already" in command.error
    assert command("add", stdin={**good, "app_env": "QA", "x": 1}, code=2) is None
    assert len(command.error.splitlines()) == 2
    for stdin, reason in (("{", "not JSON"), ([good], "must hold one subscription"), ("", "JSON")):
        assert command("add", stdin=stdin, code=2) is None
        assert reason in command.error
    assert command.entries() == [good]


def test_keys_that_a_newer_version_wrote_survive(command: Command, good: dict[str, Any]) -> None:
    newer = {**good, "app_env": "qa", "from_the_future": {"a": 1}}
    command.file.write_text(json.dumps([newer]))
    command("add", stdin=good)
    assert command.entries() == [newer, good]
    command("remove", "shop-prod")
    assert command.entries() == [newer]
    assert command("remove", "shop-qa", "--delete-queue")["queue"] == "absent"
    assert command.entries() == []


@pytest.fixture
def fill(amqp_url: str) -> Iterator[Callable[[int], None]]:
    """Declares the queue and puts messages into it."""
    exchange = Exchange("celeryev", type="topic")
    queue = Queue("leek.fanout", exchange, routing_key="#")
    with Connection(amqp_url, transport_options={"confirm_publish": True}) as connection:

        def put(count: int) -> None:
            queue(connection.default_channel).declare()
            producer = connection.Producer()
            for _ in range(count):
                producer.publish({}, "task.sent", exchange=exchange)

        yield put


def test_a_removed_subscription_leaves_its_queue_and_says_so(
    command: Command, good: dict[str, Any], rabbitmq: RabbitMQ, fill: Callable[[int], None]
) -> None:
    fill(1)
    command("add", stdin=good)
    removed = command("remove", "shop-prod")
    assert removed["removed"] == "shop-prod"
    assert removed["queue"] == "kept"
    assert "stays bound" in removed["note"]
    assert "goes on filling" in removed["note"]
    assert rabbitmq.queues(good["broker"]) == {"leek.fanout": (1, 0, 0)}
    assert command("remove", "shop-prod", code=2) is None
    assert "no subscription shop-prod" in command.error


def test_an_empty_queue_is_deleted_if_that_is_wanted(
    command: Command, good: dict[str, Any], rabbitmq: RabbitMQ, fill: Callable[[int], None]
) -> None:
    fill(0)
    command("add", stdin=good)
    assert command("remove", "shop-prod", "--delete-queue")["queue"] == "deleted"
    assert rabbitmq.queues(good["broker"]) == {}
    assert command.entries() == []


def test_a_queue_with_messages_is_deleted_by_force_only(
    command: Command, good: dict[str, Any], rabbitmq: RabbitMQ, fill: Callable[[int], None]
) -> None:
    fill(2)
    command("add", stdin=good)
    assert command("remove", "shop-prod", "--delete-queue", code=2) is None
    assert "holds 2 messages" in command.error
    assert command.entries() == [good], "what keeps the queue keeps the subscription"
    removed = command("remove", "shop-prod", "--delete-queue", "--force")
    assert removed["queue"] == "deleted"
    assert "with 2 messages" in removed["note"]
    assert rabbitmq.queues(good["broker"]) == {}


def test_a_queue_that_is_read_is_deleted_by_force_only(
    command: Command, good: dict[str, Any], rabbitmq: RabbitMQ, fill: Callable[[int], None]
) -> None:
    fill(0)
    command("add", stdin=good)
    with Connection(good["broker"]) as connection:
        connection.default_channel.basic_consume("leek.fanout")
        assert command("remove", "shop-prod", "--delete-queue", code=2) is None
        assert "still being read" in command.error
        removed = command("remove", "shop-prod", "--delete-queue", "--force")
    assert "reloaded" in removed["note"]


def test_a_queue_that_another_subscription_reads_is_kept(
    command: Command, good: dict[str, Any], rabbitmq: RabbitMQ, fill: Callable[[int], None]
) -> None:
    fill(0)
    command.file.write_text(json.dumps([good, {**good, "app_env": "qa"}]))
    assert command("remove", "shop-prod", "--delete-queue", code=2) is None
    assert "shop-qa reads it too" in command.error
    assert "leek.fanout" in rabbitmq.queues(good["broker"])


def test_a_broker_that_is_away_keeps_the_subscription_whose_queue_is_to_go(
    command: Command, good: dict[str, Any]
) -> None:
    (port,) = free_ports(1)
    command.file.write_text(json.dumps([{**good, "broker": f"amqp://127.0.0.1:{port}"}]))
    assert command("remove", "shop-prod", "--delete-queue", code=2) is None
    assert "refuses connections" in command.error
    assert len(command.entries()) == 1
    assert command("remove", "shop-prod")["queue"] == "kept"


def test_redis_leaves_nothing(command: Command, good: dict[str, Any], redis_url: str) -> None:
    command("add", stdin={**good, "broker": redis_url})
    assert command("remove", "shop-prod", "--delete-queue")["queue"] == "absent"


def test_with_the_variable_set_nothing_can_be_changed(
    command: Command, good: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEEK_AGENT_SUBSCRIPTIONS", json.dumps([{**good, "app_env": "qa"}]))
    command.file.write_text(json.dumps([good]))
    assert command("add", stdin={**good, "app_env": "dev"}, code=2) is None
    assert "come from LEEK_AGENT_SUBSCRIPTIONS" in command.error
    assert command("remove", "shop-prod", code=2) is None
    assert [each["name"] for each in command("list")] == ["shop-qa"]
    assert command.entries() == [good]


def test_validation_asks_nobody(command: Command, tmp_path: Path) -> None:
    valid = {"valid": True, "subscriptions": ["shop-prod"]}
    command.file.write_text(json.dumps([GOOD]))
    assert command("validate") == valid
    assert command("validate", "-", stdin=[GOOD]) == valid
    assert command("validate", str(command.file)) == valid
    answer = command("validate", "-", stdin=[{**GOOD, "x": 1}, 3], code=2)
    assert answer["valid"] is False
    assert len(answer["problems"]) == 2
    assert command("validate", str(tmp_path / "none.json"), code=2)["valid"] is False
