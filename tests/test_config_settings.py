"""Settings come from an option, else a variable, else the default."""

import argparse
import os
import stat
from pathlib import Path

import pytest

from leekfanout.configuration import config, places
from leekfanout.configuration.config import Settings, add_settings_options, load_settings
from leekfanout.errors import ConfigError


def load(*options: str, **environ: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_settings_options(parser)
    return load_settings(parser.parse_args(options), environ)


@pytest.fixture
def state(tmp_path: Path) -> dict[str, str]:
    return {"LEEKFANOUT_STATE_DIR": str(tmp_path / "state")}


def test_without_anything_the_settings_are_the_defaults(
    state: dict[str, str], tmp_path: Path
) -> None:
    assert load(**state) == Settings(state_dir=tmp_path / "state")


def test_an_option_wins_over_a_variable(state: dict[str, str]) -> None:
    environ = {**state, "LEEKFANOUT_DRAIN_TIMEOUT": "3.5", "LEEKFANOUT_SPOOL_MAX_MB": "50"}
    settings = load("--drain-timeout", "2", **environ)
    assert settings.drain_timeout_s == 2
    assert settings.spool_max_mb == 50


def test_each_setting_has_an_option_and_a_variable(state: dict[str, str], tmp_path: Path) -> None:
    expected = Settings(tmp_path / "state", 1, "DEBUG", "json", 2, 3, 4)
    assert expected == load(
        *("--drain-timeout", "1", "--log-level", "debug", "--log-format", "JSON"),
        *("--dead-letters-max-mb", "2", "--spool-max-mb", "3", "--spool-memory-max-mb", "4"),
        **state,
    )
    assert expected == load(
        **state,
        LEEKFANOUT_DRAIN_TIMEOUT="1",
        LEEK_AGENT_LOG_LEVEL="Debug",
        LEEKFANOUT_LOG_FORMAT="json",
        LEEKFANOUT_DEAD_LETTERS_MAX_MB="2",
        LEEKFANOUT_SPOOL_MAX_MB="3",
        LEEKFANOUT_SPOOL_MEMORY_MAX_MB="4",
    )


def test_every_mistake_is_told_with_its_origin(state: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(
            *("--drain-timeout", "soon", "--spool-max-mb", "nan"),
            **state,
            LEEK_AGENT_LOG_LEVEL="loud",
            LEEKFANOUT_DEAD_LETTERS_MAX_MB="-1",
        )
    assert caught.value.problems == [
        '--drain-timeout: "soon": must be a number above 0 and up to 3,600',
        'LEEK_AGENT_LOG_LEVEL: "loud": must be DEBUG, INFO, WARNING, ERROR or CRITICAL',
        'LEEKFANOUT_DEAD_LETTERS_MAX_MB: "-1": must be a number above 0 and up to 1,000,000',
        '--spool-max-mb: "nan": must be a number above 0 and up to 1,000,000',
    ]


def test_blank_variables_count_as_unset(state: dict[str, str]) -> None:
    assert load(**state, LEEKFANOUT_DRAIN_TIMEOUT="", LEEK_AGENT_LOG_LEVEL=" ") == load(**state)


def test_a_command_may_have_fewer_options(state: dict[str, str], tmp_path: Path) -> None:
    assert load_settings(argparse.Namespace(), state).state_dir == tmp_path / "state"


def test_the_state_directory_is_not_made_by_who_only_looks(tmp_path: Path) -> None:
    load("--state-dir", str(tmp_path / "a"))
    assert list(tmp_path.iterdir()) == []


def test_the_state_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    check_places(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_a_state_directory_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    check_places(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def check_places(state_dir: Path) -> None:
    nothing_given = argparse.Namespace(state_dir=None, socket=None)
    places.check(nothing_given, {}, state_dir, Path("/tmp/control.sock"))


def test_a_state_directory_that_cannot_be_made_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = load("--state-dir", str(tmp_path / "file" / "state"))
    assert settings.state_dir == tmp_path / "file" / "state"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_STATE_HOME": "{tmp}/xdg", "HOME": "{tmp}"}, "{tmp}/xdg/leekfanout"),
        ({"XDG_STATE_HOME": "relative", "HOME": "{tmp}"}, "{tmp}/.local/state/leekfanout"),
        ({"HOME": "{tmp}"}, "{tmp}/.local/state/leekfanout"),
    ],
)
def test_where_the_system_folder_cannot_be_written_the_users_is_taken(
    environ: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config.os, "access", lambda path, mode: False)
    environ = {name: value.format(tmp=tmp_path) for name, value in environ.items()}
    assert load(**environ).state_dir == Path(expected.format(tmp=tmp_path))


def test_the_system_folder_is_taken_where_it_can_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    assert load().state_dir == Path("/var/lib/leekfanout")
