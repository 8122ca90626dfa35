"""``leekfanout deadletters`` from the outside: what it prints, asks, does and returns."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from leekfanout import cli
from leekfanout.stores.deadletters import FILE_NAME, DeadLetter, DeadLetters
from tests.agent import run_as_nobody
from tests.api_double import ApiDouble

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def run(state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command on the state directory; return its exit code and what it wrote."""
    monkeypatch.delenv("LEEK_AGENT_SUBSCRIPTIONS", raising=False)

    def run_it(action: str, *arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        words = ["deadletters", action, "--state-dir", str(state), *map(str, arguments)]
        code = cli.main(words)
        return code, *capsys.readouterr()

    return run_it


@pytest.fixture
def put(state: Path) -> Iterator[Callable[..., None]]:
    """Put letters into a subscription's file, as an agent does that goes on running."""
    stores: dict[str, DeadLetters] = {}

    def put_it(subscription: str, *letters: DeadLetter) -> None:
        if subscription not in stores:
            path = state / subscription / FILE_NAME
            stores[subscription] = DeadLetters(path, subscription, 10_000_000)
        stores[subscription].put(letters)

    yield put_it
    for store in stores.values():
        store.close()


def letter(reason: str = "it has no uuid", **changes: Any) -> DeadLetter:
    return DeadLetter("event", reason, None, b'{"type": "task-sent"}', 1_700_000_000.0)._replace(
        **changes
    )


def ids(out: str) -> list[str]:
    return [json.loads(line)["id"] for line in out.splitlines()]


def test_the_list_names_letters_of_all_subscriptions(run: Run, put: Callable[..., None]) -> None:
    put("shop-prod", letter(), letter("HTTP 409 conflict", kind="document", answer="conflict"))
    put("blog-prod", letter("no JSON"))
    code, out, err = run("list")
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["blog-prod:1", "2023-11-14T22:13:20Z", "event", "21", "B", "no", "JSON"],
        ["shop-prod:1", "2023-11-14T22:13:20Z", "event", "21", "B", "it", "has", "no", "uuid"],
        ["shop-prod:2", "2023-11-14T22:13:20Z", "document", "21", "B", "HTTP", "409", "conflict"],
    ]


def test_the_list_as_json_is_an_object_per_line(run: Run, put: Callable[..., None]) -> None:
    put("shop-prod", letter("HTTP 409", kind="document", answer="conflict"))
    assert json.loads(run("list", "--json")[1]) == {
        "id": "shop-prod:1",
        "at": "2023-11-14T22:13:20Z",
        "kind": "document",
        "reason": "HTTP 409",
        "answer": "conflict",
        "size_bytes": 21,
    }


def test_filters_narrow_the_list(run: Run, put: Callable[..., None]) -> None:
    put("shop-prod", letter("one", at=time.time() - 10_000), letter("two", at=time.time() - 60))
    put("blog-prod", letter("three", kind="message", at=time.time() - 60))
    every = ["blog-prod:1", "shop-prod:1", "shop-prod:2"]
    assert ids(run("list", "--json")[1]) == every
    assert ids(run("list", "--json", "--subscription", "shop-prod")[1]) == every[1:]
    assert ids(run("list", "--json", "--since", "2h")[1]) == ["blog-prod:1", "shop-prod:2"]
    assert ids(run("list", "--json", "--since", "2020-01-01T00:00:00Z")[1]) == every
    assert ids(run("list", "--json", "--since", "2100-01-01")[1]) == []
    assert ids(run("list", "--json", "--kind", "message")[1]) == ["blog-prod:1"]
    assert ids(run("list", "--json", "--reason", "TWO")[1]) == ["shop-prod:2"]


def test_long_lists_are_complete(run: Run, put: Callable[..., None]) -> None:
    put("shop-prod", *[letter()] * 1_234)
    assert ids(run("list", "--json")[1]) == [f"shop-prod:{number}" for number in range(1, 1_235)]


def test_an_empty_state_directory_has_no_letters(run: Run, state: Path) -> None:
    state.mkdir()
    code, out, err = run("list")
    assert (code, out) == (0, "")
    assert "no dead letters" in err
    assert run("list", "--json") == (0, "", "")


