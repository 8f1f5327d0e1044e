"""The report as a browser shows it, and as text."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import compare
from tests.fixtures.synthetic_runs import write_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

LOOK = """
const report = REPORT, seen = {};
for (const width of WIDTHS) {
const frame = document.createElement("iframe");
frame.style.cssText = `border: 0; height: 900px; width: ${width}px`;
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement;
  for (const details of page.querySelectorAll("details")) details.open = true;
  const outside = [...page.querySelectorAll("body *")].filter(
    (node) => !node.closest(".wide, .scroll, .strip, svg") && node.getBoundingClientRect().right > root.clientWidth + 1
  );
  const text = page.querySelector("svg text").getBoundingClientRect();
  seen[width] = {
    width: root.clientWidth, scroll: root.scrollWidth, outside: outside.map((node) => node.outerHTML.slice(0, 80)),
    ground: getComputedStyle(page.body).backgroundColor, ink: getComputedStyle(page.body).color,
    chart: getComputedStyle(page.querySelector("svg text")).fill, text: text.height,
    unloaded: [...page.images].filter((image) => image.naturalWidth === 0).length, images: page.images.length,
    settings: getComputedStyle(page.querySelector("td.setting")).display,
  };
  document.getElementById("seen").textContent = JSON.stringify(seen);
};
frame.srcdoc = report;
document.body.append(frame);
}
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with curves, intervals, recalls of two label spaces, pictures, warnings and more columns than fit."""
    folder = tmp_path_factory.mktemp("report")
    many = {f"data__setting_with_a_long_name_{number}": 0.123456 for number in range(9)}
    noise = np.random.default_rng(0).integers(0, 255, (300, 900, 3), dtype=np.uint8)
    for ratio in (0.0, 0.25, 0.5):
        for seed in (1, 2, 3):
            accuracy = 0.6 + ratio / 10 + seed / 100
            run = write_run(folder / "runs" / f"{ratio}-{seed}", ratio, seed, accuracy, **many)
            (run / "samples").mkdir()
            Image.fromarray(noise).save(run / "samples" / "grid-step0000010.png")
    write_run(folder / "runs" / ("long" * 30), 0.5, 1, label_space="ferplus8", model__backbone="<b>&'\"", **many)
    write_run(folder / "runs" / "unfinished", 0.5, 9, status="running")
    swept = ",".join(["synthetic_ratio", "backbone", *(key.rpartition("__")[2] for key in many)])
    assert compare.main([str(folder / "runs"), "--out", str(folder), "--swept", swept]) == 0
    return folder / "report.html"


class Addresses(HTMLParser):
    """Collects what a page needs, where its links lead, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        into = self.links if tag == "a" else self.found
        into += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")]


def test_one_file_that_needs_nothing_else(report: Path) -> None:
    text = report.read_text()
    parser = Addresses()
    parser.feed(text)
    assert parser.found and all(address.startswith(("#", "data:")) for address in parser.found)
    assert parser.links and not any(link.startswith(("/", "http")) for link in parser.links)  # run folders beside it
    assert not parser.tags & {"script", "iframe", "object"}
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text


def test_holds_groups_warnings_recalls_and_runs(report: Path) -> None:
    text = report.read_text()
    assert "different label spaces" in text and "1 run not finished (running)" in text
    assert "Recall in %, 7 expressions" in text and "Recall in %, 8 expressions" in text
    assert text.count("data:image/jpeg;base64,") == 3 and text.count("<svg") >= 3
    assert "+2.5 [+2.5, +2.5]" in text and ">control<" in text
    assert text.index('<details class="warnings"') < text.index("different label spaces") < text.index("</details>")
    assert '<figure id="learning">' in text and "python train.py fit --config " in text
    assert "All 10 runs" in text and "<b>&" not in text  # a setting's value is text, not markup


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("dark", [False, True])
def test_in_a_browser(report: Path, tmp_path: Path, dark: bool) -> None:
    both, said = look(report, tmp_path, (390, 1280), dark)
    for width, seen in both.items():
        assert seen["width"] == width and seen["scroll"] <= width, "the page scrolls sideways"
        assert seen["outside"] == []
        assert seen["ground"] == ("rgb(13, 17, 23)" if dark else "rgb(254, 254, 254)")
        assert seen["chart"] == seen["ink"] == ("rgb(230, 237, 243)" if dark else "rgb(31, 35, 40)")
        assert seen["images"] == 3 and seen["unloaded"] == 0
        assert seen["text"] >= 11, "letters in the charts are too small to read"
        assert seen["settings"] == ("none" if width == 390 else "table-cell")  # cards on a phone
    assert "CONSOLE" not in said, said


def look(report: Path, folder: Path, widths: tuple[int, ...], dark: bool) -> tuple[dict[int, dict[str, Any]], str]:
    """Opens the report in frames of the given widths, in dark or light colours.

    Returns:
        What was measured in the page at each width, and what the browser logged.
    """
    text = json.dumps(report.read_text()).replace("</", "<\\/")
    script = LOOK.replace("WIDTHS", str(list(widths))).replace("REPORT", text)
    page = folder / "look.html"
    page.write_text(f'<meta charset="utf-8"><pre id="seen"></pre><script>{script}</script>', encoding="utf-8")
    assert BROWSER is not None
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
            *("--enable-logging=stderr", "--virtual-time-budget=5000", f"--user-data-dir={folder / 'profile'}"),
            *(f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    measured = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout)
    assert measured, done.stderr
    seen = {int(width): found for width, found in json.loads(html.unescape(measured.group(1))).items()}
    assert sorted(seen) == sorted(widths), "a frame did not load"
    return seen, done.stderr
