"""The HTTP interface does what its description says, whatever is sent to it."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from leekfanout.configuration import enrolment
from leekfanout.health import Check, Kind
from leekfanout.web import orders
from leekfanout.web.openapi import description
from tests.web.page_agent import TOKEN
from tests.web.served import Served, made_up_agent

schema = schemathesis.openapi.from_dict(description())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page, whose checks of brokers and APIs ask nobody."""
    well = Check(Kind.OK, "It is well.")
    with pytest.MonkeyPatch.context() as patch:
        for module in (enrolment.health, orders.health):
            patch.setattr(module, "check_broker", lambda _: well)
            patch.setattr(module, "check_api", lambda _: well)
        with Served(made_up_agent(tmp_path_factory.mktemp("page"))) as server:
            yield server


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_route_answers_as_it_is_described(case: Any, served: Served) -> None:
    case.call_and_validate(
        base_url=served.url,
        headers={"Authorization": f"Bearer {TOKEN}"},
        # A subscription may obey the schema and break a rule over several keys.
        excluded_checks=[positive_data_acceptance],
    )
