import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import lxml.html  # type: ignore[import-untyped]  # lxml has no types
import pytest
from lxml.html import HtmlElement

from support.machine import MACHINE
from support.report_run import RunBuilder, model, smoke_run, timed
from tlbench.db.store import ResultStore
from tlbench.errors import ReportError, StoreError
from tlbench.reports.page import render, write_report
from tlbench.result import Metric, TrialResult
from tlbench.suites.model_spec import BuilderSpec
from tlbench.suites.spec import Case, Suite, Trial

ATTACK = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def page() -> HtmlElement:
    return lxml.html.document_fromstring(render(smoke_run().evidence))


def raw_data(page: HtmlElement) -> dict[str, object]:
    data: dict[str, object] = json.loads(page.get_element_by_id("data").text)
    return data


def case_rows(page: HtmlElement) -> list[dict[str, HtmlElement]]:
    table = page.get_element_by_id("all-cases")
    headings = [th.text_content() for th in table.iterfind(".//th")]
    return [
        dict(zip(headings, row.iterfind("td"), strict=True))
        for row in table.iterfind("tbody/tr")
    ]


def test_sections_come_in_the_order_of_questions(page: HtmlElement) -> None:
    names = [heading.get("id") for heading in page.iterfind(".//h2")]
    assert names == [
        "asked", "answer", "accuracy", "throughput", "speed-up", "stages",
        "memory", "training", "trust", "cases", "failures", "method", "provenance",
    ]  # fmt: skip
    links = [link.get("href") for link in page.iterfind(".//nav/a")]
    assert links == [f"#{name}" for name in names]


def test_cost_is_a_section_of_runs_that_counted_it(run: RunBuilder) -> None:
    case = Case(model=model(), mode="profile")
    run.add(case, [{"params": 1e6, "macs": 2e9, "counter_macs": 2e9}])
    page = lxml.html.document_fromstring(render(run.evidence))
    heading = page.get_element_by_id("cost")
    assert heading.text_content() == "Cost, checked"
    table = heading.getparent().find(".//table")
    cells = [td.text for td in table.iterfind("tbody/tr/td")]
    assert cells[0] == "ViT-tiny"
    assert cells[2:4] == ["2.000", "2.000"]
    assert "is counted by torch alone" in heading.getparent().findtext("p")
    assert "#cost" in [link.get("href") for link in page.iterfind(".//nav/a")]


def test_the_answer_counts_its_sentences(run: RunBuilder) -> None:
    def answer() -> str:
        page = lxml.html.document_fromstring(render(run.evidence))
        return str(page.get_element_by_id("answer").text_content())

    builder = BuilderSpec(function="tome", options={"r": 2})
    tome = model().model_copy(update={"builder": builder})
    for spec, speed in ((model(), 100.0), (model(1), 180.0)):
        run.add(Case(model=spec, mode="infer"), timed([speed, speed], 1e9))
    assert answer() == "The answer in three sentences"
    run.add(Case(model=tome, mode="infer"), timed([150.0, 150.0], 1e9))
    assert answer() == "The answer in four sentences"


def test_table_shows_the_numbers_of_the_records(page: HtmlElement) -> None:
    rows = case_rows(page)
    assert len(rows) == 9
    row = next(
        r for r in rows
        if r["mode"].text == "infer" and r["case"].text == "ViT-tiny+TL8@1"
    )  # fmt: skip
    assert row["trials"].text == "3 ok"
    assert row["compute [GMACs]"].text == "0.2000"
    assert row["throughput [samples/s]"].text == "199.5"
    assert row["throughput [samples/s]"].get("data-key") == "199.5"
    # Geometric mean of 190, 209 and 199.5, times exp(+-4.303 * standard error).
    assert row["throughput [samples/s]"].findtext("small") == "177 to 224"
    assert row["speed-up"].text == "1.90\N{MULTIPLICATION SIGN}"


def test_a_missing_value_is_a_dash_with_its_reason(page: HtmlElement) -> None:
    row = next(r for r in case_rows(page) if r["mode"].text == "infer")
    cell = row["top-1 [%]"]
    assert cell.text == "\N{EN DASH}"
    assert cell.get("title") == "mode infer runs random weights, which have no accuracy"


def test_raw_data_holds_every_trial_as_it_is_stored(page: HtmlElement) -> None:
    table = raw_data(page)["trials"]
    assert isinstance(table, dict)
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    stored = {trial.id: trial for trial in smoke_run().trials}
    assert {row["trial_id"] for row in rows} == set(stored)
    for row in rows:
        trial = stored[row["trial_id"]]
        assert row["command"] == trial.command
        for name, value in trial.metrics.items():
            assert row[name] == value


def test_every_trial_has_the_command_that_repeats_it(page: HtmlElement) -> None:
    commands = {code.text for code in page.iterfind(".//code")}
    assert commands == {trial.command for trial in smoke_run().trials}


def test_page_says_where_it_ran_and_with_what(page: HtmlElement) -> None:
    text = page.text_content()
    for fact in ("bench-01", "8.00 GiB", "2.9.0", "0123abc", "tlbench run smoke"):
        assert fact in text
    assert "with uncommitted changes" in text


