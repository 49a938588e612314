"""The peak of a pass: what its steps need, and nothing of what was before."""

import ctypes
import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from tlbench.measure import memory
from tlbench.measure.memory import (
    CANNOT_RESET,
    NO_GPU,
    THREADS_BYTES,
    limited_memory,
    measure_peak_memory,
)
from tlbench.result import Metric

CPU = torch.device("cpu")
MB = 10**6
SIZE = 100 * MB
PIECE = 50_000


def growth(step: object) -> float:
    assert callable(step)
    metrics = {m.name: m.value for m in measure_peak_memory(step, CPU)}
    value = metrics["peak_memory_host_growth_bytes"]
    assert value is not None
    return value


def allocate() -> None:
    torch.ones(SIZE // 4)


def nothing() -> None:
    pass


def test_growth_is_what_a_step_allocates() -> None:
    assert growth(allocate) == pytest.approx(SIZE, abs=10 * MB)


def test_steps_that_free_what_they_take_do_not_add_up() -> None:
    def twice() -> None:
        allocate()
        allocate()

    assert growth(twice) == pytest.approx(SIZE, abs=10 * MB)


def test_an_earlier_peak_does_not_count() -> None:
    allocate()
    assert growth(nothing) < 10 * MB


def test_what_is_held_between_the_steps_is_no_growth() -> None:
    held = torch.ones(SIZE // 4)
    assert growth(nothing) < 10 * MB
    assert held[0] == 1


def test_freed_small_pieces_do_not_hide_what_a_step_needs() -> None:
    """The allocator keeps them, and would serve the step from them without growth."""

    def pieces() -> list[bytes]:
        return [bytes([1]) * PIECE for _ in range(SIZE // PIECE)]

    last = pieces()[-1]  # holds the end of the heap, so that it cannot shrink
    assert growth(pieces) == pytest.approx(SIZE, abs=10 * MB)
    assert len(last) == PIECE


def test_the_peak_of_the_process_holds_its_growth() -> None:
    metrics = {m.name: m.value for m in measure_peak_memory(allocate, CPU)}
    peak = metrics["peak_memory_host_rss_bytes"]
    grown = metrics["peak_memory_host_growth_bytes"]
    assert peak is not None
    assert grown is not None
    assert peak > grown + 50 * MB  # torch itself


def test_values_of_a_gpu_are_unknown_on_a_cpu_with_the_reason() -> None:
    unknown = [m for m in measure_peak_memory(nothing, CPU) if m.value is None]
    assert unknown == [
        Metric("peak_memory_allocated_bytes", None, NO_GPU),
        Metric("peak_memory_reserved_bytes", None, NO_GPU),
        Metric("peak_memory_device_used_bytes", None, NO_GPU),
    ]


def test_a_kernel_that_keeps_its_peak_leaves_the_value_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "reset_host_peak", lambda: False)
    metrics = measure_peak_memory(nothing, CPU)
    assert metrics[:2] == (
        Metric("peak_memory_host_rss_bytes", None, CANNOT_RESET),
        Metric("peak_memory_host_growth_bytes", None, CANNOT_RESET),
    )


def test_a_heap_that_cannot_grow_has_no_more_free_blocks_to_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ctypes, "CFUNCTYPE", lambda *_: lambda _: lambda _: None)
    assert memory._take_free_blocks() == []


def _run_away() -> None:
    with limited_memory(SIZE), pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        torch.empty(SIZE + 2 * THREADS_BYTES, dtype=torch.uint8)
    assert torch.empty(SIZE + 2 * THREADS_BYTES, dtype=torch.uint8).nbytes > SIZE


def test_what_runs_away_is_an_error_of_the_allocator_and_no_longer_than_that() -> None:
    # In a process of its own: the heap would keep two free gigabytes for later tests.
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        process.submit(_run_away).result()


def test_a_limit_leaves_what_it_allows() -> None:
    with limited_memory(SIZE):
        allocate()


def test_a_limit_that_is_there_already_is_not_raised() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limited_memory(SIZE):
        lower = resource.getrlimit(resource.RLIMIT_DATA)[0]
        with limited_memory(10 * SIZE):
            assert resource.getrlimit(resource.RLIMIT_DATA)[0] == lower
        with limited_memory(None):
            assert resource.getrlimit(resource.RLIMIT_DATA)[0] == lower
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
