"""The noise floor against a simulation, and a calibration with made-up workers."""

import json
import math
import random
import statistics
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import cast

import numpy as np
import pytest
from rich.console import Console

from support.machine import MACHINE
from tlbench.calibrate import (
    FLOOR,
    FLOOR_BOUNDS,
    MEANINGS,
    NOISY,
    QUICK,
    Calibration,
    calibrate,
    describe,
    noise_case,
    noise_floor,
    noise_floor_metrics,
)
from tlbench.cluster import Cluster
from tlbench.console import calibration_parts
from tlbench.db import query
from tlbench.db.store import ResultStore
from tlbench.errors import TrialError
from tlbench.events import Finished
from tlbench.measure.rates import measure_rates, measure_timer
from tlbench.plan import matmul_flops_per_s
from tlbench.rank import DeviceKind, Rank
from tlbench.result import Metric, TrialResult
from tlbench.statistics import NOISE_FLOOR
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Trial

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
ON_ANY = Case(model=parse_model("ViT-Ti/16"), mode="infer")


def floor_of(throughputs: list[float]) -> dict[str, float]:
    return {m.name: m.value or 0.0 for m in noise_floor_metrics(throughputs)}


def draw(noise: random.Random, spread: float, pairs: int) -> list[float]:
    """Throughputs of pairs of trials that drift, and differ by `spread` each."""
    return [
        100 * math.exp(0.01 * (number // 2) + noise.gauss(0, spread))
        for number in range(2 * pairs)
    ]


def test_two_equal_cases_of_five_trials_lie_within_the_floor_95_times_of_100() -> None:
    noise, spread, inside = random.Random(1), 0.015, []
    for _ in range(4000):
        floor = floor_of(draw(noise, spread, pairs=6))[FLOOR]
        sides = draw(noise, spread, pairs=5)
        logs = [math.log(b / a) for a, b in zip(sides[::2], sides[1::2], strict=True)]
        inside.append(abs(statistics.mean(logs)) < math.log1p(floor))
    assert statistics.mean(inside) == pytest.approx(0.95, abs=0.01)


def test_the_interval_of_the_floor_holds_the_one_of_the_true_spread() -> None:
    noise, spread, covered = random.Random(2), 0.02, []
    for _ in range(4000):
        found = floor_of(draw(noise, spread, pairs=6))
        # With the spread known, Student's t of six pairs is 2.4469 (tables).
        true = math.expm1(2.4469 * math.sqrt(2 / 5) * spread)
        low, high = (found[f"noise_floor_{end}_fraction"] for end in ("low", "high"))
        covered.append(low < true < high)
    assert statistics.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_drift_between_pairs_is_no_noise() -> None:
    pairs = [value for drift in (1.0, 1.3, 1.7, 2.2) for value in (drift, drift * 1.01)]
    expected = math.expm1(2.7764 * math.log(1.01) / math.sqrt(5))  # t of four pairs
    assert floor_of(pairs)[FLOOR] == pytest.approx(expected, rel=1e-4)


def test_a_machine_without_noise_has_no_floor() -> None:
    assert floor_of([5.0] * 8)[FLOOR] == 0


class Worker:
    """Stands for the cluster: gives scripted throughputs, and the rates once."""

    device: DeviceKind = "cpu"

    def __init__(self, throughputs: list[float], status: str = "ok") -> None:
        self._throughputs = iter(throughputs)
        self._status = status
        self.trials: list[Trial] = []

    def calibrate(self, time_limit_s: float) -> TrialResult:
        rates = (Metric("copy_bytes_per_s", 1e10), Metric("timer_s", 4e-8))
        return TrialResult("ok", metrics=rates, machine=MACHINE)

    def run(self, trial: Trial, timeout_s: float) -> Finished:
        self.trials.append(trial)
        if self._status != "ok":
            return Finished(trial, TrialResult("oom", "no memory"), NOW, 1.0)
        value = Metric("throughput_samples_per_s", next(self._throughputs))
        return Finished(trial, TrialResult("ok", metrics=(value,)), NOW, 1.0)


def calibrated(worker: Worker) -> Calibration:
    return calibrate(cast(Cluster, worker), QUICK, lambda _: None)


def test_a_calibration_has_the_floor_and_the_rates() -> None:
    worker = Worker([100, 101, 100, 99])
    found = calibrated(worker)
    values = {metric.name: metric.value for metric in found.values}
    assert values[FLOOR] == floor_of([100, 101, 100, 99])[FLOOR]
    assert values["copy_bytes_per_s"] == 1e10
    assert found.machine == MACHINE
    assert {trial.case for trial in worker.trials} == {
        noise_case("cpu", QUICK.max_time_s)
    }


def test_a_trial_that_fails_is_an_error_with_its_reason() -> None:
    with pytest.raises(TrialError, match="of the calibration ended: no memory"):
        calibrated(Worker([], status="oom"))


def test_a_wide_spread_is_called_noisy() -> None:
    assert not calibrated(Worker([100, 100.1, 100, 99.9])).is_noisy
    noisy = calibrated(Worker([100, 120, 100, 80]))
    assert noisy.is_noisy
    assert describe(noisy)["values"][FLOOR] > NOISY
    assert json.loads(json.dumps(describe(noisy)))["is_noisy"]


def test_a_calibration_is_shown_in_units_with_what_each_value_is() -> None:
    noisy = calibrated(Worker([100, 120, 100, 80]))
    console = Console(width=120, record=True, file=StringIO())
    for part in calibration_parts(noisy):
        console.print(part)
    shown = console.export_text()
    assert "10.00 GB/s" in shown
    assert "40.0 ns" in shown
    assert MEANINGS["timer_s"] in shown
    assert "This machine is noisy" in shown


@pytest.mark.parametrize(
    ("measured", "used"),
    [(0.02, 0.02), (0.0, FLOOR_BOUNDS[0]), (0.7, FLOOR_BOUNDS[1]), (None, NOISE_FLOOR)],
)
def test_comparisons_take_the_measured_floor_within_bounds(
    store: ResultStore, measured: float | None, used: float
) -> None:
    value = Metric(FLOOR, measured, None if measured is not None else "none")
    store.add_calibration(MACHINE, [value], NOW)
    with store.session() as session:
        assert noise_floor(session, MACHINE, ON_ANY) == used


def test_without_a_calibration_the_usual_floor_holds(store: ResultStore) -> None:
    with store.session() as session:
        assert noise_floor(session, MACHINE, ON_ANY) == NOISE_FLOOR
        assert noise_floor(session, None, ON_ANY) == NOISE_FLOOR


def test_the_floor_of_a_gpu_is_not_that_of_the_cpu_beside_it(
    store: ResultStore,
) -> None:
    gpu = replace(MACHINE, gpu_name="NVIDIA L4", gpu_count=1)
    on_cpu = ON_ANY.model_copy(update={"device": "cpu"})
    for machine, floor in ((gpu, 0.03), (MACHINE, 0.04)):
        store.add_calibration(machine, [Metric(FLOOR, floor)], NOW)
    with store.session() as session:
        assert noise_floor(session, gpu, ON_ANY) == 0.03
        assert noise_floor(session, gpu, on_cpu) == NOISE_FLOOR
        assert noise_floor(session, MACHINE, on_cpu) == 0.04


def test_a_later_calibration_replaces_the_floor(store: ResultStore) -> None:
    for days, floor in ((1, 0.03), (0, 0.04)):
        moment = NOW + timedelta(days=days)
        store.add_calibration(MACHINE, [Metric(FLOOR, floor)], moment)
    with store.session() as session:
        assert query.calibration(session, MACHINE) == {FLOOR: 0.03}


# ---------------------------------------------------------------- rates


def cpu_rank() -> Rank:
    return Rank(0, 1, 0, 1, "127.0.0.1", 0, "cpu", threads=1)


def test_the_clock_ticks_and_costs_something() -> None:
    cost, resolution = measure_timer()
    assert 0 < (resolution.value or 0) < 1e-3
    assert 0 < (cost.value or 0) < 1e-3


@pytest.mark.slow
def test_rates_of_a_cpu_agree_with_those_of_numpy() -> None:
    found = {metric.name: metric for metric in measure_rates(cpu_rank(), 0.2)}
    assert found.keys() <= MEANINGS.keys()
    by_numpy = matmul_flops_per_s()
    by_torch = found["matmul_fp32_flops_per_s"].value or 0
    assert by_numpy / 10 < by_torch < by_numpy * 10
    assert (found["matmul_bf16_flops_per_s"].value or 0) > 0
    source = np.ones(2**28, dtype=np.uint8)
    target = np.zeros_like(source)
    before = datetime.now(UTC)
    np.copyto(target, source)
    took_s = (datetime.now(UTC) - before).total_seconds()
    by_numpy = 2 * source.nbytes / took_s
    assert by_numpy / 10 < (found["copy_bytes_per_s"].value or 0) < by_numpy * 10
    for name in ("matmul_tf32_flops_per_s", "matmul_fp16_flops_per_s"):
        assert found[name].value is None
        assert "needs a GPU" in (found[name].reason or "")


@pytest.mark.gpu
def test_rates_of_a_gpu_are_all_there_and_tensor_cores_are_faster() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no NVIDIA GPU here")
    rank = Rank(0, 1, 0, 1, "127.0.0.1", 0, "cuda", threads=1)
    found = {metric.name: metric.value for metric in measure_rates(rank, 1.0)}
    assert (found["host_to_device_bytes_per_s"] or 0) > 1e8
    if torch.cuda.get_device_capability() >= (8, 0):
        bf16, fp32 = (found[f"matmul_{p}_flops_per_s"] or 0 for p in ("bf16", "fp32"))
        assert bf16 > fp32 > 0