def test_page_asks_the_network_for_nothing(smoke: RunBuilder) -> None:
    html = render(smoke.evidence)
    assert not re.search(r"https?://", html)
    assert not re.search(r'(?:src|href)="(?!#|data:,)', html)
    assert not re.search(r"@import|url\((?!#)", html)
    assert "default-src 'none'" in html


def test_ids_are_unique(page: HtmlElement) -> None:
    ids = page.xpath("//@id")
    assert len(ids) == len(set(ids))


def test_whatever_users_and_errors_say_is_shown_as_text(run: RunBuilder) -> None:
    case = Case(model=model(name=ATTACK), mode="infer")
    run.suite = ATTACK
    run.add(case, timed([1.0, 2.0], 1e9), command=ATTACK, notes={ATTACK: ATTACK})
    run.fail(case, "error", reason=ATTACK, traceback=f"Traceback:\n  {ATTACK}")
    evidence = run.evidence
    machine = replace(MACHINE, hostname=ATTACK, cpu_model=ATTACK)
    record = replace(evidence.machines[0], machine=machine)

    html = render(replace(evidence, machines=[record]))

    assert "<script>alert" not in html
    page = lxml.html.document_fromstring(html)
    assert [script.get("type") for script in page.iter("script")] == [
        "application/json",
        None,
    ]
    assert page.findtext(".//h1") == ATTACK
    assert ATTACK in page.find(".//pre").text_content()
    failure = page.find_class("failure")[0]
    assert failure.text_content().count(ATTACK) == 3  # model, reason and traceback
    assert ATTACK in json.dumps(raw_data(page))


def test_failures_show_status_reason_and_traceback(run: RunBuilder) -> None:
    case = Case(model=model(), mode="infer")
    run.fail(case, "timeout", reason="took over 5 s", traceback="Traceback: line 1")
    page = lxml.html.document_fromstring(render(run.evidence))
    (failure,) = page.find_class("failure")
    assert failure.find_class("status")[0].text == "timeout"
    assert "took over 5 s" in failure.text_content()
    assert failure.findtext("details/pre") == "Traceback: line 1"


def test_a_run_without_trials_gives_a_page_that_says_so(run: RunBuilder) -> None:
    run.planned = 9
    text = lxml.html.document_fromstring(render(run.evidence)).text_content()
    assert "9 of its 9 trials are not stored" in text
    assert "No trial is stored for this run yet." in text
    assert "No trial reached a machine." in text


def test_values_that_are_no_numbers_do_not_break_the_data(run: RunBuilder) -> None:
    case = Case(model=model(), mode="train")
    run.add(case, [{"loss": float("nan"), "macs": 1e9}, {"loss": float("inf")}])
    page = lxml.html.document_fromstring(render(run.evidence))
    table = raw_data(page)["trials"]
    assert isinstance(table, dict)
    place = table["columns"].index("loss")
    assert [row[place] for row in table["rows"]] == [None, None]


def store_run(location: Path) -> None:
    case = Case(model=model(), mode="infer")
    suite = Suite(name="stored", cases=(case,), repeats={"infer": 1})
    result = TrialResult(
        "ok",
        metrics=(Metric("throughput_samples_per_s", 123.4), Metric("macs", 1e9)),
        machine=MACHINE,
    )
    with ResultStore.open(str(location), create=True) as store:
        run_id = store.begin_run(
            suite=suite, source="stored.yaml", command="tlbench run", planned=1
        )
        store.add_trial(
            run_id,
            Trial(case=case, repeat=0, position=0, seed=0),
            result,
            started_at=datetime.now(UTC),
            wall_time_s=1.0,
            command="tlbench run --only 0",
        )
        store.end_run(run_id, "finished")


@pytest.fixture
def database(tmp_path: Path) -> ResultStore:
    location = tmp_path / "tlbench.db"
    store_run(location)
    return ResultStore.open(str(location), read_only=True)


def test_report_of_a_stored_run_is_written(
    database: ResultStore, tmp_path: Path
) -> None:
    destination = tmp_path / "report.html"
    destination.write_text("an older report")
    with database, database.session() as session:
        write_report(session, [1], destination)
    assert "123.4" in destination.read_text()
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".db", ".html"]


def test_report_that_cannot_be_written_is_one_sentence(
    database: ResultStore, tmp_path: Path
) -> None:
    destination = tmp_path / "missing" / "report.html"
    with (
        database,
        database.session() as session,
        pytest.raises(
            ReportError, match=r"report\.html: there is no folder .*missing$"
        ),
    ):
        write_report(session, [1], destination)


def test_report_is_not_written_over_a_folder(
    database: ResultStore, tmp_path: Path
) -> None:
    with (
        database,
        database.session() as session,
        pytest.raises(ReportError, match="needs a file"),
    ):
        write_report(session, [1], tmp_path)


def test_report_of_a_run_that_is_not_there_names_those_that_are(
    database: ResultStore, tmp_path: Path
) -> None:
    with (
        database,
        database.session() as session,
        pytest.raises(StoreError, match="1"),
    ):
        write_report(session, [7], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
