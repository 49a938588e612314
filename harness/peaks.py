"""MFU: what share of the peak rate of its devices a model's operations amount to.

The peak is the dense one that the vendor publishes of exactly this product; where none
is known, the rate of a matrix product that `tlbench calibrate` measured here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tlbench.machine import Machine
from tlbench.result import WHOLE_JOB, Metric, TrialResult
from tlbench.suites.spec import Case, Mode, Precision

MFU = "mfu"
MFU_AGAINST = "mfu_against"
"""The note that says what the peak is."""
OPERATIONS: dict[Mode, str] = {"infer": "flops", "train": "train_flops"}
"""What one sample costs, in the modes that have a throughput.

What gradient checkpointing computes a second time is no work of the model's."""


@dataclass(frozen=True)
class Peak:
    """Dense peak rates of one product, in FLOP/s; None: it has no such units."""

    fp32: float
    """Outside the tensor cores."""
    tf32: float | None
    bf16: float | None
    fp16: float
    """Summed in fp32, as torch does by default."""
    source: str

    def of(self, precision: Precision) -> float | None:
        rate: float | None = getattr(self, precision)
        return rate


_V100_SXM2 = Peak(15.7e12, None, None, 125e12, "NVIDIA V100 datasheet")
_V100_PCIE = Peak(14e12, None, None, 112e12, "NVIDIA V100 datasheet")
_A100 = Peak(19.5e12, 156e12, 312e12, 312e12, "NVIDIA A100 datasheet")
_ADA_PAPER = "NVIDIA Ada GPU Architecture whitepaper, appendix A"
_H100_PAPER = "NVIDIA H100 Tensor Core GPU Architecture whitepaper"

PEAKS = {
    "Tesla V100-SXM2-16GB": _V100_SXM2,
    "Tesla V100-SXM2-32GB": _V100_SXM2,
    "Tesla V100-PCIE-16GB": _V100_PCIE,
    "Tesla V100-PCIE-32GB": _V100_PCIE,
    "Tesla T4": Peak(8.1e12, None, None, 65e12, "NVIDIA T4 datasheet"),
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-SXM4-80GB": _A100,
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100 80GB PCIe": _A100,
    "NVIDIA A10": Peak(31.2e12, 62.5e12, 125e12, 125e12, "NVIDIA A10 datasheet"),
    "NVIDIA A40": Peak(37.4e12, 74.8e12, 149.7e12, 149.7e12, "NVIDIA A40 datasheet"),
    # Printed with sparsity alone, which doubles it: 120 and 242.
    "NVIDIA L4": Peak(30.3e12, 60e12, 121e12, 121e12, "NVIDIA L4 datasheet"),
    "NVIDIA L40": Peak(90.5e12, 90.5e12, 181.05e12, 181.05e12, "NVIDIA L40 datasheet"),
    "NVIDIA L40S": Peak(91.6e12, 183e12, 362.05e12, 362.05e12, "NVIDIA L40S datasheet"),
    "NVIDIA H100 80GB HBM3": Peak(66.9e12, 494.7e12, 989.4e12, 989.4e12, _H100_PAPER),
    "NVIDIA H100 PCIe": Peak(51.2e12, 378e12, 756e12, 756e12, _H100_PAPER),
    # Printed with sparsity alone: 989 and 1,979.
    "NVIDIA H200": Peak(67e12, 494.5e12, 989.5e12, 989.5e12, "NVIDIA H200 datasheet"),
    "NVIDIA GeForce RTX 4090": Peak(82.6e12, 82.6e12, 165.2e12, 165.2e12, _ADA_PAPER),
}
"""By the whole name that NVML gives: a slice of a GPU has another one, and so have
variants with other clocks. What is not here has no peak, rather than a similar one."""


@dataclass(frozen=True)
class Ceiling:
    """The rate that the whole job is held against."""

    flops_per_s: float
    words: str


def with_mfu(
    case: Case,
    result: TrialResult,
    calibration: Mapping[str, float | None],
    nodes: int | None = None,
) -> TrialResult:
    """The result with its MFU, or with the reason why that is unknown.

    Args:
        case: What was run; only `infer` and `train` have a throughput.
        result: Of all ranks together.
        calibration: What `tlbench calibrate` has measured on the result's machine.
        nodes: How many its ranks ran on; None: as many as the case names.
    """
    if case.mode not in OPERATIONS or result.machine is None:
        return result
    metrics = {m.name: m for m in result.metrics if m.rank == WHOLE_JOB}
    operations = metrics[OPERATIONS[case.mode]]
    throughput = metrics["throughput_samples_per_s"].value
    nodes = case.parallelism.nodes if nodes is None else nodes
    ceiling = _ceiling(case, result.machine, calibration, nodes)
    if operations.value is None or throughput is None:
        return _with(result, Metric(MFU, None, operations.reason))
    if isinstance(ceiling, str):
        return _with(result, Metric(MFU, None, ceiling))
    mfu = operations.value * throughput / ceiling.flops_per_s
    noted = replace(result, notes=result.notes | {MFU_AGAINST: ceiling.words})
    return _with(noted, Metric(MFU, mfu))


def _with(result: TrialResult, metric: Metric) -> TrialResult:
    return replace(result, metrics=(*result.metrics, metric))


def is_on_gpu(case: Case, machine: Machine) -> bool:
    """Whether the case computes on the machine's GPUs, if it has any."""
    return case.device != "cpu" and machine.gpu_count > 0


def is_calibrated_device(case: Case, machine: Machine) -> bool:
    """Whether the case computes on what a calibration measures: a GPU if there is one.

    What it says of a GPU holds for no case on the CPU beside it.
    """
    return is_on_gpu(case, machine) or machine.gpu_count == 0


def _ceiling(
    case: Case,
    machine: Machine,
    calibration: Mapping[str, float | None],
    nodes: int,
) -> Ceiling | str:
    """Of the devices of the job; else why there is none.

    On a CPU the ranks of a node share it, and the measured rate is that of all cores.
    """
    is_gpu = is_on_gpu(case, machine)
    devices = case.parallelism.world_size if is_gpu else nodes
    published = PEAKS.get(machine.gpu_name or "") if is_gpu else None
    peak = published and published.of(case.precision)
    if published and peak:
        words = f"dense peak of {machine.gpu_name}, {published.source}"
        return Ceiling(devices * peak, words)
    if not is_calibrated_device(case, machine):
        return (
            "`tlbench calibrate` measures the GPU of this machine, and no peak of its"
            " CPU is known"
        )
    measured = calibration.get(f"matmul_{case.precision}_flops_per_s")
    if measured is not None:
        words = f"this machine's measured {case.precision} matmul ceiling"
        return Ceiling(devices * measured, words)
    device = (machine.gpu_name if is_gpu else machine.cpu_model) or "this device"
    return (
        f"no published {case.precision} peak of {device} is known, and `tlbench"
        " calibrate` has measured none on this machine"
    )
