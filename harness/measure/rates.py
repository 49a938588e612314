"""What one device can do at best: products of matrices, copies, and the clock's cost.

Each rate is the best of several repeats, and of several sizes: a ceiling is what
nothing got in the way of.
"""

import time
from collections.abc import Iterator
from itertools import pairwise

import psutil
import torch
from torch import Tensor

from tlbench.measure.memory import NO_GPU
from tlbench.measure.precision import DTYPES, why_unsupported
from tlbench.measure.timing import Clock, Step, clock_for
from tlbench.rank import Rank
from tlbench.result import Metric
from tlbench.suites.spec import Precision

MATMUL_SIDES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
"""Small ones first: a slow precision has no time for the largest."""
MIN_REPEATS = 3
COPY_BYTES = 2**30
"""Beyond the caches of today's devices, of which few hold half of it."""
MAX_COPY_SHARE = 1 / 16
"""Of the free memory, for each of the two arrays."""
TIMER_CALLS = 100_000


def measure_rates(rank: Rank, time_limit_s: float) -> Iterator[Metric]:
    """Measure the ceilings of this rank's device.

    Args:
        rank: Whose device and threads are used.
        time_limit_s: Of each measurement; every one makes its fewest repeats.
    """
    torch.set_num_threads(rank.threads)
    device = torch.device(rank.device)
    for precision in DTYPES:
        yield _matmul(precision, device, time_limit_s)
    yield _copy(device, time_limit_s)
    yield _host_to_device(device, time_limit_s)
    yield from measure_timer()


def _matmul(precision: Precision, device: torch.device, time_limit_s: float) -> Metric:
    """FLOP per second of one product of square matrices; a multiply-add counts as 2."""
    name = f"matmul_{precision}_flops_per_s"
    reason = why_unsupported(precision, device)
    if reason is not None:
        return Metric(name, None, reason)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        rates = list(_matmul_rates(DTYPES[precision], device, time_limit_s))
    finally:
        torch.set_float32_matmul_precision(before)
    return Metric(name, max(rates))


def _matmul_rates(
    dtype: torch.dtype, device: torch.device, time_limit_s: float
) -> Iterator[float]:
    deadline = time.perf_counter() + time_limit_s
    seconds = 0.0
    for side in MATMUL_SIDES[device.type]:
        # The next side takes eight times as long.
        if time.perf_counter() + 8 * MIN_REPEATS * seconds > deadline:
            return
        left = torch.randn(side, side, device=device).to(dtype)
        right, out = torch.randn_like(left), torch.empty_like(left)
        seconds = _best_s(_product(left, right, out), device, time_limit_s / 3)
        yield 2 * side**3 / seconds


def _product(left: Tensor, right: Tensor, out: Tensor) -> Step:
    return lambda: torch.mm(left, right, out=out)


def _copy(device: torch.device, time_limit_s: float) -> Metric:
    """Bytes per second of a copy in the device's memory, read and written ones.

    As STREAM counts its copy kernel (McCalpin 1995): what a cache fetches of the
    target before it is written does not count.
    """
    size = _copy_bytes(device)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    seconds = _best_s(lambda: target.copy_(source), device, time_limit_s)
    return Metric("copy_bytes_per_s", 2 * size / seconds)


def _host_to_device(device: torch.device, time_limit_s: float) -> Metric:
    name = "host_to_device_bytes_per_s"
    if device.type == "cpu":
        return Metric(name, None, NO_GPU)
    size = _copy_bytes(torch.device("cpu"))
    source = torch.ones(size, dtype=torch.uint8, pin_memory=True)
    target = torch.zeros(size, dtype=torch.uint8, device=device)
    seconds = _best_s(
        lambda: target.copy_(source, non_blocking=True), device, time_limit_s
    )
    return Metric(name, size / seconds)


def _copy_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info()
    else:
        free = psutil.virtual_memory().available
    return min(COPY_BYTES, int(free * MAX_COPY_SHARE))


def _best_s(step: Step, device: torch.device, time_limit_s: float) -> float:
    """Seconds of the fastest repeat; the first, which warms up, does not count."""
    clock: Clock = clock_for(device)
    clock(step, 1)
    deadline = time.perf_counter() + time_limit_s
    times: list[float] = []
    while len(times) < MIN_REPEATS or time.perf_counter() < deadline:
        times += clock(step, MIN_REPEATS)
    return min(times)


def measure_timer() -> tuple[Metric, Metric]:
    """What a look at the host's clock costs, and the shortest time that it tells."""
    looks = [time.perf_counter() for _ in range(TIMER_CALLS)]
    steps = [after - before for before, after in pairwise(looks) if after > before]
    return (
        Metric("timer_s", (looks[-1] - looks[0]) / (TIMER_CALLS - 1)),
        Metric("timer_resolution_s", min(steps)),
    )
