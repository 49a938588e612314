import json
import re
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import lxml.html  # type: ignore[import-untyped]  # lxml has no types
import pytest
from lxml.html import HtmlElement

from support.machine import MACHINE
from support.report_run import RunBuilder, model, smoke_run, timed
from tlbench.db.store import ResultStore
from tlbench.errors import ReportError, StoreError
from tlbench.reports.cases import Names, gather
from tlbench.reports.contents import PLACES
from tlbench.reports.drawing import SERIES, NoChart
from tlbench.reports.page import render, write_report
from tlbench.reports.publication.figures import FIGURES
from tlbench.reports.sections import sections
from tlbench.result import Metric, TrialResult
from tlbench.suites.model_spec import BuilderSpec
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Suite, Trial

ATTACK = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def page() -> HtmlElement:
    return lxml.html.document_fromstring(render(smoke_run().evidence))


def raw_data(page: HtmlElement) -> dict[str, object]:
    data: dict[str, object] = json.loads(page.get_element_by_id("data").text)
    return data


def case_rows(page: HtmlElement) -> list[dict[str, HtmlElement]]:
    table = page.get_element_by_id("cases-table")
    headings = [th.text_content() for th in table.iterfind("thead//th")]
    return [
        dict(zip(headings, row.iterchildren(), strict=True))
        for row in table.iterfind("tbody/tr")
    ]


def test_sections_come_in_the_order_of_questions(page: HtmlElement) -> None:
    names = [heading.get("id") for heading in page.iterfind(".//main//h2")]
    assert names == sorted(names, key=PLACES.__getitem__)
    assert {"accuracy", "speed-up", "memory", "training", "claims"} < set(names)
    assert names[:2] == ["asked", "answer"]
    assert names[-4:] == ["cases", "failures", "method", "provenance"]
    links = [link.get("href") for link in page.iterfind(".//nav//a")]
    assert links == [f"#{name}" for name in names]


def test_every_figure_of_the_publication_has_a_place_on_the_page() -> None:
    assert {figure.name for figure in FIGURES} <= set(PLACES)


def test_cost_is_a_section_of_runs_that_counted_it(run: RunBuilder) -> None:
    case = Case(model=model(), mode="profile")
    run.add(case, [{"params": 1e6, "macs": 2e9, "counter_macs": 2e9}])
    page = lxml.html.document_fromstring(render(run.evidence))
    heading = page.get_element_by_id("cost")
    assert heading.text_content() == "Cost, checked"
    table = heading.getparent().find(".//table")
    cells = [cell.text for cell in table.find("tbody/tr").iterchildren()]
    assert cells[0] == "ViT-tiny"
    assert cells[2:4] == ["2.000", "2.000"]
    assert "is counted by torch alone" in heading.getparent().findtext("p")
    assert "#cost" in [link.get("href") for link in page.iterfind(".//nav//a")]


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
    place = int(cell.findtext("sup")) - 1
    reasons = page.get_element_by_id("cases").getparent().findall(".//ol/li")
    reason = "mode infer runs random weights, which have no accuracy"
    assert reasons[place].text == reason


def test_raw_data_holds_every_trial_as_it_is_stored(page: HtmlElement) -> None:
    table = raw_data(page)["trials"]
    assert isinstance(table, dict)
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    stored = {trial.id: trial for trial in smoke_run().trials}
    assert {row["trial_id"] for row in rows} == set(stored)
    cases = raw_data(page)["cases"]
    assert isinstance(cases, dict)
    mode = cases["columns"].index("mode")
    for row in rows:
        trial = stored[row["trial_id"]]
        assert cases["rows"][row["case_row"]][mode] == trial.case.mode
        for name, value in trial.metrics.items():
            assert row[name] == value


def test_every_trial_has_the_command_that_repeats_it(page: HtmlElement) -> None:
    commands = {code.text for code in page.iterfind(".//code")}
    assert commands == {trial.command for trial in smoke_run().trials}


def test_every_trial_case_and_failure_can_be_linked_to(run: RunBuilder) -> None:
    case = Case(model=model(), mode="infer")
    run.add(case, timed([1.0, 2.0], 1e9))
    run.fail(case)
    page = lxml.html.document_fromstring(render(run.evidence))
    ids = set(page.xpath("//@id"))
    assert {f"trial-{trial.id}" for trial in run.trials} <= ids
    assert f"failure-{run.trials[-1].id}" in ids
    assert f"case-1-1-{case.identity[:12]}" in ids
    linked = {href[1:] for href in page.xpath("//a/@href")}
    assert linked <= ids


