"""Makes the pictures of the page in docs/images: ``python -m tests.web.screenshots``."""

import contextlib
import json
import math
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.agent import ROOT, subscription
from tests.api_double import ApiDouble
from tests.brokers import RabbitMQ, Redis
from tests.load import Load, one
from tests.publishers import publish_amqp, publish_redis
from tests.waiting import until
from tests.web.browser import Browser
from tests.web.page_agent import WAIT_S, PageAgent

FOLDER = ROOT / "docs" / "images"
BUSY_S = 150.0
"""How long events flow before the pictures, for a chart that shows something."""


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        RabbitMQ() as rabbitmq,
        Redis() as redis,
        ApiDouble() as api,
        Browser() as browser,
    ):
        browser.forget()
        take_empty(browser, Path(folder) / "empty", rabbitmq.url(), api)
        take_others(browser, Path(folder) / "others", rabbitmq, redis, api)


def take_empty(browser: Browser, folder: Path, broker: str, api: ApiDouble) -> None:
    folder.mkdir()
    with PageAgent(folder) as agent:
        browser.driver.get(f"{agent.url}/agent")
        save(browser, "login")
        browser.log_in(agent)
        browser.find("#empty")
        save(browser, "empty")
        browser.click("#add-first")
        entry = subscription(broker.replace(":guest@", ":wrong@"), api)
        keys = ("app_name", "org_name", "app_key", "api_url", "broker")
        browser.fill(app_env="Production", **{key: entry[key] for key in keys})
        browser.find("#f-app_env[aria-invalid]")
        save(browser, "form")
        browser.fill(app_env="prod")
        browser.click("#form-test")
        browser.wait_for_text("#form-result", "✓ API")
        save(browser, "form-refused")


def take_others(
    browser: Browser, folder: Path, rabbitmq: RabbitMQ, redis: Redis, api: ApiDouble
) -> None:
    folder.mkdir()
    shop, mail = rabbitmq.url(), redis.url(1)
    wrong = rabbitmq.url().replace(":guest@", ":wrong@")
    good = [
        subscription(shop, api, org_name="acme", app_name="shop", queue="leek.shop"),
        subscription(mail, api, org_name="acme", app_name="mail"),
    ]
    bad = subscription(wrong, api, org_name="acme", app_name="stock")
    api.refuse(lambda document: document.get("name") == "shop.tasks.refuse")
    with PageAgent(folder, good) as agent, flowing(shop, mail):
        for name in ("shop-prod", "mail-prod"):
            agent.wait_until_connected(name)
        time.sleep(BUSY_S)
        browser.forget()
        browser.log_in(agent)
        browser.wait_for_text("#card-shop-prod .pill", "delivering")
        time.sleep(3)
        save(browser, "healthy")
        browser.prefer("dark")
        save(browser, "dark")
        browser.prefer("light")
        agent.file.write_text(json.dumps([*good, bad]))
        agent.client.call("leekfanout.reload")
        browser.wait_for_text("#card-stock-prod .pill", "refused")
        sent, _ = Load(9).task()
        publish_amqp(shop, [one({**sent, "name": "shop.tasks.refuse"})])
        until(lambda: browser.figure("dead_letters", "shop-prod") == "1", WAIT_S, "a dead letter")
        save(browser, "trouble", height=1150)
        browser.resize(390, 1500)
        save(browser, "phone", width=390, height=1500)
        browser.resize(1200, 900)
        browser.act("letters", "shop-prod")
        browser.wait_for_text("#letters tbody", "document")
        save(browser, "letters")
        browser.click('[aria-label^="Look at"]')
        browser.wait_for_text("#letter pre", "uuid")
        save(browser, "letter")
        browser.click("#letter .close")
        browser.click("#letters .close")
        browser.act("log", "stock-prod")
        browser.wait_for_text("#log pre", "broker")
        save(browser, "log")


@contextlib.contextmanager
def flowing(amqp_url: str, redis_url: str) -> Iterator[None]:
    """Publish at a pace that goes up and down."""
    stop = threading.Event()

    def publish() -> None:
        load, began = Load(4), time.monotonic()
        while not stop.wait(0.5):
            turn = (time.monotonic() - began) / 12
            publish_amqp(amqp_url, load.messages(30 + int(25 * math.sin(turn))))
            publish_redis(redis_url, [load.heartbeat("celery@mail"), *load.messages(8)])

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def save(browser: Browser, name: str, width: int = 1200, height: int = 900) -> None:
    browser.resize(width, height)
    time.sleep(0.3)
    browser.driver.save_screenshot(str(FOLDER / f"page-{name}.png"))


if __name__ == "__main__":
    main()
