"""The documentation: its commands, links, tables and claims are those of the code."""

import ast
import configparser
import json
import re
import shlex
from collections.abc import Iterator
from importlib.metadata import metadata, requires, version
from pathlib import Path

import jsonschema_rs
import pytest
from packaging.requirements import Requirement

from leekfanout import logs
from leekfanout.cli import COMMANDS, build_parser
from leekfanout.configuration import config
from leekfanout.delivery import outcome
from leekfanout.status import diagnosis, stats
from leekfanout.supervision import farm, lifecycle
from leekfanout.supervision.exits import Cause
from leekfanout.web import sessions
from tests.agent import ROOT, run_leekfanout
from tools import gen_config_docs

PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), *(ROOT / "deploy").glob("*.md")])
BLOCK = re.compile(r"^```(console|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n|\n(?= {4}))+")
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
HARMLESS = {"--help", "--version", "validate"}
"""What is run here: it reads at most a file. tests/test_docs_run.py runs the others."""


def blocks(page: Path) -> Iterator[str]:
    """Yield what a page tells to type, line by line; lines that go on are joined."""
    text = page.read_text()
    for kind, block in BLOCK.findall(text):
        for line in block.replace("\\\n", "").splitlines():
            if kind == "sh":
                yield line
            elif line.startswith("$ "):
                yield line.removeprefix("$ ")
    for block in INDENTED.findall(BLOCK.sub("", text)):
        yield from block.replace("\\\n", "").splitlines()


def commands() -> Iterator[tuple[str, str]]:
    """Yield every command line of leekfanout in the documentation, with its page."""
    for page in PAGES:
        for line in blocks(page):
            typed = line.partition("#")[0]
            for command in re.findall(r"(?:^|[\s/(])(leekfanout [a-z][^|)&;]*)", typed):
                yield page.name, command.strip()


def words(pattern: str) -> set[str]:
    """Return what ``pattern`` finds in all that the documentation tells to type."""
    lines = (line.partition("#")[0] for page in PAGES for line in blocks(page))
    return {word for line in lines for word in re.findall(pattern, line)}


def named(page: Path) -> str:
    return page.name


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_every_command_is_understood(page: str, command: str, tmp_path: Path) -> None:
    arguments = shlex.split(command, comments=True)[1:]
    if HARMLESS & set(arguments):
        example = json.loads((ROOT / "deploy" / "subscriptions.example.json").read_text())
        (tmp_path / "subscriptions.json").write_text(json.dumps(example))
        arguments = [
            str(tmp_path / word) if word == "subscriptions.json" else word for word in arguments
        ]
        env = {
            "RABBITMQ_PASSWORD": "p",
            "LEEK_APP_KEY": "k",
            "LEEK_AGENT_SUBSCRIPTIONS_FILE": str(tmp_path / "subscriptions.json"),
        }
        assert run_leekfanout(*arguments, env=env).returncode == 0
    else:
        assert arguments[0] in COMMANDS
        build_parser(only=arguments[0]).parse_args(arguments)


def test_every_target_of_make_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named_targets = words(r"^make ([\w-]+)")
    assert len(named_targets) > 4
    for target in named_targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_module_and_file_that_is_named_exists() -> None:
    modules = words(r" -m ((?:bench|tests|tools)[\w.]*)")
    files = words(r"(?<![\w/])((?:deploy|tests)/[\w./-]+)")
    assert modules
    assert len(files) > 5
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    for file in files:
        assert (ROOT / file).exists(), file


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_test_that_is_named_exists(page: Path) -> None:
    named_tests = set(re.findall(r"`(test_\w+)`", page.read_text()))
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", page.read_text()))
    source = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    defined = set(re.findall(r"def (test_\w+)\(", source))
    assert named_tests <= defined
    assert all((ROOT / file).exists() for file in files)


def test_every_guarantee_names_its_test() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and line.count("|") == 5]
    failures = [row for row in rows if not row.startswith(("| What happens", "| ---"))]
    assert len(failures) > 20
    for row in failures:
        if not row.startswith("| Nothing"):
            assert "`test_" in row, row


def test_the_configuration_page_and_the_schema_are_those_of_the_code() -> None:
    hint = "Run python -m tools.gen_config_docs."
    assert gen_config_docs.PAGE.read_text() == gen_config_docs.page(), hint
    assert json.loads(gen_config_docs.SCHEMA.read_text()) == gen_config_docs.schema(), hint


def test_the_schema_takes_the_examples_and_refuses_mistakes() -> None:
    validator = jsonschema_rs.validator_for(gen_config_docs.schema())
    example = json.loads((ROOT / "deploy" / "subscriptions.example.json").read_text())
    assert validator.is_valid(example)
    for mistake in (
        {"prefetch_count": 5},
        {"app_name": "Shop"},
        {"qeue": "x"},
        {"broker": None, "queue_type": "stream"},
        {"transport_options": {"global_keyprefix": "x", "heartbeat": 5}},
    ):
        assert not validator.is_valid([{**example[0], **mistake}]), mistake
    assert not validator.is_valid({})


def test_operating_explains_every_state_condition_and_cause() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    for word in (*lifecycle.State, *stats.Condition):
        assert f"| `{word.name}` |" in text
    for cause in Cause:
        assert f"| `{cause.value}` |" in text


