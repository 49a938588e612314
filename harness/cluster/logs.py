"""What the ranks of a trial have printed, and where they hang: asked of their nodes.

A rank that hangs or is dead cannot tell. So a task of Ray's on the same node does, in a
process that is started for it; only of trials that failed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tlbench.ranklog import read_log, stacks_of

ANSWER_TIMEOUT_S = 20.0
"""How long all nodes together have to answer."""
STACKS_TIMEOUT_S = 5.0
"""How long one process has to write its stacks."""
MAX_LOG_CHARS = 2**20


@dataclass(frozen=True)
class Process:
    """A worker's process, and the file that it prints to."""

    first_rank: int
    node_id: str
    host: str
    pid: int
    log: str


def read_logs(processes: Sequence[Process]) -> dict[int, str]:
    """What each has printed, by its first rank; without those that cannot be had."""
    return _ask(_read_logs, processes)


def read_stacks(processes: Sequence[Process]) -> dict[int, str]:
    """Where each is, thread by thread, likewise."""
    return _ask(_read_stacks, processes)


def _read_logs(processes: Sequence[Process]) -> dict[int, str]:
    return {p.first_rank: read_log(Path(p.log), MAX_LOG_CHARS) for p in processes}


def _read_stacks(processes: Sequence[Process]) -> dict[int, str]:
    return {
        p.first_rank: stacks_of(p.pid, Path(p.log), STACKS_TIMEOUT_S) for p in processes
    }


_Answer = Callable[[Sequence[Process]], Mapping[int, str]]


def _ask(answer: _Answer, processes: Sequence[Process]) -> dict[int, str]:
    by_node: dict[str, list[Process]] = {}
    for process in processes:
        by_node.setdefault(process.node_id, []).append(process)
    calls = [
        ray.remote(answer)
        .options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        )
        .remote(of_node)
        for node_id, of_node in by_node.items()
    ]
    found: dict[int, str] = {}
    done, late = ray.wait(calls, num_returns=len(calls), timeout=ANSWER_TIMEOUT_S)
    for call in done:
        try:
            found |= ray.get(call)
        except RayError:
            continue  # its node is gone, and what was on it
    for call in late:
        ray.cancel(call, force=True)
    return {rank: text for rank, text in sorted(found.items()) if text}
