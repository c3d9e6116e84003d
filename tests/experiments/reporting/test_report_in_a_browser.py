"""The report in headless Chromium: charts are drawn, a click shows the architecture, nothing leaves the page."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.reporting import write_report
from tests.experiments.reporting.runs import write_run

pytestmark = pytest.mark.browser
CHARTS = ("front", "training", "losses", "progress", "sampling", "ranking", "classes")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser window, closed afterwards."""
    driver = shutil.which("chromedriver")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or chromium is None:
        pytest.skip("no chromium and chromedriver here; on Debian: apt install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1200,1000",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield made
    made.quit()


@pytest.fixture(scope="module")
def report(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = write_run(tmp_path_factory.mktemp("browser") / "run", candidates=10_000)
    page = write_report([run], run / "report.html").as_uri()
    browser.get(page)
    wait(browser, "return document.querySelectorAll('.js-plotly-plot').length === arguments[0]", len(CHARTS))
    return page


def wait(browser: Any, condition: str, *arguments: Any, seconds: float = 60) -> None:
    """Waits until JavaScript says that something is so."""
    end = time.monotonic() + seconds
    while not browser.execute_script(condition, *arguments):
        assert time.monotonic() < end, condition
        time.sleep(0.05)


def test_every_chart_is_drawn_and_the_page_loads_nothing(browser: Any, report: str) -> None:
    for chart in CHARTS:
        marks = "return document.getElementById(arguments[0]).querySelectorAll('.trace, .hm, canvas, .point').length"
        assert browser.execute_script(marks, f"run0-{chart}") > 0, chart
        points = "return document.getElementById(arguments[0]).data.map(d => (d.x || d.z).length)"
        assert min(browser.execute_script(points, f"run0-{chart}")) > 0, chart
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
    requested = [
        message["params"]["request"]["url"]
        for message in (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert any(url.startswith("file:") for url in requested)
    assert [url for url in requested if url.startswith(("http", "ws", "ftp"))] == []


def test_a_click_shows_the_architecture_within_two_seconds_of_10_000_candidates(browser: Any, report: str) -> None:
    picked = "return document.getElementById('run0-picked').textContent"
    assert "Candidate" not in browser.execute_script(picked)
    start = time.monotonic()
    browser.execute_script("document.getElementById('run0-front').emit('plotly_click', {points: [{customdata: 4}]});")
    wait(browser, "return document.getElementById('run0-picked').textContent.includes('Candidate 5')")
    assert time.monotonic() - start < 2
    assert browser.execute_script("return document.querySelectorAll('#run0-picked .layer').length") == 8
    rows = "return [...document.querySelectorAll('#run0-picked th[scope=row]')].map(row => row.textContent)"
    stages = ["stage 1, layer 1", "stage 1, layer 2", "stage 2, layer 1"]
    assert browser.execute_script(rows) == [*stages, "layer 1", "layer 2", "layer 3"]
    start = time.monotonic()
    browser.execute_script(
        "const s = document.getElementById('run0-metric'); s.value = 'params'; s.dispatchEvent(new Event('change'))"
    )
    wait(browser, "return document.getElementById('run0-front').layout.xaxis.title.text === 'params'")
    assert time.monotonic() - start < 2


def test_a_click_with_the_mouse_and_the_keyboard_reach_a_candidate(browser: Any, report: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.execute_script("document.getElementById('run0-front').scrollIntoView({block: 'center'})")
    place = browser.execute_script(
        "const c = document.getElementById('run0-front'), b = c.getBoundingClientRect(), front = c.data[1];"
        "const {xaxis, yaxis} = c._fullLayout;"
        "return [b.left + xaxis._offset + xaxis.d2p(front.x[1]), b.top + yaxis._offset + yaxis.d2p(front.y[1])]"
    )
    actions = ActionChains(browser)
    actions.w3c_actions.pointer_action.move_to_location(int(place[0]), int(place[1]))
    actions.w3c_actions.pointer_action.click()
    actions.perform()
    wait(browser, "return document.getElementById('run0-picked').textContent.includes('Candidate ')", seconds=5)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    button = browser.find_element("css selector", "#run0-table button")
    button.send_keys(Keys.ENTER)
    name = button.text.removeprefix("candidate ")
    wait(
        browser,
        "return document.getElementById('run0-picked').textContent.includes(arguments[0])",
        f"Candidate {name}:",
    )


def test_hostile_names_are_text(browser: Any, report: str) -> None:
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert "<img" in browser.execute_script("return document.querySelector('h1').textContent")
    assert "<b>" in browser.execute_script("return document.getElementById('run0-progress').textContent")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_either_scheme(browser: Any, report: str, scheme: str) -> None:
    import axe_core_python

    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.execute_script((Path(axe_core_python.__file__).parent / "axe.min.js").read_text("utf-8"))
    found = browser.execute_async_script(
        "const done = arguments[0]; axe.run().then(r => done(r.violations.map(v => [v.id, v.impact, v.nodes[0].html])))"
    )
    assert [row for row in found if row[1] in ("serious", "critical")] == []


def test_a_phone_scrolls_in_one_direction_only(browser: Any, report: str) -> None:
    size = {"width": 375, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        wait(browser, "return document.documentElement.scrollWidth <= 375", seconds=10)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
