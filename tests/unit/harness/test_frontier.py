"""The search for the largest batch, against laws of memory made up for it."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest

from support.machine import MACHINE
from tlbench.cluster import Cluster
from tlbench.events import Finished
from tlbench.frontier import (
    MARGIN,
    MAX_BATCH_SIZE,
    OVERSHOOT,
    RESOLUTION,
    Frontier,
    LargestBatches,
    at_batch,
    find_largest,
    predict_largest,
)
from tlbench.models.memory import predicted_growth_bytes, predicted_memory_bytes
from tlbench.placement import Placement
from tlbench.rank import DeviceKind
from tlbench.result import Metric, TrialResult
from tlbench.suites.names import parse_model
from tlbench.suites.probe import Probe
from tlbench.suites.spec import Case, Parallelism, Trial
from tlbench.suites.training import Optimizer

MIB = 2**20
LIMIT_GIB = 1.0
GOAL = LIMIT_GIB * 2**30 * (1 - MARGIN)

Law = Callable[[int], float]
"""Bytes that the steps of a batch take."""


def make_case(**changes: object) -> Case:
    settings = {
        "model": parse_model("ViT-Ti/16"),
        "mode": "infer",
        "batch_size": "max",
        "memory_limit_gib": LIMIT_GIB,
    }
    return Case.model_validate(settings | changes)


class Machine:
    """Answers probes by a law of memory, and remembers them."""

    def __init__(
        self, law: Law, device: DeviceKind = "cpu", oom_above: float = math.inf
    ) -> None:
        self._law, self._device, self._oom_above = law, device, oom_above
        self.probed: list[int] = []

    def __call__(self, batch_size: int) -> TrialResult:
        self.probed.append(batch_size)
        peak = self._law(batch_size)
        if peak > self._oom_above:
            return TrialResult("oom", "DefaultCPUAllocator: can't allocate memory")
        kind = {"cpu": "host_growth", "cuda": "reserved"}[self._device]
        gpu_memory_bytes = 2**30 if self._device == "cuda" else None
        return TrialResult(
            "ok",
            metrics=(Metric(f"peak_memory_{kind}_bytes", peak),),
            machine=replace(MACHINE, gpu_memory_bytes=gpu_memory_bytes),
        )


def search(law: Law, case: Case | None = None) -> tuple[Frontier, Machine]:
    machine = Machine(law)
    return find_largest(case or make_case(), "cpu", machine), machine


def metrics(frontier: Frontier) -> dict[str, float | None]:
    return {metric.name: metric.value for metric in frontier.metrics}


def largest_by_trying_all(law: Law, unit: int = 1) -> int:
    return max(n for n in range(unit, 20_000, unit) if law(n) <= GOAL)


def _steps(batch_size: int) -> float:
    return 64 * MIB * -(-batch_size // 8)


def _bent(batch_size: int) -> float:
    return max(200 * MIB, 11 * MIB * batch_size)


def _concave(batch_size: int) -> float:
    return 100 * MIB * math.pow(batch_size, 0.7)


def _straight(constant: float, slope: float) -> Law:
    return lambda n: (constant + slope * n) * MIB


def _walled(last: int) -> Law:
    return lambda n: 10 * MIB + 2**31 * (n > last)


def _cheap(batch_size: int) -> float:
    return 50 * MIB + 3.7 * MIB * batch_size


LAWS: dict[str, Law] = {
    "proportional": lambda n: 13.3 * MIB * n,
    "with a constant": lambda n: 700 * MIB + 9.1 * MIB * n,
    "in steps": _steps,
    "flat, then steep": _bent,
    "concave": _concave,
    "steep": lambda n: 400 * MIB * n,
}


@pytest.mark.parametrize("name", LAWS)
def test_the_largest_batch_is_exact_where_a_unit_is_more_than_a_percent(
    name: str,
) -> None:
    law = LAWS[name]
    frontier, _ = search(law)
    assert frontier.status == "ok"
    assert frontier.largest == largest_by_trying_all(law)
    assert metrics(frontier)["smallest_failing_batch_size"] == frontier.largest + 1


@pytest.mark.parametrize("per_sample", [0.05, 0.31, 1.7])
def test_a_large_batch_is_found_to_a_percent(per_sample: float) -> None:
    frontier, _ = search(lambda n: per_sample * MIB * n)
    failing = metrics(frontier)["smallest_failing_batch_size"]
    assert frontier.largest is not None
    assert failing is not None
    assert frontier.largest <= GOAL / (per_sample * MIB) < failing
    assert 0 < failing - frontier.largest <= max(1, RESOLUTION * frontier.largest)


@pytest.mark.parametrize("name", LAWS)
def test_probes_are_few_and_none_comes_twice(name: str) -> None:
    _, machine = search(LAWS[name])
    assert len(set(machine.probed)) == len(machine.probed) <= 10


def test_a_straight_line_takes_a_handful_of_probes() -> None:
    for constant in (0, 100, 800):
        for slope in (0.3, 2.0, 17.0):
            _, machine = search(_straight(constant, slope))
            assert len(machine.probed) <= 7, (constant, slope)


def test_probes_grow_with_the_logarithm_even_where_nothing_is_straight() -> None:
    # The worst for a line: almost flat, and then a wall.
    for wall in (3, 47, 900, 30_000):
        frontier, machine = search(_walled(wall))
        assert frontier.largest is not None
        assert frontier.largest <= wall <= frontier.largest * (1 + RESOLUTION) + 1
        assert len(machine.probed) <= 8 + 2 * math.log2(MAX_BATCH_SIZE)


@pytest.mark.parametrize("name", LAWS)
def test_no_probe_is_far_beyond_the_limit(name: str) -> None:
    law = LAWS[name]
    _, machine = search(law)
    # One sample more is always tried. What bends upwards defeats the line once.
    factor = 1.5 if name == "flat, then steep" else OVERSHOOT
    most = factor * LIMIT_GIB * 2**30
    assert [n for n in machine.probed if law(n) > most and law(n - 1) > GOAL] == []


@pytest.mark.parametrize("seed", range(20))
def test_noise_leaves_the_answer_within_the_noise(seed: int) -> None:
    noise = random.Random(seed)

    def law(batch_size: int) -> float:
        return (80 + 6 * batch_size) * MIB * noise.uniform(0.98, 1.02)

    frontier, machine = search(law)
    assert frontier.largest is not None
    assert 0.95 * GOAL < (80 + 6 * frontier.largest) * MIB < 1.05 * GOAL
    assert len(machine.probed) <= 20


def test_all_batches_are_multiples_of_ranks_and_parts() -> None:
    case = make_case(
        mode="train",
        parallelism=Parallelism(world_size=2),
        optimizer=Optimizer(gradient_accumulation_steps=3),
    )
    frontier, machine = search(_cheap, case)
    assert {n % 6 for n in machine.probed} == {0}
    assert machine.probed[0] == 6
    assert frontier.largest == largest_by_trying_all(_cheap, unit=6)


def test_running_out_of_memory_counts_as_not_fitting() -> None:
    machine = Machine(LAWS["proportional"], oom_above=0.8 * GOAL)
    frontier = find_largest(make_case(), "cpu", machine)
    assert frontier.largest == 0.8 * GOAL // (13.3 * MIB)
    assert [look.memory_bytes for look in frontier.looks if not look.fits] == [
        None
    ] * sum(not look.fits for look in frontier.looks)
    (batches, memory) = frontier.series
    assert len(batches.values) == len(memory.values) == len(machine.probed)
    assert math.isnan(memory.values[batches.values.index(frontier.largest + 1)])


def test_a_smallest_batch_that_does_not_fit_is_out_of_memory() -> None:
    frontier, machine = search(lambda n: 2048 * MIB * n)
    assert (frontier.status, frontier.largest, machine.probed) == ("oom", None, [1])
    assert frontier.reason == (
        "batch 1, the smallest, takes 2.00 GiB, which is more than 95% of 1.00 GiB"
    )
    assert frontier.metrics == ()


def test_a_smallest_batch_that_ends_the_memory_says_so() -> None:
    machine = Machine(LAWS["proportional"], oom_above=0)
    frontier = find_largest(make_case(), "cpu", machine)
    assert frontier.status == "oom"
    assert frontier.reason == "memory ran out at batch 1, the smallest"


def test_any_other_failure_ends_the_search_with_its_reason() -> None:
    def probe(batch_size: int) -> TrialResult:
        return TrialResult("error", "ValueError: no such thing")

    frontier = find_largest(make_case(), "cpu", probe)
    assert frontier.status == "error"
    assert frontier.reason == "at batch 1: ValueError: no such thing"


def test_a_peak_that_cannot_be_measured_skips_the_case() -> None:
    unknown = Metric("peak_memory_host_growth_bytes", None, "the kernel does not let")

    def probe(batch_size: int) -> TrialResult:
        return TrialResult("ok", metrics=(unknown,), machine=MACHINE)

    frontier = find_largest(make_case(), "cpu", probe)
    assert frontier.status == "skipped"
    assert frontier.reason is not None
    assert "is unknown: the kernel does not let" in frontier.reason


def test_a_cpu_without_a_limit_is_skipped_without_a_probe() -> None:
    machine = Machine(_cheap)
    frontier = find_largest(make_case(memory_limit_gib=None), "cpu", machine)
    assert (frontier.status, machine.probed) == ("skipped", [])
    assert "memory_limit_gib" in (frontier.reason or "")


def test_a_limit_beyond_the_machine_is_refused_after_the_smallest_batch() -> None:
    case = make_case(memory_limit_gib=5.0, parallelism=Parallelism(world_size=2))
    frontier, machine = search(LAWS["proportional"], case)  # of 8 GiB
    assert frontier.status == "skipped"
    assert machine.probed == [2]
    assert "memory_limit_gib=5 for each of 2 rank(s) is more than the 8.00 GiB" in (
        frontier.reason or ""
    )


def test_a_gpu_without_a_limit_has_all_its_memory() -> None:
    machine = Machine(LAWS["proportional"], "cuda")
    frontier = find_largest(make_case(memory_limit_gib=None), "cuda", machine)
    assert frontier.largest == largest_by_trying_all(LAWS["proportional"])
    assert metrics(frontier)["memory_limit_bytes"] == 2**30


def test_a_gpu_that_does_not_tell_its_memory_needs_a_limit() -> None:
    def probe(batch_size: int) -> TrialResult:
        peak = Metric("peak_memory_reserved_bytes", 1.0)
        return TrialResult("ok", metrics=(peak,), machine=MACHINE)

    frontier = find_largest(make_case(memory_limit_gib=None), "cuda", probe)
    assert frontier.status == "skipped"
    assert "memory_limit_gib" in (frontier.reason or "")


def test_a_search_without_an_end_stops_at_the_most_that_a_suite_may_ask_for() -> None:
    frontier, _ = search(lambda n: n)
    assert frontier.largest is not None
    assert MAX_BATCH_SIZE * (1 - RESOLUTION) <= frontier.largest <= MAX_BATCH_SIZE
    failing = next(m for m in frontier.metrics if m.name.startswith("smallest"))
    assert failing.value is None
    assert "no more than 1,000,000" in (failing.reason or "")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_the_prediction_is_where_the_closed_form_crosses_the_limit(
    device: DeviceKind, mode: str
) -> None:
    case = make_case(mode=mode, parallelism=Parallelism(world_size=2))
    form = predicted_growth_bytes if device == "cpu" else predicted_memory_bytes
    found = predict_largest(case, device, LIMIT_GIB * 2**30)
    assert found is not None
    assert found % 2 == 0
    fitting, failing = (form(at_batch(case, found + more)) or 0 for more in (0, 2))
    assert fitting <= GOAL < failing


def test_the_prediction_of_what_cannot_fit_is_none_of_it() -> None:
    assert predict_largest(make_case(mode="train"), "cuda", 1e6) == 0


def test_nobody_predicts_a_builders_model() -> None:
    case = make_case(model=parse_model("ViT-Ti/16+tome(r=8)"))
    assert predict_largest(case, "cpu", 2**30) is None
    frontier, _ = search(_cheap, case)
    assert frontier.largest == largest_by_trying_all(_cheap)


def test_a_known_batch_makes_an_ordinary_case() -> None:
    known = at_batch(make_case(), 24)
    assert known == make_case(batch_size=24)
    assert known.identity == make_case(batch_size=24).identity


# ---------------------------------------------------------------- trials


class ScriptedCluster:
    """Runs probes by a law of memory, and gives each trial its batch back."""

    def __init__(self, law: Law) -> None:
        self._machine = Machine(law)
        self.ran: list[Trial] = []

    def device_of(self, case: Case) -> DeviceKind:
        return "cpu"

    def run(
        self, trial: Trial, timeout_s: float, placement: Placement | None = None
    ) -> Finished:
        self.ran.append(trial)
        result = self._machine(trial.case.global_batch_size)
        return Finished(trial, result, datetime.now(UTC), 1.0)


def run_twice(law: Law, case: Case) -> tuple[list[Finished], ScriptedCluster]:
    cluster = ScriptedCluster(law)
    batches = LargestBatches(cast(Cluster, cluster))
    trials = [Trial(case, repeat, repeat, seed=7 + repeat) for repeat in range(2)]
    return [batches.run(trial, 60.0) for trial in trials], cluster


def test_trials_run_at_the_batch_that_was_found_under_the_case_that_asked() -> None:
    finished, cluster = run_twice(_cheap, make_case())
    largest = largest_by_trying_all(_cheap)
    trials = [trial for trial in cluster.ran if not isinstance(trial, Probe)]
    assert [trial.case.batch_size for trial in trials] == [largest] * 2
    assert [trial.seed for trial in trials] == [7, 8]
    for item in finished:
        assert item.trial.case == make_case()
        found = {metric.name: metric.value for metric in item.result.metrics}
        assert found["max_batch_size"] == largest
        failing = found["smallest_failing_batch_size"]
        assert failing is not None
        assert largest < failing <= largest * (1 + RESOLUTION)


def test_the_search_is_made_once_and_kept_with_the_first_trial() -> None:
    (first, second), cluster = run_twice(_cheap, make_case())
    probes = [trial for trial in cluster.ran if isinstance(trial, Probe)]
    assert cluster.ran[: len(probes)] == probes
    batches = tuple(float(probe.case.global_batch_size) for probe in probes)
    kept = {series.name: series.values for series in first.result.series}
    assert kept["probe_batch_size"] == batches
    assert kept["probe_memory_bytes"] == tuple(map(_cheap, map(int, batches)))
    assert second.result.series == ()
    assert first.result.notes["batch"] == f"found by {len(probes)} probes"
    assert {probe.stop_bytes for probe in probes} == {int(OVERSHOOT * 2**30)}


def test_trials_of_a_case_without_a_batch_say_why_and_do_not_search_again() -> None:
    finished, cluster = run_twice(lambda n: 2048 * MIB, make_case())
    assert [item.result.status for item in finished] == ["oom", "oom"]
    assert len(cluster.ran) == 1
    assert finished[0].result.metrics == ()


def test_a_case_with_a_batch_of_its_own_is_run_as_it_is() -> None:
    finished, cluster = run_twice(_cheap, make_case(batch_size=4))
    assert [trial.case.batch_size for trial in cluster.ran] == [4, 4]
    assert "max_batch_size" not in {m.name for m in finished[0].result.metrics}


@pytest.mark.slow
@pytest.mark.cluster
def test_a_real_process_holds_the_batch_that_is_found_and_not_the_next() -> None:
    case = make_case(model=parse_model("ViT-Ti/16[2]"), memory_limit_gib=0.03125)
    goal = 2**25 * (1 - MARGIN)
    with Cluster() as cluster:
        batches = LargestBatches(cluster)
        finished = batches.run(Trial(case, 0, 0, seed=0), 300.0)
    assert finished.result.status == "ok", finished.result.reason
    found = {m.name: m.value for m in finished.result.metrics if m.rank < 0}
    probes = {series.name: series.values for series in finished.result.series}
    seen = dict(
        zip(probes["probe_batch_size"], probes["probe_memory_bytes"], strict=True)
    )
    largest, failing = found["max_batch_size"], found["smallest_failing_batch_size"]
    assert largest is not None
    assert failing is not None
    assert seen[largest] <= goal < seen[failing]
    assert failing == largest + 1
    peak = found["peak_memory_host_growth_bytes"]
    assert peak == pytest.approx(seen[largest], rel=MARGIN)
