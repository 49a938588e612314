"""MFU against published and measured peaks, by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from support.machine import MACHINE
from tlbench.machine import Machine
from tlbench.peaks import MFU, MFU_AGAINST, PEAKS, with_mfu
from tlbench.rank import Rank
from tlbench.result import Metric, TrialResult, combine_ranks
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Trial
from tlbench.trial import run_rank

CPU = replace(MACHINE, cpu_model="Some CPU")
A100 = replace(CPU, gpu_name="NVIDIA A100-SXM4-80GB", gpu_count=1)
UNLISTED = replace(CPU, gpu_name="NVIDIA GeForce RTX 4060", gpu_count=1)
MEASURED: dict[str, float | None] = {
    "matmul_fp32_flops_per_s": 5e10,
    "matmul_bf16_flops_per_s": None,
}
GFLOPS, TRAIN_GFLOPS = 35e9, 105e9


def case(mode: str = "infer", **settings: Any) -> Case:
    return Case.model_validate(
        {"model": parse_model("ViT-B/16"), "mode": mode, **settings}
    )


def result(machine: Machine | None, throughput: float, *metrics: Metric) -> TrialResult:
    measured = (
        Metric("flops", GFLOPS),
        Metric("train_flops", TRAIN_GFLOPS),
        Metric("throughput_samples_per_s", throughput),
        # A rank's own stands beside the job's, and is not it.
        Metric("throughput_samples_per_s", 1.0, rank=0),
    )
    by_name = {(m.name, m.rank): m for m in (*measured, *metrics)}
    return TrialResult("ok", metrics=tuple(by_name.values()), machine=machine)


def mfu(result: TrialResult) -> Metric:
    (found,) = [metric for metric in result.metrics if metric.name == MFU]
    return found


@pytest.mark.parametrize(
    ("settings", "throughput", "expected"),
    [
        ({"precision": "fp32"}, 100, 35e9 * 100 / 19.5e12),
        ({"precision": "tf32"}, 2000, 35e9 * 2000 / 156e12),
        ({"precision": "bf16"}, 4000, 35e9 * 4000 / 312e12),
        ({"mode": "train", "precision": "fp16"}, 1000, 105e9 * 1000 / 312e12),
        (
            {"mode": "train", "precision": "bf16", "parallelism": {"world_size": 4}},
            4000,
            105e9 * 1000 / 312e12,  # on each of four devices
        ),
    ],
)
def test_mfu_is_the_rate_of_operations_over_the_published_peak(
    settings: dict[str, Any], throughput: float, expected: float
) -> None:
    found = with_mfu(case(**settings), result(A100, throughput), {})
    assert mfu(found).value == pytest.approx(expected, rel=1e-12)
    assert found.notes[MFU_AGAINST] == (
        "dense peak of NVIDIA A100-SXM4-80GB, NVIDIA A100 datasheet"
    )


@pytest.mark.parametrize(
    ("machine", "settings"),
    [
        (CPU, {}),
        (UNLISTED, {}),
        (CPU, {"parallelism": {"world_size": 2}, "mode": "train"}),  # share one node
    ],
)
def test_mfu_is_held_against_the_measured_ceiling_where_no_peak_is_known(
    machine: Machine, settings: dict[str, Any]
) -> None:
    found = with_mfu(case(**settings), result(machine, 0.25), MEASURED)
    operations = TRAIN_GFLOPS if settings.get("mode") == "train" else GFLOPS
    assert mfu(found).value == pytest.approx(operations * 0.25 / 5e10)
    assert found.notes[MFU_AGAINST] == "this machine's measured fp32 matmul ceiling"


@pytest.mark.parametrize("machine", [A100, UNLISTED])
def test_what_was_measured_of_a_gpu_is_no_ceiling_of_the_cpu_beside_it(
    machine: Machine,
) -> None:
    """Neither is its published peak."""
    found = mfu(with_mfu(case(device="cpu"), result(machine, 0.25), MEASURED))
    assert found.value is None
    assert found.reason == (
        "`tlbench calibrate` measures the GPU of this machine, and no peak of its CPU"
        " is known"
    )


def test_ceiling_of_a_cpu_is_that_of_each_node() -> None:
    spread = case("train", parallelism={"world_size": 4, "nodes": 2})
    found = with_mfu(spread, result(CPU, 0.5), MEASURED)
    assert mfu(found).value == pytest.approx(TRAIN_GFLOPS * 0.5 / (2 * 5e10))


def test_ceiling_of_a_spread_cpu_job_is_that_of_the_nodes_it_had() -> None:
    spread = case("train", parallelism={"world_size": 4, "placement": "spread"})
    found = with_mfu(spread, result(CPU, 0.5), MEASURED, nodes=4)
    assert mfu(found).value == pytest.approx(TRAIN_GFLOPS * 0.5 / (4 * 5e10))


@pytest.mark.parametrize(
    ("machine", "precision", "reason"),
    [
        (CPU, "bf16", "no published bf16 peak of Some CPU"),
        (UNLISTED, "fp16", "no published fp16 peak of NVIDIA GeForce RTX 4060"),
        (replace(A100, gpu_name="Tesla T4"), "bf16", "bf16 peak of Tesla T4"),
        (
            replace(A100, gpu_name="NVIDIA A100-SXM4-80GB MIG 1g.10gb"),
            "bf16",
            "MIG 1g.10gb is known",
        ),
    ],
    ids=["cpu", "unlisted", "no such unit", "slice"],
)
def test_mfu_is_unknown_without_a_peak(
    machine: Machine, precision: str, reason: str
) -> None:
    found = mfu(with_mfu(case(precision=precision), result(machine, 1.0), MEASURED))
    assert found.value is None
    assert reason in (found.reason or "")
    assert "`tlbench calibrate`" in (found.reason or "")


def test_mfu_is_unknown_where_the_operations_are() -> None:
    unknown = Metric("flops", None, "cannot be run on the meta device")
    found = mfu(with_mfu(case(), result(A100, 1.0, unknown), {}))
    assert (found.value, found.reason) == (None, "cannot be run on the meta device")


@pytest.mark.parametrize("mode", ["profile", "fit"])
def test_only_what_has_a_throughput_has_an_mfu(mode: str) -> None:
    plain = result(A100, 1.0)
    assert with_mfu(case(mode, data="digits"), plain, MEASURED) == plain


ENGINES = {
    # SMs; boost clock of vector units and of tensor cores, in GHz; FLOP that an SM does
    # in a clock: fp32, then tf32, bf16 and fp16 in the tensor cores, dense.
    "Tesla V100-SXM2-16GB": (80, 1.53, 1.53, 128, None, None, 1024),
    "Tesla V100-PCIE-32GB": (80, 1.38, 1.38, 128, None, None, 1024),
    "Tesla T4": (40, 1.59, 1.59, 128, None, None, 1024),
    "NVIDIA A100-SXM4-80GB": (108, 1.41, 1.41, 128, 1024, 2048, 2048),
    "NVIDIA A10": (72, 1.695, 1.695, 256, 512, 1024, 1024),
    "NVIDIA A40": (84, 1.74, 1.74, 256, 512, 1024, 1024),
    "NVIDIA L4": (58, 2.04, 2.04, 256, 512, 1024, 1024),
    "NVIDIA L40": (142, 2.49, 2.49, 256, 256, 512, 512),
    "NVIDIA L40S": (142, 2.52, 2.52, 256, 512, 1024, 1024),
    "NVIDIA H100 80GB HBM3": (132, 1.98, 1.83, 256, 2048, 4096, 4096),
    "NVIDIA H100 PCIe": (114, 1.755, 1.62, 256, 2048, 4096, 4096),
    "NVIDIA H200": (132, 1.98, 1.83, 256, 2048, 4096, 4096),
    "NVIDIA GeForce RTX 4090": (128, 2.52, 2.52, 256, 256, 512, 512),
}


@pytest.mark.parametrize("name", ENGINES)
def test_peaks_are_what_the_units_do_at_their_boost_clock(name: str) -> None:
    sms, vector_ghz, tensor_ghz, *per_clock = ENGINES[name]
    clocks = (vector_ghz, tensor_ghz, tensor_ghz, tensor_ghz)
    for precision, flops, ghz in zip(
        ("fp32", "tf32", "bf16", "fp16"), per_clock, clocks, strict=True
    ):
        expected = flops and pytest.approx(sms * flops * ghz * 1e9, rel=0.013)
        assert getattr(PEAKS[name], precision) == expected


@pytest.mark.parametrize("name", PEAKS)
def test_peaks_name_their_source_and_agree_among_themselves(name: str) -> None:
    peak = PEAKS[name]
    assert peak.source.startswith("NVIDIA ")
    assert peak.bf16 in (None, peak.fp16)
    assert peak.tf32 == (peak.bf16 and pytest.approx(peak.bf16 / 2, rel=0.02))


@pytest.mark.gpu
def test_mfu_of_a_gpu_is_between_nothing_and_all() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no NVIDIA GPU")
    name = torch.cuda.get_device_name()
    if name not in PEAKS:
        pytest.skip(f"no peak of {name} is known")
    asked = case(batch_size=64, precision="fp16", timing={"min_steps": 50})
    trial = Trial(case=asked, repeat=0, position=0, seed=0)
    rank = Rank(0, 1, 0, 1, "127.0.0.1", 0, "cuda", threads=1)
    alone = combine_ranks([run_rank(trial, rank, import_time_s=0.0)], batch_size=64)
    assert alone.status == "ok", alone.traceback
    share = mfu(with_mfu(asked, alone, {})).value
    assert share is not None
    assert 0.05 < share < 1
