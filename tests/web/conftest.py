"""Fixtures for the page: one browser for all tests, an agent for each."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.agent import subscription
from tests.api_double import ApiDouble
from tests.web.browser import Browser


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The browser without cookies; the test fails if it has to complain of the page."""
    chromium.forget()
    yield chromium
    complaints = chromium.complaints()
    assert not complaints, complaints


@pytest.fixture
def entry(amqp_url: str, api: ApiDouble) -> dict[str, Any]:
    """A subscription that works."""
    return subscription(amqp_url, api)
