"""The commands of the documentation, each run as it stands there, with an agent that they concern."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent import ROOT, Agent, subscription
from tests.api_double import ApiDouble
from tests.load import Load
from tests.publishers import publish_amqp
from tests.test_docs import blocks
from tests.waiting import until

ENDLESS = (" run --", "--watch")
"""They go on until somebody stops them: tests/test_run.py and test_control_commands.py run these."""
OURS = ("leekfanout ", "source <(leekfanout ", "kill -USR1 $(leekfanout ")
"""Others are tools' that can't be had here, such as systemctl and docker."""
LETTERS = 12
"""The pages speak of shop-prod:12."""


class Reader:
    """Somebody who types what the pages say, in a folder with the files that they name."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._folder = folder
        programs = folder / "bin"
        programs.mkdir()
        program = programs / "leekfanout"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m leekfanout "$@"\n')
        program.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LEEK")}
        path = f"{programs}:{kept['PATH']}"
        self._env = {**kept, **env, "PATH": path, "PYTHONPATH": str(ROOT)}

    def types(self, line: str) -> None:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def typed(page: str) -> list[str]:
    """Return a page's lines that call leekfanout and end by themselves."""
    return [
        line.partition("#")[0].strip()
        for line in blocks(ROOT / page)
        if line.startswith(OURS) and not any(each in line for each in ENDLESS)
    ]


@pytest.fixture
def reader(amqp_url: str, redis_url: str, api: ApiDouble, tmp_path: Path) -> Iterator[Reader]:
    shop, blog, mail = (
        subscription(url, api, app_name=name, queue=name)
        for name, url in (("shop", amqp_url), ("blog", amqp_url), ("mail", redis_url))
    )
    file = tmp_path / "subscriptions.json"
    file.write_text(json.dumps([shop, mail]))
    (tmp_path / "new.json").write_text(json.dumps(blog))
    env = {
        "LEEK_AGENT_SUBSCRIPTIONS": "",
        "LEEK_AGENT_SUBSCRIPTIONS_FILE": str(file),
        "LEEKFANOUT_STATE_DIR": str(tmp_path / "state"),
    }
    with Agent([shop, mail], tmp_path, env=env) as agent:
        agent.wait_until_connected(2)
        api.refuse(lambda _: True)
        publish_amqp(amqp_url, Load(seed=1).messages(10 * LETTERS))
        letters = agent.state_of() / "deadletters.sqlite3"
        until(lambda: refused(letters) >= LETTERS, 60, "dead letters")
        api.behave()
        yield Reader(tmp_path, env)


def refused(database: Path) -> int:
    """Return how many documents the API has refused."""
    with sqlite3.connect(database) as connection:
        return connection.execute("SELECT count(*) FROM letters").fetchone()[0]


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "deploy/README.md",
        "docs/configuration.md",
        "docs/operating.md",
        "docs/troubleshooting.md",
    ],
)
def test_every_command_of_a_page_does_what_it_is_there_for(reader: Reader, page: str) -> None:
    lines = typed(page)
    assert lines
    for line in lines:
        # A person is asked before anything is deleted for good, and there is none here.
        reader.types(f"{line} --yes" if " purge" in line else line)
