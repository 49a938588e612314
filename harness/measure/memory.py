"""Peak memory of a few steps, in a pass of its own.

On a GPU torch's allocator and the driver are asked; the host's peak resident set is
read from the kernel, which can reset it (Linux, /proc/self/clear_refs). Its growth is
the peak over what the built process holds between steps: on a CPU, what the steps need.
"""

import ctypes
import gc
from pathlib import Path

import torch

from tlbench.measure.timing import Step
from tlbench.result import Metric

STEPS = 2
"""A second step finds the allocator as the first left it."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h

NO_GPU = "measured on a GPU only"
RESET_PEAK = "5"  # proc(5): resets the peak resident set size
CANNOT_RESET = "the kernel does not let this process reset its peak resident set"


def keep_freed_memory() -> None:
    """Let glibc hold on to what a step frees, for the next step to use again.

    By default it may give large blocks back and fault them in anew at every step, or
    not, depending on what the process happened to allocate before: on two cores that
    made the same ViT-S/16 13 % slower in one process than in another.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc only
    if set_option is not None:
        set_option(M_MMAP_MAX, 0)
        set_option(M_TRIM_THRESHOLD, -1)  # as unsigned, the largest number: never


def measure_peak_memory(step: Step, device: torch.device) -> tuple[Metric, ...]:
    """Run a few steps and give the peaks they reached, in bytes."""
    gc.collect()
    _return_freed_memory()
    is_gpu = device.type == "cuda"
    if is_gpu:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    baseline = _resident_bytes("VmRSS")
    can_reset = _reset_host_peak()
    for _ in range(STEPS):
        step()
    if is_gpu:
        torch.cuda.synchronize()
    peak = _resident_bytes("VmHWM") if can_reset else None
    growth = None if peak is None else peak - baseline
    reason = None if can_reset else CANNOT_RESET
    return (
        Metric("peak_memory_host_rss_bytes", peak, reason),
        Metric("peak_memory_host_growth_bytes", growth, reason),
        *(_gpu_peaks() if is_gpu else _no_gpu_peaks()),
    )


def _gpu_peaks() -> list[Metric]:
    free, total = torch.cuda.mem_get_info()
    return [
        Metric("peak_memory_allocated_bytes", torch.cuda.max_memory_allocated()),
        Metric("peak_memory_reserved_bytes", torch.cuda.max_memory_reserved()),
        # The driver keeps no peak; torch's allocator still holds what it reserved.
        Metric("peak_memory_device_used_bytes", total - free),
    ]


def _no_gpu_peaks() -> list[Metric]:
    kinds = ("allocated", "reserved", "device_used")
    return [Metric(f"peak_memory_{kind}_bytes", None, NO_GPU) for kind in kinds]


def _return_freed_memory() -> None:
    """Make glibc give freed heap back, so that the peak holds this pass alone."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def _reset_host_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def _resident_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/self/status has no field {field}")
