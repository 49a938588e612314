"""The share of the exchange between ranks, from events made by hand and from gloo."""

import multiprocessing
import random
import socket
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]  # not in __all__
from torch.autograd.profiler_util import FunctionEvent

from tlbench.measure.communication import (
    MARK,
    STEPS,
    UNSEEN,
    measure_communication,
    split_steps,
)

TIMEOUT_S = 120
SLEEP_S = 0.1

Times = Iterable[tuple[int, int]]


def events(
    name: str, times: Times, device: DeviceType = DeviceType.CPU, **more: bool
) -> list[FunctionEvent]:
    """One for each begin and end in microseconds."""
    return [
        FunctionEvent(  # type: ignore[no-untyped-call]  # torch's
            0, name, 0, begin, end, device_type=device, **more
        )
        for begin, end in times
    ]


def on_gpu(name: str, times: Times, **more: bool) -> list[FunctionEvent]:
    return events(name, times, DeviceType.CUDA, **more)


def test_an_exchange_beside_computing_is_hidden_and_the_rest_exposed() -> None:
    (step,) = split_steps(
        [
            *events(MARK, [(0, 1000)]),
            *events("aten::mm", [(0, 400), (600, 700)]),
            *events("gloo:all_reduce", [(300, 800)]),
        ],
        is_gpu=False,
    )
    assert step.whole == pytest.approx(1e-3)
    assert step.overlapped == pytest.approx(0.2e-3)  # 300 to 400 and 600 to 700
    assert step.exposed == pytest.approx(0.3e-3)


def test_each_step_has_what_happens_in_it() -> None:
    steps = split_steps(
        [
            *events("gloo:all_reduce", [(50, 150), (180, 190)]),
            *events(MARK, [(100, 200), (0, 100)]),
        ],
        is_gpu=False,
    )
    assert [step.exposed for step in steps] == pytest.approx([50e-6, 60e-6])


def test_on_a_gpu_only_its_own_work_counts() -> None:
    (step,) = split_steps(
        [
            *events(MARK, [(0, 100)]),
            *on_gpu(MARK, [(0, 100)], is_user_annotation=True),
            *on_gpu("nccl:all_reduce", [(0, 100)], is_user_annotation=True),
            *on_gpu("ncclDevKernel_AllReduce_Sum_f32_RING_LL", [(40, 80)]),
            *on_gpu("ampere_sgemm_128x64_tn", [(0, 60)]),
            *events("aten::mm", [(0, 100)]),
        ],
        is_gpu=True,
    )
    assert step.exposed == pytest.approx(20e-6)
    assert step.overlapped == pytest.approx(20e-6)


@pytest.mark.parametrize("seed", range(20))
def test_parts_are_those_counted_microsecond_by_microsecond(seed: int) -> None:
    draw = random.Random(seed)
    size = 500

    def spans() -> list[tuple[int, int]]:
        pairs = [sorted(draw.sample(range(size), 2)) for _ in range(draw.randint(0, 9))]
        return [(begin, end) for begin, end in pairs]

    def cells(times: Times) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        covered = np.zeros(size, dtype=np.bool_)
        for begin, end in times:
            covered[begin:end] = True
        return covered

    exchanging, computing = spans(), spans()
    (step,) = split_steps(
        [
            *events(MARK, [(100, 400)]),
            *on_gpu("ncclKernel", exchanging),
            *on_gpu("gemm", computing),
            *events(MARK, []),
        ],
        is_gpu=True,
    )
    both = cells(exchanging) & cells(computing)
    alone = cells(exchanging) & ~cells(computing)
    assert step.overlapped == pytest.approx(both[100:400].sum() * 1e-6)
    assert step.exposed == pytest.approx(alone[100:400].sum() * 1e-6)


def test_steps_without_any_exchange_have_a_reason() -> None:
    taken = []
    metrics = measure_communication(lambda: taken.append(1), torch.device("cpu"))
    assert len(taken) == STEPS
    assert {m.name for m in metrics} == {
        "communication_fraction",
        "overlapped_communication_fraction",
        "compute_time_s",
    }
    assert {(m.value, m.reason) for m in metrics} == {(None, UNSEEN)}


def _exchange(rank: int, port: int) -> dict[str, float | None]:
    """Two ranks, of which the second computes for longer in every step."""
    torch.distributed.init_process_group(
        "gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    values = torch.zeros(1000)

    def step() -> None:
        time.sleep(SLEEP_S * rank)
        torch.distributed.all_reduce(values)

    metrics = measure_communication(step, torch.device("cpu"))
    torch.distributed.destroy_process_group()
    return {metric.name: metric.value for metric in metrics}


@pytest.mark.slow
def test_a_rank_that_waits_for_a_slower_one_exchanges_for_longer() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as processes:
        calls = [processes.submit(_exchange, rank, port) for rank in range(2)]
        fast, slow = (call.result(TIMEOUT_S) for call in calls)
    assert slow["compute_time_s"] is not None
    assert fast["compute_time_s"] is not None
    assert slow["compute_time_s"] >= SLEEP_S > fast["compute_time_s"]
    assert fast["communication_fraction"] is not None
    assert slow["communication_fraction"] is not None
    assert fast["communication_fraction"] > slow["communication_fraction"]
