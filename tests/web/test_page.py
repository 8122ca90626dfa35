"""What a person does on the page, in a real browser, with a real broker behind."""

import dataclasses
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver.common.keys import Keys

from leekfanout.configuration.config import Settings
from tests.agent import subscription
from tests.api_double import ApiDouble
from tests.load import Load
from tests.publishers import publish_amqp
from tests.web.browser import Browser
from tests.web.page_agent import PageAgent
from tests.web.served import MadeUpAgent, Served

LONG = {
    **{"backlog": "99,999,999", "delivered": "1.235B", "last_delivery": "59 min ago"},
    **{"spool": "999.9 MB", "memory": "999.9 MB", "cpu": "100.0 %", "uptime": "23 h 59 min"},
}
"""Figures that need much room."""

CUT = """
for (const [what, text] of Object.entries(arguments[0])) {
  document.querySelector(`#card-shop-prod [data-of="${what}"]`).textContent = text;
}
return [...document.querySelectorAll("dd, button, .pill")]
  .filter((each) => each.checkVisibility() && each.scrollWidth > each.clientWidth)
  .map((each) => each.textContent);
"""
"""A script that shows such figures, and returns what is cut off."""


@dataclasses.dataclass(frozen=True, slots=True)
class Halting(MadeUpAgent):
    """An agent that can be kept from answering."""

    answers: threading.Event = dataclasses.field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.answers.set()

    def call(self, method: str, *params: Any) -> Any:
        self.answers.wait()
        # The base is named, since a dataclass with slots is another class than its body sees.
        return MadeUpAgent.call(self, method, *params)

    @contextmanager
    def halted(self) -> Iterator[None]:
        self.answers.clear()
        try:
            yield
        finally:
            self.answers.set()


def add(browser: Browser, entry: dict[str, Any], **other: Any) -> None:
    """Fill the form and send it."""
    keys = ("app_name", "app_env", "org_name", "app_key", "api_url", "broker")
    browser.fill(**{key: {**entry, **other}[key] for key in keys})
    browser.click("#form-save")


def test_somebody_new_logs_in_adds_a_subscription_and_sees_events_flow(
    browser: Browser, tmp_path: Path, entry: dict[str, Any]
) -> None:
    with PageAgent(tmp_path) as agent:
        browser.driver.get(f"{agent.url}/agent")
        browser.find("#token").send_keys("a wrong token", Keys.ENTER)
        browser.wait_for_text("#problem", "not the token")
        assert browser.barriers() == []
        browser.log_in(agent)
        browser.wait_for_text("#empty", "No subscriptions yet")
        browser.click("#add-first")
        browser.fill(app_name="Shop1")
        browser.find("#f-app_name[aria-invalid]")
        browser.fill(app_name="shop")
        browser.wait_until_gone("#f-app_name[aria-invalid]")
        add(browser, entry)
        browser.wait_for_text("#card-shop-prod .pill", "delivering")
        assert [each["app_key"] for each in agent.entries()] == [entry["app_key"]]
        publish_amqp(entry["broker"], Load(1).messages(300))
        browser.until(lambda: browser.figure("delivered") not in {"", "0"}, "events to move")
        peak = "#card-shop-prod .peak"
        browser.until(lambda: "highest 0.0" not in browser.text(peak), "the chart to move")
        html = browser.driver.page_source
        assert entry["app_key"] not in html
        assert "guest:guest" not in html


def test_a_wrong_broker_password_is_refused_with_the_reason_and_nothing_is_saved(
    browser: Browser, tmp_path: Path, entry: dict[str, Any]
) -> None:
    with PageAgent(tmp_path) as agent:
        browser.log_in(agent)
        browser.click("#add-first")
        place = browser.find("#form-save").rect
        add(browser, entry, broker=entry["broker"].replace("guest@", "wrong-pw@"))
        text = browser.wait_for_text("#form-result", "refuses")
        assert browser.find("#form-save").rect == place
        assert "wrong-pw" not in text
        assert agent.entries() == []
        browser.fill(broker=entry["broker"])
        browser.click("#form-test")
        browser.wait_for_text("#form-result", "✓ API")
        assert agent.entries() == []


