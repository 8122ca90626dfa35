"""Leek's own routes, as its page calls them, on a real agent with a real broker."""

import json
from pathlib import Path
from typing import Any

import requests

from tests.agent import subscription
from tests.api_double import ApiDouble
from tests.processes import free_ports
from tests.waiting import until
from tests.web.page_agent import TOKEN, WAIT_S, PageAgent
from tests.web.served import Served, made_up_agent

CONTROL = "/v1/agent/control"
SUBSCRIPTIONS = "/v1/agent/subscriptions"


def test_leeks_page_adds_lists_restarts_stops_and_deletes(
    tmp_path: Path, entry: dict[str, Any], api: ApiDouble
) -> None:
    with PageAgent(tmp_path) as agent:
        nothing = agent.request("POST", CONTROL)
        assert nothing.status_code == 400
        assert nothing.json()["error"]["reason"] == "There are no subscriptions: add one first."
        added = agent.request("POST", SUBSCRIPTIONS, json=entry)
        assert added.status_code == 200
        assert added.json()["name"] == "shop-prod"
        assert agent.request("POST", SUBSCRIPTIONS, json=entry).status_code == 412
        (listed,) = agent.get(SUBSCRIPTIONS).json()
        assert listed["broker"] == entry["broker"].replace("guest@", "***@")
        assert api.app_key not in agent.get(SUBSCRIPTIONS).text
        agent.wait_for_state("RUNNING")
        first = agent.status()["pid"]
        running = agent.get(CONTROL).json()
        assert running["type"] == "local"
        assert running["statename"] == "RUNNING"
        assert running["description"].startswith("pid ")
        assert agent.request("POST", CONTROL).json()["statename"] == "RUNNING"
        assert agent.status()["pid"] != first
        assert agent.request("DELETE", CONTROL).json()["statename"] == "STOPPED"
        assert agent.request("DELETE", CONTROL).status_code == 200
        assert agent.request("POST", CONTROL).json()["statename"] == "RUNNING"
        deleted = agent.request("DELETE", f"{SUBSCRIPTIONS}/shop-prod")
        assert "goes on filling" in deleted.json()["note"]
        assert agent.request("DELETE", f"{SUBSCRIPTIONS}/shop-prod").status_code == 404
        assert agent.get(SUBSCRIPTIONS).json() == []
        assert agent.entries() == []


def test_what_cant_work_is_refused_with_leeks_codes_and_nothing_is_written(
    tmp_path: Path, entry: dict[str, Any]
) -> None:
    (closed,) = free_ports(1)
    cases = [
        (401, {"broker": entry["broker"].replace("guest@", "wrong-pw@")}),
        (401, {"app_key": "another-key"}),
        (503, {"broker": f"redis://127.0.0.1:{closed}/0"}),
        (503, {"api_url": f"http://127.0.0.1:{closed}"}),
        (400, {"app_name": "Shop"}),
        (400, {"backend": "redis://\ud800h"}),
        (400, {"prefetch_count": 10}),
    ]
    with PageAgent(tmp_path) as agent:
        for status, changed in cases:
            answer = agent.request("POST", SUBSCRIPTIONS, json={**entry, **changed})
            assert answer.status_code == status, answer.text
            error = answer.json()["error"]
            assert error["code"] == f"{status}001"
            assert error["reason"]
            assert "wrong-pw" not in answer.text
            assert "another-key" not in answer.text
            assert "WWW-Authenticate" not in answer.headers
        assert agent.request("POST", SUBSCRIPTIONS, json=[entry]).status_code == 400
        assert agent.request("POST", SUBSCRIPTIONS, data=b"{").status_code == 400
        assert agent.entries() == []


def test_a_subscription_is_deleted_though_the_agent_refuses_the_rest_of_the_file(
    tmp_path: Path, redis_url: str, api: ApiDouble
) -> None:
    entry = subscription(redis_url, api)
    with PageAgent(tmp_path, [entry]) as agent:
        broken = {**entry, "app_env": "test", "prefetch_count": 10}
        agent.file.write_text(json.dumps([entry, broken]))
        deleted = agent.request("DELETE", f"{SUBSCRIPTIONS}/shop-prod")
        assert deleted.status_code == 200
        assert "has not taken up that it is removed" in deleted.json()["note"]
        assert "shop-test: prefetch_count" in deleted.json()["note"]
        assert agent.entries() == [broken]


def test_an_entry_is_listed_whatever_its_unknown_keys_hold(tmp_path: Path) -> None:
    agent = made_up_agent(tmp_path)
    odd = '"backend": "redis://\\ud800h", "\\udc00": [NaN, -Infinity, 1e999, "\u00e9"]'
    agent.config_file.write_text(f'[{{"app_name": "shop", "app_env": "prod", {odd}}}]')
    with Served(agent) as served:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = requests.get(f"{served.url}{SUBSCRIPTIONS}", headers=headers, timeout=WAIT_S)
    (listed,) = answer.json()
    assert listed["backend"] == "redis://\ud800h"
    assert listed["\udc00"] == ["NaN", "-Infinity", "Infinity", "\u00e9"]


def test_one_of_several_processes_is_no_subscription_that_could_be_deleted(
    tmp_path: Path, entry: dict[str, Any]
) -> None:
    with PageAgent(tmp_path, [{**entry, "processes": 2}]) as agent:
        agent.wait_for_state("RUNNING", "shop-prod-2")
        before = agent.status("shop-prod-2")["pid"]
        for query in ("", "?delete_queue=true"):
            answer = agent.request("DELETE", f"{SUBSCRIPTIONS}/shop-prod-2{query}")
            assert answer.status_code == 404
        assert agent.status("shop-prod-2")["pid"] == before
        assert len(agent.entries()) == 1


def test_subscriptions_from_the_variable_are_shown_and_stay_as_they_are(
    tmp_path: Path, redis_url: str, api: ApiDouble
) -> None:
    entry = subscription(redis_url, api)
    with PageAgent(tmp_path, [entry], fixed=True) as agent:
        (listed,) = agent.get(SUBSCRIPTIONS).json()
        assert listed["name"] == "shop-prod"
        assert listed["app_key"] == "***"
        for answer in (
            agent.request("POST", SUBSCRIPTIONS, json={**entry, "app_env": "test"}),
            agent.request("DELETE", f"{SUBSCRIPTIONS}/shop-prod"),
        ):
            assert answer.status_code == 409
            assert "LEEK_AGENT_SUBSCRIPTIONS" in answer.json()["error"]["reason"]
        agent.wait_for_state("RUNNING")
        first = agent.status()["pid"]
        assert agent.request("POST", CONTROL).status_code == 200
        assert agent.status()["pid"] != first
        assert agent.stop() == 0


def test_a_page_whose_port_is_taken_harms_nobody(
    tmp_path: Path, redis_url: str, api: ApiDouble
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    entry = subscription(redis_url, api)
    with PageAgent(tmp_path / "one", [entry]) as first:
        # Of the same exchange's events only one agent hears any, and the other stands by.
        second = PageAgent(tmp_path / "two", [{**entry, "exchange": "other"}])
        second.port = first.port
        with second:  # its port answers: the first agent's page
            second.wait_until_connected()
            until(lambda: second.lines("side.ended"), WAIT_S, "the second page to give up")
            assert second.lines("web.address")
