"""One result of those of all ranks: the slowest and the fullest stand for the job."""

from dataclasses import replace

import pytest

from tlbench.result import (
    Metric,
    Series,
    Status,
    TrialResult,
    Validity,
    combine_ranks,
    name_rank,
)
from tlbench.statistics import step_interval


def rank_result(
    times: tuple[float, ...], *metrics: Metric, name: str = "step_time_s"
) -> TrialResult:
    return TrialResult("ok", metrics=metrics, series=(Series(name, times),))


def job_value(result: TrialResult, name: str) -> float | None:
    (metric,) = [m for m in result.metrics if m.name == name and m.rank == -1]
    return metric.value


def test_one_rank_is_the_whole_job() -> None:
    alone = rank_result((0.1, 0.3, 0.2), Metric("params", 5))
    combined = combine_ranks([alone], batch_size=8)
    assert combined.series == alone.series
    assert job_value(combined, "params") == 5
    assert {m.rank for m in combined.metrics} == {-1}


def test_throughput_is_samples_over_the_median_step() -> None:
    combined = combine_ranks([rank_result((0.1, 0.4, 0.2))], batch_size=8)
    assert job_value(combined, "step_time_p50_s") == 0.2
    assert job_value(combined, "throughput_samples_per_s") == 8 / 0.2
    assert job_value(combined, "throughput_per_device_samples_per_s") == 8 / 0.2


EXCHANGES = Metric("communication_fraction", None, "not looked for")
"""What ranks measure that exchange data in their steps."""


def test_each_step_of_the_job_takes_as_long_as_the_slowest_rank() -> None:
    ranks = [
        rank_result((0.1, 0.5, 0.2), EXCHANGES),
        rank_result((0.3, 0.4, 0.2), EXCHANGES),
    ]
    combined = combine_ranks(ranks, batch_size=12)
    assert Series("step_time_s", (0.3, 0.5, 0.2)) in combined.series
    assert job_value(combined, "throughput_samples_per_s") == 12 / 0.3
    assert job_value(combined, "throughput_per_device_samples_per_s") == 12 / 0.3 / 2


def test_steps_without_an_exchange_are_those_of_the_slowest_rank() -> None:
    # The largest of each pair would have a median of 0.4, which neither rank needs.
    ranks = [rank_result((0.1, 0.5, 0.2)), rank_result((0.3, 0.4, 0.3))]
    combined = combine_ranks(ranks, batch_size=12)
    assert Series("step_time_s", (0.3, 0.4, 0.3)) in combined.series
    assert job_value(combined, "throughput_samples_per_s") == 12 / 0.3


def test_ranks_say_what_throttled_their_own_devices() -> None:
    ranks = [
        replace(rank_result((0.1,)), notes=notes)
        for notes in ({"stopped_by": "interval"}, {"throttled_by": "power cap"})
    ]
    assert combine_ranks(ranks, batch_size=2).notes == {
        "stopped_by": "interval",
        "throttled_by": "rank 1: power cap",
    }


def test_what_all_ranks_say_is_said_once() -> None:
    ranks = [
        replace(rank_result((0.1,)), notes={"communication": "gloo", "device": device})
        for device in ("one, 2 threads", "other, 2 threads")
    ]
    assert combine_ranks(ranks, batch_size=2).notes == {
        "communication": "gloo",
        "device": "rank 0: one, 2 threads; rank 1: other, 2 threads",
    }


def test_the_steps_of_the_job_tell_their_interval_percentiles_and_outliers() -> None:
    steps = [0.1 + 0.001 * (7 * i % 100) for i in range(100)]  # 0.100 to 0.199, mixed
    steps[50] = 9.0
    combined = combine_ranks([rank_result(tuple(steps))], batch_size=8)
    low, high = step_interval(steps) or (None, None)
    assert job_value(combined, "step_time_p50_low_s") == low
    assert job_value(combined, "step_time_p50_high_s") == high
    # Interpolated between the 90th and the 91st of them, and the 99th and the last.
    ordered = sorted(steps)
    p90 = ordered[89] + 0.1 * (ordered[90] - ordered[89])
    p99 = ordered[98] + 0.01 * (9.0 - ordered[98])
    assert job_value(combined, "step_time_p90_s") == pytest.approx(p90)
    assert job_value(combined, "step_time_p99_s") == pytest.approx(p99)
    assert job_value(combined, "outlier_steps") == 1


def test_few_steps_have_neither_interval_nor_percentiles() -> None:
    combined = combine_ranks([rank_result((0.1, 0.3, 0.2))], batch_size=8)
    assert {m.name: m.reason for m in combined.metrics if m.value is None} == {
        "step_time_p50_low_s": "3 steps are too few",
        "step_time_p50_high_s": "3 steps are too few",
        "step_time_p90_s": "3 steps are too few",
        "step_time_p99_s": "3 steps are too few",
    }


def test_each_rank_keeps_its_own_values_beside_those_of_the_job() -> None:
    ranks = [
        rank_result((0.1,), Metric("peak_memory_allocated_bytes", 7)),
        rank_result((0.2,), Metric("peak_memory_allocated_bytes", 9)),
    ]
    combined = combine_ranks(ranks, batch_size=2)
    assert [
        (m.rank, m.value)
        for m in combined.metrics
        if m.name == "peak_memory_allocated_bytes"
    ] == [(-1, 9), (0, 7), (1, 9)]
    assert combined.series == (
        Series("step_time_s", (0.2,)),
        Series("step_time_s", (0.1,), rank=0),
        Series("step_time_s", (0.2,), rank=1),
    )


