"""Ray: a worker group of fresh processes for each trial. The only module with Ray.

A trial gets one placement group with a bundle per node, and one actor per rank; where
torchrun starts the ranks, one actor for all of them. On a CPU a bundle takes a whole
node, so that nothing of ours runs beside a measurement.
"""

import contextlib
import logging
import os
import socket
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tlbench.errors import ClusterError
from tlbench.launch import ENDING_TIMEOUT_S, run_outside_ray
from tlbench.machine import fingerprint
from tlbench.rank import DeviceKind, Rank
from tlbench.result import Status, TrialResult, combine_ranks, name_rank
from tlbench.suites.spec import Case, Trial

GRACE_S = 5.0
"""How long the other ranks may still report once one has failed."""
RELEASE_TIMEOUT_S = 10.0
QUIET_RAY = {
    "worker_niceness": 0,
    "enable_metrics_collection": False,
    "event_stats": False,
    "memory_monitor_refresh_ms": 1000,
    "metrics_report_interval_ms": 600_000,
}
"""A Ray of our own looks up from its sleep seldom, since each look halts a thread of a
measurement; and its workers are not nicer to other processes than a plain one is."""
PLACEMENT_TIMEOUT_S = 60.0
CALIBRATION_TIMEOUT_S = 300.0
OUTSIDE_RAY = frozenset({"torch", "torchrun"})
"""Stacks whose ranks are no workers of Ray, but children of one."""


@dataclass(frozen=True)
class Finished:
    """A trial that has ended, one way or the other."""

    trial: Trial
    result: TrialResult
    started_at: datetime
    wall_time_s: float


@dataclass(frozen=True)
class Placement:
    """What one trial asks of the cluster."""

    device: DeviceKind
    nodes: int
    ranks_per_node: int
    cpus_per_rank: float
    ranks_per_worker: int = 1

    @property
    def world_size(self) -> int:
        return self.nodes * self.ranks_per_node

    @property
    def bundles(self) -> list[dict[str, float]]:
        bundle: dict[str, float] = {"CPU": self.cpus_per_rank * self.ranks_per_node}
        if self.device == "cuda":
            bundle["GPU"] = self.ranks_per_node
        return [bundle] * self.nodes

    @property
    def strategy(self) -> str:
        return "STRICT_SPREAD" if self.nodes > 1 else "STRICT_PACK"