def test_the_words_of_the_status_are_those_of_the_pages() -> None:
    operating = (ROOT / "docs" / "operating.md").read_text()
    troubleshooting = (ROOT / "docs" / "troubleshooting.md").read_text()
    for level, words in diagnosis._CONDITIONS.values():
        assert f"({words})" in operating
        if level is diagnosis.Level.BAD:
            assert f"`{words}`" in troubleshooting


def test_log_events_that_are_explained_are_written() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    rows = re.findall(r"^\| (`.*) \|.*\|$", text.partition("## Log")[2], re.MULTILINE)
    explained = {event for row in rows for event in re.findall(r"`([\w.]+)`", row)}
    assert len(explained) > 10
    levels = ("info", "warning", "error", "exception")
    assert explained <= set[str]().union(*map(logged, levels))
    # What is lost, broken or damaged must be explained.
    assert logged("error") <= explained


def logged(level: str) -> set[str]:
    """Return the events that the code's own calls of ``log.<level>`` write."""
    calls = (
        node
        for path in (ROOT / "leekfanout").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    )
    return {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and (call.func.value.id, call.func.attr) == ("log", level)
        and isinstance(call.args[0], ast.Constant)
    }


def test_figures_on_the_pages_are_those_of_the_code() -> None:
    settings = config.Settings(Path())
    fields = config.Subscription.__dataclass_fields__
    retry = f"{outcome.RETRY_DELAY_BASE_S:g} to {outcome.RETRY_DELAY_MAX_S:g} s"
    restart = f"{lifecycle.Backoff.FIRST_S:g} to {lifecycle.Backoff.LONGEST_S:g} s"
    for page, figure in (
        ("guarantees", f"`--spool-memory-max-mb`, {settings.spool_memory_max_mb:g} MB"),
        ("guarantees", f"`--spool-max-mb`, {settings.spool_max_mb:,} MB"),
        ("guarantees", f"`--dead-letters-max-mb`, {settings.dead_letters_max_mb:g} MB"),
        ("guarantees", f"doubles from {retry}"),
        ("guarantees", f"After {restart}"),
        ("guarantees", f"{logs.FILE_MAX_BYTES / config.BYTES_PER_MB:g} MB, and one older one"),
        ("operating", f"starts again in {restart}"),
        ("operating", f"had not turned for {farm.HANG_AFTER_S:g} s"),
        ("troubleshooting", f"`--drain-timeout`, {settings.drain_timeout_s:g} seconds"),
        ("scaling", f"({fields['in_flight_max_mb'].default} MB by default)"),
        ("performance", f"at most `in_flight_max_mb`, {fields['in_flight_max_mb'].default} by"),
        ("web", f"lasts for {sessions.LIFETIME_S / 3_600:g} hours"),
    ):
        text = " ".join((ROOT / "docs" / f"{page}.md").read_text().split())
        assert figure in text, (page, figure)


def test_every_dependency_is_justified_and_pinned() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    extras = parser["options.extras_require"]
    wanted = f"{parser['options']['install_requires']}\n{extras['web']}\n{extras['metrics']}"
    names = set(re.findall(r"^([\w-]+)", wanted, re.MULTILINE))
    text = (ROOT / "docs" / "dependencies.md").read_text()
    pinned = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    assert len(names) > 8
    for name in names:
        assert re.search(rf"^\|[^|]*\b{name}\b", text, re.MULTILINE), name
        assert f"\n{name}==" in pinned, name


def installed_with(extras: tuple[str, ...]) -> set[str]:
    """Return all distributions that installing leekfanout with ``extras`` brings, as written here."""
    found, waiting = set[str](), [Requirement(f"leekfanout[{','.join(extras)}]")]
    while waiting:
        requirement = waiting.pop()
        for text in requires(requirement.name) or ():
            needed = Requirement(text)
            wanted = [{"extra": extra} for extra in requirement.extras or ("",)]
            if needed.marker is None or any(needed.marker.evaluate(each) for each in wanted):
                name = needed.name.lower().replace("_", "-")
                if name not in found:
                    found.add(name)
                    waiting.append(needed)
    return found


def licences_of(distribution: str) -> set[str]:
    about = metadata(distribution)
    classifiers = (each for each in about.get_all("Classifier", ()) if each.startswith("License"))
    stated = about["License-Expression"] or about["License"] or " ".join(classifiers)
    return set(re.findall(r"[A-Z][\w.]*(?:-[\w.]+)*", stated)) - {
        *("AND", "OR", "License", "OSI", "Approved"),
    }


def test_every_package_that_is_installed_is_named_with_its_licence() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text().replace("_", "-")
    rows = re.findall(r"^\| ([a-z][^|]*) \|.*\| ([^|]*) \|$", text, re.MULTILINE)
    licences = {name: cell for names, cell in rows for name in names.split(", ")}
    (others, allowed) = re.findall(
        r"With them come: (.*?)\. All of these (.*?)\n\n", text, re.DOTALL
    )[0]
    others = re.sub(r"\(.*?\)", "", others.lower())
    licences |= dict.fromkeys(re.findall(r"[\w-]+", others), allowed)
    names = installed_with(("web", "metrics"))
    assert len(names) > 15
    pinned = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    for name in names:
        assert name in licences, name
        # Other versions may have another licence, or say it in other words.
        stated = licences_of(name) if f"\n{name}=={version(name)}" in pinned else ()
        for licence in stated:
            assert licence in licences.get(name, ""), (name, licence)
