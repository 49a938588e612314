"""A trial run again: the new run that is planned, and what is said of it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import stdev
from typing import Any

import numpy as np
import pytest
from scipy import stats

from support.machine import MACHINE
from support.stored_runs import THROUGHPUT, StoredRuns, case, speeds
from tlbench.calibrate import FLOOR_BLOCKS
from tlbench.db.store import ResultStore
from tlbench.errors import ReportError
from tlbench.reports.repro import (
    LOSS_TOLERANCE,
    Reproduction,
    check_rows,
    conclusion,
    describe,
    judge,
    loss_check,
    plan_repro,
    prediction_reach,
    read_original,
)
from tlbench.statistics import GATE_LEVEL, LEVEL

PLAIN, FIT = case(), case(mode="fit", data="digits")
STEADY = (100.0, 101.0, 99.5, 100.5, 99.0)
Again = Callable[..., Reproduction]


@pytest.fixture
def again(store: ResultStore, runs: StoredRuns) -> Again:
    def again(
        then: Sequence[Any],
        now: Sequence[Any],
        of: Any = PLAIN,
        then_options: dict[str, Any] | None = None,
        metric: str | None = None,
        **options: Any,
    ) -> Reproduction:
        """Trial 1 of a run that is there, and a run that has come after it."""
        runs.add((of, then), **then_options or {})
        new = runs.add((of, now), **options)
        with store.session() as session:
            return judge(session, read_original(session, 1, metric), new)

    return again


# ---------------------------------------------------------------- the new run


def test_the_first_new_trial_has_the_old_seed_and_others_have_others(
    store: ResultStore, runs: StoredRuns
) -> None:
    runs.add((PLAIN, speeds(*STEADY)), seed=40, trial_timeout_s=9)
    with store.session() as session:
        original = read_original(session, 3)  # in block 2
    suite, trials = plan_repro(original, 4)
    assert suite.trial_timeout_s == 9
    assert [(t.repeat, t.seed, t.position) for t in trials] == [
        (2, 42, 0),
        (0, 40, 1),
        (1, 41, 2),
        (3, 43, 3),
    ]
    assert {trial.case for trial in trials} == {PLAIN}


def test_a_metric_that_the_trial_lacks_is_refused(
    store: ResultStore, runs: StoredRuns
) -> None:
    runs.add((PLAIN, speeds(1.0)))
    with (
        store.session() as session,
        pytest.raises(ReportError, match="did you mean 'throughput_samples_per_s'"),
    ):
        read_original(session, 1, "throughput_sample_per_s")


# ---------------------------------------------------------------- how far off it may be


def test_the_reach_is_that_of_a_t_test_of_one_more_sample() -> None:
    logs = [math.log(value) for value in STEADY]
    expected = stats.t.ppf(0.975, 4) * stdev(logs) * math.sqrt(1 / 5 + 1 / 2)
    assert prediction_reach(STEADY, 2, LEVEL, floor=1e-4) == pytest.approx(expected)


def test_a_new_trial_lies_within_reach_as_often_as_said() -> None:
    rng = np.random.default_rng(0)
    within = 0
    for _ in range(2000):
        then, now = np.exp(0.02 * rng.standard_normal(4)), 0.02 * rng.standard_normal()
        reach = prediction_reach(then.tolist(), 1, LEVEL, floor=None)
        assert reach is not None
        within += abs(now - np.log(then).mean()) <= reach
    assert within / 2000 == pytest.approx(LEVEL, abs=0.015)


def test_the_floor_is_the_least_reach_and_stands_in_for_one_trial() -> None:
    assert prediction_reach([100.0] * 5, 1, LEVEL, 0.02) == math.log1p(0.02)
    # Two sides of FLOOR_BLOCKS trials have a variance of 2/FLOOR_BLOCKS, one and one 2.
    alone = prediction_reach([100.0], 1, LEVEL, 0.02)
    assert alone == pytest.approx(math.log1p(0.02) * math.sqrt(FLOOR_BLOCKS))
    assert prediction_reach([100.0], 1, LEVEL, None) is None


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        ((100.3,), "agrees"),
        ((98.9, 101.2), "agrees"),
        ((93.0,), "differs"),
        ((108.0, 107.0), "differs"),
    ],
)
def test_new_trials_agree_inside_the_interval_only(
    again: Again, now: tuple[float, ...], verdict: str
) -> None:
    answer = again(speeds(*STEADY), speeds(*now))
    assert answer.verdict == verdict
    (check,) = answer.checks
    assert check.name == THROUGHPUT
    assert check.ratio == pytest.approx(np.mean(now) / 100, rel=1e-3)
    assert check.interval is not None
    assert check.ratio is not None
    low, high = check.interval
    assert (low <= check.ratio <= high) == (verdict == "agrees")
    assert math.isclose(low * high, 1.0)


@pytest.mark.parametrize(
    ("then", "options", "note"),
    [
        ((100.0, 80.0, 120.0), {}, "the 3 trials of that run lie too far apart"),
        (STEADY, {"validity": {0: "invalid"}}, "every trial is invalid: a doubt"),
    ],
)
def test_what_cannot_be_told_is_inconclusive(
    again: Again, then: tuple[float, ...], options: dict[str, Any], note: str
) -> None:
    answer = again(speeds(*then), speeds(101.0), **options)
    assert answer.verdict == "inconclusive"
    assert note in answer.checks[0].note


def test_a_surer_level_reaches_further(store: ResultStore, runs: StoredRuns) -> None:
    runs.add((PLAIN, speeds(*STEADY)))
    new = runs.add((PLAIN, speeds(97.0)))
    with store.session() as session:
        original = read_original(session, 1)
        verdicts = [
            judge(session, original, new, level).verdict
            for level in (LEVEL, GATE_LEVEL)
        ]
    assert verdicts == ["differs", "agrees"]


# ---------------------------------------------------------------- what has to be equal


def test_counts_have_to_be_the_same(again: Again) -> None:
    then = [{THROUGHPUT: value, "macs": 1e9, "params": 5e6} for value in STEADY]
    answer = again(then, [{THROUGHPUT: 100.0, "macs": 1.1e9, "params": 5e6}])
    verdicts = {check.name: check.verdict for check in answer.checks}
    assert verdicts == {THROUGHPUT: "agrees", "macs": "differs", "params": "agrees"}
    assert answer.verdict == "differs"


def test_the_same_seed_comes_to_the_same_accuracy(again: Again) -> None:
    accuracies = [{"top1_percent": 90.0}, {"top1_percent": 95.0}]
    same = again(accuracies, [{"top1_percent": 90.0}], of=FIT)
    assert same.verdict == "agrees"
    assert same.checks[0].name == "top1_percent, same seed"


def test_another_accuracy_of_the_same_seed_differs(again: Again) -> None:
    accuracies = [{"top1_percent": 90.0}, {"top1_percent": 95.0}]
    assert again(accuracies, [{"top1_percent": 95.0}], of=FIT).verdict == "differs"


def test_losses_are_the_same_or_not_to_be_judged() -> None:
    then = (2.3, 1.1, 0.4)
    off = tuple(loss * (1 + 10 * LOSS_TOLERANCE) for loss in then)
    assert loss_check(then, then, "").verdict == "agrees"
    assert loss_check(then, off, "").verdict == "differs"
    assert loss_check(then, then[:2], "").verdict == "differs"
    excused = loss_check(then, off, "not judged: a GPU")
    assert (excused.verdict, excused.note) == (None, "not judged: a GPU")


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("now", "verdict"), [("oom", "agrees"), ("error", "differs"), ("ok", "differs")]
)
def test_a_failure_has_to_be_the_same_one(again: Again, now: str, verdict: str) -> None:
    answer = again(
        speeds(1.0), speeds(1.0), then_options={"failed": {0: "oom"}}, failed={0: now}
    )
    assert answer.verdict == verdict
    (check,) = answer.checks
    assert check.then == "oom: it was oom"
    assert not answer.has_new_failure


def test_a_new_failure_differs_and_is_told(again: Again) -> None:
    answer = again(speeds(*STEADY), speeds(1.0), failed={0: "oom"})
    assert answer.verdict == "differs"
    assert answer.has_new_failure
    assert check_rows(answer)[0] == (
        *("how it ends", "ok", "oom: it was oom", "", "", "differs"),
    )


def test_a_lost_trial_settles_nothing_and_is_a_failure_all_the_same(
    again: Again,
) -> None:
    answer = again(speeds(*STEADY), speeds(1.0), failed={0: "lost"})
    assert answer.verdict == "inconclusive"
    assert answer.has_new_failure


# ---------------------------------------------------------------- what else differs


def test_what_differs_around_it_is_named(again: Again) -> None:
    newer = replace(
        MACHINE, versions={**MACHINE.versions, "torch": "2.10.0"}, commit="fedcba98765"
    )
    answer = again(speeds(*STEADY), speeds(100.0), machine=newer)
    assert answer.differences[0] == "torch 2.9.0 -> 2.10.0"
    assert "0123abc+ -> " in answer.differences[1]
    assert "torch 2.9.0 -> 2.10.0" in "".join(conclusion(answer))
    assert describe(answer)["differences"] == [*answer.differences]


def test_nothing_is_named_where_nothing_differs(again: Again) -> None:
    answer = again(speeds(*STEADY), speeds(100.0))
    assert answer.differences == ()
    assert conclusion(answer) == [
        "not as it was: nothing, by what is stored",
        "trial 1 of run 1 beside run 2: agrees",
    ]