class Worker:
    """One rank of one trial, in a process of its own; or the parent of several."""

    def address(self) -> tuple[str, int]:
        """Where this process can be met as rank 0: its node, and a free port."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def run(
        self, trial: Trial, ranks: Sequence[Rank], timeout_s: float
    ) -> list[TrialResult]:
        """The results of these ranks; of one alone where that one failed."""
        if trial.case.stack in OUTSIDE_RAY:
            return run_outside_ray(trial, ranks, timeout_s)
        start = time.perf_counter()
        from tlbench.trial import run_rank  # torch: half of a short trial's cost

        import_time_s = time.perf_counter() - start
        return [run_rank(trial, rank, import_time_s) for rank in ranks]

    def calibrate(self, rank: Rank, time_limit_s: float) -> TrialResult:
        from tlbench.measure.rates import measure_rates  # torch

        return TrialResult(
            "ok",
            metrics=tuple(measure_rates(rank, time_limit_s)),
            machine=fingerprint(),
        )


class Cluster:
    """A connection to Ray: a local one of our own, or one at `address`."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._resources = contextlib.ExitStack()
        self._nodes: list[dict[str, float]] = []

    def __enter__(self) -> Self:
        self._resources.enter_context(_connection(self._address))
        self._nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._resources.close()

    @property
    def device(self) -> DeviceKind:
        """Where trials run that leave the choice to us."""
        return "cuda" if any(node.get("GPU", 0) for node in self._nodes) else "cpu"

    @property
    def cpu_cores(self) -> int:
        """Cores of the smallest node, as Ray counts them."""
        return int(min(node.get("CPU", 0) for node in self._nodes))

    def device_of(self, case: Case) -> DeviceKind:
        """Where the trials of this case run."""
        return self.device if case.device == "auto" else case.device

    def time_worker(self) -> float:
        """Seconds until a fresh worker on one CPU has answered."""
        start = time.perf_counter()
        with _worker_group(Placement("cpu", 1, 1, 1)) as (worker,):
            ray.get(worker.address.remote())
            return time.perf_counter() - start

    def calibrate(self, time_limit_s: float) -> TrialResult:
        """Measure what one device can do at best, in a fresh process.

        Args:
            time_limit_s: Of each of the measurements.
        """
        whole_node = 1 if self.device == "cuda" else self._share(1)
        placement = Placement(self.device, 1, 1, whole_node)
        with _worker_group(placement) as (worker,):
            rank = _rank(0, placement, "127.0.0.1", 0)
            try:
                result: TrialResult = ray.get(
                    worker.calibrate.remote(rank, time_limit_s),
                    timeout=CALIBRATION_TIMEOUT_S,
                )
            except GetTimeoutError:
                reason = f"not finished after {CALIBRATION_TIMEOUT_S:g} s"
                return TrialResult("timeout", reason)
            except RayError as error:
                return _failure(error)
        return result

    def shortage(self, case: Case) -> str | None:
        """Why the case can never be placed on this cluster; None if it can."""
        wanted, spread = self._placement(case), case.parallelism
        if wanted.nodes > len(self._nodes):
            return f"needs {wanted.nodes} nodes; the cluster has {len(self._nodes)}"
        fitting = [n for n in self._nodes if _holds(n, wanted.bundles[0])]
        if wanted.nodes <= len(fitting):
            return None
        return (
            f"needs {spread.world_size} x {wanted.device} on {wanted.nodes} node(s);"
            f" the cluster has {_describe(self._nodes)}"
        )

    def run(self, trial: Trial, timeout_s: float) -> Finished:
        """Run one trial in fresh processes; returns whatever becomes of it."""
        started_at, start = datetime.now(UTC), time.perf_counter()
        missing = self.shortage(trial.case)
        if missing is not None:
            result = TrialResult("skipped", missing)
        else:
            try:
                placement = self._placement(trial.case)
                with _worker_group(placement) as workers:
                    result = _collect(trial, placement, workers, timeout_s)
            except RayError as error:
                raise ClusterError(f"Ray itself failed: {error}") from error
        return Finished(trial, result, started_at, time.perf_counter() - start)

    def _placement(self, case: Case) -> Placement:
        spread = case.parallelism
        ranks_per_node = spread.world_size // spread.nodes
        device = self.device_of(case)
        return Placement(
            device=device,
            nodes=spread.nodes,
            ranks_per_node=ranks_per_node,
            cpus_per_rank=1 if device == "cuda" else self._share(ranks_per_node),
            ranks_per_worker=ranks_per_node if case.stack in OUTSIDE_RAY else 1,
        )

    def _share(self, ranks: int) -> float:
        """Cores of each of `ranks` that fill a node; a fraction if they are many."""
        cores = self.cpu_cores
        return cores // ranks if cores >= ranks else cores / ranks


def _collect(
    trial: Trial, placement: Placement, workers: Sequence[Any], timeout_s: float
) -> TrialResult:
    """Let the workers run their parts of the trial, and make one result of theirs."""
    deadline = time.perf_counter() + timeout_s
    try:
        address, port = _meeting_point(workers, placement, timeout_s)
    except GetTimeoutError:
        return TrialResult("timeout", f"its workers did not start in {timeout_s:g} s")
    except RayError as error:
        return _failure(error)
    ranks = [
        _rank(number, placement, address, port)
        for number in range(placement.world_size)
    ]
    left_s = max(deadline - time.perf_counter(), 0)
    calls = [
        worker.run.remote(
            trial, ranks[first : first + placement.ranks_per_worker], left_s
        )
        for worker, first in zip(
            workers, range(0, len(ranks), placement.ranks_per_worker), strict=True
        )
    ]
    if trial.case.stack in OUTSIDE_RAY:  # its worker has to end processes, and to tell
        deadline += ENDING_TIMEOUT_S + GRACE_S
    results = _wait(calls, deadline)
    if results is None:
        results = [TrialResult("timeout", f"not finished after {timeout_s:g} s")]
    return combine_ranks(results, trial.case.global_batch_size)


def _rank(number: int, placement: Placement, address: str, port: int) -> Rank:
    return Rank(
        rank=number,
        world_size=placement.world_size,
        local_rank=number % placement.ranks_per_node,
        local_world_size=placement.ranks_per_node,
        master_address=address,
        master_port=port,
        device=placement.device,
        threads=max(int(placement.cpus_per_rank), 1),
    )


