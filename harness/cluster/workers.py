"""The processes of one trial: a group of fresh workers, and what they bring back.

A trial gets one placement group with a bundle on each of its nodes, and one actor per
rank; where torchrun starts the ranks, one actor for all of them.
"""

import contextlib
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tlbench.cluster.logs import Process, read_logs, read_stacks
from tlbench.errors import name_error
from tlbench.launch import ENDING_TIMEOUT_S
from tlbench.placement import Placement, Share
from tlbench.rank import Rank
from tlbench.result import (
    Artifact,
    Status,
    TrialResult,
    combine_ranks,
    name_rank,
)
from tlbench.suites.rehearsal import Rehearsal
from tlbench.suites.spec import Trial
from tlbench.worker import Worker

GRACE_S = 5.0
"""How long the other ranks may still report once one has failed."""
RESERVATION_TIMEOUT_S = 30.0
"""How long Ray may take to give what was free a moment ago."""
FORGETTING_TIMEOUT_S = 1.0
NODE_ID = "ray.io/node-id"
"""Ray's label of a node that no other node has."""


_RemoteWorker = ray.remote(Worker)


@dataclass(frozen=True)
class Seat:
    """The place of one worker: its share of the placement, and which ranks it runs."""

    bundle: int
    share: Share
    ranks: range
    """Their numbers in the trial."""
    local_ranks: range
    """Their numbers among the ranks of the node."""


def seats(placement: Placement) -> list[Seat]:
    """One for each worker of a trial, in the order of the ranks."""
    found: list[Seat] = []
    first = 0
    for bundle, share in enumerate(placement.shares):
        step = share.ranks if placement.is_outside_ray else 1
        for local in range(0, share.ranks, step):
            numbers = range(first + local, first + local + step)
            found.append(Seat(bundle, share, numbers, range(local, local + step)))
        first += share.ranks
    return found


class Groups:
    """The workers of all trials that go on, so that they can be ended at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: set[Any] = set()
        self._is_over = False

    def end(self) -> None:
        """End all of them, and let no more begin."""
        with self._lock:
            self._is_over = True
            for worker in self._workers:
                ray.kill(worker)

    @contextlib.contextmanager
    def group(self, placement: Placement) -> Iterator[list[Any]]:
        """Fresh workers, one a seat; all of them are gone when the block ends.

        Raises:
            GetTimeoutError: Ray does not give what was free.
        """
        reserved = placement_group(
            [{"CPU": s.cpus, **_gpus(s.gpus)} for s in placement.shares],
            strategy="PACK",  # the selectors say it all
            bundle_label_selector=[{NODE_ID: s.node.id} for s in placement.shares],
        )
        workers: list[Any] = []
        try:
            if not reserved.wait(RESERVATION_TIMEOUT_S):
                raise GetTimeoutError(
                    f"Ray did not give {', '.join(placement.nodes)} within"
                    f" {RESERVATION_TIMEOUT_S:.0f} s"
                )
            for seat in seats(placement):
                self._start(seat, reserved, workers)
            yield workers
        finally:
            with self._lock:
                self._workers.difference_update(workers)
            with contextlib.suppress(RayError):  # what is lost is gone as well
                for worker in workers:
                    ray.kill(worker)
                remove_placement_group(reserved)

    def _start(self, seat: Seat, reserved: Any, workers: list[Any]) -> None:
        share, count = seat.share, len(seat.ranks)
        worker = _RemoteWorker.options(
            num_cpus=share.cpus * count / share.ranks,
            num_gpus=count if share.gpus else 0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                reserved, placement_group_bundle_index=seat.bundle
            ),
        ).remote()
        workers.append(worker)
        with self._lock:
            self._workers.add(worker)
            if self._is_over:
                ray.kill(worker)


def _gpus(count: float) -> dict[str, float]:
    return {"GPU": count} if count else {}


def make_rank(placement: Placement, seat: Seat, number: int, port: int) -> Rank:
    """The rank of this number, of those that a seat runs; all meet at rank 0's port."""
    is_alone = len(placement.shares) == 1
    return Rank(
        rank=seat.ranks[number],
        world_size=placement.world_size,
        local_rank=seat.local_ranks[number],
        local_world_size=seat.share.ranks,
        master_address="127.0.0.1" if is_alone else placement.shares[0].node.address,
        master_port=port,
        device=placement.device,
        threads=placement.threads(seat.share),
    )


def run_in_group(
    groups: Groups, trial: Trial, placement: Placement, timeout_s: float
) -> TrialResult:
    """Run a trial in fresh processes; whatever becomes of it is its result."""
    try:
        with groups.group(placement) as workers:
            result = _collect(trial, placement, workers, timeout_s)
    except RayError as error:
        result = failure(error)
    return _explained(result, placement)


