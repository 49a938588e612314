"""Counters of the host: their differences, and when they are not believed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tlbench.measure import host
from tlbench.measure.host import NO_CLOCK, NO_STEAL, NO_SWITCHES, Moment, look
from tlbench.result import Metric

START = Moment(
    time_s=100.0,
    cores=4,
    counted_s=4000.0,
    busy_s=1000.0,
    steal_s=30.0,
    own_s=500.0,
    involuntary_switches=70,
    voluntary_switches=900,
    clock_hz=2.0e9,
)
END = replace(
    START,
    time_s=110.0,
    counted_s=4040.0,  # 10 s of four cores
    busy_s=1030.0,
    steal_s=32.0,
    own_s=524.0,
    involuntary_switches=120,
    clock_hz=3.0e9,
)


def metrics(before: Moment, after: Moment) -> dict[str, Metric]:
    return {metric.name: metric for metric in host.host_metrics(before, after)}


def test_differences_are_shares_of_the_cores_time() -> None:
    found = {name: metric.value for name, metric in metrics(START, END).items()}
    assert found == pytest.approx(
        {
            "foreign_cpu_fraction": (30 - 24) / 40,
            "steal_fraction": 2 / 40,
            "cpu_clock_hz": 2.5e9,
            "involuntary_switches_per_s": 50 / 10,
        }
    )


def test_rounded_ticks_leave_no_negative_load() -> None:
    alone = replace(END, own_s=START.own_s + 30.05)
    assert metrics(START, alone)["foreign_cpu_fraction"].value == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"time_s": 100.2, "counted_s": 4000.8}, "timed for 0.20 s"),
        ({"counted_s": 4000.0, "busy_s": 1000.0}, "accounts for 0.0 s of CPU time"),
        ({"cores": 0, "counted_s": 0.0, "busy_s": 0.0}, "of 0 cores"),
        ({"busy_s": 1001.0}, "1.0 s of work on all cores, and 24.0 s of this trial's"),
    ],
    ids=["short", "dead", "absent", "blind"],
)
def test_what_cannot_be_true_is_unknown(change: dict[str, Any], reason: str) -> None:
    found = metrics(START, replace(END, **change))
    for name in ("foreign_cpu_fraction", "steal_fraction"):
        assert found[name].value is None
        assert reason in (found[name].reason or "")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("steal_fraction", {"steal_s": 0.0}, NO_STEAL),
        ("cpu_clock_hz", {"clock_hz": None}, NO_CLOCK),
        (
            "involuntary_switches_per_s",
            {"involuntary_switches": 0, "voluntary_switches": 0},
            NO_SWITCHES,
        ),
    ],
)
def test_what_the_kernel_does_not_tell_is_unknown(
    name: str, change: dict[str, Any], reason: str
) -> None:
    found = metrics(replace(START, **change), replace(END, **change))
    assert (found[name].value, found[name].reason) == (None, reason)


def test_no_steal_meanwhile_is_nothing_where_there_was_some_before() -> None:
    found = metrics(START, replace(END, steal_s=START.steal_s))
    assert found["steal_fraction"].value == 0


@pytest.fixture
def set_cores(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A factory of the kernel's account of each core, and of those that are ours."""

    def set_cores(cores: list[SimpleNamespace], allowed: set[int]) -> None:
        monkeypatch.setattr(psutil, "cpu_times", lambda percpu: cores)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed)

    return set_cores


def core(busy_s: float) -> SimpleNamespace:
    states = {"user": busy_s - 6, "nice": 1, "system": 2, "irq": 1, "softirq": 2}
    return SimpleNamespace(**states, idle=70.0, iowait=4.0, steal=5.0, guest=3.0)


@pytest.mark.parametrize(
    ("allowed", "busy_s", "cores"),
    [({0, 1, 2}, 60, 3), ({1}, 20, 1), ({0, 2}, 40, 2), ({8, 9, 10}, 60, 3)],
    ids=["all", "one", "two", "renumbered by a container"],
)
def test_time_is_counted_of_the_cores_that_are_ours(
    set_cores: Callable[..., None], allowed: set[int], busy_s: float, cores: int
) -> None:
    set_cores([core(10), core(20), core(30)], allowed)
    moment = look([])
    assert (moment.busy_s, moment.cores) == (busy_s, cores)
    assert moment.counted_s == busy_s + cores * (70 + 4 + 5)
    assert moment.steal_s == 5 * cores


def test_a_kernel_without_cores_is_read_without_a_fault(
    set_cores: Callable[..., None],
) -> None:
    set_cores([], {0, 1})
    found = metrics(look([]), replace(look([]), time_s=time.perf_counter() + 10))
    assert found["foreign_cpu_fraction"].value is None


def spin(seconds: float) -> subprocess.Popen[str]:
    """A process that works that long, says how long it was, and stays."""
    code = (
        "import time\n"
        f"while time.process_time() < {seconds}: pass\n"
        "print(time.process_time(), flush=True); input()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_work_of_children_is_ours_while_they_live_and_after() -> None:
    before = look([os.getpid()]).own_s
    with spin(0.3) as child:
        assert child.stdout is not None
        worked = float(child.stdout.readline())
        alive = look([os.getpid()]).own_s - before
        stranger = look([child.pid]).own_s
        child.communicate("\n")
    after = look([os.getpid()]).own_s - before
    assert stranger == pytest.approx(worked, abs=0.05)  # ticks of 10 ms
    assert alive >= worked - 0.05
    assert after >= alive


def test_a_rank_that_has_ended_counts_no_more() -> None:
    with spin(0.0) as child:
        child.communicate("\n")
    assert look([child.pid]).own_s == 0


def test_clock_is_not_the_nominal_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frequency = SimpleNamespace(current=2596.0)
    monkeypatch.setattr(psutil, "cpu_freq", lambda: frequency)
    monkeypatch.setattr(host, "CPU_FREQUENCY", tmp_path / "cpufreq")
    cpu_info = tmp_path / "cpuinfo"
    monkeypatch.setattr(host, "CPU_INFO", cpu_info)
    assert look([]).clock_hz is None
    cpu_info.write_text("flags : fpu tsc hypervisor\ncpu MHz : 2596.0\n")
    assert look([]).clock_hz is None
    cpu_info.write_text("flags : fpu tsc aperfmperf\ncpu MHz : 2596.0\n")
    assert look([]).clock_hz == 2.596e9
    cpu_info.unlink()
    host.CPU_FREQUENCY.mkdir()
    assert look([]).clock_hz == 2.596e9


def test_counters_of_this_machine_grow_with_our_own_work() -> None:
    before = look([os.getpid()])
    deadline = time.process_time() + 0.6
    while time.process_time() < deadline:
        pass
    after = look([os.getpid()])
    assert after.own_s - before.own_s == pytest.approx(0.6, abs=0.1)
    assert after.time_s - before.time_s >= 0.5
    for name, metric in metrics(before, after).items():
        if metric.value is None:
            assert metric.reason, name
        elif name.endswith("_fraction"):
            assert 0 <= metric.value <= 1
