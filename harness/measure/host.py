"""What else the host did while steps were timed: differences of the kernel's counters.

They are read at both ends only, so that nothing runs beside the steps. Some kernels,
those of sandboxes above all, show counters that they do not keep: what cannot be true
is unknown, with the reason.
"""

import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tlbench.machine import CPU_INFO
from tlbench.result import Metric

CPU_FREQUENCY = Path("/sys/devices/system/cpu/cpu0/cpufreq")

BUSY = ("user", "nice", "system", "irq", "softirq")
RESTING = ("idle", "iowait", "steal")
"""States of a core; what guests take is in `user` and `nice`."""

MIN_WINDOW_S = 0.5
"""The kernel counts CPU time in ticks of 10 ms, that of each process by itself."""
MIN_COUNTED = 0.5
"""Least part of the time that passed, and of the CPU time that the trial took, that the
counters must show to be believed."""

NO_CLOCK = "the kernel tells the nominal clock at most, as in most virtual machines"
NO_STEAL = (
    "the kernel has counted no stolen time since it started: none was stolen, or it is"
    " not told"
)
NO_SWITCHES = "the kernel counts no context switches"


@dataclass(frozen=True)
class Moment:
    """Readings of counters that only grow; times in seconds."""

    time_s: float
    cores: int
    """Those that this process may use; CPU time is counted of them alone."""
    counted_s: float
    """All that the kernel has accounted for, idle time included."""
    busy_s: float
    steal_s: float
    """What the hypervisor gave to others."""
    own_s: float
    """CPU time of this trial's ranks on this host, and of what they started."""
    involuntary_switches: int
    voluntary_switches: int
    clock_hz: float | None


def look(pids: Sequence[int]) -> Moment:
    """Read the counters now.

    Args:
        pids: Of this trial's ranks on this host, ours among them.
    """
    cores = _own_cores()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Moment(
        time_s=time.perf_counter(),
        cores=len(cores),
        counted_s=_seconds(cores, *BUSY, *RESTING),
        busy_s=_seconds(cores, *BUSY),
        steal_s=_seconds(cores, "steal"),
        own_s=sum(map(_tree_time_s, pids)),
        involuntary_switches=usage.ru_nivcsw,
        voluntary_switches=usage.ru_nvcsw,
        clock_hz=_clock_hz(),
    )


def host_metrics(before: Moment, after: Moment) -> list[Metric]:
    """What happened between two looks."""
    mistrust = _mistrust(before, after)
    counted_s = after.counted_s - before.counted_s
    others_s = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    stolen_s = after.steal_s - before.steal_s
    no_steal = None if after.steal_s else NO_STEAL
    return [
        # Ticks are rounded: on a quiet host the difference may fall below nothing.
        _share("foreign_cpu_fraction", max(others_s, 0.0), counted_s, mistrust),
        _share("steal_fraction", stolen_s, counted_s, mistrust or no_steal),
        _clock(before, after),
        _switches(before, after),
    ]


def _own_cores() -> list[Any]:
    """The kernel's account of each core that we may use."""
    cores: list[Any] = psutil.cpu_times(percpu=True)
    if not hasattr(os, "sched_getaffinity"):
        return cores
    allowed = os.sched_getaffinity(0)
    # LXCFS shows a container its own cores alone, and counts them from 0.
    return [cores[i] for i in allowed] if max(allowed) < len(cores) else cores


def _seconds(cores: Sequence[Any], *states: str) -> float:
    return sum(getattr(core, state, 0.0) for core in cores for state in states)


def _tree_time_s(pid: int) -> float:
    """CPU time of a process and of all it started, those that have ended included."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0.0
    for process in family:
        try:
            spent = process.cpu_times()
        except psutil.NoSuchProcess:
            continue  # ended just now
        total += spent.user + spent.system + spent.children_user + spent.children_system
    return total


def _clock_hz() -> float | None:
    """The cores' mean clock; None where the kernel does not measure it."""
    clock = psutil.cpu_freq() if _is_clock_measured() else None
    return clock.current * 1e6 if clock else None


def _is_clock_measured() -> bool:
    """Whether there is a driver that sets the clock, or a counter of its cycles."""
    if CPU_FREQUENCY.exists():
        return True
    try:
        return "aperfmperf" in CPU_INFO.read_text(errors="replace")
    except OSError:
        return False  # not Linux


def _mistrust(before: Moment, after: Moment) -> str | None:
    """Why the differences of CPU time mean nothing; None if they do."""
    window_s = after.time_s - before.time_s
    passed_s = window_s * after.cores
    counted_s = after.counted_s - before.counted_s
    busy_s, own_s = after.busy_s - before.busy_s, after.own_s - before.own_s
    if window_s < MIN_WINDOW_S:
        return (
            f"steps were timed for {window_s:.2f} s, and the kernel's ticks of 10 ms"
            f" need {MIN_WINDOW_S} s"
        )
    if not after.cores or counted_s < MIN_COUNTED * passed_s:
        return (
            f"the kernel accounts for {counted_s:.1f} s of CPU time in {window_s:.1f} s"
            f" of {after.cores} cores"
        )
    if busy_s < MIN_COUNTED * own_s:
        return (
            f"the kernel counts {busy_s:.1f} s of work on all cores, and"
            f" {own_s:.1f} s of this trial's alone"
        )
    return None


def _share(name: str, part_s: float, whole_s: float, unknown: str | None) -> Metric:
    return Metric(name, None, unknown) if unknown else Metric(name, part_s / whole_s)


def _clock(before: Moment, after: Moment) -> Metric:
    if before.clock_hz is None or after.clock_hz is None:
        return Metric("cpu_clock_hz", None, NO_CLOCK)
    return Metric("cpu_clock_hz", (before.clock_hz + after.clock_hz) / 2)


def _switches(before: Moment, after: Moment) -> Metric:
    name = "involuntary_switches_per_s"
    if not after.voluntary_switches and not after.involuntary_switches:
        return Metric(name, None, NO_SWITCHES)
    switches = after.involuntary_switches - before.involuntary_switches
    return Metric(name, switches / (after.time_s - before.time_s))
