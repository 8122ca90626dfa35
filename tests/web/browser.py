"""A real Chromium without a window, and what a person would do with it."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.processes import program
from tests.waiting import until
from tests.web.page_agent import TOKEN, PageAgent
from tests.web.served import Served

T = TypeVar("T")

WAIT_S = 20.0

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--lang=en-US",
    "--hide-scrollbars",
)


class Browser:
    """Chromium under Debian's chromedriver; a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = program("chromium", "chromium")
        driver = program("chromedriver", "chromium-driver")
        self._folder = Path(tempfile.mkdtemp(prefix="leekfanout-chromium-"))
        for flag in (*FLAGS, f"--user-data-dir={self._folder}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))
        self.driver.set_page_load_timeout(WAIT_S)

    def log_in(self, agent: PageAgent | Served) -> None:
        """Open the page and show the token."""
        self.driver.get(f"{agent.url}/agent")
        self.find("#token").send_keys(TOKEN)
        self.click("button[type=submit]")
        self.find("#agent-state")

    def find(self, selector: str) -> WebElement:
        """Return the first visible element of a selector, once there is one."""

        def visible() -> WebElement | None:
            try:
                found = self.driver.find_elements(By.CSS_SELECTOR, selector)
                return next((each for each in found if each.is_displayed()), None)
            except StaleElementReferenceException:
                return None

        return self.until(visible, f"{selector} to be visible")

    def click(self, selector: str) -> None:
        def clicked() -> bool:
            try:
                self.find(selector).click()
            except (StaleElementReferenceException, WebDriverException):
                return False
            return True

        self.until(clicked, f"{selector} to be clickable")

    def fill(self, **fields: Any) -> None:
        """Type into the fields of the form."""
        for name, value in fields.items():
            element = self.find(f"#f-{name}")
            element.clear()
            element.send_keys(str(value))

    def act(self, act: str, name: str = "shop-prod") -> None:
        """Press a button of a subscription."""
        self.click(f'#card-{name} [data-act="{act}"]')

    def figure(self, what: str, name: str = "shop-prod") -> str:
        """Return one of a subscription's figures as it is shown."""
        return self.text(f'#card-{name} [data-of="{what}"]')

    def text(self, selector: str = "body") -> str:
        """Return the text of an element as far as it is shown; empty if there is none."""
        try:
            found = self.driver.find_elements(By.CSS_SELECTOR, selector)
            return found[0].text if found else ""
        except WebDriverException:
            return ""

    def wait_for_text(self, selector: str, text: str) -> str:
        """Wait until an element shows a text, and return all that it shows."""
        return self.until(
            lambda: shown if text in (shown := self.text(selector)) else "",
            f"{selector} to show {text!r}",
        )

    def wait_until_gone(self, selector: str) -> None:
        def gone() -> bool:
            found = self.driver.find_elements(By.CSS_SELECTOR, selector)
            return not any(each.is_displayed() for each in found)

        self.until(gone, f"{selector} to go away")

    def until(self, condition: Callable[[], T], what: str) -> T:
        """Wait for a condition; if it doesn't come, say what the page shows by then."""
        try:
            return until(condition, WAIT_S, what)
        except AssertionError as error:
            raise AssertionError(f"{error} The page says:\n{self.text()}") from None

    def complaints(self) -> list[str]:
        """Return what the browser complains of since the last call, such as a breach of the CSP."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE" and entry["source"] != "network"
        ]

    def barriers(self) -> list[str]:
        """Return what would keep people out, as axe-core finds it: contrast, labels, structure."""
        return [
            f"{found['id']}: {node['html']} {node.get('failureSummary')}"
            for found in Axe().run(self.driver)["violations"]
            for node in found["nodes"]
        ]

    def resize(self, width: int, height: int) -> None:
        """Make the page so many CSS pixels wide and high, a phone's too."""
        self.emulate(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, scheme: str) -> None:
        """Prefer ``light`` or ``dark``."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.emulate("Emulation.setEmulatedMedia", features=[feature])

    def emulate(self, command: str, **parameters: Any) -> None:
        self.driver.execute_cdp_cmd(command, parameters)

    def forget(self) -> None:
        """Leave the page, in all tabs but one, and forget cookies and complaints."""
        first, *others = self.driver.window_handles
        for other in others:
            self.driver.switch_to.window(other)
            self.driver.close()
        self.driver.switch_to.window(first)
        self.driver.get("about:blank")
        self.emulate("Network.clearBrowserCookies")
        self.driver.get_log("browser")
        self.resize(1200, 900)
        self.prefer("light")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()
        shutil.rmtree(self._folder, ignore_errors=True)
