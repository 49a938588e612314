"""How the answer of a comparison is told: words, JSON, Markdown, JUnit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from support.report_run import model
from support.stored_runs import StoredRuns, case, speeds
from tlbench.db.store import ResultStore
from tlbench.errors import ReportError
from tlbench.reports import verdicts
from tlbench.reports.gate import Answer, Question, compare
from tlbench.reports.iso import parse_iso
from tlbench.reports.selection import parse_selection
from tlbench.reports.verdicts import TIMES
from tlbench.suites.spec import Case
from tlbench.units import UNKNOWN

STEADY = (100.0, 101.0, 99.0)
PLAIN, LEARNED = case(), case("ViT-Ti/16+TL8@6")
Ask = Callable[..., Answer]


@pytest.fixture
def ask(store: ResultStore) -> Ask:
    def ask(a: str = "model=ViT-Ti/16", b: str = "model~TL", **question: Any) -> Answer:
        with store.session() as session:
            return compare(
                session, parse_selection(a), parse_selection(b), Question(**question)
            )

    return ask


@pytest.fixture
def three(runs: StoredRuns, ask: Ask) -> Answer:
    """One comparison that is better, one that is worse, and one left open."""
    runs.add(
        (PLAIN, speeds(*STEADY)),
        (LEARNED, speeds(*(2 * value for value in STEADY))),
        (case("ViT-Ti/16+TL2@6"), speeds(*(0.5 * value for value in STEADY))),
        (case("ViT-Ti/16+TL16@6"), speeds(150.0, 90.0, 120.0)),
    )
    return ask()


def test_an_answer_is_told_in_lines(three: Answer) -> None:
    better, worse, open_one = verdicts.lines(three)
    assert better.title == "infer ViT-Ti/16+TL8@6 over ViT-Ti/16"
    assert better.cells[1:] == (
        "100.0",
        "200.0",
        f"2.00{TIMES}",
        "2.00 to 2.00",
        "better",
    )
    assert better.notes[0].startswith("3 pairs, ")
    assert worse.verdict == "worse"
    assert open_one.verdict == "inconclusive"
    assert "more repeats of each side should settle it, about " in open_one.notes[-1]


def test_the_introduction_says_what_is_compared_and_where(three: Answer) -> None:
    assert verdicts.introduction(three) == [
        "throughput [samples/s], higher is better, iso-batch",
        "A: model=ViT-Ti/16, run 1 (made)",
        "B: model~TL, run 1 (made)",
    ]


def test_the_conclusion_names_what_is_not_compared(runs: StoredRuns, ask: Ask) -> None:
    train = case(mode="train")
    fit = case(mode="fit", data="digits")
    runs.add((PLAIN, speeds(*STEADY)), (train, speeds(*STEADY)), (fit, [{"loss": 1.0}]))
    runs.add((PLAIN, speeds(*STEADY)), (LEARNED, speeds(*STEADY)))
    told = verdicts.conclusion(ask("1", "2"))
    assert told == [
        "95 % intervals; equivalent: within 2 %; noise floor: 1 %",
        "only in A: train ViT-Ti/16",
        "only in B: infer ViT-Ti/16+TL8@6",
        "without throughput_samples_per_s: fit ViT-Ti/16",
    ]


def test_notes_tell_what_makes_a_verdict_weak(runs: StoredRuns, ask: Ask) -> None:
    big = case("ViT-Ti/16+TL8@6", batch_size=64)
    timed = [{"throughput_samples_per_s": v, "step_time_p50_s": 1e-3} for v in STEADY]
    runs.add((PLAIN, timed), validity={0: "suspect"})
    runs.add((big, timed), validity={0: "invalid"}, failed={1: "timeout"})
    (line,) = verdicts.lines(ask(iso=parse_iso("latency=50ms")))
    assert line.notes[1:6] == (
        "batch 8 and 64",
        "A: 1 suspect",
        "B: 1 timeout",
        "B: 1 invalid, left out",
        "not of one run: drift between them is in the ratio",
    )


def test_notes_count_what_has_no_partner(runs: StoredRuns, ask: Ask) -> None:
    runs.add((PLAIN, speeds(*STEADY, 100.0)), (LEARNED, speeds(*STEADY)))
    (line,) = verdicts.lines(ask())
    assert "A: 1 without a partner in their block, left out" in line.notes


def test_notes_tell_of_batches_that_runs_found_apart(
    runs: StoredRuns, ask: Ask
) -> None:
    for batch in (40, 48):
        measured = [
            {"throughput_samples_per_s": v, "max_batch_size": batch} for v in STEADY
        ]
        runs.add(
            (case(batch_size="max"), measured),
            (case("ViT-Ti/16+TL8@6", batch_size="max"), measured),
        )
    (line,) = verdicts.lines(ask("model=ViT-Ti/16,run=1,run=2", "model~TL,run=2"))
    assert "A: trials at batches of 40 and 48 are taken together" in line.notes


def test_a_run_that_did_not_finish_is_introduced_as_such(
    runs: StoredRuns, ask: Ask
) -> None:
    runs.add((PLAIN, speeds(*STEADY)))
    runs.add((PLAIN, speeds(*STEADY)), ended="interrupted")
    assert verdicts.introduction(ask("1", "2"))[1:] == [
        "A: run 1 (made)",
        "B: run 2 (made, interrupted, 3 of 3 trials)",
    ]


def test_a_case_that_a_whole_run_lacks_is_a_failure(runs: StoredRuns, ask: Ask) -> None:
    runs.add((PLAIN, speeds(*STEADY)), (LEARNED, speeds(*STEADY)))
    runs.add((PLAIN, speeds(*STEADY)))
    answer = ask("1", "2")
    (suite,) = ElementTree.fromstring(verdicts.junit(answer, ["worse"]))
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert suite[1].get("name") == "infer ViT-Ti/16+TL8@6"
    assert suite[1][0].get("message") == "B does not have it"
    assert verdicts.describe(answer, ["worse"])["missing"] == ["infer ViT-Ti/16+TL8@6"]
    assert verdicts.describe(answer)["missing"] == []


def test_a_side_without_a_value_says_why(runs: StoredRuns, ask: Ask) -> None:
    runs.add((PLAIN, speeds(1)), (LEARNED, speeds(1)), failed={1: "oom"})
    (line,) = verdicts.lines(ask())
    assert line.cells[1:] == ("1.000", UNKNOWN, UNKNOWN, UNKNOWN, "inconclusive")
    assert "B: no trial ended well: 1 oom" in line.notes


def test_json_has_everything_a_program_asks_for(three: Answer) -> None:
    told = json.loads(json.dumps(verdicts.describe(three, ["worse"])))
    assert [item["verdict"] for item in told["comparisons"]] == [
        *("better", "worse", "inconclusive"),
    ]
    assert [item["fails"] for item in told["comparisons"]] == [False, True, False]
    first = told["comparisons"][0]
    assert first["ratio"] == pytest.approx(2)
    assert first["a"]["case"] == PLAIN.identity
    assert first["b"]["runs"] == [1]
    assert first["p_value"] <= first["adjusted_p_value"] <= 0.05
    assert told["comparisons"][2]["more_repeats"] > 0


def markdown_cells(row: str) -> list[str]:
    """The cells of a row of a table as GitHub reads it: escaped bars end none."""
    return [
        cell.replace("\0", "|").strip()
        for cell in row.replace("\\|", "\0").strip("| ").split("|")
    ]


def test_markdown_has_a_table(three: Answer) -> None:
    text = verdicts.markdown(three)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 3
    assert {len(markdown_cells(row)) for row in table} == {6}
    assert markdown_cells(table[2])[-1] == "better"


def test_names_cannot_break_the_table_or_mention_anyone(
    runs: StoredRuns, ask: Ask
) -> None:
    for_free, odd = model(name="plain"), model(1, name="a|b`c`*d*<e>")
    runs.add(
        (Case(model=for_free, mode="infer"), speeds(*STEADY)),
        (Case(model=odd, mode="infer"), speeds(*STEADY)),
    )
    text = verdicts.markdown(ask("model=plain", "model~TL"))
    row = next(line for line in text.splitlines() if line.startswith("| ``"))
    title = markdown_cells(row)[0]
    assert title == "`` infer a|b`c`*d*<e>+TL8@1 over plain ``"
    prose = [line for line in text.splitlines() if line.startswith(("A:", "B:"))]
    assert prose[1] == r"B: model\~TL, run 1 (made)  "


def test_junit_has_a_test_a_comparison(three: Answer) -> None:
    root = ElementTree.fromstring(verdicts.junit(three, ["worse"]))
    (suite,) = root
    assert {k: suite.get(k) for k in ("tests", "failures", "skipped", "errors")} == {
        "tests": "3",
        "failures": "1",
        "skipped": "1",
        "errors": "0",
    }
    outcomes = [[child.tag for child in test] for test in suite]
    assert outcomes == [["system-out"], ["failure"], ["skipped"]]
    message = suite[1][0].get("message")
    assert message == f"worse: 0.500{TIMES} (0.500 to 0.500)"


def test_an_open_comparison_fails_only_where_that_is_asked_for(three: Answer) -> None:
    root = ElementTree.fromstring(verdicts.junit(three, ["inconclusive"]))
    assert [child.tag for test in root[0] for child in test] == [
        *("system-out", "system-out", "failure"),
    ]


def test_what_xml_cannot_carry_is_replaced() -> None:
    text = verdicts._clean("a\x00b\x1b[31mc\ud800d\ue000é")
    assert ElementTree.fromstring(f"<a>{text}</a>").text == "a�b�[31mc�d\ue000é"


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"absent/a\.md: cannot be written: No such"):
        verdicts.write("text", tmp_path / "absent" / "a.md")
