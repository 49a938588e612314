"""The largest batch that fits into memory: the search, and the trials run at it.

Every look at a batch is a fresh process, so there shall be few. What a step takes is
nearly a straight line over its batch: the search begins with the smallest batch, goes
to where the closed form says the limit lies, then to where the line through its last
measurements does, and ends between two neighbours of which one fits.

A batch is counted in units: one sample for each rank and each accumulated part.
"""

import math
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tlbench.errors import UnknownCostError
from tlbench.events import Finished
from tlbench.models.memory import (
    forecast_memory,
    predicted_growth_bytes,
    predicted_memory_bytes,
)
from tlbench.placement import Placement
from tlbench.rank import DeviceKind
from tlbench.result import WHOLE_JOB, Metric, Series, Status, TrialResult
from tlbench.suites.probe import Probe
from tlbench.suites.spec import Case, Trial
from tlbench.units import format_bytes

if TYPE_CHECKING:  # Ray, which a plan does without
    from tlbench.cluster import Cluster

MEMORY_METRICS: dict[DeviceKind, str] = {
    "cpu": "peak_memory_host_growth_bytes",
    "cuda": "peak_memory_reserved_bytes",
}
"""The measured peak that is held against the limit; the fullest rank's counts."""
MARGIN = 0.05
"""Share of the limit that the largest batch leaves free: a trial's peak is not the
same every time, and a GPU also holds what torch's allocator does not see."""
RESOLUTION = 0.01
"""The search ends when both ends of its bracket lie within this share, or one unit."""
OVERSHOOT = 1.25
"""No probe is expected to take more than this many times the limit."""
SMALLEST_PEAK_BYTES = 4 * 2**20
"""Less than this is noise of the process, and says nothing of larger batches."""
MAX_BATCH_SIZE = 1_000_000
"""The largest that a suite may ask for."""
MAX_STRETCH = 8
"""A line through two batches is trusted up to this many times the larger."""
MAX_STRAIGHT = 4
"""Probes that follow the line alone; of later ones every second halves the bracket."""

NO_LIMIT = (
    "batch_size=max needs memory_limit_gib on a CPU, where the memory of the host is"
    " everybody's"
)


@dataclass(frozen=True)
class Look:
    """What one probe saw."""

    batch_size: int
    memory_bytes: float | None
    """None: it ran out of memory."""
    fits: bool


