"""``leekfanout run --metrics``: scraped from a real agent."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.accounting import of_messages
from tests.agent import ROOT, Agent, run_leekfanout, subscription
from tests.api_double import ApiDouble
from tests.load import Load
from tests.processes import free_ports
from tests.publishers import publish_amqp
from tests.waiting import until


class Scraped:
    """An agent with metrics."""

    def __init__(self, agent: Agent, port: int) -> None:
        self.agent = agent
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=20)

    def sample(self, name: str, **labels: str) -> float | None:
        """Return one sample of shop-prod, None if there is none."""
        wanted = {"subscription": "shop-prod", **labels}
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                if sample.name == name and sample.labels == wanted:
                    return sample.value
        return None

    def wait_for_ready(self) -> None:
        until(lambda: self.get("/readyz").status_code == 200, 30, "the agent to be ready")

    def side_pid(self) -> int:
        return int(self.agent.lines("side.started", process="metrics")[-1]["pid"])


@pytest.fixture
def scraped(amqp_url: str, api: ApiDouble, tmp_path: Path) -> Iterator[Scraped]:
    (port,) = free_ports(1)
    options = ("--metrics", f"127.0.0.1:{port}")
    with Agent([subscription(amqp_url, api)], tmp_path, options=options) as agent:
        agent.wait_for_line("metrics.started")
        yield Scraped(agent, port)


def test_what_is_delivered_is_counted_across_the_restart_of_a_process(
    scraped: Scraped, amqp_url: str, api: ApiDouble
) -> None:
    scraped.wait_for_ready()
    sent = of_messages(publish_amqp(amqp_url, Load(seed=1).messages(200))).total()
    api.wait_for_events(sent)

    def delivered() -> float | None:
        return scraped.sample("leekfanout_events_delivered_total")

    until(lambda: delivered() == sent, 20, f"{sent} events to be counted")
    before = scraped.agent.kill_child()
    scraped.agent.wait_for_child(other_than=before)
    assert delivered() == sent
    assert scraped.sample("leekfanout_process_ends_total", cause="killed") == 1
    assert scraped.sample("leekfanout_process_starts_total") == 2
    assert scraped.sample("leekfanout_post_seconds_count", answer="2xx") > 0


def test_metrics_say_what_they_are(scraped: Scraped) -> None:
    answer = scraped.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert 'leekfanout_build_info{version="' in answer.text
    assert scraped.get("/other").status_code == 404
    # Bounded labels only: the subscription's name and our own words.
    labels = {
        label
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        for label in sample.labels
    }
    assert labels <= {
        *("subscription", "version", "answer", "le", "state", "condition"),
        *("reason", "by", "cause"),
    }


def test_an_api_that_is_away_makes_it_unready_though_alive(
    scraped: Scraped, amqp_url: str, api: ApiDouble
) -> None:
    scraped.wait_for_ready()
    until(
        lambda: scraped.get("/readyz?verbose").text == "ok\nshop-prod: ok (RUNNING, delivering)\n",
        20,
        "the process to be taken for steady",
    )
    assert scraped.get("/livez").text == "ok\n"
    api.go_down()
    publish_amqp(amqp_url, Load(seed=2).messages(5))
    until(lambda: scraped.get("/readyz").status_code == 503, 60, "the agent to be unready")
    assert "shop-prod: not ok (RUNNING, waiting for api: " in scraped.get("/readyz").text
    assert scraped.get("/livez").status_code == 200


def test_its_process_comes_back_and_ends_with_the_supervisor(scraped: Scraped) -> None:
    before = scraped.side_pid()
    psutil.Process(before).kill()
    until(lambda: scraped.side_pid() != before, 20, "another process")
    scraped.agent.wait_for_line("metrics.started", 2)
    assert scraped.get("/livez").status_code == 200
    side = psutil.Process(scraped.side_pid())
    scraped.agent.kill()
    side.wait(20)


def test_a_port_that_is_taken_keeps_no_subscription_from_running(
    amqp_url: str, api: ApiDouble, tmp_path: Path
) -> None:
    options = ("--metrics", f"127.0.0.1:{api.port}")
    with Agent([subscription(amqp_url, api)], tmp_path, options=options) as agent:
        (line, *_) = agent.wait_for_line("metrics.address")
        assert line["error"] == "Address already in use"
        agent.wait_until_connected()
        assert agent.stop() == 0


def run(
    entries: list[dict[str, Any]], *options: str, code: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code, "run", *options],
        env={"PYTHONPATH": str(ROOT), "LEEK_AGENT_SUBSCRIPTIONS": json.dumps(entries)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_the_package_nothing_starts_and_the_sentence_names_it(
    api: ApiDouble, tmp_path: Path
) -> None:
    hidden = (
        "import importlib.util, sys; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: "
        "None if name == 'prometheus_client' else find(name, *more)\n"
        "from leekfanout import cli; sys.exit(cli.main())"
    )
    entry = subscription("amqp://127.0.0.1:1//", api)
    options = ("--metrics", "127.0.0.1:0", "--state-dir", str(tmp_path))
    done = run([entry], *options, code=hidden)
    assert done.returncode == 2
    assert done.stderr == (
        "leekfanout: --metrics: metrics need the package prometheus-client, which is not "
        "installed: install leekfanout[metrics].\n"
    )


@pytest.mark.parametrize("address", ["9808", "example.com:9808", "127.0.0.1:99999", "1.2.3:1"])
def test_what_is_no_address_is_refused(address: str, tmp_path: Path) -> None:
    done = run_leekfanout("run", "--state-dir", str(tmp_path), env={"LEEKFANOUT_METRICS": address})
    assert done.returncode == 2
    assert "LEEKFANOUT_METRICS: " in done.stderr
    assert "must be an IP address and a port, such as 127.0.0.1:9808" in done.stderr
