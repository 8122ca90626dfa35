"""Leek's variables decide whether the agent is standalone or local, and what that imposes."""

import itertools
from typing import Any

import pytest

from leekfanout.configuration.config import Subscription, load_subscriptions
from leekfanout.errors import ConfigError
from tests.test_config import GOOD, load, problems_of

UNSET = None
BOOLEANS = (UNSET, "true", "false")


def environment(**variables: str | None) -> dict[str, str]:
    return {name: value for name, value in variables.items() if value is not None}


@pytest.mark.parametrize(
    ("agent", "api", "web", "auth", "secret"),
    list(itertools.product(BOOLEANS, BOOLEANS, BOOLEANS, BOOLEANS, (UNSET, "the-secret"))),
)
def test_every_combination_of_the_variables(
    agent: str | None, api: str | None, web: str | None, auth: str | None, secret: str | None
) -> None:
    environ = environment(
        LEEK_ENABLE_AGENT=agent,
        LEEK_ENABLE_API=api,
        LEEK_ENABLE_WEB=web,
        LEEK_API_ENABLE_AUTH=auth,
        LEEK_AGENT_API_SECRET=secret,
    )
    local = api == "true"
    if agent == "false":
        (problem,) = problems_of(GOOD, **environ)
        assert problem.startswith("LEEK_ENABLE_AGENT: false: the agent is switched off")
    elif local and secret is None:
        (problem,) = problems_of(GOOD, **environ)
        assert problem.startswith("LEEK_AGENT_API_SECRET: missing: ")
    else:
        (subscription,) = load(GOOD, **environ)
        assert subscription.app_key == ("the-secret" if local else "the-app-key")
        assert subscription.api_url == ("http://0.0.0.0:5000" if local else "http://leek:5000")
        assert subscription.org_name == ("mono" if auth == "false" else "example.com")


LOCAL = {"LEEK_ENABLE_AGENT": "true", "LEEK_ENABLE_API": "true", "LEEK_AGENT_API_SECRET": "secret"}


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key not in keys}


def test_a_local_agent_needs_no_key_and_no_url_in_its_subscriptions() -> None:
    (subscription,) = load(without("app_key", "api_url"), **LOCAL)
    assert (subscription.app_key, subscription.api_url) == ("secret", "http://0.0.0.0:5000")


def test_what_a_local_agent_replaces_is_not_judged() -> None:
    (subscription,) = load({**GOOD, "app_key": 1, "api_url": "nonsense", "api_tls": 1}, **LOCAL)
    assert subscription.api_url == "http://0.0.0.0:5000"


def test_without_authentication_no_organisation_is_needed() -> None:
    (subscription,) = load(without("org_name"), LEEK_API_ENABLE_AUTH="false")
    assert subscription.org_name == "mono"


def test_a_standalone_agent_is_told_what_it_needs() -> None:
    problems = problems_of(without("app_key", "api_url"))
    assert len(problems) == 2
    assert all("missing: a standalone agent needs it" in problem for problem in problems)


@pytest.mark.parametrize(
    "variable",
    ["LEEK_ENABLE_AGENT", "LEEK_ENABLE_API", "LEEK_ENABLE_WEB", "LEEK_API_ENABLE_AUTH"],
)
def test_a_variable_is_true_or_false_in_any_case_or_blank(variable: str) -> None:
    def loaded(value: str) -> list[Subscription]:
        return load(GOOD, **{"LEEK_AGENT_API_SECRET": "secret", variable: value})

    assert loaded(" TRUE ") == loaded("true")
    assert loaded("  ") == load(GOOD)
    (problem,) = problems_of(GOOD, **{variable: "yes"})
    assert problem == f'{variable}: "yes": must be true or false'


def test_a_secret_that_is_no_header_value_is_refused_and_not_shown() -> None:
    problems = problems_of(GOOD, **{**LOCAL, "LEEK_AGENT_API_SECRET": "two\nlines"})
    assert problems == [
        "LEEK_AGENT_API_SECRET: ***: must be a string of printable ASCII, "
        "without a space at either end"
    ]


def test_the_deployment_is_judged_together_with_the_subscriptions() -> None:
    with pytest.raises(ConfigError) as caught:
        load_subscriptions(
            {"LEEK_AGENT_SUBSCRIPTIONS": '[{"x": 1}]', "LEEK_ENABLE_API": "maybe"}, None
        )
    assert len(caught.value.problems) > 2
