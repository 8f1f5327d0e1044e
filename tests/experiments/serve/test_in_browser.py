"""The page as a person meets it, in headless Chromium: ``chromium`` and ``chromium-driver`` of the system."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the page needs gradio: pip install '.[page]'")
pytest.importorskip("selenium", reason="needs selenium: pip install '.[dev]'")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from experiments.serve.serve_command import _parser, start
from tests.fixtures.tiny_generator import save_checkpoint, tiny_classifier, tiny_generator

BROWSER = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="needs a browser: apt-get install chromium chromium-driver"
)

PATIENCE_S = 90.0  # a busy machine of two cores


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page of a tiny generator and judge is served."""
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny_generator().save_trained(folder / "generator")
    save_checkpoint(tiny_classifier(), folder / "judge.ckpt")
    words = ["--checkpoint", str(folder / "generator"), "--judge", str(folder / "judge.ckpt")]
    options: argparse.Namespace = _parser().parse_args(words)
    url, close = start(options)
    yield url
    close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def wait(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {PATIENCE_S:.0f} s for {what}")


def faces(browser: Any) -> list[str]:
    script = "return [...document.querySelectorAll('#faces img')].map(i => i.naturalWidth ? i.src : '')"
    return browser.execute_script(script)


def bars(browser: Any, where: str) -> list[str]:
    script = f"return [...document.querySelectorAll('{where} .bar i')].map(i => i.style.width)"
    return browser.execute_script(script)


def test_a_face_appears_a_slider_changes_it_and_an_uploaded_one_is_read(
    address: str, browser: Any, tmp_path: Path
) -> None:
    browser.get(address)
    first = wait(lambda: faces(browser), "a face")
    assert len(first) == 3 and all(first)
    assert len(bars(browser, "#faces")) == 9

    def moved(selector: str, keys: str) -> list[str]:
        before = faces(browser)
        slider = browser.find_element(By.CSS_SELECTOR, f"{selector} input[type=range]")
        slider.send_keys(keys)
        return wait(lambda: (now := faces(browser)) and now != before and now, f"another face by {selector}")

    assert moved("#AU12", Keys.END) != first
    assert moved("#strength", Keys.HOME) != first
    assert len(moved("#count", Keys.HOME)) == 1
    before = faces(browser)
    browser.find_elements(By.CSS_SELECTOR, "#expression input[type=radio]")[2].click()
    wait(lambda: faces(browser) not in ([], before), "another expression")
    assert browser.find_element(By.CSS_SELECTOR, "#faces img").get_attribute("alt") == "sad, seed 1, face 0"
    number = browser.find_element(By.CSS_SELECTOR, "#AU15 input[type=number]")
    wait(lambda: float(number.get_attribute("value")) > 0, "the action units of the expression")

    browser.find_elements(By.CSS_SELECTOR, "button[role=tab]")[1].click()
    picture = tmp_path / "face.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(picture)
    wait(lambda: browser.find_elements(By.CSS_SELECTOR, "#face input[type=file]"), "a place to upload")
    browser.find_element(By.CSS_SELECTOR, "#face input[type=file]").send_keys(str(picture))
    assert len(wait(lambda: bars(browser, "#seen"), "the bars of an uploaded face")) == 3

    outside = [
        url
        for entry in browser.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"] == "Network.requestWillBeSent"
        and not (url := message["params"]["request"]["url"]).startswith((address, "data:", "blob:", "chrome"))
    ]
    assert not outside
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_a_mistake_is_said_on_the_page(address: str, browser: Any) -> None:
    browser.get(address)
    wait(lambda: faces(browser), "a face")
    seed = browser.find_element(By.CSS_SELECTOR, "#seed input")
    seed.send_keys(Keys.CONTROL, "a")
    seed.send_keys("-5", Keys.ENTER)
    wait(lambda: "expected a whole number of at least 0" in browser.find_element(By.TAG_NAME, "body").text, "an error")
    assert "Traceback" not in browser.find_element(By.TAG_NAME, "body").text


def test_a_phone_need_not_scroll_sideways(address: str, browser: Any) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    browser.get(address)
    wait(lambda: faces(browser), "a face")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    above = "return document.querySelector('#faces').getBoundingClientRect().top"
    assert browser.execute_script(above) < 400
