"""Series over runs: their values, where they break, and what changed between."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from support.machine import MACHINE
from support.stored_runs import THROUGHPUT, StoredRuns, case, speeds
from tlbench.db import models, query
from tlbench.db.store import ResultStore
from tlbench.errors import ReportError
from tlbench.machine import Machine
from tlbench.reports.history import History, histories_of, read_histories
from tlbench.reports.history_cases import find_cases, moment_of

PLAIN, LEARNED = case(), case("ViT-Ti/16+TL8@6")
NEWER_TORCH = replace(MACHINE, versions={**MACHINE.versions, "torch": "2.10.0"})
NEWER_CODE = replace(MACHINE, commit="fedcba98765", is_dirty=False)
WIGGLE = (1.0, 1.003, 0.998)
Read = Callable[..., list[History]]


@pytest.fixture
def read(store: ResultStore) -> Read:
    def read(
        text: str = "ViT-Ti/16", metrics: Sequence[str] = (THROUGHPUT,), **options: Any
    ) -> list[History]:
        with store.session() as session:
            cases = find_cases(session, text)
            return read_histories(session, cases, metrics, **options)

    return read


def add_level(
    runs: StoredRuns, level: float, count: int, machine: Machine | None = MACHINE
) -> None:
    """So many runs of three trials around a level."""
    for _ in range(count):
        level_of_run = level * WIGGLE[runs._runs % 3]
        trials = [level_of_run * share for share in WIGGLE]
        runs.add((PLAIN, speeds(*trials)), machine=machine)


# ---------------------------------------------------------------- values


def test_a_run_has_the_median_of_its_trials_and_invalid_ones_are_left_out(
    runs: StoredRuns, read: Read
) -> None:
    runs.add((PLAIN, speeds(100.0, 110.0, 104.0)))
    runs.add((PLAIN, speeds(100.0, 900.0, 102.0)), validity={1: "invalid"})
    (history,) = read()
    first, second = history.points
    assert (first.value, first.n, first.invalid) == (104.0, 3, 0)
    assert first.interval is not None
    assert first.interval[0] < 104 < first.interval[1]
    assert (second.value, second.n, second.invalid) == (101.0, 2, 1)
    assert history.label == "ViT-Ti/16"
    assert history.mode == "infer"


def test_a_run_without_a_value_says_why(runs: StoredRuns, read: Read) -> None:
    runs.add((PLAIN, speeds(100.0, 101.0)))
    runs.add((PLAIN, speeds(1.0, 1.0, 1.0)), failed={0: "oom", 2: "oom", 1: "error"})
    runs.add((PLAIN, speeds(1.0)), validity={0: "invalid"})
    runs.add((PLAIN, [{"macs": 1.0}]))
    (history,) = read()
    told = [(point.value, point.reason) for point in history.points]
    assert told[1:] == [
        (None, "2 oom, 1 error"),
        (None, "1 invalid"),
        (None, "not measured"),
    ]
    assert history.is_lost


def test_the_first_metric_that_the_case_has_is_followed(
    runs: StoredRuns, read: Read
) -> None:
    fit = case(mode="fit", data="digits")
    runs.add((fit, [{"top1_percent": 90.0}]), (PLAIN, speeds(100.0)))
    found = read("1", (THROUGHPUT, "top1_percent"))
    assert {h.mode: (h.metric, h.points[0].value) for h in found} == {
        "infer": (THROUGHPUT, 100.0),
        "fit": ("top1_percent", 90.0),
    }


def test_only_runs_since_a_moment_count(
    store: ResultStore, runs: StoredRuns, read: Read
) -> None:
    add_level(runs, 100.0, 3)
    with store.session() as session:
        newest = query.runs(session)[0].started_at
    (history,) = read(since=newest)
    assert [point.run_id for point in history.points] == [3]
    assert read(since=newest + timedelta(days=1)) == []


# ---------------------------------------------------------------- breaks and shifts


def test_another_library_breaks_the_series_and_no_change_is_blamed(
    runs: StoredRuns, read: Read
) -> None:
    add_level(runs, 100.0, 8)
    add_level(runs, 130.0, 8, NEWER_TORCH)
    (history,) = read()
    (found,) = history.breaks
    assert (found.place, found.differences) == (8, ("torch 2.9.0 -> 2.10.0",))
    assert history.shifts == ()


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (replace(MACHINE, gpu_driver="570.1"), "gpu_driver none -> 570.1"),
        (replace(MACHINE, python="3.12.1"), "python 3.11.2 -> 3.12.1"),
        (replace(MACHINE, hostname="bench-02"), "hostname bench-01 -> bench-02"),
        (replace(MACHINE, cpu_cores=4), "cpu_cores 2 -> 4"),
    ],
)
def test_a_break_names_what_is_another_one(
    runs: StoredRuns, read: Read, machine: Machine, words: str
) -> None:
    add_level(runs, 100.0, 2)
    add_level(runs, 100.0, 2, machine)
    (history,) = read()
    assert [found.text for found in history.breaks] == [words]


def test_another_commit_is_no_break_but_is_named_where_the_level_changes(
    runs: StoredRuns, read: Read
) -> None:
    add_level(runs, 100.0, 8)
    add_level(runs, 94.0, 8, NEWER_CODE)
    (history,) = read()
    assert history.breaks == ()
    (shift,) = history.shifts
    assert (shift.place, shift.verdict, shift.is_standing) == (8, "worse", True)
    assert shift.ratio.value == pytest.approx(0.94, rel=3e-3)
    assert "0123abc+ -> " in shift.code
    assert shift.code.endswith("fedcba9")
    assert history.has_worsened


def test_changes_are_found_in_each_part_between_breaks(
    runs: StoredRuns, read: Read
) -> None:
    add_level(runs, 100.0, 7)
    add_level(runs, 90.0, 7)
    add_level(runs, 50.0, 7, NEWER_TORCH)
    add_level(runs, 60.0, 7, NEWER_TORCH)
    (history,) = read()
    assert [(s.place, s.verdict) for s in history.shifts] == [
        (7, "worse"),
        (21, "better"),
    ]
    assert not history.has_worsened  # what was before the break is over


def test_a_run_without_a_value_does_not_move_the_place_of_a_change(
    runs: StoredRuns, read: Read
) -> None:
    add_level(runs, 100.0, 4)
    runs.add((PLAIN, speeds(1.0)), failed={0: "oom"}, machine=None)
    add_level(runs, 100.0, 4)
    add_level(runs, 90.0, 7)
    (history,) = read()
    assert [shift.place for shift in history.shifts] == [9]
    assert history.breaks == ()
    assert not history.is_lost


def test_machines_that_take_turns_have_a_series_each(
    runs: StoredRuns, read: Read
) -> None:
    other = replace(MACHINE, hostname="bench-02", cpu_model="Faster CPU")
    for _ in range(3):
        add_level(runs, 100.0, 1)
        add_level(runs, 150.0, 1, other)
    first, second = read()
    assert [point.run_id for point in first.points] == [1, 3, 5]
    assert [point.run_id for point in second.points] == [2, 4, 6]
    assert first.breaks == second.breaks == ()
    assert (first.label, second.label) == (
        "ViT-Ti/16, on bench-01",
        "ViT-Ti/16, on bench-02",
    )


def test_a_property_that_is_ignored_breaks_nothing(
    runs: StoredRuns, read: Read
) -> None:
    """As in a container, whose host has another name each time."""
    for number in range(8):
        host = replace(MACHINE, hostname=f"pod-{number}")
        add_level(runs, 100.0 if number < 4 else 90.0, 1, host)
    (history,) = read()
    assert len(history.breaks) == 7
    (history,) = read(ignored={"hostname"})
    assert history.breaks == ()
    assert [shift.place for shift in history.shifts] == [4]


def test_a_metric_without_better_and_worse_just_changes(
    runs: StoredRuns, read: Read
) -> None:
    for number in range(16):
        watts = (200.0 if number < 8 else 250.0) * WIGGLE[number % 3]
        runs.add((PLAIN, [{"power_w": watts}]))
    (history,) = read(metrics=("power_w",))
    (shift,) = history.shifts
    assert (shift.verdict, shift.is_standing) == ("changed", False)
    assert history.direction is None


def test_foreign_runs_have_a_series_of_their_own(
    store: ResultStore, runs: StoredRuns, read: Read
) -> None:
    add_level(runs, 100.0, 2)
    runs.add((PLAIN, speeds(70.0)), machine=None)
    with store.session() as session:
        is_newest = models.Run.id == 3
        session.execute(update(models.Run).where(is_newest).values(origin="timm"))
        session.commit()
    ours, theirs = sorted(read(), key=lambda history: history.origin or "")
    assert [point.run_id for point in ours.points] == [1, 2]
    assert ours.origin is None
    assert ours.label == "ViT-Ti/16"
    assert [point.value for point in theirs.points] == [70.0]
    assert theirs.origin == "timm"
    assert theirs.label.endswith("by timm")


# ---------------------------------------------------------------- which cases


@pytest.mark.parametrize(
    ("text", "models_found"),
    [
        ("ViT-Ti/16", {"ViT-Ti/16"}),
        ("ViT-Ti/16+TL8@1/2", {"ViT-Ti/16+TL8@6"}),
        (PLAIN.identity[:6], {"ViT-Ti/16"}),
        ("model~TL", {"ViT-Ti/16+TL8@6"}),
        ("mode=infer", {"ViT-Ti/16", "ViT-Ti/16+TL8@6"}),
        ("2", {"ViT-Ti/16"}),
    ],
)
def test_cases_are_named_by_model_identity_run_or_conditions(
    store: ResultStore, runs: StoredRuns, text: str, models_found: set[str]
) -> None:
    runs.add((PLAIN, speeds(1.0)), (LEARNED, speeds(2.0)))
    runs.add((PLAIN, speeds(1.0)))
    with store.session() as session:
        found = find_cases(session, text)
    assert {known.model for known in found} == models_found
    if text == "2":  # the history of its case, not that run alone
        assert [known.run_id for known in found] == [2, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ViT-Ti/61", r"ViT-Ti/61: no stored model .*did you mean 'ViT-Ti/16'"),
        ("nothing", "the models are ViT-Ti/16$"),
        ("model~XL", r"model~XL: no stored trial has model~XL; there are ViT-Ti/16"),
    ],
)
def test_what_is_not_there_is_told_with_what_there_is(
    store: ResultStore, runs: StoredRuns, text: str, message: str
) -> None:
    runs.add((PLAIN, speeds(1.0)))
    with store.session() as session, pytest.raises(ReportError, match=message):
        find_cases(session, text)


def test_an_empty_database_says_what_fills_it(store: ResultStore) -> None:
    with store.session() as session, pytest.raises(ReportError, match="tlbench run"):
        find_cases(session, "ViT-B/16")


def test_a_moment_that_is_none_is_refused() -> None:
    with pytest.raises(ReportError, match="30d, 12h, 2026-01-31"):
        moment_of("yesterday")


# ---------------------------------------------------------------- the report


def test_the_report_shows_its_cases_that_two_runs_have(
    store: ResultStore, runs: StoredRuns
) -> None:
    runs.add((PLAIN, speeds(100.0)))
    newest = runs.add((LEARNED, speeds(150.0)), (PLAIN, speeds(101.0)))
    with store.session() as session:
        found = histories_of(session, query.trials(session, [newest]))
    (history,) = found
    assert history.model == "ViT-Ti/16"
    assert [point.value for point in history.points] == [100.0, 101.0]
