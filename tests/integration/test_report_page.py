"""The report in a real browser: a stored run, its page, and what a reader does."""

import json
import shutil
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from support.report_run import RunBuilder, model, timed
from tlbench.db.store import ResultStore
from tlbench.machine import fingerprint
from tlbench.reports.page import render, write_report
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
    driver.set_script_timeout(120)  # axe looks at each element for milliseconds
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
    rows = browser.find_elements(By.CSS_SELECTOR, "#cases-table tbody tr")
    return [row for row in rows if row.is_displayed()]


def first_cells(browser: Chrome) -> list[str]:
    return [
        row.find_element(By.CSS_SELECTOR, "th").text for row in visible_rows(browser)
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


def choose(browser: Chrome, name: str, value: str) -> None:
    selector = f"#filters select[name={name}]"
    Select(browser.find_element(By.CSS_SELECTOR, selector)).select_by_visible_text(
        value
    )


def test_filter_by_mode_and_by_status(browser: Chrome) -> None:
    choose(browser, "mode", "fit")
    assert len(visible_rows(browser)) == 2
    choose(browser, "status", "not ok")
    assert visible_rows(browser) == []
    choose(browser, "mode", "all")
    assert first_cells(browser) == ["ViT-tiny+TL8@1"]
    browser.find_element(By.CSS_SELECTOR, "#filters [type=reset]").click()
    assert len(visible_rows(browser)) == 4


def test_a_link_shows_the_view_again_and_back_leaves_it(browser: Chrome) -> None:
    browser.find_element(By.ID, "filter").send_keys("tl8")
    choose(browser, "mode", "infer")
    heading = browser.find_element(By.CSS_SELECTOR, "#cases-table thead th")
    heading.find_element(By.TAG_NAME, "button").click()
    browser.find_element(By.ID, "theme").click()
    address = browser.current_url

    browser.get("about:blank")
    browser.get(address)
    assert first_cells(browser) == ["ViT-tiny+TL8@1"]
    assert browser.find_element(By.ID, "filter").get_attribute("value") == "tl8"
    heading = browser.find_element(By.CSS_SELECTOR, "#cases-table thead th")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert brightness(browser) < 150

    browser.find_element(By.ID, "theme").click()
    choose(browser, "mode", "all")
    assert len(visible_rows(browser)) == 2
    browser.back()
    assert len(visible_rows(browser)) == 1
    assert brightness(browser) > 600
    browser.back()
    assert brightness(browser) < 150


def test_every_table_can_be_sorted(browser: Chrome) -> None:
    tables = browser.find_elements(By.TAG_NAME, "table")
    assert len(tables) > 4
    for table in tables:
        headings = table.find_elements(By.CSS_SELECTOR, "thead th")
        buttons = table.find_elements(By.CSS_SELECTOR, "thead th > button")
        assert len(buttons) == len(headings)


def test_sort_works_by_keyboard_in_both_directions(browser: Chrome) -> None:
    heading = next(
        th
        for th in browser.find_elements(By.CSS_SELECTOR, "#cases-table thead th")
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
        row.find_elements(By.TAG_NAME, "td")[0].text for row in visible_rows(browser)
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
    for button in browser.find_elements(By.CSS_SELECTOR, "[data-save], .save"):
        if button.is_displayed():
            button.click()
    csv, data = tmp_path / "tlbench-trials.csv", tmp_path / "tlbench.json"
    table = tmp_path / "tlbench-cases.csv"
    for _ in range(50):
        if all(file.exists() for file in (csv, data, table)):
            break
        evaluate(browser, "new Promise(done => setTimeout(done, 100))")
    trials = pd.read_csv(csv)
    assert len(trials) == 4 * REPEATS
    assert list(trials.query("mode == 'infer'")["batch_size"].unique()) == [8]
    assert set(trials["command"]) == {
        f"tlbench run --only {position}" for position in range(4 * REPEATS)
    }
    downloaded = json.loads(data.read_text())["trials"]
    assert len(downloaded["rows"]) == 4 * REPEATS
    assert "command" in downloaded["columns"]
    of_cases = pd.read_csv(table)
    assert list(of_cases["memory of the steps [bytes]"].dropna()) == [8e8, 5e8]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing_serious(browser: Chrome, scheme: str, width: int) -> None:
    show(browser, width, scheme)
    for details in browser.find_elements(By.CSS_SELECTOR, "details"):
        browser.execute_script("arguments[0].open = true", details)
    axe = files("axe_core_python").joinpath("axe.min.js").read_text()
    browser.execute_script(axe)
    found = browser.execute_async_script(
        # Of each rule that holds one element is enough: all were megabytes.
        "const done = arguments[0]; axe.run({resultTypes: ['violations']}).then(done)"
    )
    assert len(found["passes"]) > 20
    bad = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"]) for v in bad] == []


def test_the_first_key_offers_to_skip_to_the_content(browser: Chrome) -> None:
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    link = browser.switch_to.active_element
    assert link.text == "Skip to the content"
    link.send_keys(Keys.ENTER)
    assert evaluate(browser, "document.activeElement.id") == "content"


def test_list_of_sections_opens_and_closes_by_keyboard(browser: Chrome) -> None:
    show(browser, width=360)
    listed = browser.find_element(By.ID, "contents-list")
    assert not listed.is_displayed()
    button = browser.find_element(By.ID, "contents-button")
    button.send_keys(Keys.ENTER)
    assert listed.is_displayed()
    button.send_keys(Keys.ESCAPE)
    assert not listed.is_displayed()


def test_the_section_that_is_read_is_marked(browser: Chrome, report: Path) -> None:
    browser.get(f"{report.as_uri()}#memory")
    WebDriverWait(browser, 5).until(
        lambda _: marked(browser) == ["Peak memory"], "not marked"
    )


def marked(browser: Chrome) -> list[str]:
    links = browser.find_elements(By.CSS_SELECTOR, "nav a[aria-current]")
    return [link.text for link in links]


def test_a_link_to_a_trial_opens_what_hides_it(browser: Chrome, report: Path) -> None:
    browser.get(f"{report.as_uri()}#trial-1")
    assert browser.find_element(By.ID, "trial-1").is_displayed()


BROKEN_WORDS = """
const broken = [];
for (const cell of document.querySelectorAll("table :is(th, td):not(:first-child)")) {
  const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    for (const word of texts.currentNode.data.matchAll(/[a-z]+/gi)) {
      const range = document.createRange();
      range.setStart(texts.currentNode, word.index);
      range.setEnd(texts.currentNode, word.index + word[0].length);
      if (range.getClientRects().length > 1) broken.push(word[0]);
    }
  }
}
return broken;
"""


def test_paper_has_light_colours_no_controls_and_nothing_cut(browser: Chrome) -> None:
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    a4_at_96_dpi = 794
    show(browser, a4_at_96_dpi)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"media": "print", "features": features}
    )
    try:
        assert brightness(browser) > 600
        for control in ("nav", "#filters", "#theme", ".save"):
            assert not browser.find_element(By.CSS_SELECTOR, control).is_displayed()
        width = evaluate(browser, "document.documentElement.scrollWidth")
        assert width <= a4_at_96_dpi
        assert browser.execute_script(BROKEN_WORDS) == []
        heading = browser.find_element(By.CSS_SELECTOR, "th button")
        assert heading.value_of_css_property("display") == "contents"
        pdf = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
        assert b64decode(pdf["data"]).startswith(b"%PDF")
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


