"""One result of those of all ranks: the slowest and the fullest stand for the job."""

import pytest

from tlbench.result import (
    Metric,
    Series,
    Status,
    TrialResult,
    Validity,
    combine_ranks,
)


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


def test_each_step_of_the_job_takes_as_long_as_the_slowest_rank() -> None:
    ranks = [rank_result((0.1, 0.5, 0.2)), rank_result((0.3, 0.4, 0.2))]
    combined = combine_ranks(ranks, batch_size=12)
    assert Series("step_time_s", (0.3, 0.5, 0.2)) in combined.series
    assert job_value(combined, "throughput_samples_per_s") == 12 / 0.3
    assert job_value(combined, "throughput_per_device_samples_per_s") == 12 / 0.3 / 2


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