def test_a_state_directory_that_is_not_there_is_told(run: Run, state: Path) -> None:
    code, out, err = run("list")
    assert (code, out) == (2, "")
    assert f"{state} can't be read: No such file or directory." in err
    assert "--state-dir" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_may_not_look_into_a_subscriptions_folder_is_told(
    put: Callable[..., None], state: Path
) -> None:
    put("shop-prod", letter())
    with tempfile.TemporaryDirectory() as shared:
        Path(shared).chmod(0o755)
        closed = Path(shared, "shop-prod")
        shutil.copytree(state / "shop-prod", closed)
        closed.chmod(0o700)
        done = run_as_nobody("deadletters", "list", "--state-dir", shared)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{closed} can't be read: Permission denied." in done.stderr


def test_show_prints_all_that_is_known(run: Run, put: Callable[..., None]) -> None:
    put("shop-prod", letter("refused", answer='{"error": 1}', payload=b'{"name":\n "\xc3\xbc"}'))
    code, out, _ = run("show", "shop-prod:1")
    assert code == 0
    for words in ("shop-prod:1", "2023-11-14T22:13:20Z", "event", "refused", '{"error": 1}', '"ü"'):
        assert words in out


def test_nothing_that_was_sent_can_steer_the_terminal(run: Run, put: Callable[..., None]) -> None:
    put("shop-prod", letter("\x1b[2Jreason\r", answer="\x1b]0;title\x07", payload=b"\x1b[31m\x00"))
    for arguments in (("list",), ("show", "shop-prod:1")):
        out = run(*arguments)[1]
        assert not set(out) & {"\x1b", "\x07", "\x00", "\r"}


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b'{"a": 1}', {"payload": '{"a": 1}'}),
        (b"\x80\x02}q\x00.", {"payload_base64": "gAJ9cQAu"}),
    ],
)
def test_show_as_json_gives_the_payload_back_whole(
    run: Run, put: Callable[..., None], payload: bytes, shown: dict[str, str]
) -> None:
    put("shop-prod", letter(payload=payload))
    assert json.loads(run("show", "--json", "shop-prod:1")[1]) == {
        "id": "shop-prod:1",
        "at": "2023-11-14T22:13:20Z",
        "kind": "event",
        "reason": "it has no uuid",
        "answer": None,
        "content_type": None,
        **shown,
    }