@contextlib.contextmanager
def _connection(address: str | None) -> Iterator[None]:
    """Start a Ray of our own, or join one; leave it again at the end."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("REPORTER_UPDATE_INTERVAL_MS", "600000")
    # Ray puts the driver's current folder first on the path of the workers, where a
    # user's own `db` or `reports` would shadow other people's modules.
    with tempfile.TemporaryDirectory(prefix="tlbench-") as neutral:
        with contextlib.chdir(neutral):
            _connect(address)
        try:
            yield
        finally:
            ray.shutdown()


def _connect(address: str | None) -> None:
    if address:
        _use_token()
    try:
        ray.init(
            # A bare init() would join whatever cluster was started here before.
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _system_config=None if address else QUIET_RAY,
        )
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        if not address:
            raise ClusterError(f"cannot start Ray on this machine: {reason}") from error
        raise ClusterError(
            f"cannot join Ray at {address}: {reason}; it must be running there, and"
            " this shell must hold its token (RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH)"
        ) from error


def _use_token() -> None:
    """Present the token of this machine, as Ray by itself does for `auto` only."""
    try:
        from ray._private.authentication import authentication_token_setup
    except ImportError:  # Ray knows tokens since 2.60
        return
    logging.getLogger("ray").setLevel(logging.ERROR)  # it would praise the token
    authentication_token_setup.maybe_enable_token_auth_if_token_available(
        warn_if_disabled=False
    )


@contextlib.contextmanager
def _worker_group(placement: Placement) -> Iterator[list[Any]]:
    """Fresh workers, one a rank; all of them are gone when the block ends."""
    group = placement_group(placement.bundles, strategy=placement.strategy)
    workers: list[Any] = []
    try:
        if not group.wait(PLACEMENT_TIMEOUT_S):
            raise ClusterError(
                f"the cluster did not free {placement.bundles} within"
                f" {PLACEMENT_TIMEOUT_S:.0f} s; `ray status` shows who holds it"
            )
        ranks = placement.ranks_per_worker
        for rank in range(0, placement.world_size, ranks):
            strategy = PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=rank // placement.ranks_per_node
            )
            workers.append(
                ray.remote(Worker)
                .options(
                    num_cpus=placement.cpus_per_rank * ranks,
                    num_gpus=ranks if placement.device == "cuda" else 0,
                    scheduling_strategy=strategy,
                )
                .remote()
            )
        yield workers
    finally:
        for worker in workers:
            ray.kill(worker)
        remove_placement_group(group)
        _wait_until_released(placement)


def _wait_until_released(placement: Placement) -> None:
    """Wait for the freed cores: Ray retries a group that found none only after 1 s."""
    wanted = {
        name: sum(bundle[name] for bundle in placement.bundles)
        for name in placement.bundles[0]
    }
    deadline = time.perf_counter() + RELEASE_TIMEOUT_S
    while time.perf_counter() < deadline:
        free = ray.available_resources()
        if all(free.get(name, 0) >= count for name, count in wanted.items()):
            return
        time.sleep(0.02)


def _meeting_point(
    workers: Sequence[Any], placement: Placement, timeout_s: float
) -> tuple[str, int]:
    """Where the ranks meet, once every worker has started."""
    answers = ray.get([w.address.remote() for w in workers], timeout=timeout_s)
    address, port = answers[0]
    return ("127.0.0.1" if placement.nodes == 1 else address), port


def _wait(calls: Sequence[Any], deadline: float) -> list[TrialResult] | None:
    """The result of each rank, or the first failure; None: the deadline came first.

    When one fails, the others get a moment to report.
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
    # What stopped the others is the first failure, not their silence.
    failed = [r for found in results.values() for r in found if r.status != "ok"]
    if failed:
        return failed[:1]
    if pending:
        return None
    return [result for number in sorted(results) for result in results[number]]


def _results(call: Any) -> list[TrialResult]:
    try:
        results: list[TrialResult] = ray.get(call)
    except RayError as error:
        return [_failure(error)]
    return results


def _failure(error: RayError) -> TrialResult:
    """What to store where a worker's process did not live to tell."""
    status: Status = "error"
    reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if isinstance(error, OutOfMemoryError):
        status, reason = "oom", "Ray ended its process: the node's memory was full"
    elif isinstance(error, RayActorError):
        reason = "its process died: killed, crashed, or out of host memory"
    return TrialResult(status, reason, "".join(traceback.format_exception(error)))


def _holds(node: dict[str, float], bundle: dict[str, float]) -> bool:
    return all(node.get(name, 0) >= count for name, count in bundle.items())


def _describe(nodes: Sequence[dict[str, float]]) -> str:
    return ", ".join(
        f"a node with {node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs"
        for node in nodes
    )
