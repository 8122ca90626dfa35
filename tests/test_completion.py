"""Completion, tried by the shells themselves."""

import shutil
import subprocess
from pathlib import Path

import pytest

from leekfanout.cli import COMMANDS, build_parser
from leekfanout.terminal.completion import SHELLS, places, script
from tests.agent import run_leekfanout

DEADLETTERS = {"list", "show", "replay", "purge"}
KINDS = {"message", "event", "document"}


def write_script(shell: str, folder: Path) -> Path:
    path = folder / f"leekfanout.{shell}"
    path.write_text(script(shell, "leekfanout", build_parser()))
    return path


def output(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()


def bash(path: Path, *words: str) -> set[str]:
    """Complete the last word."""
    code = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _leekfanout; '
        '[ ${#COMPREPLY[@]} = 0 ] || printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return set(output("bash", "-c", code, "bash", str(path), *words))


def zsh(path: Path, *words: str) -> set[str]:
    """Complete the last word, with zsh's own functions replaced by ones that print."""
    code = """
        _describe() { local each; for each in "${(@P)2}"; do print -r -- "${each%%:*}"; done }
        compadd() { print -rl -- "$@" }
        _files() { print -r -- FILES }
        compdef() { : }
        source "$1"; shift
        words=("$@"); CURRENT=$#; PREFIX="${words[CURRENT]}"
        _leekfanout
    """
    return set(output("zsh", "-f", "-c", code, "zsh", str(path), *words))


def fish(path: Path, *words: str) -> set[str]:
    code = f"source {path}; complete --do-complete '{' '.join(words)}'"
    return {line.partition("\t")[0] for line in output("fish", "--no-config", "-c", code)}


def installed(shell: str) -> object:
    missing = shutil.which(shell) is None
    return pytest.param(shell, marks=pytest.mark.skipif(missing, reason=f"{shell} is missing"))


COMPLETE = {"bash": bash, "zsh": zsh, "fish": fish}


@pytest.mark.parametrize("shell", [installed(shell) for shell in SHELLS])
def test_commands_options_and_choices_are_completed(shell: str, tmp_path: Path) -> None:
    path, complete = write_script(shell, tmp_path), COMPLETE[shell]
    assert complete(path, "leekfanout", "") >= set(COMMANDS)
    assert complete(path, "leekfanout", "deadletters", "") >= DEADLETTERS
    assert "--kind" in complete(path, "leekfanout", "deadletters", "list", "--")
    assert complete(path, "leekfanout", "deadletters", "list", "--kind", "") == KINDS
    assert complete(path, "leekfanout", "completion", "") >= set(SHELLS)
    run = complete(path, "leekfanout", "run", "--")
    assert {"--metrics", "--watch-config", "--state-dir"} <= run
    assert "--kind" not in run
    # A value in between, even one that is called like a command, is no command.
    assert "--metrics" in complete(path, "leekfanout", "run", "--config", "status", "--")


@pytest.mark.parametrize("shell", [installed("bash"), installed("zsh")])
def test_the_value_of_an_option_without_choices_is_a_file(shell: str, tmp_path: Path) -> None:
    path, complete = write_script(shell, tmp_path), COMPLETE[shell]
    found = complete(path, "leekfanout", "run", "--config", "")
    assert found == ({"FILES"} if shell == "zsh" else set())


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_the_script(shell: str) -> None:
    done = run_leekfanout("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == script(shell, "leekfanout", build_parser())


def test_every_command_and_every_option_has_a_place() -> None:
    found = {place.at: place for place in places(build_parser())}
    assert set(COMMANDS) <= set(found)
    assert "--watch" in {option.name for option in found["status"].options}
    assert "subscriptions remove" in found
