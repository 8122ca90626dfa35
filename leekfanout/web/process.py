"""The page's process, from the supervisor's fork to serving; needs no package of the extra ``web``."""

import dataclasses
import faulthandler
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from leekfanout import logs
from leekfanout.configuration import config
from leekfanout.configuration.config import Settings
from leekfanout.supervision import child, inheritance, proctitle
from leekfanout.web.agent import Agent
from leekfanout.web.options import WebOptions

Serve = Callable[[Agent, WebOptions, int], int]
"""Serves the page until the lifeline, a file descriptor, says that the supervisor is gone."""

log = logs.get("web")


def become(
    agent: Agent, options: WebOptions, environ: Mapping[str, str], lifeline: int
) -> NoReturn:
    """Make this process, a fork of the supervisor, the page's, and forget all that it has read."""
    settings = dataclasses.asdict(agent.settings)
    given = {
        "settings": {**settings, "state_dir": str(agent.settings.state_dir)},
        "socket_path": str(agent.socket_path),
        "config_file": str(agent.config_file),
        "options": {**dataclasses.asdict(options), "hosts": sorted(options.hosts)},
        "lifeline": lifeline,
    }
    inheritance.leave("leekfanout.web", given, environ, lifeline)


def live(estate: int, serve: Serve) -> int:
    """Do what :func:`become` has left; return the exit code."""
    given = inheritance.take(estate)
    settings = Settings(**{**given["settings"], "state_dir": Path(given["settings"]["state_dir"])})
    logs.configure(settings.log_level, settings.log_format)
    faulthandler.register(child.STACKS_SIGNAL, all_threads=True)
    proctitle.set_title("leekfanout: page")
    options = WebOptions(**{**given["options"], "hosts": frozenset(given["options"]["hosts"])})
    try:
        agent = Agent(settings, Path(given["socket_path"]), Path(given["config_file"]), _fixed())
        return serve(agent, options, given["lifeline"])
    except Exception:
        log.exception("child.crashed")
        return child.EXIT_CRASHED


def _fixed() -> list[Any] | None:
    variable = config.SUBSCRIPTIONS_VARIABLE
    if not config.subscriptions_from_variable(os.environ):
        return None
    return config.parse_entries(os.environ[variable], variable)