def test_every_table_has_a_caption_and_headings_of_rows(page: HtmlElement) -> None:
    tables = page.findall(".//table")
    captions = [table.findtext("caption") for table in tables]
    assert all(captions)
    assert len(set(captions)) == len(captions)
    for table in tables:
        assert {th.get("scope") for th in table.iterfind("thead//th")} == {"col"}
        for row in table.iterfind("tbody/tr"):
            assert [cell.get("scope") for cell in row.iterfind("th")] == ["row"]


def test_a_download_names_the_unit_of_its_values(page: HtmlElement) -> None:
    (row,) = (
        r for r in case_rows(page)
        if r["mode"].text == "infer" and r["case"].text == "ViT-tiny+TL8@1"
    )  # fmt: skip
    table = page.get_element_by_id("cases-table")
    names = {
        th.text: th.get("data-download", th.text) for th in table.iterfind("thead//th")
    }
    assert names["latency p50 [ms]"] == "latency p50 [s]"
    assert float(row["latency p50 [ms]"].get("data-key")) == 1 / 199.5
    assert names["memory of the steps [MiB]"] == "memory of the steps [bytes]"
    assert float(row["memory of the steps [MiB]"].get("data-key")) == 4e8
    assert names["throughput [samples/s]"] == "throughput [samples/s]"


def test_cases_can_be_chosen_by_what_tells_them_apart(smoke: RunBuilder) -> None:
    smoke.fail(smoke.cases[0])
    page = lxml.html.document_fromstring(render(smoke.evidence))
    choices = {
        select.get("name"): [option.text for option in select.iterfind("option")][1:]
        for select in page.get_element_by_id("filters").iterfind(".//select")
    }
    assert choices == {
        "model": ["ViT-tiny", "ViT-tiny+TL8@1", "ViT-tiny+TL8@2"],
        "mode": ["infer", "train", "fit"],
        "batch": ["8", "32"],
        "status": ["ok", "oom", "not ok"],
    }


def test_tags_notes_and_names_of_runs_are_shown(run: RunBuilder) -> None:
    run.add(Case(model=model(), mode="infer"), timed([1.0], 1e9))
    evidence = run.evidence
    record = replace(evidence.runs[0], tags=("nightly", "<b>"), note="fan was off")
    names = Names({1: "run 7 of a.db"}, {1: "bench-01 (machine 4)"})
    html = render(replace(evidence, runs=[record], names=names))
    page = lxml.html.document_fromstring(html)
    assert [tag.text for tag in page.find_class("tag")] == ["nightly", "<b>"]
    assert page.find_class("remark")[0].text == "fan was off"
    assert "7 of a.db" in page.get_element_by_id("asked").getparent().text_content()
    assert "bench-01 (machine 4)" in page.text_content()


def test_only_the_script_of_the_page_may_run(page: HtmlElement) -> None:
    (policy,) = page.xpath("//meta[@http-equiv]/@content")
    script = page.findall(".//script")[-1].text
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy


def relative_luminance(colour: str) -> float:
    """As WCAG 2.2 defines it, of `#rrggbb`."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((relative_luminance(one), relative_luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_definition() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_stand_out_from_the_paper(theme: str) -> None:
    style = files("tlbench.reports.templates").joinpath("style.css").read_text()
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)
    colours = {name: pair[theme == "dark"] for name, *pair in pairs}
    series = [colour for name, colour in colours.items() if name.startswith("series")]
    assert len(series) == len(SERIES)
    for colour in (*series, colours["control"]):
        assert contrast(colour, colours["paper"]) >= 3
    for text in ("ink", "muted", "link", "alarm"):
        assert contrast(colours[text], colours["paper"]) >= 4.5
    for text in ("ink", "muted", "link"):
        assert contrast(colours[text], colours["raised"]) >= 4.5
    assert contrast(colours["alarm"], colours["alarm-paper"]) >= 4.5
    if theme == "light":
        assert series == list(SERIES)


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

    asked = replace(evidence.runs[0], description=ATTACK, tags=(ATTACK,), note=ATTACK)

    html = render(replace(evidence, machines=[record], runs=[asked]))

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


def test_without_training_no_empty_picture_of_accuracy_comes_first(
    run: RunBuilder,
) -> None:
    case = Case(model=parse_model("ViT-B/16"), mode="infer")
    run.add(case, [{"throughput_samples_per_s": 2.0}])
    told = {s.name: s for s in sections(gather([run.record], run.trials), [], [], {})}
    assert "accuracy" not in told
    assert isinstance(told["training"].chart, NoChart)
