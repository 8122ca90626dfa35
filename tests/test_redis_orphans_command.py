"""``leekfanout redis-orphans`` from the outside: what it prints, asks, deletes and returns."""

import json
import os
import pty
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from leekfanout import cli
from tests.brokers import SentinelSetup
from tests.test_redis_orphans import contents, leave_lists_behind

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command with nobody at the terminal; return its exit code and what it wrote."""
    monkeypatch.delenv("LEEK_AGENT_SUBSCRIPTIONS", raising=False)
    monkeypatch.setattr("leekfanout.commands.redis_orphans.set_title", lambda _: None)

    def run_it(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(["redis-orphans", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run_it


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Type something at the terminal that the command reads."""
    ours, theirs = pty.openpty()

    def type_in(text: str) -> None:
        os.write(ours, f"{text}\n".encode())

    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        yield type_in
        monkeypatch.undo()
    os.close(ours)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as connected:
        yield connected


def test_it_shows_what_is_orphaned_and_deletes_nothing(
    run: Run, redis_url: str, client: redis.Redis
) -> None:
    leave_lists_behind(redis_url, 12, ("leek.fanout", "dead"))
    client.sadd("_kombu.binding.shop", b"x\x06\x16\x06\x16celery")
    client.sadd("_kombu.binding.celeryev", b"x\x06\x16\x06\x16celery")
    before = contents(client)
    code, out, err = run("--broker", redis_url)
    assert (code, err) == (0, "")
    assert redis_url in out
    assert "12  " in out
    assert "leek.fanout" in out
    assert "Left alone: celery, because it is bound to the exchange shop too." in out
    assert "Orphaned: 24 items in the lists of 2 queues, 2 bindings, 0 unacked events" in out
    assert contents(client) == before


def test_a_clean_broker_is_told_so(run: Run, redis_url: str) -> None:
    code, out, _ = run("--broker", redis_url, "--delete")
    assert code == 0
    assert "No orphans." in out


def test_it_deletes_without_asking_if_told_so(
    run: Run, redis_url: str, client: redis.Redis
) -> None:
    leave_lists_behind(redis_url, 12, ("leek.fanout", "dead"))
    code, out, _ = run("--broker", redis_url, "--delete", "--yes")
    assert code == 0
    assert "Deleted: 24 items, 2 bindings, 0 unacked events." in out
    assert contents(client) == {}


def test_it_asks_nobody_where_nobody_is(run: Run, redis_url: str, client: redis.Redis) -> None:
    leave_lists_behind(redis_url, 2, ("dead",))
    code, _, err = run("--broker", redis_url, "--delete")
    assert code == 2
    assert "--yes" in err
    assert client.llen("dead") == 2


@pytest.mark.parametrize(("text", "left"), [("y", 0), ("Yes", 0), ("n", 2), ("", 2), ("what?", 2)])
def test_it_deletes_only_after_a_yes(
    run: Run, answer: Callable[[str], None], redis_url: str, text: str, left: int
) -> None:
    leave_lists_behind(redis_url, 2, ("dead",))
    answer(text)
    code, _, err = run("--broker", redis_url, "--delete")
    assert "[y/N]" in err
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("dead") == left
    assert code == (1 if left else 0)


def config_file(folder: Path, **changes: Any) -> Path:
    subscription = {
        "org_name": "mono", "app_name": "shop", "app_env": "prod", "app_key": "key-of-the-app",
        "api_url": "http://127.0.0.1:1", **changes,
    }  # fmt: skip
    path = folder / "subscriptions.json"
    path.write_text(json.dumps([subscription]))
    return path


def test_a_subscription_brings_broker_exchange_and_prefix(
    run: Run, redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    leave_lists_behind(redis_url, 3, ("dead",), global_keyprefix="shop:")
    config = config_file(
        tmp_path, broker=redis_url, transport_options={"global_keyprefix": "shop:"}
    )
    code, out, _ = run("shop-prod", "--config", config, "--delete", "--yes")
    assert code == 0
    assert "Deleted: 3 items" in out
    assert contents(client) == {}


def test_the_prefix_and_the_exchange_can_be_given(
    run: Run, redis_url: str, client: redis.Redis
) -> None:
    leave_lists_behind(redis_url, 3, ("dead",), global_keyprefix="shop:")
    assert "3 items" in run("--broker", redis_url, "--global-keyprefix", "shop:")[1]
    assert "No orphans" in run("--broker", redis_url, "--exchange", "other")[1]
    assert client.llen("shop:dead") == 3


def test_the_next_address_is_tried(run: Run, redis_url: str) -> None:
    code, out, _ = run("--broker", f"redis://127.0.0.1:1/0;{redis_url}")
    assert code == 0
    assert "No orphans" in out


def test_sentinel_is_asked_for_the_master(
    run: Run, sentinel: SentinelSetup, tmp_path: Path
) -> None:
    assert sentinel.sentinel is not None
    config = config_file(
        tmp_path,
        broker=sentinel.sentinel.url(3),
        transport_options={"master_name": "mymaster"},
    )
    master = redis.Redis(port=sentinel.sentinel.master_port(), db=3)
    master.sadd("_kombu.binding.celeryev", b"#\x06\x16\x06\x16dead")
    code, _, _ = run("shop-prod", "--config", config, "--delete", "--yes")
    assert code == 0
    assert master.dbsize() == 0
    master.close()


def test_the_connection_keeps_to_its_database_when_it_is_lost(
    run: Run, redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_lists_behind(redis_url, 2, ("dead",))

    def lose_the_connection(_: str) -> bool:
        database = str(client.connection_pool.connection_kwargs["db"])
        for each in client.client_list():
            if each["db"] == database and int(each["id"]) != client.client_id():
                client.client_kill_filter(_id=each["id"])
        return True

    monkeypatch.setattr("leekfanout.commands.redis_orphans.confirmed", lose_the_connection)
    code, out, _ = run("--broker", redis_url, "--delete")
    assert code == 0
    assert "Deleted: 2 items" in out
    assert contents(client) == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--broker", "redis://:pa55word@127.0.0.1:1/0"], "refuses"),
        (["--broker", "amqp://127.0.0.1"], "Only Redis"),
        (["--broker", "redis://127.0.0.1/x"], "number"),
        (["--broker", "sentinel://127.0.0.1"], "master_name"),
        (["nobody-there", "--config", "CONFIG"], "no subscription nobody-there"),
        (["shop-prod", "--config", "CONFIG", "--exchange", "x"], "--broker"),
    ],
)
def test_what_cannot_be_done_is_one_line_without_secrets(
    run: Run, tmp_path: Path, arguments: list[str], words: str
) -> None:
    config = str(config_file(tmp_path, broker="redis://127.0.0.1:1/0"))
    arguments = [config if argument == "CONFIG" else argument for argument in arguments]
    code, _, err = run(*arguments)
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert "pa55word" not in err


def test_a_user_without_permission_is_told(run: Run, redis_url: str, client: redis.Redis) -> None:
    client.execute_command("ACL", "SETUSER", "nosy", "on", ">pa55word", "+ping", "+select")
    try:
        url = redis_url.replace("redis://", "redis://nosy:pa55word@")
        code, out, err = run("--broker", url)
    finally:
        client.acl_deluser("nosy")
    assert code == 2
    assert "ACL" in err
    assert "pa55word" not in out + err
