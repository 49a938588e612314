"""Verdicts on what two selections find in a database."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from support.machine import MACHINE
from support.stored_runs import StoredRuns, case, speeds
from tlbench.db.store import ResultStore
from tlbench.errors import ReportError
from tlbench.reports.gate import Answer, Question, compare
from tlbench.reports.iso import parse_iso
from tlbench.reports.selection import parse_selection
from tlbench.statistics import Verdict, holm

PLAIN, LEARNED = case(), case("ViT-Ti/16+TL8@6")
POOLED = case("ViT-Ti/16+pool2@6")
STEADY = (100.0, 101.0, 99.0, 100.5, 99.5)
DRIFT = (1.0, 1.2, 0.8, 1.1, 0.9)

Compare = Callable[..., Answer]


@pytest.fixture
def ask(store: ResultStore) -> Compare:
    def ask(a: str, b: str, **question: Any) -> Answer:
        with store.session() as session:
            return compare(
                session, parse_selection(a), parse_selection(b), Question(**question)
            )

    return ask


def scaled(factor: float, values: tuple[float, ...] = STEADY) -> list[Any]:
    return speeds(*(factor * value for value in values))


# ---------------------------------------------------------------- what is compared


def test_two_models_of_a_run_are_paired_over_its_blocks(
    runs: StoredRuns, ask: Compare
) -> None:
    """Drift that hits both alike drops out: the ratio is exact in every block."""
    runs.add(
        (PLAIN, speeds(*(100 * d for d in DRIFT))),
        (LEARNED, speeds(*(150 * d for d in DRIFT))),
    )
    (judgement,) = ask("model=ViT-Ti/16", "model~TL").judgements
    assert judgement.ratio.value == pytest.approx(1.5)
    assert (judgement.ratio.method, judgement.ratio.n) == ("paired t", 5)
    assert judgement.ratio.verdict == "better"
    assert list(judgement.match.differences) == ["model"]
    assert judgement.title == "infer ViT-Ti/16+TL8@6 over ViT-Ti/16"


def test_sides_of_two_runs_are_not_paired(runs: StoredRuns, ask: Compare) -> None:
    runs.add((PLAIN, speeds(*STEADY)))
    runs.add((PLAIN, scaled(1.1)))
    (judgement,) = ask("1", "2").judgements
    logs = np.log(STEADY)
    welch = stats.ttest_ind(logs + math.log(1.1), logs, equal_var=False)
    interval = np.exp(welch.confidence_interval(0.95))
    assert judgement.ratio.method == "Welch"
    assert judgement.ratio.interval == pytest.approx(tuple(interval))


def test_cases_of_two_runs_are_matched_by_identity(
    runs: StoredRuns, ask: Compare
) -> None:
    """What only one run has is named, and keeps nothing from being compared."""
    train = case(mode="train")
    runs.add((PLAIN, speeds(*STEADY)), (train, scaled(0.3)), (POOLED, scaled(2)))
    commit = replace(MACHINE, commit="4567def")
    runs.add(
        (train, scaled(0.2)), (PLAIN, scaled(1.5)), (LEARNED, scaled(2)), machine=commit
    )
    answer = ask("1", "2")
    assert [(j.title, j.ratio.verdict) for j in answer.judgements] == [
        ("infer ViT-Ti/16", "better"),
        ("train ViT-Ti/16", "worse"),
    ]
    assert answer.judgements[0].match.differences == {
        "software": "software: commit (0123abc, 4567def)"
    }
    assert [side.model for side in answer.only_a] == ["ViT-Ti/16+pool2@6"]
    assert [side.model for side in answer.only_b] == ["ViT-Ti/16+TL8@6"]


def test_several_are_compared_with_one(runs: StoredRuns, ask: Compare) -> None:
    runs.add((PLAIN, speeds(*STEADY)), (LEARNED, scaled(2)), (POOLED, scaled(3)))
    answer = ask("model=ViT-Ti/16", "model~+")
    assert [j.ratio.value for j in answer.judgements] == pytest.approx([2, 3])
    assert not answer.only_a


def test_a_setting_may_be_what_is_compared(runs: StoredRuns, ask: Compare) -> None:
    runs.add((PLAIN, speeds(*STEADY)), (case(precision="bf16"), scaled(1.4)))
    (judgement,) = ask("precision=fp32", "precision=bf16").judgements
    assert judgement.match.differences == {"precision": "precision (fp32, bf16)"}


def test_what_else_differs_is_refused_and_named(runs: StoredRuns, ask: Compare) -> None:
    other = case("ViT-Ti/16+TL8@6", precision="bf16")
    runs.add((PLAIN, speeds(*STEADY)), (other, scaled(1.4)))
    sides = ("model=ViT-Ti/16", "model~TL")
    refusal = (
        r"differ in precision \(fp32, bf16\) as well; --over model --over precision"
    )
    with pytest.raises(ReportError, match=refusal):
        ask(*sides)
    with pytest.raises(ReportError, match=r"differ in precision \(fp32, bf16\) as"):
        ask(*sides, over=frozenset({"model"}))
    answer = ask(*sides, over=frozenset({"model", "precision"}))
    assert list(answer.judgements[0].match.differences) == ["model", "precision"]


def test_another_machine_with_other_software_is_refused(
    runs: StoredRuns, ask: Compare
) -> None:
    runs.add((PLAIN, speeds(*STEADY)))
    there = replace(MACHINE, hostname="bench-02", versions={"torch": "2.10.0"})
    runs.add((PLAIN, speeds(*STEADY)), machine=there)
    with pytest.raises(
        ReportError, match=r"software: versions.tlbench .*versions.torch"
    ):
        ask("1", "2")
    assert ask("1", "2", over=frozenset({"machine", "software"})).judgements


@pytest.mark.parametrize("is_of_whole_runs", [True, False])
def test_a_side_that_no_process_came_up_for_is_lost(
    runs: StoredRuns, ask: Compare, *, is_of_whole_runs: bool
) -> None:
    """Killed, out of time or never started: nothing is known of its place."""
    runs.add((PLAIN, speeds(*STEADY)))
    runs.add((PLAIN, speeds(1, 2)), machine=None, failed={0: "timeout", 1: "error"})
    answer = ask("1", "2") if is_of_whole_runs else ask("run=1,mode=infer", "run=2")
    (judgement,) = answer.judgements
    assert judgement.match.differences == {}
    assert answer.failing(("worse",)) == [judgement]


def test_what_never_came_up_counts_to_the_trials_that_did(
    runs: StoredRuns, ask: Compare
) -> None:
    runs.add((PLAIN, speeds(*STEADY)), (LEARNED, scaled(2)))
    runs.add(
        (PLAIN, speeds(1)),
        (LEARNED, speeds(1)),
        machine=None,
        failed={0: "error", 1: "error"},
    )
    where = "run=1,run=2"
    (judgement,) = ask(f"model=ViT-Ti/16,{where}", f"model~TL,{where}").judgements
    assert (judgement.ratio.method, judgement.ratio.n) == ("paired t", 5)
    assert judgement.other.failures == {"error": 1}
    assert judgement.other.machine == MACHINE


def test_more_memory_makes_no_other_machine(runs: StoredRuns, ask: Compare) -> None:
    runs.add((PLAIN, speeds(*STEADY)))
    runs.add((PLAIN, scaled(1.001)), machine=replace(MACHINE, memory_bytes=1))
    (judgement,) = ask("1", "2").judgements
    assert judgement.match.differences == {}
    assert judgement.ratio.verdict == "equivalent"


@pytest.mark.parametrize("selection", ["1", "model=ViT-Ti/16"])
def test_a_side_is_not_compared_with_itself(
    runs: StoredRuns, ask: Compare, selection: str
) -> None:
    runs.add((PLAIN, speeds(*STEADY)))
    with pytest.raises(ReportError, match="are the same 5 trials; another run"):
        ask(selection, selection)


def test_runs_that_overlap_are_refused_by_their_number(
    runs: StoredRuns, ask: Compare
) -> None:
    for _ in range(3):
        runs.add((PLAIN, speeds(*STEADY)))
    with pytest.raises(ReportError, match="trials of run 2 are on both sides"):
        ask("run=1,run=2", "run=2,run=3")


def test_a_base_that_is_one_of_several_is_refused(
    runs: StoredRuns, ask: Compare
) -> None:
    runs.add((PLAIN, speeds(*STEADY)), (POOLED, scaled(3)), (LEARNED, scaled(2)))
    with pytest.raises(ReportError, match=r"with each of ViT-Ti/16, ViT-Ti/16\+pool2"):
        ask("run=1", "model~TL")


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"metric": "throughput"}, "--metric throughput: no metric .* did you mean"),
        ({"over": frozenset({"modell"})}, "--over modell: a setting .* did you mean"),
        (
            {"metric": "top1_percent"},
            "model=ViT-Ti/16: top1_percent is not there: mode",
        ),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    runs: StoredRuns, ask: Compare, question: dict[str, Any], message: str
) -> None:
    runs.add((PLAIN, speeds(*STEADY)), (LEARNED, scaled(2)))
    with pytest.raises(ReportError, match=message):
        ask("model=ViT-Ti/16", "model~TL", **question)


def test_trials_of_several_runs_are_taken_together(
    runs: StoredRuns, ask: Compare
) -> None:
    for _ in range(2):
        runs.add((PLAIN, speeds(*STEADY)), (LEARNED, scaled(2)))
    where = "run=1,run=2"
    (judgement,) = ask(f"model=ViT-Ti/16,{where}", f"model~TL,{where}").judgements
    assert (judgement.ratio.method, judgement.ratio.n) == ("paired t", 10)
    assert judgement.base.run_ids == (1, 2)


# ---------------------------------------------------------------- verdicts


def test_a_family_shares_its_level(runs: StoredRuns, ask: Compare) -> None:
    """Three models that are each just better alone are not all so together."""
    base = (100.0, 100.0, 100.0, 100.0)
    logs = np.array([-1.0, -0.5, 0.5, 1.0]) * 0.01
    others = [case(f"ViT-Ti/16+TL{tokens}@6") for tokens in (2, 4, 8)]
    spread = [speeds(*(104 * np.exp(logs))) for _ in others]
    runs.add((PLAIN, speeds(*base)), *zip(others, spread, strict=True))
    alone = ask("model=ViT-Ti/16", "model~TL8")
    together = ask("model=ViT-Ti/16", "model~TL")
    assert alone.judgements[0].ratio.level == 0.95
    p_value = alone.judgements[0].ratio.p_value
    assert p_value is not None
    is_rejected = 3 * p_value <= 0.05  # Holm's first step; all three are equal
    for judgement in together.judgements:
        ratio = judgement.ratio
        assert ratio.interval is not None
        is_beyond = ratio.interval[0] > 1 + judgement.floor
        assert (ratio.verdict == "better") == is_beyond == is_rejected


def test_invalid_trials_are_left_out_and_counted(
    runs: StoredRuns, ask: Compare
) -> None:
    wrong = speeds(*STEADY[:4], 9999.0)
    runs.add(
        (PLAIN, wrong), (LEARNED, scaled(2)), validity={4: "invalid", 5: "suspect"}
    )
    (judgement,) = ask("model=ViT-Ti/16", "model~TL").judgements
    assert judgement.ratio.value == pytest.approx(2)
    assert judgement.ratio.n == 4
    assert (judgement.base.invalid, judgement.other.suspect) == (1, 1)


def test_trials_that_are_all_invalid_are_still_the_same(
    runs: StoredRuns, ask: Compare
) -> None:
    runs.add((PLAIN, speeds(1, 2)), validity={0: "invalid", 1: "invalid"})
    with pytest.raises(ReportError, match="are the same 2 trials"):
        ask("1", "1")


def test_a_side_of_invalid_trials_only_says_so(runs: StoredRuns, ask: Compare) -> None:
    runs.add(
        (PLAIN, speeds(1, 2)),
        (LEARNED, speeds(1, 2)),
        validity={2: "invalid", 3: "invalid"},
    )
    (judgement,) = ask("model=ViT-Ti/16", "model~TL").judgements
    assert judgement.ratio.verdict == "inconclusive"
    assert judgement.other.why_missing("throughput_samples_per_s") == (
        "every trial is invalid"
    )


def test_each_comparison_has_its_adjusted_p_value(
    runs: StoredRuns, ask: Compare
) -> None:
    """It is at most 1 - the level exactly where the verdict is better or worse."""
    noise = np.random.default_rng(1).normal(0, 0.02, (3, 5))
    others = [case(f"ViT-Ti/16+TL{tokens}@6") for tokens in (2, 4, 8)]
    sped = [
        speeds(*(factor * 100 * np.exp(row)))
        for factor, row in zip((1.03, 1.06, 1.5), noise, strict=True)
    ]
    runs.add((PLAIN, speeds(*STEADY)), *zip(others, sped, strict=True))
    judgements = ask("model=ViT-Ti/16", "model~TL").judgements
    p_values = [j.ratio.p_value or 0.0 for j in judgements]
    adjusted = [j.adjusted_p_value for j in judgements]
    assert adjusted == holm(p_values) != p_values
    assert [p is not None and p <= 0.05 for p in adjusted] == [
        j.ratio.verdict == "better" for j in judgements
    ]


@pytest.mark.parametrize(
    ("metric", "factor", "verdict"),
    [
        ("macs", 1.0, "equivalent"),
        ("macs", 1.000_001, "worse"),
        ("macs", 0.5, "better"),
        ("params", 1.001, "worse"),
    ],
)
@pytest.mark.parametrize("trials", [1, 3])
def test_counts_are_decided_by_themselves(
    runs: StoredRuns,
    ask: Compare,
    metric: str,
    factor: float,
    verdict: Verdict,
    trials: int,
) -> None:
    counted = [case(mode="profile"), case("ViT-Ti/16+TL8@6", mode="profile")]
    runs.add(
        (counted[0], [{metric: 1e9}] * trials),
        (counted[1], [{metric: factor * 1e9}] * trials),
    )
    answer = ask("model=ViT-Ti/16", "model~TL", metric=metric)
    (judgement,) = answer.judgements
    assert (judgement.ratio.method, judgement.ratio.verdict) == ("counted", verdict)
    assert bool(answer.failing(("worse",))) is (verdict == "worse")


def test_a_count_that_was_zero_has_a_verdict_without_a_ratio(
    runs: StoredRuns, ask: Compare
) -> None:
    runs.add((PLAIN, [{"graph_breaks": 0}]), (LEARNED, [{"graph_breaks": 2}]))
    sides = ("model=ViT-Ti/16", "model~TL")
    (judgement,) = ask(*sides, metric="graph_breaks").judgements
    assert (judgement.ratio.verdict, judgement.ratio.value) == ("worse", None)


def test_what_is_counted_asks_for_no_repeats(runs: StoredRuns, ask: Compare) -> None:
    counted = [case(mode="profile"), case("ViT-Ti/16+TL8@6", mode="profile")]
    runs.add(*((c, [{"macs": 1e9}]) for c in counted))
    (judgement,) = ask("model=ViT-Ti/16", "model~TL", metric="macs").judgements
    assert judgement.proposal is None


@pytest.mark.parametrize(
    ("gate", "factor", "is_stopped"),
    [
        (("worse",), 0.9, True),
        (("worse",), 1.1, False),
        (("better",), 1.1, True),
        (("worse", "inconclusive"), 1.0, False),
        ((), 0.9, False),
    ],
)
def test_a_gate_stops_the_verdicts_that_it_names(
    runs: StoredRuns,
    ask: Compare,
    gate: tuple[Verdict, ...],
    factor: float,
    is_stopped: bool,
) -> None:
    runs.add((PLAIN, speeds(*STEADY)), (LEARNED, scaled(factor)))
    answer = ask("model=ViT-Ti/16", "model~TL")
    assert bool(answer.failing(gate)) is is_stopped


def test_a_side_that_no_longer_runs_stops_any_gate(
    runs: StoredRuns, ask: Compare
) -> None:
    runs.add(
        (PLAIN, speeds(1, 2)), (LEARNED, speeds(1, 2)), failed={2: "oom", 3: "oom"}
    )
    answer = ask("model=ViT-Ti/16", "model~TL")
    (judgement,) = answer.judgements
    assert judgement.ratio.verdict == "inconclusive"
    assert judgement.proposal is None
    assert answer.failing(("worse",)) == [judgement]
    assert answer.failing(()) == []


@pytest.mark.parametrize("are_other_cases_measured", [True, False])
def test_a_side_that_ended_well_without_a_value_is_lost(
    runs: StoredRuns, ask: Compare, *, are_other_cases_measured: bool
) -> None:
    extra = [(POOLED, scaled(2))] if are_other_cases_measured else []
    unmeasured = [{"loss": 1.0}] * 2
    runs.add((PLAIN, speeds(*STEADY)), *extra)
    runs.add((PLAIN, unmeasured), *extra)
    answer = ask("1", "2")
    lost = answer.judgements[-1]
    assert lost.other.model == "ViT-Ti/16"
    assert answer.failing(("worse",)) == [lost]
    assert (answer.only_a, answer.unmeasured) == ((), ())


def test_what_only_one_mode_measures_is_not_lost(
    runs: StoredRuns, ask: Compare
) -> None:
    fit = case("ViT-Ti/16+TL8@6", mode="fit", data="digits")
    runs.add((PLAIN, speeds(*STEADY)), (LEARNED, scaled(2)), (fit, [{"loss": 1.0}]))
    answer = ask("model=ViT-Ti/16", "model~TL")
    assert [j.other.case for j in answer.judgements] == [LEARNED]
    assert [side.case for side in answer.unmeasured] == [fit]
    assert answer.failing(("worse",)) == []


def test_a_case_that_a_whole_run_lacks_stops_any_gate(
    runs: StoredRuns, ask: Compare
) -> None:
    """A query chooses its cases; of two runs each should have them all."""
    runs.add((PLAIN, speeds(*STEADY)), (LEARNED, scaled(2)), (POOLED, speeds(1, 2)))
    runs.add((PLAIN, speeds(*STEADY)), ended="interrupted")
    answer = ask("1", "2")
    assert answer.failing(("worse",)) == []
    assert [s.case for s in answer.missing(("worse",))] == [LEARNED, POOLED]
    assert answer.missing(()) == []
    assert ask("run=1,mode=infer", "2").missing(("worse",)) == []


def test_what_failed_in_the_base_too_is_not_missing(
    runs: StoredRuns, ask: Compare
) -> None:
    runs.add((PLAIN, speeds(*STEADY)), (LEARNED, speeds(1)), failed={5: "oom"})
    runs.add((PLAIN, speeds(*STEADY)))
    assert ask("1", "2").missing(("worse",)) == []


# ---------------------------------------------------------------- what would settle it


def test_an_open_comparison_says_what_would_settle_it(
    runs: StoredRuns, ask: Compare
) -> None:
    """As many more as make a t interval of that spread reach no longer than allowed."""
    noise = np.random.default_rng(3).normal(0, 0.05, (2, 4))
    base, other = 100 * np.exp(noise[0]), 106 * np.exp(noise[1])
    runs.add((PLAIN, speeds(*base)), (LEARNED, speeds(*other)), wall_time_s=7.0)
    (judgement,) = ask("model=ViT-Ti/16", "model~TL").judgements
    assert judgement.ratio.verdict == "inconclusive"
    proposal = judgement.proposal
    assert proposal is not None
    assert proposal.time_s == proposal.repeats * 14.0
    spread = float(np.std(np.log(other / base), ddof=1))
    off = abs(float(np.mean(np.log(other / base))))
    allowed = max(off - math.log(1.01), math.log(1.02) - off)
    fewest = next(
        n
        for n in range(2, 10_000)
        if stats.t.ppf(0.975, n - 1) * spread / math.sqrt(n) <= allowed
    )
    assert fewest <= proposal.repeats + 4 <= 6 * fewest  # and with a power of 90 %


def test_trials_of_two_runs_do_not_count_to_the_pairs_to_come(
    runs: StoredRuns, ask: Compare
) -> None:
    """The new run's pairs take the place of what Welch's test compared."""
    noise = np.random.default_rng(3).normal(0, 0.05, (2, 8))
    base, other = (speeds(*(100 * np.exp(row))) for row in noise)
    runs.add((PLAIN, base))
    runs.add((LEARNED, other))
    (apart,) = ask("model=ViT-Ti/16", "model~TL").judgements
    runs.add((PLAIN, base), (LEARNED, other))
    (paired,) = ask("model=ViT-Ti/16,run=3", "model~TL,run=3").judgements
    assert (apart.ratio.method, paired.ratio.method) == ("Welch", "paired t")
    assert apart.proposal is not None
    assert paired.proposal is not None
    logs = np.log([[v["throughput_samples_per_s"] for v in s] for s in (base, other)])
    spread = math.sqrt(float(logs.var(axis=1, ddof=1).sum()))
    off = abs(float(np.diff(logs.mean(axis=1))[0]))
    allowed = max(off - math.log(1.01), math.log(1.02) - off)
    fewest = next(
        n
        for n in range(2, 10_000)
        if stats.t.ppf(0.975, n - 1) * spread / math.sqrt(n) <= allowed
    )
    assert apart.proposal.repeats >= fewest


def test_one_trial_a_side_asks_for_an_interval(runs: StoredRuns, ask: Compare) -> None:
    runs.add((PLAIN, speeds(100)), (LEARNED, speeds(150)), wall_time_s=7.0)
    (judgement,) = ask("model=ViT-Ti/16", "model~TL").judgements
    assert judgement.proposal is not None
    assert (judgement.proposal.repeats, judgement.proposal.time_s) == (1, 14.0)


# ---------------------------------------------------------------- iso-anything


def measured(throughput: float, step_s: float, memory: float) -> list[dict[str, float]]:
    return [
        {
            "throughput_samples_per_s": throughput * noise,
            "step_time_p50_s": step_s / noise,
            "peak_memory_host_growth_bytes": memory,
        }
        for noise in (1.0, 1.001, 0.999)
    ]


@pytest.fixture
def swept(runs: StoredRuns) -> StoredRuns:
    """Three batches of two models: throughput, step time and memory all grow."""
    runs.add(
        *(
            (case(batch_size=n), measured(100 + n, n / (100 + n), n * 2**20))
            for n in (1, 8, 64)
        ),
        *(
            (
                case("ViT-Ti/16+TL8@6", batch_size=n),
                measured(200 + n, n / (200 + n), n * 2**19),
            )
            for n in (1, 8, 64)
        ),
    )
    return runs


@pytest.mark.parametrize(
    ("iso", "batches"),
    [
        ("batch", [(1, 1), (8, 8), (64, 64)]),
        ("memory=8MiB", [(8, 8)]),
        ("memory=32MiB", [(8, 64)]),
        ("latency=10ms", [(1, 1)]),
        ("latency=50ms", [(1, 8)]),
        ("latency=0.3s", [(8, 64)]),
    ],
)
def test_each_side_is_at_its_best_within_the_limit(
    swept: StoredRuns, ask: Compare, iso: str, batches: list[tuple[int, int]]
) -> None:
    answer = ask("model=ViT-Ti/16", "model~TL", iso=parse_iso(iso))
    found = [(j.base.batch_size, j.other.batch_size) for j in answer.judgements]
    assert found == batches


def test_iso_memory_takes_the_batches_that_a_run_has_found(
    runs: StoredRuns, ask: Compare
) -> None:
    def found(throughput: float, batch: int) -> list[dict[str, float]]:
        return [
            {"throughput_samples_per_s": throughput + i, "max_batch_size": batch}
            for i in range(3)
        ]

    limit: dict[str, Any] = {"batch_size": "max", "memory_limit_gib": 2}
    runs.add(
        (case(**limit), found(100, 40)),
        (case("ViT-Ti/16+TL8@6", **limit), found(250, 120)),
        (case(), found(80, 8)),
    )
    answer = ask("model=ViT-Ti/16", "model~TL", iso=parse_iso("memory"))
    (judgement,) = answer.judgements
    assert (judgement.base.batch_size, judgement.other.batch_size) == (40, 120)


def test_iso_memory_refuses_another_limit(runs: StoredRuns, ask: Compare) -> None:
    runs.add(
        (case(batch_size="max", memory_limit_gib=1), speeds(1, 2)),
        (
            case("ViT-Ti/16+TL8@6", batch_size="max", memory_limit_gib=2),
            speeds(1, 2),
        ),
    )
    with pytest.raises(ReportError, match=r"memory_limit_gib \(1.0, 2.0\) as well"):
        ask("model=ViT-Ti/16", "model~TL", iso=parse_iso("memory"))


def test_iso_accuracy_compares_the_cheapest_that_reach_it(
    runs: StoredRuns, ask: Compare
) -> None:
    """The accuracy is that of the same model, trained in the same run."""
    timed, trained = [], []
    for name, throughput, top1 in (
        ("ViT-Ti/16", 100, 91),
        ("ViT-S/16", 40, 95),
        ("ViT-S/16+TL8@6", 90, 93),
        ("ViT-Ti/16+TL8@6", 190, 85),
    ):
        timed.append((case(name), scaled(throughput / 100)))
        accuracy = [{"top1_percent": top1 + d} for d in (0.0, 0.2, 0.1)]
        trained.append((case(name, mode="fit", data="digits"), accuracy))
    runs.add(*timed, *trained)
    sides = ("mode=infer,model=ViT-Ti/16,model=ViT-S/16", "mode=infer,model~TL")
    for limit, expected in ((80, 1.9), (90, 0.9), (92, 90 / 40)):
        answer = ask(*sides, iso=parse_iso(f"accuracy={limit}"))
        (judgement,) = answer.judgements
        assert judgement.ratio.value == pytest.approx(expected)
    with pytest.raises(ReportError, match="--iso accuracy=99: no measured case keeps"):
        ask(*sides, iso=parse_iso("accuracy=99"))


def test_weights_belong_to_the_model_that_is_compared(
    runs: StoredRuns, ask: Compare
) -> None:
    plain = case(checkpoint={"path": "/vit.npz"})
    late = case(checkpoint={"path": "/late.npz"})
    learned = case("ViT-Ti/16+TL8@6", checkpoint={"path": "/learned.npz"})
    runs.add((plain, scaled(1)), (learned, scaled(2)))
    runs.add((plain, scaled(1)), (late, scaled(1)))
    over_models = ask("run=1,model=ViT-Ti/16", "run=1,model~TL")
    assert [*over_models.judgements[0].match.differences] == ["model"]
    over_weights = ask(
        "run=2,checkpoint.path=/vit.npz", "run=2,checkpoint.path=/late.npz"
    )
    (told,) = over_weights.judgements[0].match.differences.values()
    assert told == "checkpoint (/vit.npz, /late.npz)"


def test_configurations_of_deepspeed_are_compared_by_their_keys(
    runs: StoredRuns, ask: Compare
) -> None:
    plain = case(mode="train")
    own = case(mode="train", deepspeed={"zero_optimization": {"sub_group_size": 9}})
    runs.add((plain, scaled(1)), (own, scaled(1)))
    key = "deepspeed.zero_optimization.sub_group_size"
    answer = ask("run=1,deepspeed=null", f"run=1,{key}=9")
    (told,) = answer.judgements[0].match.differences.values()
    assert told == f"{key} (null, 9)"


def test_iso_accuracy_goes_by_the_average_precision_of_several_labels(
    runs: StoredRuns, ask: Compare
) -> None:
    names = ("ViViT-Ti/16x2", "ViViT-Ti/16x2+TL8@6")
    timed = [
        (case(name), scaled(speed)) for name, speed in zip(names, (1, 2), strict=True)
    ]
    scores = [
        (case(name, mode="fit", data="charades"), [{"map_percent": value}])
        for name, value in zip(names, (24.0, 22.0), strict=True)
    ]
    runs.add(*timed, *scores)
    sides = tuple(f"mode=infer,model={name}" for name in names)
    answer = ask(*sides, iso=parse_iso("accuracy=20"))
    assert answer.judgements[0].ratio.value == pytest.approx(2.0)
    with pytest.raises(ReportError, match="--iso accuracy=23: no measured case keeps"):
        ask(*sides, iso=parse_iso("accuracy=23"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memroy", "'memroy' is not one of batch, .* did you mean 'memory'"),
        ("latency", "--iso latency: latency=50ms would be right"),
        ("latency=50", "latency=50ms would be right"),
        ("memory=2GB", "memory or memory=2GiB would be right"),
        ("batch=8", "--iso batch=8: batch would be right"),
        ("accuracy=high", "accuracy=90 would be right"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(ReportError, match=message):
        parse_iso(text)
