"""A history in words: the line of characters, the notes, and all of it as JSON."""

import json
from dataclasses import replace

import pytest

from support.histories import VALUES, history
from support.stored_runs import THROUGHPUT
from tlbench.errors import ReportError
from tlbench.reports.history import History
from tlbench.reports.trend import (
    MOST_ROWS,
    check_histories,
    conclusion,
    describe,
    sparkline,
    words,
)

WIDTH = 80


def test_a_sparkline_has_a_mark_for_each_run_and_one_for_each_break() -> None:
    assert sparkline(history([1.0, 8.0, None, 4.5], breaks=[3]), WIDTH) == "▁█·|▅"


def test_a_sparkline_shows_the_newest_runs_that_fit() -> None:
    long = history([1.0] * 200 + [2.0] * 3)
    line = sparkline(long, 20)
    assert len(line) == 20
    assert line.endswith("▁███")
    assert sparkline(history([5.0]), WIDTH) == ""
    assert sparkline(history([5.0, 5.0]), WIDTH) == "▅▅"


def test_a_change_is_told_with_size_interval_and_code() -> None:
    said = words(history(has_shift=True), WIDTH)
    (note,) = [note for note in said.notes if note.startswith("run 9")]
    assert note.startswith("run 9: worse, 0.90")
    assert " to " in note
    assert "p < 0.0001" in note
    assert note.endswith("tlbench 1 -> 2")
    marks = {row[0]: row[-1] for row in said.rows}
    assert marks["9"] == "worse"
    assert set(marks.values()) == {"", "worse"}


def test_a_break_is_told_with_what_is_another_one() -> None:
    said = words(history(breaks=[12]), WIDTH)
    assert "run 13: break, torch 2.9.0 -> 2.10.0" in said.notes
    assert any("4 of 6 runs" in note for note in said.notes)


@pytest.mark.parametrize(
    ("values", "words_of_note"),
    [
        ([100.0], "no change can be told from noise yet"),
        ([100.0] * 8, "no change of level found"),
        ([100.0] * 7 + [None], "run 8: no value any more, 2 oom"),
    ],
)
def test_what_cannot_be_told_is_said(
    values: list[float | None], words_of_note: str
) -> None:
    assert any(words_of_note in note for note in words(history(values), WIDTH).notes)


def test_a_long_history_is_cut_and_says_so() -> None:
    said = words(history([100.0] * (MOST_ROWS + 1)), WIDTH)
    assert [row[0] for row in said.rows][:1] == ["2"]
    assert said.notes[-1] == "1 run before these: --json lists them"


def test_json_has_every_point_break_and_change() -> None:
    values = [*VALUES, None]
    told = json.loads(json.dumps(describe(history(values, [2], has_shift=True))))
    assert [p["value"] for p in told["points"]] == values
    assert told["points"][-1]["reason"] == "2 oom"
    assert told["breaks"] == [
        {"run": 3, "place": 2, "differences": ["torch 2.9.0 -> 2.10.0"]}
    ]
    (change,) = told["changes"]
    assert (change["run"], change["verdict"]) == (9, "worse")
    assert change["low"] < change["ratio"] < change["high"]
    assert told["has_worsened"] is True


def test_the_noise_floors_are_named() -> None:
    both = [history(), replace(history(), floor=0.023)]
    assert "(1.0 % and 2.3 %)" in conclusion(both)[0]


@pytest.mark.parametrize(
    ("histories", "metric", "ignored", "message"),
    [
        ([], THROUGHPUT, (), "older --since"),
        ([history([None])], "througput", (), "no trial of these cases has it"),
        ([history()], THROUGHPUT, ("hostnam",), "there are hostname, "),
        ([history()], "power_w", (), "power_w has no better and worse"),
    ],
)
def test_what_makes_no_sense_is_refused(
    histories: list[History], metric: str, ignored: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ReportError, match=message):
        check_histories(histories, metric, ignored, is_gate=True)


def test_cases_without_the_metric_are_left_out() -> None:
    kept, lost = history(), history([None])
    assert check_histories([kept, lost], THROUGHPUT, (), is_gate=True) == [kept]