@pytest.mark.parametrize("letter_id", ["shop-prod:2", "other-prod:1"])
def test_a_letter_that_is_not_there_is_one_line(
    run: Run, put: Callable[..., None], letter_id: str
) -> None:
    put("shop-prod", letter())
    code, out, err = run("show", letter_id)
    assert (code, out) == (2, "")
    assert err == f"leekfanout: There is no dead letter {letter_id}.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "12"), ("show", "shop-prod:x"), ("show", ":1"), ("list", "--since", "yesterday"),
        ("list", "--kind", "x"), ("replay",), ("replay", "shop-prod:1", "--all"), ("nothing",),
    ],
)  # fmt: skip
def test_arguments_that_mean_nothing_are_refused(run: Run, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2


def test_purge_removes_what_the_filters_fit(run: Run, put: Callable[..., None]) -> None:
    put("shop-prod", *[letter("one")] * 700, letter("two"))
    put("blog-prod", letter("one"))
    code, out, _ = run("purge", "--yes", "--reason", "one", "--subscription", "shop-prod")
    assert (code, out) == (0, "700 dead letters removed.\n")
    assert ids(run("list", "--json")[1]) == ["blog-prod:1", "shop-prod:701"]
    assert json.loads(run("purge", "--yes", "--json")[1]) == {"purged": 2}


def test_purge_removes_nothing_unasked(
    run: Run, put: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    put("shop-prod", letter())
    code, _, err = run("purge")
    assert code == 2
    assert "--yes" in err
    monkeypatch.setattr("leekfanout.commands.deadletters.confirmed", lambda _: False)
    assert run("purge")[0] == 1
    assert ids(run("list", "--json")[1]) == ["shop-prod:1"]


@pytest.fixture
def api() -> Iterator[ApiDouble]:
    with ApiDouble() as double:
        yield double


@pytest.fixture
def config(tmp_path: Path, api: ApiDouble) -> Path:
    path = tmp_path / "subscriptions.json"
    common = {"org_name": "mono", "app_env": "prod", "app_key": api.app_key, "api_url": api.url}
    path.write_text(
        json.dumps(
            [
                {**common, "app_name": name, "broker": "amqp://127.0.0.1"}
                for name in ("shop", "blog")
            ]
        )
    )
    return path


def documents(*names: str) -> list[DeadLetter]:
    return [
        letter(
            kind="document",
            payload=json.dumps({"id": name, "events_count": 1}).encode(),
        )
        for name in names
    ]


def test_replay_of_all_delivers_each_to_its_own_application(
    run: Run, put: Callable[..., None], api: ApiDouble, config: Path
) -> None:
    put("shop-prod", *documents("a", "b"))
    put("blog-prod", *documents("c"))
    code, out, _ = run("replay", "--all", "--config", config)
    assert code == 0
    assert out == ("blog-prod: 1 delivered and removed.\nshop-prod: 2 delivered and removed.\n")
    applications = {
        post.request.headers["x-leek-app-name"]: [each["id"] for each in post.documents]
        for post in api.posts
    }
    assert applications == {"shop": ["a", "b"], "blog": ["c"]}
    assert run("list", "--json")[1] == ""


def test_replay_of_some_leaves_the_others(
    run: Run, put: Callable[..., None], api: ApiDouble, config: Path
) -> None:
    put("shop-prod", *documents("a", "b", "c"))
    assert run("replay", "shop-prod:3", "shop-prod:1", "--config", config)[0] == 0
    assert [each["id"] for each in api.confirmed()] == ["a", "c"]
    assert ids(run("list", "--json")[1]) == ["shop-prod:2"]
    assert run("replay", "--all", "--reason", "other", "--config", config)[0] == 0
    assert ids(run("list", "--json")[1]) == ["shop-prod:2"]


def test_replay_tells_what_stays_and_why(
    run: Run, put: Callable[..., None], api: ApiDouble, config: Path
) -> None:
    put("shop-prod", *documents("a", "b", "c"))
    api.refuse(lambda each: each["id"] == "b", 422)
    code, out, _ = run("replay", "--all", "--json", "--config", config)
    assert code == 1
    told = json.loads(out)
    assert (told["subscription"], told["delivered"], told["stopped"]) == ("shop-prod", 2, None)
    assert list(told["staying"]) == ["shop-prod:2"]
    code, out, _ = run("replay", "--all", "--config", config)
    assert code == 1
    assert "shop-prod: 1 stay: HTTP 422" in out


def test_replay_tells_that_the_api_is_away(
    run: Run, put: Callable[..., None], api: ApiDouble, config: Path
) -> None:
    put("shop-prod", *documents("a", "b", "c"))
    api.go_down()
    code, out, _ = run("replay", "--all", "--config", config)
    assert code == 1
    assert "the API refuses connections" in out
    assert len(ids(run("list", "--json")[1])) == 3


def test_replay_of_what_is_not_there_or_not_configured_is_told_and_the_rest_goes(
    run: Run, put: Callable[..., None], api: ApiDouble, config: Path
) -> None:
    put("shop-prod", *documents("a"))
    put("gone-prod", *documents("b"))
    wanted = ("gone-prod:1", "shop-prod:1", "shop-prod:9", "none-prod:1")
    code, _, err = run("replay", *wanted, "--config", config)
    assert code == 1
    assert err.splitlines() == [
        "leekfanout: gone-prod is not among the subscriptions, so its API isn't known.",
        "leekfanout: There is no dead letter none-prod:1.",
        "leekfanout: There is no dead letter shop-prod:9.",
    ]
    assert [each["id"] for each in api.confirmed()] == ["a"]


def test_filters_beside_single_letters_are_refused(run: Run, config: Path) -> None:
    code, _, err = run("replay", "shop-prod:1", "--kind", "event", "--config", config)
    assert code == 2
    assert "--all" in err


def test_a_damaged_file_is_one_line(run: Run, put: Callable[..., None], state: Path) -> None:
    put("shop-prod", letter())
    for path in (state / "shop-prod").iterdir():
        path.unlink()
    (state / "shop-prod" / FILE_NAME).write_bytes(b"damaged" * 1_000)
    code, _, err = run("list")
    assert code == 2
    assert err.count("\n") == 1
    assert "damaged" in err
    assert [path.name for path in (state / "shop-prod").iterdir()] == [FILE_NAME]
