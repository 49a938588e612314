"""The run that settles what is open, and what cannot be extended."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import pytest

from support.machine import MACHINE
from support.stored_runs import StoredRuns, case, speeds
from tlbench.db.store import ResultStore
from tlbench.errors import ReportError
from tlbench.machine import Machine
from tlbench.reports.extension import Extension, plan_extension
from tlbench.reports.gate import Answer, Question, compare
from tlbench.reports.selection import parse_selection

PLAIN, LEARNED = case(), case("ViT-Ti/16+TL8@6")
NOISY, SHIFTED = (100.0, 120.0, 90.0), (120.0, 112.0, 105.0)
SETTLED = speeds(200.0, 240.0, 180.0)
Plan = Callable[..., Extension]


@pytest.fixture
def plan(store: ResultStore) -> Plan:
    def plan(
        a: str = "model=ViT-Ti/16",
        b: str = "model~TL",
        here: Machine = MACHINE,
        release: str = version("tlbench"),
        **question: Any,
    ) -> Extension:
        return plan_extension(answer(store, a, b, **question), here, release)

    return plan


def answer(store: ResultStore, a: str, b: str, **question: Any) -> Answer:
    with store.session() as session:
        return compare(
            session, parse_selection(a), parse_selection(b), Question(**question)
        )


def test_both_sides_stand_in_every_block_and_repeats_go_on(
    store: ResultStore, runs: StoredRuns, plan: Plan
) -> None:
    runs.add(
        (PLAIN, speeds(*NOISY)), (LEARNED, speeds(*SHIFTED)), seed=40, trial_timeout_s=9
    )
    (judgement,) = answer(store, "model=ViT-Ti/16", "model~TL").judgements
    assert judgement.proposal is not None
    more = judgement.proposal.repeats
    extension = plan()
    suite, trials = extension.suite, extension.trials
    assert (suite.seed, suite.trial_timeout_s) == (40, 9)
    assert len(trials) == 2 * more
    assert [trial.position for trial in trials] == list(range(2 * more))
    for number in range(more):
        block = trials[2 * number : 2 * number + 2]
        assert {trial.case for trial in block} == {PLAIN, LEARNED}
        assert {(t.repeat, t.seed) for t in block} == {(3 + number, 43 + number)}


def test_only_what_is_open_is_extended_each_as_long_as_it_takes(
    store: ResultStore, runs: StoredRuns, plan: Plan
) -> None:
    other = case("ViT-Ti/16+TL16@6")
    runs.add(
        (PLAIN, speeds(*NOISY)),
        (LEARNED, speeds(*SHIFTED)),
        (other, speeds(101.0, 130.0, 92.0)),
        (case("ViT-Ti/16+TL2@6"), SETTLED),
    )
    found = answer(store, "model=ViT-Ti/16", "model~TL")
    proposed = {
        j.other.case: j.proposal.repeats for j in found.judgements if j.proposal
    }
    assert set(proposed) == {LEARNED, other}
    counts = Counter(trial.case for trial in plan().trials)
    assert counts == {**proposed, PLAIN: max(proposed.values())}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"release": "9.9"}, r"run 1 was made by tlbench .*, and this is 9\.9"),
        (
            {"here": replace(MACHINE, hostname="bench-02")},
            r"another machine than this: hostname \(bench-01, bench-02\)",
        ),
    ],
)
def test_trials_of_another_place_are_refused(
    runs: StoredRuns, plan: Plan, changes: dict[str, Any], message: str
) -> None:
    runs.add((PLAIN, speeds(*NOISY)), (LEARNED, speeds(*SHIFTED)))
    with pytest.raises(ReportError, match=message):
        plan(**changes)


def test_what_this_process_does_not_know_is_no_change(
    runs: StoredRuns, plan: Plan
) -> None:
    """The driver has not imported torch, whose libraries the worker knows."""
    there = replace(MACHINE, versions={**MACHINE.versions, "cuda": "13.0"})
    runs.add((PLAIN, speeds(*NOISY)), (LEARNED, speeds(*SHIFTED)), machine=there)
    assert plan(here=replace(MACHINE, memory_bytes=1)).trials


def test_a_worker_sees_fewer_gpus_than_the_driver(runs: StoredRuns, plan: Plan) -> None:
    there = replace(MACHINE, gpu_name="NVIDIA H100", gpu_count=1)
    runs.add((PLAIN, speeds(*NOISY)), (LEARNED, speeds(*SHIFTED)), machine=there)
    assert plan(here=replace(there, gpu_count=8)).trials


def test_what_cannot_be_extended_keeps_nothing_else_from_it(
    runs: StoredRuns, plan: Plan
) -> None:
    """Two comparisons are open; one has batches that each run finds for itself."""
    other = case("ViT-Ti/16+TL16@6", batch_size="max")
    runs.add(
        (PLAIN, speeds(*NOISY)),
        (LEARNED, speeds(*SHIFTED)),
        (case(batch_size="max"), speeds(*NOISY)),
        (other, speeds(*SHIFTED)),
    )
    extension = plan()
    assert {trial.case for trial in extension.trials} == {PLAIN, LEARNED}
    (why,) = extension.refused
    assert why.startswith("infer ViT-Ti/16+TL16@6")
    assert "each run finds its own largest batch" in why


def test_runs_of_other_software_cannot_be_extended(
    runs: StoredRuns, plan: Plan
) -> None:
    runs.add((PLAIN, speeds(*NOISY)))
    runs.add((PLAIN, speeds(*SHIFTED)), machine=replace(MACHINE, commit="4567def"))
    with pytest.raises(
        ReportError, match=r"one run cannot have both sides, which .*co"
    ):
        plan("1", "2")


def test_one_case_in_two_runs_cannot_be_extended(runs: StoredRuns, plan: Plan) -> None:
    runs.add((PLAIN, speeds(*NOISY)))
    runs.add((PLAIN, speeds(*SHIFTED)))
    with pytest.raises(ReportError, match="the same case in two runs"):
        plan("1", "2")


def test_an_endless_extension_is_refused(runs: StoredRuns, plan: Plan) -> None:
    runs.add((PLAIN, speeds(*NOISY)))
    runs.add((LEARNED, speeds(*NOISY)))
    with pytest.raises(ReportError, match=r"it would take \d,\d+ more repeats of each"):
        plan()


def test_a_builders_file_that_has_changed_is_refused(
    runs: StoredRuns, plan: Plan
) -> None:
    runs.add((PLAIN, speeds(*NOISY)), sources={"my.py": "one"})
    runs.add((LEARNED, speeds(*SHIFTED[:2], 150)), sources={"my.py": "two"})
    with pytest.raises(ReportError, match=r"my\.py is not the same file in all runs"):
        plan()