def test_power_of_the_job_is_that_of_all_its_devices() -> None:
    ranks = [rank_result((0.1,), Metric("power_w", watts)) for watts in (300, 250)]
    assert job_value(combine_ranks(ranks, batch_size=2), "power_w") == 550


def test_clock_of_the_job_is_that_of_its_slowest_device() -> None:
    name = "gpu_clock_hz"
    ranks = [rank_result((0.1,), Metric(name, hz)) for hz in (1.98e9, 1.2e9)]
    assert job_value(combine_ranks(ranks, batch_size=2), name) == 1.2e9


def test_what_ranks_sample_by_their_own_clocks_stays_theirs() -> None:
    ranks = [
        rank_result(samples, name="telemetry_power_w") for samples in ((1, 2, 3), (4,))
    ]
    assert combine_ranks(ranks, batch_size=2).series == (
        Series("telemetry_power_w", (1, 2, 3), rank=0),
        Series("telemetry_power_w", (4,), rank=1),
    )
    (alone,) = combine_ranks(ranks[:1], batch_size=2).series
    assert alone.rank == 0


def synchronous(compute_time_s: float, communication: float) -> TrialResult:
    """A rank whose step takes as long as that of all others."""
    return rank_result(
        (1.0, 1.0),
        Metric("compute_time_s", compute_time_s),
        Metric("communication_fraction", communication),
    )


def test_the_rank_that_computes_longest_is_the_slowest() -> None:
    ranks = [synchronous(0.8, 0.2), synchronous(0.92, 0.08), synchronous(0.85, 0.15)]
    combined = combine_ranks(ranks, batch_size=3)
    assert job_value(combined, "slowest_rank") == 1
    spread = job_value(combined, "rank_step_time_spread_fraction")
    assert spread == pytest.approx(0.15)
    assert job_value(combined, "compute_time_s") == 0.92


def test_communication_of_the_job_leaves_out_waiting_for_the_slowest() -> None:
    ranks = [synchronous(0.8, 0.2), synchronous(0.92, 0.08)]
    combined = combine_ranks(ranks, batch_size=2)
    assert job_value(combined, "communication_fraction") == 0.08
    of_ranks = [
        m.value
        for m in combined.metrics
        if m.name == "communication_fraction" and m.rank >= 0
    ]
    assert of_ranks == [0.2, 0.08]


def test_a_spread_that_one_rank_could_not_tell_is_unknown() -> None:
    unknown = rank_result((1.0, 1.0), Metric("compute_time_s", None, "saw nothing"))
    combined = combine_ranks([synchronous(0.8, 0.2), unknown], batch_size=2)
    for name in ("slowest_rank", "rank_step_time_spread_fraction"):
        assert Metric(name, None, "saw nothing") in combined.metrics


def test_one_rank_has_no_spread() -> None:
    combined = combine_ranks([synchronous(0.8, 0.2)], batch_size=2)
    assert "slowest_rank" not in {m.name for m in combined.metrics}


def test_a_failure_is_told_with_its_rank() -> None:
    failed = TrialResult("oom", "too little")
    assert name_rank(failed, 3).reason == "rank 3: too little"
    assert name_rank(TrialResult("ok"), 3) == TrialResult("ok")


def test_what_one_rank_could_not_measure_is_unknown_for_the_job() -> None:
    ranks = [
        rank_result((0.1,), Metric("peak", 7.0)),
        rank_result((0.1,), Metric("peak", None, "no such counter")),
    ]
    combined = combine_ranks(ranks, batch_size=2)
    job = next(m for m in combined.metrics if m.name == "peak")
    assert job == Metric("peak", None, "no such counter")


def test_what_only_one_rank_measured_stands_for_the_job() -> None:
    ranks = [
        rank_result((0.01,), Metric("latency_p50_s", 0.01), name="latency_s"),
        TrialResult("ok"),
    ]
    combined = combine_ranks(ranks, batch_size=2)
    assert job_value(combined, "latency_p50_s") == 0.01
    assert Series("latency_s", (0.01,)) in combined.series


@pytest.mark.parametrize("status", ["oom", "timeout", "error", "nan", "skipped"])
@pytest.mark.parametrize("failed_rank", [0, 1])
def test_a_failed_rank_stands_for_all(status: Status, failed_rank: int) -> None:
    ranks = [rank_result((0.1,)), rank_result((0.1,))]
    ranks[failed_rank] = TrialResult(status, "a reason")
    assert combine_ranks(ranks, batch_size=2) == TrialResult(status, "a reason")


def test_no_steps_give_no_throughput() -> None:
    combined = combine_ranks([TrialResult("ok", metrics=(Metric("macs", 3),))], 8)
    assert combined.metrics == (Metric("macs", 3),)


def test_an_unknown_value_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="metric mfu has neither a value nor a reason"):
        Metric("mfu", None)


@pytest.mark.parametrize("validity", ["suspect", "invalid"])
def test_a_doubt_needs_a_reason(validity: Validity) -> None:
    with pytest.raises(ValueError, match=f"validity {validity} needs a reason"):
        TrialResult("ok", validity=validity)


def test_a_failure_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="status oom needs a reason"):
        TrialResult("oom")