@dataclass(frozen=True)
class Frontier:
    """The largest batch that fits, or why none was found."""

    status: Status
    reason: str | None
    """None only where the status is ok."""
    looks: tuple[Look, ...] = ()
    limit_bytes: float | None = None
    largest: int | None = None
    """Where the status is ok: it fits, and lies below all that do not."""
    failure: TrialResult | None = None
    """Of the probe that ended the search, where one did."""

    @property
    def is_accident(self) -> bool:
        """Whether another search may well end otherwise."""
        return self.status not in ("ok", "oom", "skipped")

    def as_result(self) -> TrialResult:
        """What a trial comes to for which no batch was found."""
        result = TrialResult(self.status, self.reason)
        if self.failure is None:
            return result
        seen = self.failure
        return replace(result, traceback=seen.traceback, machine=seen.machine)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What the search found; nothing where it failed."""
        if self.largest is None:
            return ()
        failing = min((x.batch_size for x in self.looks if not x.fits), default=None)
        reason = (
            f"none up to {self.largest:,} fails, and a suite may have no more than"
            f" {MAX_BATCH_SIZE:,}"
        )
        return (
            Metric("max_batch_size", self.largest),
            Metric(
                "smallest_failing_batch_size",
                failing,
                reason if failing is None else None,
            ),
            Metric("memory_limit_bytes", self.limit_bytes),
        )

    @property
    def series(self) -> tuple[Series, ...]:
        """Every probe in its order; its memory is not a number where that ran out."""
        batches = (float(look.batch_size) for look in self.looks)
        memory = (look.memory_bytes for look in self.looks)
        return (
            Series("probe_batch_size", tuple(batches)),
            Series(
                "probe_memory_bytes",
                tuple(math.nan if peak is None else peak for peak in memory),
            ),
        )


def at_batch(case: Case, batch_size: int) -> Case:
    """The case of `batch_size: max` at a batch that is known."""
    changes = {"batch_size": batch_size, "memory_limit_gib": None}
    return case.model_copy(update=changes)


def limit_bytes(case: Case) -> float | None:
    """What one rank may hold, where the suite says so."""
    gib = case.memory_limit_gib
    return None if gib is None else gib * 2**30


def _unit(case: Case) -> int:
    return case.parallelism.world_size * case.accumulation


# ---------------------------------------------------------------- prediction


def predict_largest(case: Case, device: DeviceKind, limit: float) -> int | None:
    """Predict the largest batch that leaves the margin of the limit, by closed forms.

    0 where not even the smallest does. None for a builder's model.
    """
    unit = _unit(case)
    try:
        return unit * bisect_right(
            range(1, MAX_BATCH_SIZE // unit + 1),
            limit * (1 - MARGIN),
            key=lambda units: _predicted_bytes(at_batch(case, units * unit), device),
        )
    except UnknownCostError:
        return None


def _predicted_bytes(case: Case, device: DeviceKind) -> int:
    """Predict what `MEMORY_METRICS` measure, or what lies nearest to it."""
    if device == "cuda":
        return predicted_memory_bytes(case)
    growth = predicted_growth_bytes(case)
    if growth is not None:
        return growth
    # Not known exactly: at its most, all gradients beside all activations.
    whole = forecast_memory(case)
    return whole.activations_bytes + whole.gradients_bytes


# ---------------------------------------------------------------- search


def find_largest(
    case: Case, device: DeviceKind, probe: Callable[[int], TrialResult]
) -> Frontier:
    """Search for the largest batch that leaves the margin of the limit.

    The limit is the suite's, or else all memory of the GPU.

    Args:
        case: With `batch_size: max`.
        device: Where it will run.
        probe: Runs a few steps at a batch; its result holds their memory, or `oom`.
            Any other end is the end of the search.
    """
    if case.memory_limit_gib is None and device == "cpu":
        return Frontier("skipped", NO_LIMIT)
    search = _Search(case, device)
    while (batch_size := search.next_batch()) is not None:
        result = probe(batch_size)
        failure = search.failure(result)
        if failure is not None:
            status, reason = failure
            ended = search.conclude(status, f"at batch {batch_size}: {reason}")
            return replace(ended, failure=result)
        search.add(batch_size, result)
    return search.conclude()


class _Search:
    """What a search has seen; where it looks next follows from that alone."""

    def __init__(self, case: Case, device: DeviceKind) -> None:
        self._case, self._device, self._unit = case, device, _unit(case)
        self._limit = limit_bytes(case) or math.inf  # until the first probe tells
        self._looks: list[Look] = []

    @property
    def _goal(self) -> float:
        return self._limit * (1 - MARGIN)

    def failure(self, result: TrialResult) -> tuple[Status, str] | None:
        """Why the search cannot go on after this probe; None if it can."""
        if result.status == "oom":
            return None
        if result.status != "ok":
            return result.status, result.reason or result.status
        peak = self._peak(result)
        if peak.value is None:
            return "skipped", f"{peak.name} is unknown: {peak.reason}"
        if self._device == "cpu" and result.machine is not None:
            return self._beyond(result.machine.memory_bytes)
        if self._limit == math.inf and _gpu_memory_bytes(result) is None:
            return "skipped", "this GPU does not tell its memory; memory_limit_gib can"
        return None

    def _beyond(self, memory_bytes: int) -> tuple[Status, str] | None:
        """Refuse a limit that the node does not have, before anything fills it."""
        spread = self._case.parallelism
        ranks = spread.world_size // spread.nodes
        if ranks * self._limit <= memory_bytes:
            return None
        return "skipped", (
            f"memory_limit_gib={self._case.memory_limit_gib:g} for each of {ranks}"
            f" rank(s) is more than the {format_bytes(memory_bytes)} of the node"
        )

    def _peak(self, result: TrialResult) -> Metric:
        name = MEMORY_METRICS[self._device]
        found = (m for m in result.metrics if m.name == name and m.rank == WHOLE_JOB)
        return next(found, Metric(name, None, "the probe did not measure it"))

    def add(self, batch_size: int, result: TrialResult) -> None:
        """Take in what a probe saw."""
        if self._limit == math.inf:
            self._limit = _gpu_memory_bytes(result) or math.inf
        peak = None if result.status == "oom" else self._peak(result).value
        fits = peak is not None and peak <= self._goal
        self._looks.append(Look(batch_size, peak, fits))

    def conclude(self, status: Status = "ok", reason: str | None = None) -> Frontier:
        largest = self._bracket()[0] * self._unit or None
        if status == "ok" and largest is None:
            status, reason = "oom", self._nothing_fits()
        return Frontier(
            status,
            reason,
            tuple(self._looks),
            limit_bytes=None if self._limit == math.inf else self._limit,
            largest=largest if status == "ok" else None,
        )

    def _nothing_fits(self) -> str:
        smallest = self._looks[0]
        if smallest.memory_bytes is None:
            return f"memory ran out at batch {smallest.batch_size}, the smallest"
        return (
            f"batch {smallest.batch_size}, the smallest, takes"
            f" {format_bytes(smallest.memory_bytes)}, which is more than"
            f" {1 - MARGIN:.0%} of {format_bytes(self._limit)}"
        )

    def next_batch(self) -> int | None:
        """Where to look next; None: both ends are close enough, or nothing fits."""
        if not self._looks:
            return self._unit
        low, high = self._bracket()
        step = max(1, int(RESOLUTION * low))
        if low == 0 or high - low <= step:
            return None
        line = self._where_the_line_meets_the_goal(low, high)
        aim = self._aim(line)
        if aim is None:
            aim = (low + high) // 2
        safe = self._safe(low, has_line=line is not None)
        highest = max(low + 1, min(high - step, safe))
        return self._unit * min(max(aim, low + step), highest)

    def _bracket(self) -> tuple[int, int]:
        """The largest batch that fits and the smallest that does not, in units.

        0 while none fits; one more than a suite may ask for while all do.
        """
        beyond = MAX_BATCH_SIZE // self._unit + 1
        high = min((self._units(x) for x in self._looks if not x.fits), default=beyond)
        fitting = (self._units(look) for look in self._looks if look.fits)
        return max((units for units in fitting if units < high), default=0), high

    def _units(self, look: Look) -> int:
        return look.batch_size // self._unit

    def _aim(self, line: int | None) -> int | None:
        """The largest batch that should fit, in units; None: halve the bracket."""
        count = len(self._looks)
        if count == 1:
            predicted = predict_largest(self._case, self._device, self._limit)
            return None if predicted is None else predicted // self._unit
        is_bracketed = not all(look.fits for look in self._looks)
        is_turn_to_halve = count > MAX_STRAIGHT and count % 2 == 0 and is_bracketed
        return None if is_turn_to_halve else line

    def _safe(self, low: int, *, has_line: bool) -> int:
        """The largest batch, in units, that is not expected to overshoot the limit.

        So many times a batch take at most so many times its memory, whatever else the
        steps hold that does not grow. One unit more is always tried, for the worker is
        refused what lies far beyond the limit.
        """
        peaks = [x.memory_bytes or 0.0 for x in self._looks if self._units(x) == low]
        by_share = low * OVERSHOOT * self._limit / max(*peaks, SMALLEST_PEAK_BYTES)
        return max(int(by_share), MAX_STRETCH * low if has_line else 0)

    def _where_the_line_meets_the_goal(self, low: int, high: int) -> int | None:
        points = sorted(
            (self._units(look), look.memory_bytes)
            for look in self._looks
            if look.memory_bytes is not None
        )
        below = [point for point in points if point[0] <= low]
        above = [point for point in points if point[0] >= high]
        pair = below[-1:] + above[:1] if above else below[-2:]
        if len(pair) < 2 or pair[0][1] >= pair[1][1]:
            return None
        (start, least), (end, most) = pair
        return int(start + (self._goal - least) * (end - start) / (most - least))


def _gpu_memory_bytes(result: TrialResult) -> int | None:
    return None if result.machine is None else result.machine.gpu_memory_bytes


# ---------------------------------------------------------------- trials


class LargestBatches:
    """Runs trials; those of `batch_size: max` at the batch that is found for them.

    The search is made once for each case, before its first trial.
    """

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster = cluster
        self._found: dict[str, Frontier] = {}

    def run(
        self, trial: Trial, timeout_s: float, placement: Placement | None = None
    ) -> Finished:
        """Run one trial in fresh processes; returns whatever becomes of it.

        A trial that has to search takes the time of its probes, too, and keeps them.
        All of it runs on the nodes of one placement.
        """
        if trial.case.batch_size != "max":
            return self._cluster.run(trial, timeout_s, placement)
        started_at, start = datetime.now(UTC), time.perf_counter()
        identity = trial.case.identity
        series: tuple[Series, ...] = ()
        if identity not in self._found or self._found[identity].is_accident:
            frontier = self._found[identity] = self._search(trial, timeout_s, placement)
            series = frontier.series
        result = self._run_at(self._found[identity], trial, timeout_s, placement)
        result = replace(result, series=(*result.series, *series))
        wall_time_s = time.perf_counter() - start
        nodes = placement.nodes if placement is not None else ()
        return Finished(trial, result, started_at, wall_time_s, nodes=nodes)

    def _search(
        self, trial: Trial, timeout_s: float, placement: Placement | None
    ) -> Frontier:
        device = self._cluster.device_of(trial.case)

        def probe(batch_size: int) -> TrialResult:
            look = _probe(trial, batch_size, device)
            return self._cluster.run(look, timeout_s, placement).result

        return find_largest(trial.case, device, probe)

    def _run_at(
        self,
        frontier: Frontier,
        trial: Trial,
        timeout_s: float,
        placement: Placement | None,
    ) -> TrialResult:
        if frontier.largest is None:
            return frontier.as_result()
        known = replace(trial, case=at_batch(trial.case, frontier.largest))
        result = self._cluster.run(known, timeout_s, placement).result
        return replace(
            result,
            metrics=(*result.metrics, *frontier.metrics),
            notes=result.notes | {"batch": f"found by {len(frontier.looks)} probes"},
        )


def _probe(trial: Trial, batch_size: int, device: DeviceKind) -> Probe:
    limit = limit_bytes(trial.case)
    return Probe(
        case=at_batch(trial.case, batch_size),
        repeat=trial.repeat,
        position=trial.position,
        seed=trial.seed,
        source=trial.source,
        data_path=trial.data_path,
        stop_bytes=int(OVERSHOOT * limit) if limit and device == "cpu" else None,
    )
