"""What the report says about how far each case may be trusted."""

import math
from typing import Any

import pytest

from support.report_run import RunBuilder, model, timed, trained
from tlbench.reports.cases import gather
from tlbench.reports.compare import comparisons
from tlbench.reports.tables import case_table, comparison_table
from tlbench.reports.trust import trust_table
from tlbench.suites.spec import Case

PLAIN = Case(model=model(), mode="infer")
LEARNED = Case(model=model(1), mode="infer")
SLOWING: dict[str, Any] = {
    "validity": "suspect",
    "doubts": ("its steps are slowing",),
    "notes": {"steady_state": "slowing", "stopped_by": "max_time"},
}


@pytest.fixture
def doubted(run: RunBuilder) -> RunBuilder:
    """A case with two good trials and a suspect one, and one without doubts."""
    run.add(PLAIN, timed([100.0, 102.0], 4e8))
    run.add(PLAIN, timed([90.0], 4e8), repeat=2, **SLOWING)
    run.add(LEARNED, timed([190.0, 200.0, 195.0], 2e8))
    return run


def rows(run: RunBuilder) -> list[dict[str, str]]:
    table = trust_table(gather([run.record], run.trials))
    return [
        dict(zip(table.headings, (cell.text for cell in row.cells), strict=True))
        for row in table.rows
    ]


def test_trials_are_counted_by_how_they_were_judged(doubted: RunBuilder) -> None:
    plain, learned = rows(doubted)
    assert plain["validity"] == "2 valid, 1 suspect"
    assert plain["steps are"] == "2 flat, 1 slowing"
    assert plain["stopped by"] == "2 interval, 1 max_time"
    assert plain["doubts"] == "its steps are slowing"
    assert (learned["validity"], learned["steps are"]) == ("3 valid", "flat")
    assert learned["doubts"] == "none"


def test_spread_is_that_of_the_logarithms(doubted: RunBuilder) -> None:
    logs = [math.log(value) for value in (190.0, 200.0, 195.0)]
    mean = sum(logs) / 3
    deviation = math.sqrt(sum((x - mean) ** 2 for x in logs) / 2)
    shown = float(rows(doubted)[1]["trials apart by [%]"])
    assert shown == pytest.approx(100 * deviation, rel=0.005)


def test_one_trial_has_no_spread(run: RunBuilder) -> None:
    run.add(PLAIN, timed([100.0], 4e8))
    (cell,) = [
        row.cells[5] for row in trust_table(gather([run.record], run.trials)).rows
    ]
    assert cell.hint == "one trial has no spread"


def test_nothing_a_second_has_no_spread(run: RunBuilder) -> None:
    (still,) = timed([100.0], 4e8)
    run.add(PLAIN, timed([100.0], 4e8))
    run.add(PLAIN, [{**still, "throughput_samples_per_s": 0.0}], repeat=1)
    (row,) = trust_table(gather([run.record], run.trials)).rows
    assert row.cells[5].hint == "a spread in percent needs values above zero"


def test_trials_of_older_versions_were_not_judged(run: RunBuilder) -> None:
    run.add(PLAIN, timed([100.0], 4e8), validity=None, notes={})
    (row,) = trust_table(gather([run.record], run.trials)).rows
    assert row.cells[2].hint == "trials were not judged when they were stored"
    assert row.cells[3].text == "not noted"


def test_only_what_was_timed_is_judged(run: RunBuilder) -> None:
    run.add(Case(model=model(), mode="fit", data="digits"), trained([97.0], 4e8))
    run.fail(PLAIN)
    assert rows(run) == []


def test_doubts_stand_where_the_numbers_stand(doubted: RunBuilder) -> None:
    cases = gather([doubted.record], doubted.trials)
    compared = comparisons(cases)
    (verdict,) = [
        cell
        for cell in comparison_table(compared).rows[0].cells
        if "doubt" in cell.detail
    ]
    assert verdict.text == "better"
    assert "ViT-tiny: its steps are slowing" in verdict.hint
    trials = case_table(cases, compared).rows[0].cells[5]
    assert (trials.text, trials.detail) == ("3 ok", "1 suspect")
    assert trials.hint == "its steps are slowing"
