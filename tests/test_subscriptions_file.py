"""The file of subscriptions is changed whole or not at all, whoever else changes it."""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from leekfanout.configuration import subscriptions_file
from leekfanout.configuration.subscriptions_file import SubscriptionsFile
from leekfanout.errors import (
    ConfigError,
    LeekfanoutError,
    SubscriptionExistsError,
    SubscriptionUnknownError,
)


def entry(app_env: str, **keys: Any) -> dict[str, Any]:
    return {"app_name": "shop", "app_env": app_env, **keys}


def letters(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "subscriptions.json"


def test_a_file_that_is_not_there_is_empty_and_is_made_for_its_owner_alone(path: Path) -> None:
    file = SubscriptionsFile(path)
    assert file.entries() == []
    file.add(entry("qa"))
    assert json.loads(path.read_text()) == [entry("qa")]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_who_could_read_the_file_before_can_read_it_afterwards(path: Path, mode: int) -> None:
    path.write_text("[]")
    path.chmod(mode)
    SubscriptionsFile(path).add(entry("qa"))
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_changes_stays_the_agents_and_so_does_the_lock(path: Path) -> None:
    path.write_text("[]")
    os.chown(path, 65_534, 65_534)
    SubscriptionsFile(path).add(entry("qa"))
    for each in (path, path.with_name(f"{path.name}.lock")):
        assert (each.stat().st_uid, each.stat().st_gid) == (65_534, 65_534)


def test_entries_that_this_version_does_not_understand_survive(path: Path) -> None:
    others = [entry("dev", future={"nested": [1.5, None, "é"]}), {"strange": True}, 17]
    path.write_text(json.dumps(others))
    file = SubscriptionsFile(path)
    file.add(entry("qa", also_new=1))
    assert file.remove("shop-qa") == entry("qa", also_new=1)
    assert json.loads(path.read_text()) == others


def test_a_name_is_added_once_and_removed_only_if_it_is_there(path: Path) -> None:
    file = SubscriptionsFile(path)
    file.add(entry("qa"))
    before = path.read_bytes()
    with pytest.raises(SubscriptionExistsError, match="shop-qa already"):
        file.add(entry("qa", queue="other"))
    with pytest.raises(SubscriptionUnknownError, match="no subscription shop-prod"):
        file.remove("shop-prod")
    assert path.read_bytes() == before


def test_what_is_no_list_is_not_overwritten(path: Path) -> None:
    path.write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        SubscriptionsFile(path).add(entry("qa"))
    assert path.read_text() == "{"


ADD_MANY = """
import sys
from pathlib import Path
from leekfanout.configuration.subscriptions_file import SubscriptionsFile
for app_env in sys.argv[2:]:
    SubscriptionsFile(Path(sys.argv[1])).add({"app_name": "shop", "app_env": app_env})
"""


def test_writers_at_the_same_time_lose_nothing(path: Path) -> None:
    names = [letters(number) for number in range(40)]
    writers = [
        subprocess.Popen([sys.executable, "-c", ADD_MANY, str(path), *names[each::4]])
        for each in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    assert sorted(each["app_env"] for each in SubscriptionsFile(path).entries()) == sorted(names)


def test_readers_never_see_half_a_change(path: Path) -> None:
    SubscriptionsFile(path).add(entry("qa"))
    done = threading.Event()

    def write() -> None:
        for number in range(30):
            SubscriptionsFile(path).add(entry(letters(number), padding="x" * 10_000))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set() and writer.is_alive():
        assert json.loads(path.read_text())[0] == entry("qa")
    writer.join(60)
    assert done.is_set()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = SubscriptionsFile(path)
    file.add(entry("qa"))
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, fail)
        with pytest.raises(LeekfanoutError, match=r"No space left on device\. Nothing was changed"):
            file.add(entry("dev"))
    assert path.read_bytes() == before
    assert {each.name for each in path.parent.iterdir()} == {path.name, f"{path.name}.lock"}
    file.add(entry("dev"))


def test_a_lock_that_is_held_is_waited_for_within_bounds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions_file, "LOCK_TIMEOUT_S", 0.1)
    file = SubscriptionsFile(path)
    with file._locked(), pytest.raises(LeekfanoutError, match="has held"):
        SubscriptionsFile(path).add(entry("qa"))
    file.add(entry("qa"))


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(LeekfanoutError, match="Make the folder first"):
        SubscriptionsFile(tmp_path / "nowhere" / "s.json").add(entry("qa"))


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(path)
    SubscriptionsFile(link).add(entry("qa"))
    assert link.is_symlink()
    assert json.loads(path.read_text()) == [entry("qa")]


def test_what_is_raised_before_a_removal_leaves_all_as_it_is(path: Path) -> None:
    file = SubscriptionsFile(path)
    file.add(entry("qa"))

    def object_to(found: dict[str, Any]) -> None:
        assert found == entry("qa")
        raise LeekfanoutError("no")

    with pytest.raises(LeekfanoutError):
        file.remove("shop-qa", before=object_to)
    assert file.entries() == [entry("qa")]