def test_buttons_stop_start_restart_and_delete_a_subscription(
    browser: Browser, tmp_path: Path, entry: dict[str, Any]
) -> None:
    with PageAgent(tmp_path, [entry]) as agent:
        browser.log_in(agent)
        browser.wait_for_text("#card-shop-prod .pill", "delivering")
        first = agent.status()["pid"]
        browser.act("restart")
        browser.wait_for_text("#said", "shop-prod is restarted")
        assert agent.status()["pid"] != first
        browser.act("stop")
        browser.wait_for_text("#card-shop-prod .pill", "stopped")
        agent.wait_for_state("STOPPED")
        browser.act("start")
        browser.wait_for_text("#card-shop-prod .pill", "delivering")
        browser.act("log")
        browser.wait_for_text("#log pre", "broker.connected")
        assert browser.barriers() == []
        browser.click("#log .close")
        browser.act("delete")
        browser.wait_for_text("#confirm", "goes on filling")
        assert browser.barriers() == []
        browser.click("#confirm .cancel")
        assert agent.entries() == [entry]
        browser.act("delete")
        browser.click("#confirm .check input")
        browser.click("#confirm .go")
        browser.wait_for_text("#empty", "No subscriptions yet")
        browser.wait_for_text("#said", "The queue leek.fanout is deleted")
        assert agent.entries() == []


def test_each_of_several_processes_takes_orders_and_they_are_deleted_together(
    browser: Browser, tmp_path: Path, entry: dict[str, Any]
) -> None:
    second = "shop-prod-2"
    with PageAgent(tmp_path, [{**entry, "processes": 2}]) as agent:
        browser.log_in(agent)
        browser.wait_for_text(f"#card-{second} .pill", "delivering")
        first_pid, second_pid = agent.status()["pid"], agent.status(second)["pid"]
        browser.act("restart", second)
        browser.wait_for_text("#said", f"{second} is restarted")
        assert agent.status(second)["pid"] != second_pid
        browser.act("stop", second)
        browser.wait_for_text(f"#card-{second} .pill", "stopped")
        assert agent.status()["pid"] == first_pid
        browser.act("start", second)
        browser.wait_for_text(f"#card-{second} .pill", "delivering")
        browser.act("log", second)
        browser.wait_for_text("#log pre", "broker.connected")
        browser.click("#log .close")
        browser.act("letters", second)
        browser.wait_for_text("#letters .none", "No dead letters")
        browser.click("#letters .close")
        browser.act("delete", second)
        browser.wait_for_text("#confirm", "Delete shop-prod?")
        browser.wait_for_text("#confirm", "Its 2 processes drain and stop")
        browser.click("#confirm .check input")
        browser.click("#confirm .go")
        browser.wait_for_text("#empty", "No subscriptions yet")
        browser.wait_for_text("#said", "The queue leek.fanout is deleted")
        assert agent.entries() == []


def test_a_dead_letter_is_looked_at_and_delivered_again(
    browser: Browser, tmp_path: Path, entry: dict[str, Any], api: ApiDouble
) -> None:
    with PageAgent(tmp_path, [entry]) as agent:
        agent.wait_until_connected()
        api.refuse(lambda document: document["kind"] == "worker")
        publish_amqp(entry["broker"], [Load(2).heartbeat("celery@refused")])
        browser.log_in(agent)
        browser.until(lambda: browser.figure("dead_letters") == "1", "a dead letter")
        browser.act("letters")
        browser.wait_for_text("#letters tbody", "document")
        browser.click('[aria-label^="Look at"]')
        browser.wait_for_text("#letter pre", "celery@refused")
        assert browser.barriers() == []
        browser.click("#letter .close")
        browser.click("#letters .replay")
        browser.wait_for_text("#letters .result", "1 stay")
        assert browser.barriers() == []
        api.behave()
        browser.click("#letters .replay")
        browser.wait_for_text("#letters .result", "1 delivered and removed")
        browser.wait_for_text("#letters .none", "No dead letters")
        assert browser.driver.switch_to.active_element == browser.find("#letters .close")
        assert [each["hostname"] for each in api.confirmed()] == ["celery@refused"]


def test_the_page_tells_that_it_lost_the_connection_and_comes_back_by_itself(
    browser: Browser, tmp_path: Path, entry: dict[str, Any]
) -> None:
    with PageAgent(tmp_path, [entry]) as agent:
        browser.log_in(agent)
        browser.wait_for_text("#card-shop-prod .pill", "delivering")
        child = agent.status()["pid"]
        os.kill(agent.page_pid(), signal.SIGKILL)
        browser.wait_for_text("#lost", "is lost")
        browser.wait_until_gone("#lost")
        browser.wait_for_text("#card-shop-prod .pill", "delivering")
        assert agent.status()["pid"] == child
        browser.complaints()  # Chromium reports the refused connection


