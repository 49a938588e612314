"""What works on this machine and what does not, found out by trying it."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tlbench.errors import TlbenchError
from tlbench.machine import fingerprint
from tlbench.units import format_bytes, format_si

if TYPE_CHECKING:
    import torch

State = Literal["works", "limited", "fails"]
SHARED_MEMORY = Path("/dev/shm")
LITTLE_SHARED_MEMORY_BYTES = 64 * 2**20
MATMUL_SIDE = 1024


@dataclass(frozen=True)
class Check:
    """One thing that was tried."""

    subject: str
    state: State
    finding: str
    """What was found, and the way out where it is not good."""


def examine() -> list[Check]:
    """Try everything that runs rely on; takes some seconds."""
    found: list[Check] = []
    for check in (_machine, _packages, _devices, _precisions, _compiler, _memory, _ray):
        found += _tried(check)
    return found


def _tried(check: Callable[[], Iterator[Check]]) -> list[Check]:
    subject = check.__name__.strip("_")
    try:
        return list(check())
    except (ImportError, OSError, RuntimeError, TlbenchError) as error:
        return [Check(subject, "fails", f"{type(error).__name__}: {error}")]


def _machine() -> Iterator[Check]:
    machine = fingerprint()
    yield Check(
        "machine",
        "works",
        f"{machine.cpu_model or 'unknown CPU'}, {machine.cpu_cores} cores,"
        f" {format_bytes(machine.memory_bytes)}, {machine.os}",
    )
    yield Check(
        "tlbench",
        "works",
        f"{version('tlbench')}, Python {machine.python}, from {Path(__file__).parent}",
    )


def _packages() -> Iterator[Check]:
    for name in ("torch", "timm", "deepspeed", "ray"):
        try:
            yield Check(name, "works", version(name))
        except PackageNotFoundError:
            yield Check(name, "fails", f"not installed: pip install {name}")


def _devices() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        names = [
            torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())
        ]
        yield Check("GPUs", "works", ", ".join(names))
        return
    machine = fingerprint()
    if machine.gpu_count:
        yield Check(
            "GPUs",
            "fails",
            f"the driver {machine.gpu_driver} shows {machine.gpu_name}, but torch"
            f" (built for CUDA {torch.version.cuda}) cannot use it",
        )
    else:
        yield Check("GPUs", "limited", "none here: everything runs on the CPU")


def _precisions() -> Iterator[Check]:
    """Which precision is the fastest, by one matrix product each."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rates = {
        name: _matmul_flops_per_s(getattr(torch, dtype), device)
        for name, dtype in (("fp32", "float32"), ("bf16", "bfloat16"))
    }
    faster = max(rates, key=lambda name: rates[name])
    measured = ", ".join(
        f"{name} {format_si(rate, 'FLOP/s', prefix='G')}"
        for name, rate in rates.items()
    )
    state: State = "works" if rates["bf16"] >= rates["fp32"] else "limited"
    yield Check("precision", state, f"{faster} is faster: {measured} in a matmul")


def _matmul_flops_per_s(dtype: "torch.dtype", device: str) -> float:
    import torch

    matrix = torch.ones(MATMUL_SIDE, MATMUL_SIDE, device=device).to(dtype)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        # A value is read back, so that the device must have finished.
        float((matrix @ matrix)[0, 0])
        times.append(time.perf_counter() - start)
    return float(2 * MATMUL_SIDE**3 / min(times))


def _compiler() -> Iterator[Check]:
    wanted = os.environ.get("CXX", "g++")
    found = shutil.which(wanted)
    if found:
        yield Check("compiler", "works", f"{found}: torch.compile works on the CPU")
    else:
        yield Check(
            "compiler",
            "limited",
            f"no {wanted}: cases with compile: true fail on the CPU, all others run",
        )


def _memory() -> Iterator[Check]:
    if SHARED_MEMORY.exists():
        free = shutil.disk_usage(SHARED_MEMORY).free
        is_little = free < LITTLE_SHARED_MEMORY_BYTES
        finding = f"{format_bytes(free)} free in {SHARED_MEMORY}"
        if is_little:
            finding += "; Ray is slow without: docker run --shm-size=1g"
        yield Check("shared memory", "limited" if is_little else "works", finding)
    free = shutil.disk_usage(Path.cwd()).free
    yield Check("disk", "works", f"{format_bytes(free)} free in this folder")


def _ray() -> Iterator[Check]:
    from tlbench.cluster import Cluster

    start = time.perf_counter()
    with Cluster() as cluster:
        worker_s = cluster.time_worker()
        took = time.perf_counter() - start
    yield Check(
        "Ray on this machine",
        "works",
        f"started in {took - worker_s:.1f} s; a worker answered in {worker_s:.1f} s",
    )
