from pathlib import Path

import lxml.html  # type: ignore[import-untyped]  # lxml has no types
import pytest

from support.stored_runs import StoredRuns, case, speeds
from tlbench.db.store import ResultStore
from tlbench.errors import ReportError
from tlbench.reports.against import against_finding, against_table, compare_with
from tlbench.reports.page import write_report

STEADY = (0.99, 1.0, 1.01, 1.0)


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    """Two runs: the plain model as it was, TokenLearner a tenth slower."""
    store = ResultStore.open(str(tmp_path / "tlbench.db"), create=True)
    runs = StoredRuns(store)
    for learner in (200.0, 180.0):
        runs.add(
            (case("ViT-Ti/16"), speeds(*(100 * x for x in STEADY))),
            (case("ViT-Ti/16+TL8@6"), speeds(*(learner * x for x in STEADY))),
        )
    return store


def test_every_case_has_both_values_and_a_verdict(store: ResultStore) -> None:
    with store, store.session() as session:
        table = against_table(compare_with(session, "1", [2]))
    rows = [dict(zip(table.headings, row.cells, strict=True)) for row in table.rows]
    assert [row["verdict"].text for row in rows] == ["equivalent", "worse"]
    slower = rows[1]
    assert (slower["run 1"].key, slower["now"].key) == (200.0, 180.0)
    assert slower["now over then"].key == pytest.approx(0.9)


def test_the_sentence_counts_the_verdicts_and_names_the_worst(
    store: ResultStore,
) -> None:
    with store, store.session() as session:
        finding = against_finding(compare_with(session, "1", [2]))
    assert finding.text == (
        "Of 2 cases compared with run 1 by throughput: 1 equivalent, 1 worse; the worst"
        " is infer ViT-Ti/16+TL8@6, at 0.900 times what it was."
    )


def test_the_page_has_a_section_and_a_fourth_sentence(
    store: ResultStore, tmp_path: Path
) -> None:
    with store, store.session() as session:
        write_report(session, [2], tmp_path / "report.html", base="1")
    page = lxml.html.parse(tmp_path / "report.html").getroot()
    assert page.get_element_by_id("against").text_content() == "Against run 1"
    answer = page.get_element_by_id("answer").text_content()
    assert answer == "The answer in four sentences"


def test_runs_without_a_case_in_common_are_refused(store: ResultStore) -> None:
    with store:
        StoredRuns(store).add((case("ViT-S/16"), speeds(1.0, 2.0)))
        with (
            store.session() as session,
            pytest.raises(ReportError, match="run 1 and run 3 have no case in common"),
        ):
            compare_with(session, "1", [3])
