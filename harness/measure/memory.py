"""Peak memory of a few steps, in a pass of its own.

On a GPU torch's allocator and the driver are asked; the host's peak resident set is
read from the kernel, which can reset it (Linux, /proc/self/clear_refs). Its growth is
the peak over what the built process holds between steps: on a CPU, what the steps need.
"""

import ctypes
import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tlbench.measure.timing import Step
from tlbench.result import Metric

STEPS = 2
"""A second step finds the allocator as the first left it."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h
MMAP_THRESHOLD_BYTES, MMAP_MAX = 128 * 1024, 65_536
"""glibc's own: blocks from this size on are mapped one by one, up to so many."""

SIZE_OFFSET, IS_MMAPPED = ctypes.sizeof(ctypes.c_size_t), 2  # malloc/malloc.c
_LIBC = ctypes.CDLL(None)

NO_GPU = "measured on a GPU only"
RESET_PEAK = "5"  # proc(5): resets the peak resident set size
CANNOT_RESET = "the kernel does not let this process reset its peak resident set"
THREADS_BYTES = 2**30
"""Room for the stacks of threads that the first steps start: a limit of what a process
maps counts them whole, however little of them is used."""


def keep_freed_memory() -> None:
    """Let glibc hold on to what a step frees, for the next step to use again.

    By default it may give large blocks back and fault them in anew at every step, or
    not, depending on what the process happened to allocate before: on two cores that
    made the same ViT-S/16 13 % slower in one process than in another.
    """
    _set_malloc(M_MMAP_MAX, 0)
    _set_malloc(M_TRIM_THRESHOLD, -1)  # as unsigned, the largest number: never


@contextmanager
def giving_back_memory() -> Iterator[None]:
    """Let glibc map every large block by itself and give it back once it is freed.

    In a heap that keeps what is freed, the holes between blocks of unlike sizes count
    as held: inference of ViT-B/16 at batch 8 seemed to need 109 MiB, and its tensors
    55. Afterwards freed memory is kept, as in every worker.
    """
    _set_malloc(M_MMAP_MAX, MMAP_MAX)
    _set_malloc(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    return_freed_memory()
    taken = _take_free_blocks()
    try:
        yield
    finally:
        for block in taken:
            _LIBC.free(ctypes.c_void_p(block))
        keep_freed_memory()


def _take_free_blocks() -> list[int]:
    """Take all large free blocks of the heap, which glibc would use before it maps.

    They are not written to, and so take no memory but a page each.
    """
    taken: list[int] = []
    malloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(("malloc", _LIBC))
    while _has_malloc_settings():
        block = malloc(MMAP_THRESHOLD_BYTES)
        if block is None:  # there is no more memory
            break
        taken.append(block)
        size_and_flags = ctypes.c_size_t.from_address(block - SIZE_OFFSET).value
        if size_and_flags & IS_MMAPPED:
            break
    return taken


def _has_malloc_settings() -> bool:
    return hasattr(_LIBC, "mallopt")  # glibc only


def _set_malloc(option: int, value: int) -> None:
    if _has_malloc_settings():
        _LIBC.mallopt(option, value)


def measure_peak_memory(step: Step, device: torch.device) -> tuple[Metric, ...]:
    """Run a few steps and give the peaks they reached, in bytes."""
    gc.collect()
    with giving_back_memory():
        return _measure_peaks(step, device)


def _measure_peaks(step: Step, device: torch.device) -> tuple[Metric, ...]:
    is_gpu = device.type == "cuda"
    if is_gpu:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    baseline = resident_bytes("VmRSS")
    can_reset = reset_host_peak()
    for _ in range(STEPS):
        step()
    if is_gpu:
        torch.cuda.synchronize()
    peak = resident_bytes("VmHWM") if can_reset else None
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


@contextmanager
def limited_memory(extra_bytes: int | None) -> Iterator[None]:
    """Let this process take so much more memory, or a little over that, and no more.

    What asks for more then gets an error of torch's allocator, and not the whole
    machine's memory. Linux counts all private memory that can be written since 4.7.
    """
    if extra_bytes is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = resident_bytes("VmData") + extra_bytes + THREADS_BYTES
    is_lower = soft == resource.RLIM_INFINITY or most < soft
    resource.setrlimit(resource.RLIMIT_DATA, (most if is_lower else soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def return_freed_memory() -> None:
    """Make glibc give freed heap back, so that a peak holds what comes after alone."""
    if _has_malloc_settings():
        _LIBC.malloc_trim(0)


def reset_host_peak() -> bool:
    """Let the peak resident set start anew; False where the kernel refuses."""
    try:
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def resident_bytes(field: str) -> int:
    """Read VmRSS, what this process holds; VmHWM, the most it has held; or VmData.

    The last is what it has mapped to write to, whether or not it has done so.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/self/status has no field {field}")