def _explained(result: TrialResult, placement: Placement) -> TrialResult:
    """A lost trial with the node that took it along, where one did."""
    if result.status != "lost":
        return result
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    gone = [s.node.name for s in placement.shares if s.node.id not in alive]
    if not gone:
        return result
    reason = f"its node vanished, killed or cut off: {', '.join(gone)}"
    return replace(result, reason=reason)


def _collect(
    trial: Trial, placement: Placement, workers: Sequence[Any], timeout_s: float
) -> TrialResult:
    """Let the workers run their parts of the trial, and make one result of theirs."""
    deadline = time.perf_counter() + timeout_s
    try:
        met = ray.get([w.meet.remote() for w in workers], timeout=timeout_s)
    except GetTimeoutError:
        return TrialResult("timeout", f"its workers did not start in {timeout_s:g} s")
    taken = seats(placement)
    processes = [
        Process(seat.ranks[0], seat.share.node.id, one.host, one.pid, one.log)
        for seat, one in zip(taken, met, strict=True)
    ]
    left_s = max(deadline - time.perf_counter(), 0)
    is_parent, calls = placement.is_outside_ray, []
    for worker, seat in zip(workers, taken, strict=True):
        count = len(seat.ranks)
        ranks = [make_rank(placement, seat, k, met[0].port) for k in range(count)]
        if isinstance(trial, Rehearsal):
            node_id = seat.share.node.id
            calls.append(worker.rehearse.remote(trial.sleep_s, ranks, node_id))
        else:
            calls.append(worker.run.remote(trial, ranks, left_s, is_parent))
    if is_parent:  # its worker has to end processes, and to tell
        deadline += ENDING_TIMEOUT_S + GRACE_S
    results = _wait(calls, deadline)
    if results is None:
        stacks = _told_by_rank(read_stacks(processes))
        reason = f"not finished after {timeout_s:g} s"
        results = [TrialResult("timeout", reason, stacks or None)]
    result = combine_ranks(results, trial.case.global_batch_size)
    if result.status == "ok":
        ray.wait(
            [worker.forget_log.remote() for worker in workers],
            num_returns=len(workers),
            timeout=FORGETTING_TIMEOUT_S,
        )
        return result
    return _with_logs(result, processes)


def _told_by_rank(texts: dict[int, str]) -> str:
    return "\n".join(f"rank {rank}:\n{text}" for rank, text in texts.items())


def _with_logs(result: TrialResult, processes: Sequence[Process]) -> TrialResult:
    """The result with what every rank printed, as far as its node still tells."""
    logs = read_logs(processes)
    artifacts = [
        Artifact(f"log-rank-{rank}.txt", "text/plain", text.encode())
        for rank, text in logs.items()
    ]
    files = "; ".join(
        f"rank {p.first_rank}: {p.host}:{p.log}"
        for p in processes
        if p.first_rank in logs
    )
    return replace(
        result,
        artifacts=(*result.artifacts, *artifacts),
        notes=result.notes | ({"log_files": files} if files else {}),
    )


def _wait(calls: Sequence[Any], deadline: float) -> list[TrialResult] | None:
    """The result of each rank, or the failure behind them; None: the deadline came.

    When one fails, the others get a moment to report. A process that is gone is what
    the others fail from, even if they notice sooner than Ray does.
    """
    results: dict[int, list[TrialResult]] = {}
    pending = list(calls)
    while pending:
        left = max(deadline - time.perf_counter(), 0)
        done, pending = ray.wait(pending, num_returns=1, timeout=left)
        if not done:
            break
        number = calls.index(done[0])
        results[number] = _results(done[0])
        if any(result.status != "ok" for result in results[number]):
            deadline = min(deadline, time.perf_counter() + GRACE_S)
            if len(calls) > 1:  # then each is one rank
                results[number] = [name_rank(r, number) for r in results[number]]
    failed = [r for found in results.values() for r in found if r.status != "ok"]
    if failed:
        return [next((r for r in failed if r.status == "lost"), failed[0])]
    if pending:
        return None
    return [result for number in sorted(results) for result in results[number]]


def _results(call: Any) -> list[TrialResult]:
    try:
        results: list[TrialResult] = ray.get(call)
    except RayError as error:
        return [failure(error)]
    return results


def failure(error: Exception) -> TrialResult:
    """What to store where a worker's process did not live to tell."""
    status: Status = "lost"
    reason = name_error(error)
    if isinstance(error, OutOfMemoryError):
        status, reason = "oom", "Ray ended its process: the node's memory was full"
    # Before RayTaskError, which it is as well where a worker could not hand over.
    elif isinstance(error, (ObjectStoreFullError, OutOfDiskError)):
        reason = (
            "Ray's object store was full, and could not be written to disk: its result"
            " could not be brought back"
        )
    elif isinstance(error, RayTaskError):
        status, reason = "error", name_error(error.cause)
    elif isinstance(error, RayActorError):
        reason = "its process died: killed, crashed, or out of host memory"
    return TrialResult(status, reason, "".join(traceback.format_exception(error)))
