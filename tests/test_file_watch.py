"""Noticing that a file has changed."""

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from leekfanout.configuration.file_watch import FileWatch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "subscriptions.json"
    path.write_text("[]")
    return path


@pytest.fixture
def watch(path: Path) -> Iterator[FileWatch]:
    watch = FileWatch(path)
    yield watch
    watch.close()


def wakes(watch: FileWatch) -> bool:
    return bool(select.select([watch], [], [], 0)[0])


def test_nothing_wakes_while_nothing_changes(watch: FileWatch, path: Path) -> None:
    path.read_text()
    assert not wakes(watch)
    assert not watch.changed()


def test_a_file_that_is_written_has_changed_once(watch: FileWatch, path: Path) -> None:
    path.write_text("[1]")
    assert wakes(watch)
    assert watch.changed()
    assert not wakes(watch)
    assert not watch.changed()


def test_a_file_that_is_replaced_has_changed(watch: FileWatch, path: Path) -> None:
    fresh = path.with_name("new")
    fresh.write_text("[2]")
    watch.changed()
    os.replace(fresh, path)
    assert wakes(watch)
    assert watch.changed()


def test_another_file_in_the_folder_is_no_change(watch: FileWatch, path: Path) -> None:
    path.with_name("other").write_text("x")
    assert wakes(watch)
    assert not watch.changed()


def test_a_file_that_goes_away_is_no_change_and_its_return_is_one(
    watch: FileWatch, path: Path
) -> None:
    path.unlink()
    assert not watch.changed()
    path.write_text("[3]")
    assert watch.changed()


def test_a_file_behind_links_is_followed(tmp_path: Path) -> None:
    # As Kubernetes mounts a ConfigMap: subscriptions.json -> ..data/…, ..data -> ..version.
    for version in ("..first", "..second"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "subscriptions.json").write_text(version)
    (tmp_path / "..data").symlink_to("..first")
    path = tmp_path / "subscriptions.json"
    path.symlink_to("..data/subscriptions.json")
    watch = FileWatch(path)
    try:
        (tmp_path / "..data_tmp").symlink_to("..second")
        os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
        assert wakes(watch)
        assert watch.changed()
    finally:
        watch.close()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileWatch(tmp_path / "no" / "subscriptions.json")


def test_a_file_in_another_folder_that_a_link_points_to_is_watched(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "subscriptions.json"
    elsewhere.parent.mkdir()
    elsewhere.write_text("[]")
    path = tmp_path / "subscriptions.json"
    path.symlink_to(elsewhere)
    watch = FileWatch(path)
    try:
        elsewhere.write_text("[1]")
        assert wakes(watch)
        assert watch.changed()
    finally:
        watch.close()