ATTACKS = (
    "<script>document.title = 'broken'</script>",
    "</script><script>document.title = 'broken'</script>",
    "<img src=x onerror=\"document.title = 'broken'\">",
    "<a href=\"javascript:document.title = 'broken'\">here</a>",
    "\" onmouseover=\"document.title = 'broken'",
)


def test_what_users_and_errors_say_is_shown_as_text(
    driver: Chrome, tmp_path: Path
) -> None:
    run = RunBuilder()
    attack = " ".join(ATTACKS)
    for number, text in enumerate(ATTACKS):
        case = Case(model=model(name=f"{text} {number}"), mode="infer")
        run.add(case, timed([1.0, 2.0], 1e9), command=text, notes={text: text})
        run.fail(case, "error", reason=text, traceback=text)
    record = replace(
        run.record, suite=attack, description=attack, note=attack, tags=(attack,)
    )
    page = tmp_path / "attack.html"
    page.write_text(render(replace(run.evidence, runs=[record])))
    log(driver, "browser")
    show(driver, width=1280)
    driver.get(page.as_uri())
    for button in driver.find_elements(By.CSS_SELECTOR, "thead button"):
        driver.execute_script("arguments[0].click()", button)
    assert "broken" not in driver.title.split("<")[0]
    assert driver.find_element(By.TAG_NAME, "h1").text == attack
    assert len(driver.find_elements(By.TAG_NAME, "script")) == 2
    assert driver.find_elements(By.CSS_SELECTOR, "main img, [href^=javascript]") == []
    assert log(driver, "browser") == []


def test_sections_can_be_linked_to(browser: Chrome, report: Path) -> None:
    browser.get(f"{report.as_uri()}#memory")
    top = evaluate(
        browser, "document.getElementById('memory').getBoundingClientRect().top"
    )
    assert 0 <= top < 400
