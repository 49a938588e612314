"""The report in Markdown: what it says, that it stays text, and that it stays short."""

import re

import pytest

from support.report_run import RunBuilder, model, timed
from tlbench.reports.cases import gather
from tlbench.reports.cells import Cell, Row, Table, word
from tlbench.reports.compare import comparisons
from tlbench.reports.findings import find
from tlbench.reports.markdown import LONGEST, code, escaped, table_lines
from tlbench.reports.markdown_report import MAX_CHARACTERS, markdown_report
from tlbench.reports.verdicts import TIMES
from tlbench.suites.spec import Case

ODD = "<img src=x onerror=alert(1)> | `code` @user #1 &lt; *b* [a](b)"


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def tables(text: str) -> dict[str, list[list[str]]]:
    """The rows of every table, by the heading before it."""
    found: dict[str, list[list[str]]] = {}
    for part in text.split("\n#### ")[1:]:
        title, _, rest = part.partition("\n")
        rows = [line for line in rest.splitlines() if line.startswith("|")]
        found[title] = [
            [unescaped(cell.strip()) for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
            for row in rows
        ]
    return found


def test_it_has_the_answer_the_runs_the_comparisons_and_the_cases(
    smoke: RunBuilder,
) -> None:
    text = markdown_report(smoke.evidence)
    cases = gather([smoke.record], smoke.trials)
    compared = comparisons(cases)
    for finding in find(cases, compared):
        assert f"**{finding.topic}**: {finding.text}" in unescaped(text)
    found = tables(text)
    assert found["Runs"][2][:2] == ["run 1", "smoke"]
    assert found["Machines"][2][1] == "Example CPU, 2 logical cores"
    assert [row[0] for row in found["Comparisons"][2:]] == [
        comparison.other.label for comparison in compared
    ]
    assert [row[0] for row in found["Cases"][2:]] == [case.label for case in cases]
    assert "`tlbench run smoke`" in text


def test_comparisons_tell_ratio_interval_and_verdict(smoke: RunBuilder) -> None:
    rows = tables(markdown_report(smoke.evidence))["Comparisons"]
    first = dict(zip(rows[0], rows[2], strict=True))
    assert first["realised"] == f"1.90{TIMES} (1.90 to 1.90)"
    assert first["verdict"] == "better"


def test_failures_are_told_with_their_reasons(smoke: RunBuilder) -> None:
    smoke.fail(Case(model=model(3), mode="infer"), "oom", "out of\nmemory | here")
    rows = tables(markdown_report(smoke.evidence))["Failures"]
    assert rows[2][3:] == ["oom", "out of memory | here"]


def test_all_rows_of_a_table_have_as_many_cells(smoke: RunBuilder) -> None:
    smoke.fail(Case(model=model(name=ODD), mode="infer"), reason=ODD)
    for rows in tables(markdown_report(smoke.evidence)).values():
        assert len({len(row) for row in rows}) <= 1


@pytest.mark.parametrize("name", [ODD, "``", "a\\|b"])
def test_names_stay_text(run: RunBuilder, name: str) -> None:
    run.add(Case(model=model(name=name), mode="infer"), timed([1.0, 2.0], 1e9))
    text = markdown_report(run.evidence)
    assert tables(text)["Cases"][2][0] == name
    assert "<img" not in text.replace("\\<", "")
    assert not re.search(r"(?<!\\)@user", text)


def test_code_and_words_hold_what_a_forge_would_read() -> None:
    assert code("a`b|c") == r"`` a`b\|c ``"
    assert escaped("a|b <c> *d* @e #1\nf") == r"a\|b \<c\> \*d\* \@e \#1 f"


def test_columns_of_numbers_stand_to_the_right() -> None:
    table = Table(("case", "value"), (Row((word("a"), Cell("1.0", "0.9 to 1.1"))),))
    assert table_lines(table, 5) == [
        "| case | value |",
        "| --- | ---: |",
        "| a | 1.0 (0.9 to 1.1) |",
    ]


def test_rows_left_out_are_counted() -> None:
    table = Table(("case",), tuple(Row((word(str(n)),)) for n in range(7)))
    lines = table_lines(table, 5)
    assert "| 4 |" in lines
    assert "| 5 |" not in lines
    assert lines[-1].startswith("2 more rows are left out")
    assert table_lines(table, 6)[-1].startswith("1 more row is left out")


def test_a_long_cell_is_shortened() -> None:
    (*_, line) = table_lines(Table(("a",), (Row((word("x" * 999),)),)), 1)
    assert len(line) == LONGEST + len("|  |")


def test_a_long_report_is_cut_to_what_a_comment_holds(run: RunBuilder) -> None:
    for batch in range(1, 801):
        case = Case(model=model(), mode="infer", batch_size=batch)
        run.add(case, timed([100.0 + batch, 101.0 + batch], 1e9))
    text = markdown_report(run.evidence)
    assert 0.9 * MAX_CHARACTERS < len(text) <= MAX_CHARACTERS
    shown = len(tables(text)["Cases"]) - 2
    assert f"{800 - shown} more rows are left out" in text
    assert "#### To repeat" in text


def test_a_run_without_trials_has_a_report_that_says_so(run: RunBuilder) -> None:
    assert "no trial is stored" in markdown_report(run.evidence)
