"""Ranks of a job in processes of their own.

DeepSpeed keeps its process groups for the life of a process.
"""

import multiprocessing
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from tlbench.engine import join_process_group, set_environment
from tlbench.rank import Rank
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case

Ranks = Sequence[ProcessPoolExecutor]
TIMEOUT_S = 120

_rank: Rank | None = None


def this_rank() -> Rank:
    """Which rank this process is."""
    assert _rank is not None, "this is not the process of a rank"
    return _rank


@contextmanager
def started_ranks(world_size: int) -> Iterator[Ranks]:
    """Processes that have met over gloo."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [
        Rank(rank, world_size, rank, world_size, "127.0.0.1", port, "cpu", 1)
        for rank in range(world_size)
    ]
    processes = [
        ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_join,
            initargs=(rank,),
        )
        for rank in ranks
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.shutdown()


def on_all(ranks: Ranks, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What the function returns on each rank."""
    calls = [process.submit(function, *arguments) for process in ranks]
    return [call.result(TIMEOUT_S) for call in calls]


def _join(rank: Rank) -> None:
    global _rank
    _rank = rank
    torch.set_num_threads(1)
    set_environment(rank)
    join_process_group(Case(model=parse_model("ViT-Ti/16"), mode="train"), rank)
