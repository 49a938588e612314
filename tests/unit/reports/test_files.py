"""Files of a report: whole or not at all, and not over others."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from support.report_run import RunBuilder, model
from tlbench.cli import app
from tlbench.db.store import ResultStore
from tlbench.errors import ReportError
from tlbench.reports.cases import gather
from tlbench.reports.chart_files import ChartFolder, write_charts
from tlbench.reports.claims.judge import judge
from tlbench.reports.compare import comparisons
from tlbench.reports.drawing import Chart
from tlbench.reports.files import (
    check_destination,
    form_of,
    write_folder,
    write_whole,
)
from tlbench.reports.sections import Section, sections
from tlbench.suites.spec import Case


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "report.md"
    for content in (b"old", b"new"):
        write_whole(file, content)
        assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(ReportError, match="taken: it cannot be written there"):
        write_whole(tmp_path / "taken", b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]


def test_no_report_is_written_over_a_database(tmp_path: Path) -> None:
    file = tmp_path / "tlbench.db"
    ResultStore.open(str(file), create=True).close()
    with pytest.raises(ReportError, match=r"tlbench\.db is a database, and stays"):
        check_destination(file)


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.html", "html"), ("a.MD", "markdown"), ("a", "html"), ("-", "html")],
)
def test_the_name_of_a_report_says_what_it_holds(name: str, form: str) -> None:
    assert form_of(Path(name)) == form


def test_a_report_of_another_kind_is_refused_before_a_run(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"a\.pdf: no report is written as \.pdf"):
        form_of(tmp_path / "a.pdf")
    command = ["run", "smoke", "--report", str(tmp_path / "a.pdf")]
    result = CliRunner().invoke(app, [*command, "--db", str(tmp_path / "t.db")])
    assert isinstance(result.exception, ReportError)
    assert not list(tmp_path.iterdir())


def test_files_are_not_written_over_others_and_then_none_is(tmp_path: Path) -> None:
    (tmp_path / "b.svg").write_bytes(b"of somebody")
    with pytest.raises(ReportError, match=r"b\.svg is there already .* --force"):
        write_folder(tmp_path, {"a.svg": b"a", "b.svg": b"b"})
    assert not (tmp_path / "a.svg").exists()
    assert (tmp_path / "b.svg").read_bytes() == b"of somebody"


def test_the_same_files_may_be_written_again_and_others_by_force(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "new" / "figures"
    write_folder(folder, {"a.svg": b"a"})
    assert write_folder(folder, {"a.svg": b"a"}) == [folder / "a.svg"]
    write_folder(folder, {"a.svg": b"other"}, is_forced=True)
    assert (folder / "a.svg").read_bytes() == b"other"


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "figures").write_text("a file")
    with pytest.raises(ReportError, match="figures: is no folder"):
        write_folder(tmp_path / "figures", {"a.svg": b"a"})


def sections_of(run: RunBuilder) -> list[Section]:
    cases = gather([run.record], run.trials)
    compared = comparisons(cases)
    return sections(cases, compared, judge(cases, compared), run.curves)


def test_every_chart_is_a_file_named_by_its_section(
    smoke: RunBuilder, tmp_path: Path
) -> None:
    told = sections_of(smoke)
    write_charts(told, ChartFolder(tmp_path))
    drawn = {f"{s.name}.svg" for s in told if isinstance(s.chart, Chart)}
    assert {file.name for file in tmp_path.iterdir()} == drawn
    assert {"accuracy.svg", "throughput.svg", "speed-up.svg", "memory.svg"} <= drawn
    for file in tmp_path.iterdir():
        assert file.read_bytes().startswith(b"<?xml")


def test_nothing_to_draw_is_told(run: RunBuilder, tmp_path: Path) -> None:
    run.fail(Case(model=model(), mode="infer"))
    with pytest.raises(ReportError, match="nothing was measured"):
        write_charts(sections_of(run), ChartFolder(tmp_path / "figures"))
    assert not (tmp_path / "figures").exists()
