"""The report in a real browser: a stored run, its page, and what a reader does."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tlbench.db.store import ResultStore
from tlbench.machine import fingerprint
from tlbench.reports.page import write_report
from tlbench.result import Metric, Series, TrialResult
from tlbench.suites.model_spec import ModelSpec, TokenLearnerSpec
from tlbench.suites.spec import Case, Suite, Trial

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMEDRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or CHROMEDRIVER is None,
        reason="needs chromium and chromedriver (Debian: chromium chromium-driver)",
    ),
]

REPEATS = 3


def cases() -> list[Case]:
    models = [
        ModelSpec(
            name="ViT-tiny",
            patch_size=4,
            image_size=32,
            embed_dim=64,
            depth=4,
            num_heads=4,
            mlp_dim=128,
            token_learner=learner,
        )
        for learner in (None, TokenLearnerSpec(num_tokens=8, place=1))
    ]
    return [
        *(Case(model=model, mode="infer") for model in models),
        *(Case(model=model, mode="fit", data="digits") for model in models),
    ]


def result(case: Case, repeat: int) -> TrialResult:
    """Made up: TokenLearner halves the work and nearly doubles the speed."""
    learns = case.model.token_learner is not None
    macs = Metric("macs", 2e8 if learns else 4e8)
    machine = fingerprint()
    if case.mode == "infer" and learns and repeat == REPEATS - 1:
        return TrialResult("oom", reason="out of memory", machine=machine)
    if case.mode == "infer":
        speed = Metric("throughput_samples_per_s", (190 if learns else 100) + repeat)
        memory = Metric("peak_memory_host_growth_bytes", 5e8 if learns else 8e8)
        return TrialResult("ok", metrics=(macs, speed, memory), machine=machine)
    top1 = Metric("top1_percent", (96 if learns else 97) + repeat / 10)
    series = (
        Series("loss", tuple(2 / (1 + step) for step in range(30))),
        Series("eval_top1_percent", (50.0, 80.0, 90.0, 96.0)),
    )
    return TrialResult("ok", metrics=(macs, top1), series=series, machine=machine)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    suite = Suite(
        name="browser", cases=tuple(cases()), repeats={"infer": REPEATS, "fit": REPEATS}
    )
    plan = [(case, repeat) for repeat in range(REPEATS) for case in suite.cases]
    with ResultStore.open(str(folder / "tlbench.db"), create=True) as store:
        run_id = store.begin_run(
            suite=suite, source="browser.yaml", command="tlbench run", planned=len(plan)
        )
        for position, (case, repeat) in enumerate(plan):
            store.add_trial(
                run_id,
                Trial(case=case, repeat=repeat, position=position, seed=repeat),
                result(case, repeat),
                started_at=datetime.now(UTC),
                wall_time_s=1.5,
                command=f"tlbench run --only {position}",
            )
        store.end_run(run_id, "finished")
        with store.session() as session:
            write_report(session, [run_id], folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    options = ChromeOptions()
    assert CHROMIUM is not None
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
    ):
        options.add_argument(argument)
    logging = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", logging)
    driver = Chrome(options=options, service=ChromeService(CHROMEDRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(driver: Chrome, report: Path) -> Chrome:
    """The page, freshly opened from disk in light colours."""
    show(driver, width=1280)
    driver.get(report.as_uri())
    return driver


def show(driver: Chrome, width: int, scheme: str = "light") -> None:
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def visible_rows(browser: Chrome) -> list[WebElement]:
    rows = browser.find_elements(By.CSS_SELECTOR, "#all-cases tbody tr")
    return [row for row in rows if row.is_displayed()]


def first_cells(browser: Chrome) -> list[str]:
    return [
        row.find_element(By.CSS_SELECTOR, "td").text for row in visible_rows(browser)
    ]


def evaluate(browser: Chrome, expression: str) -> Any:
    return browser.execute_script(f"return {expression}")


def log(browser: Chrome, kind: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = browser.get_log(kind)  # type: ignore[no-untyped-call]  # selenium leaves it untyped
    return entries


def brightness(browser: Chrome) -> int:
    colour = evaluate(browser, "getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in colour.strip("rgb()").split(",")[:3])


def test_page_opens_without_an_error_and_without_the_network(browser: Chrome) -> None:
    assert log(browser, "browser") == []
    events = [
        json.loads(entry["message"])["message"] for entry in log(browser, "performance")
    ]
    requested = {
        event["params"]["request"]["url"].partition(":")[0]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert "file" in requested  # the page itself
    assert requested <= {"file", "data"}


def test_filter_leaves_the_rows_with_every_word(browser: Chrome) -> None:
    assert len(visible_rows(browser)) == 4
    field = browser.find_element(By.ID, "filter")
    field.send_keys("INFER tl8")
    assert first_cells(browser) == ["ViT-tiny+TL8@1"]
    assert browser.find_element(By.ID, "shown").text == "1 of 4 cases"


def test_filter_by_mode_and_by_failure(browser: Chrome) -> None:
    browser.find_element(By.ID, "mode").send_keys("fit")
    assert len(visible_rows(browser)) == 2
    browser.find_element(By.ID, "failed").click()
    assert visible_rows(browser) == []
    browser.find_element(By.ID, "mode").send_keys("all")
    assert first_cells(browser) == ["ViT-tiny+TL8@1"]


def test_sort_works_by_keyboard_in_both_directions(browser: Chrome) -> None:
    heading = next(
        th
        for th in browser.find_elements(By.CSS_SELECTOR, "#all-cases th")
        if th.text.startswith("throughput")
    )
    button = heading.find_element(By.TAG_NAME, "button")
    button.send_keys(Keys.ENTER)
    assert heading.get_attribute("aria-sort") == "ascending"
    assert first_cells(browser)[:2] == ["ViT-tiny", "ViT-tiny+TL8@1"]

    button.send_keys(Keys.ENTER)
    assert heading.get_attribute("aria-sort") == "descending"
    assert first_cells(browser)[:2] == ["ViT-tiny+TL8@1", "ViT-tiny"]
    # Those that have no throughput stay last either way.
    modes = [
        row.find_elements(By.TAG_NAME, "td")[1].text for row in visible_rows(browser)
    ]
    assert modes == ["infer", "infer", "fit", "fit"]


def test_theme_follows_the_system_and_then_the_button(browser: Chrome) -> None:
    assert brightness(browser) > 600
    show(browser, width=1280, scheme="dark")
    assert brightness(browser) < 150
    button = browser.find_element(By.ID, "theme")
    assert button.text == "Light"
    button.click()
    assert brightness(browser) > 600


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_body_never_scrolls_sideways(browser: Chrome, width: int) -> None:
    show(browser, width)
    for details in browser.find_elements(By.CSS_SELECTOR, "details"):
        browser.execute_script("arguments[0].open = true", details)
    assert evaluate(browser, "document.documentElement.scrollWidth") <= width


def test_downloads_hold_every_trial(browser: Chrome, tmp_path: Path) -> None:
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior",
        {"behavior": "allow", "downloadPath": str(tmp_path)},
    )
    for button in browser.find_elements(By.CSS_SELECTOR, "[data-download]"):
        button.click()
    csv, data = tmp_path / "tlbench-trials.csv", tmp_path / "tlbench.json"
    for _ in range(50):
        if csv.exists() and data.exists():
            break
        evaluate(browser, "new Promise(done => setTimeout(done, 100))")
    assert len(csv.read_text().splitlines()) == 1 + 4 * REPEATS
    assert len(json.loads(data.read_text())["trials"]["rows"]) == 4 * REPEATS


def test_sections_can_be_linked_to(browser: Chrome, report: Path) -> None:
    browser.get(f"{report.as_uri()}#memory")
    top = evaluate(
        browser, "document.getElementById('memory').getBoundingClientRect().top"
    )
    assert 0 <= top < 400