def test_any_number_of_tabs_leaves_the_one_in_front_its_live_data(
    browser: Browser, tmp_path: Path, entry: dict[str, Any]
) -> None:
    with PageAgent(tmp_path, []) as agent:
        browser.log_in(agent)
        first = browser.driver.current_window_handle
        browser.find("#empty")
        for _ in range(7):
            browser.driver.switch_to.new_window("tab")
            browser.driver.get(f"{agent.url}/agent")
            browser.find("#empty")
        browser.driver.switch_to.window(first)
        agent.file.write_text(json.dumps([entry]))
        browser.wait_for_text("#pending", "new: shop-prod")


def test_figures_that_grow_old_are_not_shown_as_live(browser: Browser, tmp_path: Path) -> None:
    agent = Halting(Settings(tmp_path), tmp_path / "control.sock", tmp_path / "subscriptions.json")
    with Served(agent) as served:
        browser.log_in(served)
        browser.find("#empty")
        with agent.halted():
            browser.wait_for_text("#lost", "no news of the agent")
            assert browser.text("#agent-state") == "no connection"
        browser.wait_until_gone("#lost")
        browser.wait_for_text("#agent-state", "no subscriptions")


def test_a_subscription_in_trouble_says_why_and_what_to_do(
    browser: Browser, tmp_path: Path, amqp_url: str, api: ApiDouble
) -> None:
    broken = subscription(amqp_url.replace("guest@", "wrong-pw@"), api, app_env="test")
    with PageAgent(tmp_path, [subscription(amqp_url, api), broken]) as agent:
        browser.log_in(agent)
        browser.wait_for_text("#card-shop-test .pill", "refused by the broker")
        browser.wait_for_text("#card-shop-test .error", "credentials")
        assert browser.wait_for_text("#card-shop-test .advice", "configuration")
        browser.wait_for_text("#card-shop-prod .pill", "delivering")
        assert browser.text("#agent-state") == "1 in trouble"
        assert "wrong-pw" not in browser.driver.page_source
        for scheme in ("light", "dark"):
            browser.prefer(scheme)
            assert browser.barriers() == []
            browser.click("#add")
            browser.click("#form-save")
            browser.find("#f-broker[aria-invalid]")
            assert browser.barriers() == []
            browser.click("#form .close")


def test_a_changed_file_gets_a_hint_and_applying_it_takes_it_up(
    browser: Browser, tmp_path: Path, entry: dict[str, Any]
) -> None:
    with PageAgent(tmp_path, []) as agent:
        browser.log_in(agent)
        browser.find("#empty")
        browser.wait_until_gone("#pending")
        agent.file.write_text(json.dumps([entry]))
        browser.wait_for_text("#pending", "new: shop-prod")
        browser.click("#reload")
        browser.wait_for_text("#card-shop-prod .pill", "delivering")
        browser.wait_until_gone("#pending")


def test_a_phone_shows_all_of_it_without_scrolling_sideways(
    browser: Browser, tmp_path: Path, entry: dict[str, Any]
) -> None:
    browser.resize(360, 740)
    with PageAgent(tmp_path, [entry]) as agent:
        browser.log_in(agent)
        browser.wait_for_text("#card-shop-prod .pill", "delivering")
        width = browser.driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= 360
        state, log_out = browser.find("#agent-state").rect, browser.find("#log-out").rect
        assert state["x"] + state["width"] <= log_out["x"] or state["y"] > log_out["y"] + 20
        for width in (360, 390, 480, 740, 800, 1000, 1200):
            browser.resize(width, 740)
            assert browser.driver.execute_script(CUT, LONG) == []
        browser.resize(360, 740)
        browser.click("#add")
        browser.find("#form-save")
        width = browser.driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= 360


def test_the_keyboard_alone_opens_the_form_and_closes_it(browser: Browser, tmp_path: Path) -> None:
    with PageAgent(tmp_path) as agent:
        browser.log_in(agent)
        browser.find("#empty")
        for _ in range(10):
            browser.driver.switch_to.active_element.send_keys(Keys.TAB)
            if browser.driver.switch_to.active_element.get_attribute("id") == "add":
                break
        browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
        browser.find("#form-save")
        assert browser.driver.switch_to.active_element.get_attribute("name") == "app_name"
        browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
        browser.wait_until_gone("#form")
        assert browser.driver.switch_to.active_element.get_attribute("id") == "add"
