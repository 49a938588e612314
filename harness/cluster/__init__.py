"""Ray: the nodes there are, and a worker group of fresh processes for each trial.

The only package with Ray.
"""

import contextlib
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import ray
from ray.exceptions import GetTimeoutError, RayError

from tlbench.cluster.connection import (
    connection,
    free_resources,
    is_own_node_alive,
)
from tlbench.cluster.members import Members
from tlbench.cluster.workers import Groups, failure, make_rank, run_in_group, seats
from tlbench.errors import ClusterError
from tlbench.events import Finished
from tlbench.placement import Placement, Schedule
from tlbench.rank import DeviceKind
from tlbench.result import TrialResult
from tlbench.suites.spec import Case, Trial

PATIENCE_S = 60.0
"""How long a trial that nobody schedules waits for what others hold."""
LOOK_AGAIN_S = 0.02
"""Ray tells what was freed some hundredths of a second later."""
JOINING_S = 15.0
LOOK_AT_NODES_S = 1.0
"""How old what is known of the nodes may be."""
CALIBRATION_TIMEOUT_S = 300.0


class Cluster:
    """A connection to Ray: a local one of our own, or one at `address`."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._resources = contextlib.ExitStack()
        self._schedule = Schedule()
        self._looked = 0.0
        self._groups = Groups()
        self._members = Members()

    def __enter__(self) -> Self:
        self._connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._resources.close()

    def _connect(self) -> None:
        self._groups = Groups()
        self._members = self._resources.enter_context(connection(self._address))
        self.look()

    def check(self) -> None:
        """See that trials can still be run, after one was lost.

        A Ray of our own that has died is started anew.

        Raises:
            ClusterError: The Ray that was joined is gone from this machine.
        """
        if is_own_node_alive():
            return
        self._resources.close()
        if self._address is not None:
            raise ClusterError(
                f"the Ray of this machine, which had joined {self._address}, has ended"
            )
        self._connect()

    def end_trials(self) -> None:
        """End all trials that go on, at once; they come out as lost."""
        self._groups.end()

    @property
    def node_ids(self) -> frozenset[str]:
        """Of the nodes that were there at the last look."""
        return frozenset(node.id for node in self._schedule.nodes)

    @property
    def device(self) -> DeviceKind:
        """Where trials run that leave the choice to us."""
        return self._schedule.device

    def device_of(self, case: Case) -> DeviceKind:
        """Where the trials of this case run."""
        return self._schedule.device_of(case)

    def shortage(self, case: Case) -> str | None:
        """Why the case can never be placed on this cluster; None if it can."""
        return self._schedule.shortage(case)

    def lack(self, case: Case) -> str:
        """What a trial of the case that cannot begin waits for."""
        return self._schedule.lack(case)

    def candidates(self, case: Case) -> frozenset[str]:
        """Ids of the nodes that trials of the case run on, whoever holds them now."""
        return self._schedule.candidates(case)

    def place(self, case: Case) -> Placement | None:
        """Take what a trial of the case needs; None: it is not free now."""
        is_recent = time.monotonic() < self._looked + LOOK_AT_NODES_S
        if is_recent and self._schedule.find(case) is None:
            return None
        self.look()
        return self._schedule.place(case, free_resources())

    @property
    def joining_s(self) -> float:
        """How long nodes may still be about to join; a Ray of our own is whole."""
        return 0.0 if self._address is None else JOINING_S

    def look(self) -> None:
        """Learn which nodes there are now."""
        self._schedule.update(self._members.now())
        self._looked = time.monotonic()

    def take_refusals(self) -> list[str]:
        """Which nodes that have joined are not used, and why; each is told once."""
        return self._members.take_refusals()

    def release(self, placement: Placement) -> None:
        """Give back what `place` took."""
        self._schedule.release(placement)

    def is_held_by_others(self, case: Case) -> bool:
        """Whether no trial of ours is what such a trial waits for."""
        return self._schedule.is_free_of_ours(case)

    def run(
        self, trial: Trial, timeout_s: float, placement: Placement | None = None
    ) -> Finished:
        """Run one trial in fresh processes; returns whatever becomes of it.

        Args:
            trial: What is to run.
            timeout_s: How long it may take, from when it has its nodes.
            placement: Its nodes; None: they are taken as soon as they are free, and
                given back.

        Raises:
            ClusterError: Nothing became free.
        """
        if placement is not None:
            return self._run_at(trial, timeout_s, placement)
        missing = self.shortage(trial.case)
        if missing is not None:
            return ended(trial, TrialResult("skipped", missing))
        placement = self._wait_for_room(trial.case)
        try:
            return self._run_at(trial, timeout_s, placement)
        finally:
            self.release(placement)

    def _run_at(self, trial: Trial, timeout_s: float, placement: Placement) -> Finished:
        started_at, start = datetime.now(UTC), time.perf_counter()
        result = run_in_group(self._groups, trial, placement, timeout_s)
        wall_time_s = time.perf_counter() - start
        return Finished(trial, result, started_at, wall_time_s, nodes=placement.nodes)

    def _wait_for_room(self, case: Case) -> Placement:
        deadline = time.perf_counter() + PATIENCE_S
        while time.perf_counter() < deadline:
            placement = self.place(case)
            if placement is not None:
                return placement
            time.sleep(LOOK_AGAIN_S)
        raise ClusterError(
            f"others hold the nodes of the cluster for {PATIENCE_S:.0f} s;"
            " `ray status` shows them"
        )

    def time_worker(self) -> float:
        """Seconds until a fresh worker has answered."""
        start = time.perf_counter()
        with self._groups.group(self._schedule.whole_node("cpu")) as (worker,):
            ray.get(worker.meet.remote())
            return time.perf_counter() - start

    def calibrate(self, time_limit_s: float) -> TrialResult:
        """Measure what one device can do at best, in a fresh process.

        Args:
            time_limit_s: Of each of the measurements.
        """
        placement = self._schedule.whole_node(self.device)
        (seat,) = seats(placement)
        with self._groups.group(placement) as (worker,):
            try:
                port = ray.get(worker.meet.remote()).port
                rank = make_rank(placement, seat, 0, port)
                result: TrialResult = ray.get(
                    worker.calibrate.remote(rank, time_limit_s),
                    timeout=CALIBRATION_TIMEOUT_S,
                )
            except GetTimeoutError:
                reason = f"not finished after {CALIBRATION_TIMEOUT_S:g} s"
                return TrialResult("timeout", reason)
            except RayError as error:
                return failure(error)
        return result


def ended(trial: Trial, result: TrialResult, attempt: int = 1) -> Finished:
    """A trial that never began."""
    return Finished(trial, result, datetime.now(UTC), 0.0, attempt)
