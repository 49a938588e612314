"""Samples of a GPU, by the real pynvml from a stand-in library with a script."""

from pathlib import Path
from typing import Any

import pytest

from support.nvml import ask, compile_library
from tlbench.measure.gpu import OF_WHOLE_GPU

GPU = """
nvml.count 2
gpu0.uuid GPU-aa11
gpu1.uuid GPU-bb22
gpu1.utilization 50 100 90
gpu1.memory_total 80000
gpu1.memory_used 300 500 400
gpu1.clock 1980 1200 1950
gpu1.memory_clock 2619
gpu1.temperature 60 71 65
gpu1.power 100000 300000 500000
gpu1.energy 5000000 5600000
gpu1.reasons 0x1 0x4 0x2
gpu1.processes self
"""
SLICE = """
nvml.count 1
gpu0.uuid GPU-aa11
gpu0.mig 1
gpu0.slot0.uuid MIG-cc33
gpu0.slot0.memory_total 10000
gpu0.slot0.memory_used 700
gpu0.slot0.processes self
gpu0.clock 1410
gpu0.memory_clock 1215
gpu0.temperature 55
gpu0.power 400000
gpu0.energy 1000 2000
gpu0.reasons 0
"""

WATCH = """
import json, os
from tlbench import nvml
from tlbench.measure import gpu
from tlbench.measure.gpu import GPU_METRICS, GpuWatch

class Time:
    now = 100.0
    def perf_counter(self):
        return self.now

gpu.time = time = Time()
with nvml.session():
    device = nvml.own_device({uuid!r}, None)
    watch = GpuWatch(device, [os.getpid(), 4242])
    watch.begin()
    for at in {times}:
        time.now = 100 + at
        watch.sample() if at < {times}[-1] else watch.end()
energy = watch.energy()
print(json.dumps({{
    "values": {{n: watch.metric(n).value for n in GPU_METRICS}},
    "reasons": {{n: watch.metric(n).reason for n in GPU_METRICS}},
    "energy": energy if isinstance(energy, str) else [energy.joules, energy.source],
    "series": {{s.name: s.values for s in watch.series}},
    "throttled_by": watch.throttled_by,
    "rate": watch.rate,
}}))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(tmp_path_factory.mktemp("nvml"))


def watch(
    library: Path, script: str, *times: float, uuid: str = "bb22"
) -> dict[str, Any]:
    """What is found in samples at 0 s and at `times`, the last of which is the end."""
    code = WATCH.format(uuid=uuid, times=list(times or (1, 3)))
    found: dict[str, Any] = ask(library, script, code)
    return found


def test_each_metric_sums_up_the_samples_in_its_own_way(library: Path) -> None:
    found = watch(library, GPU)
    assert found["values"] == pytest.approx(
        {
            "gpu_utilization_fraction": (0.5 + 1.0 + 0.9) / 3,
            "gpu_memory_used_bytes": 500,
            "gpu_clock_hz": 1.95e9,
            "gpu_memory_clock_hz": 2.619e9,
            "gpu_temperature_celsius": 71,
            "power_w": (100 + 300 + 500) / 3,
            "throttled_fraction": 1 / 3,
            "thermal_slowdown_fraction": 0,
            "foreign_processes": 0,
        }
    )
    assert found["rate"] == "3 samples by NVML, at 10 a second"


def test_series_keep_every_sample_over_the_time_of_the_window(library: Path) -> None:
    series = watch(library, GPU)["series"]
    assert series["telemetry_time_s"] == [0, 1, 3]
    assert series["telemetry_power_w"] == [100, 300, 500]
    assert series["telemetry_throttle_reasons"] == [1, 4, 2]
    assert {len(values) for values in series.values()} == {3}


def test_energy_is_the_difference_of_the_counter(library: Path) -> None:
    assert watch(library, GPU)["energy"] == [600, "NVML's counter"]


@pytest.mark.parametrize("without", ["answer", "function"])
def test_energy_is_integrated_from_the_power_where_nothing_counts_it(
    library: Path, tmp_path: Path, without: str
) -> None:
    if without == "function":
        library = compile_library(tmp_path, "ENERGY")
    joules, source = watch(library, GPU.replace("gpu1.energy", "#"))["energy"]
    # 1 s from 100 to 300 W, then 2 s from 300 to 500 W.
    assert joules == pytest.approx(1 * 200 + 2 * 400)
    assert source == "the sampled power, integrated over 3.0 s"


def test_energy_is_unknown_without_a_counter_and_power(library: Path) -> None:
    script = GPU.replace("gpu1.energy", "#").replace("gpu1.power", "#")
    found = watch(library, script)
    assert found["energy"] == "NVML: Not Supported"
    assert found["reasons"]["power_w"] == "NVML: Not Supported"


def test_energy_of_a_short_window_is_unknown(library: Path) -> None:
    reason = watch(library, GPU, 0.1, 0.4)["energy"]
    assert reason.startswith("steps were timed for 0.40 s, and the counter of energy")


def test_energy_is_unknown_where_the_gpu_is_lost_before_the_end(library: Path) -> None:
    found = watch(
        library, GPU.replace("5600000", "!15").replace("300000 500000", "!15")
    )
    assert found["energy"] == "NVML: GPU is lost"


@pytest.mark.parametrize(
    ("error", "words"),
    [("!3", "Not Supported"), ("!15", "GPU is lost"), ("!999", "Unknown Error")],
)
def test_a_value_that_fails_once_is_unknown_and_the_others_stay(
    library: Path, error: str, words: str
) -> None:
    found = watch(library, GPU.replace("60 71 65", f"60 {error} 65"))
    assert found["values"]["gpu_temperature_celsius"] is None
    assert found["reasons"]["gpu_temperature_celsius"] == f"NVML: {words}"
    assert "telemetry_temperature_celsius" not in found["series"]
    assert found["values"]["gpu_clock_hz"] == 1.95e9


def test_throttling_is_told_from_idling_and_from_what_the_user_has_set(
    library: Path,
) -> None:
    # idle; power cap; cap and thermal slowdown by software; set clocks; unknown
    reasons = "0x1 0x4 0x24 0x2 0x800"
    found = watch(library, GPU.replace("0x1 0x4 0x2", reasons), 1, 2, 3, 4)
    assert found["values"]["throttled_fraction"] == 3 / 5
    assert found["values"]["thermal_slowdown_fraction"] == 1 / 5
    assert found["throttled_by"] == (
        "power cap in 2, thermal slowdown by software in 1, reason 0x800 in 1 of 5"
        " samples"
    )


@pytest.mark.parametrize("reason", [0x8, 0x20, 0x40, 0x80])
def test_heat_and_a_braking_supply_are_a_slowdown(library: Path, reason: int) -> None:
    found = watch(library, GPU.replace("0x1 0x4 0x2", f"{reason:#x}"))
    assert found["values"]["thermal_slowdown_fraction"] == 1


def test_nothing_is_noted_where_nothing_was_throttled(library: Path) -> None:
    assert watch(library, GPU.replace("0x4", "0x0"))["throttled_by"] is None


def test_throttle_reasons_have_an_older_name(library: Path, tmp_path: Path) -> None:
    old = compile_library(tmp_path, "EVENT_REASONS")
    assert watch(old, GPU) == watch(library, GPU)


@pytest.mark.parametrize(
    ("processes", "foreign"),
    [
        ("self", 0),
        ("self,4242", 0),  # another rank of the trial
        ("self,77,88", 2),
        ("self self,77 self", 1),  # it came and went
        ("99999999", 0),  # of another pid namespace: it can only be this process
        ("99999998,99999999", 1),
    ],
)
def test_foreign_processes_are_those_of_no_rank(
    library: Path, processes: str, foreign: int
) -> None:
    times = [0.1 * (sample + 1) for sample in range(20)]
    found = watch(
        library, GPU.replace("processes self", f"processes {processes}"), *times
    )
    assert found["values"]["foreign_processes"] == foreign


def test_foreign_processes_are_unknown_where_not_even_this_one_is_listed(
    library: Path,
) -> None:
    found = watch(library, GPU.replace("processes self", "processes none"))
    assert found["values"]["foreign_processes"] is None
    assert "does not list even this process" in found["reasons"]["foreign_processes"]


def test_a_slice_has_its_memory_and_shares_clock_and_temperature(library: Path) -> None:
    found = watch(library, SLICE, uuid="aa11")
    assert found["values"] == {
        "gpu_utilization_fraction": None,
        "gpu_memory_used_bytes": 700,
        "gpu_clock_hz": 1.41e9,
        "gpu_memory_clock_hz": 1.215e9,
        "gpu_temperature_celsius": 55,
        "power_w": None,
        "throttled_fraction": 0,
        "thermal_slowdown_fraction": 0,
        "foreign_processes": 0,
    }


def test_power_and_energy_of_a_whole_gpu_are_not_those_of_a_slice(
    library: Path,
) -> None:
    found = watch(library, SLICE, uuid="aa11")
    assert found["energy"] == OF_WHOLE_GPU
    assert found["reasons"]["power_w"] == OF_WHOLE_GPU
    assert found["reasons"]["gpu_utilization_fraction"] == OF_WHOLE_GPU


def test_the_thread_samples_until_it_is_stopped(library: Path) -> None:
    code = """
import json, os, threading, time
from tlbench import nvml
from tlbench.measure.gpu import GpuWatch
with nvml.session():
    watch = GpuWatch(nvml.own_device("bb22", None), [os.getpid()])
    watch.start()
    time.sleep(0.65)
    watch.stop()
    sampled = [list(s.values) for s in watch.series]
    time.sleep(0.3)
    assert [list(s.values) for s in watch.series] == sampled
print(json.dumps([len(sampled[0]), threading.active_count()]))
"""
    samples, threads = ask(library, GPU, code)
    # Two at the ends; at most one each tenth of a second, fewer on a busy machine.
    assert 3 <= samples <= 8
    assert threads == 1


def test_idle_power_is_the_mean_of_samples_over_half_a_second(library: Path) -> None:
    code = """
import json
from tlbench import nvml
from tlbench.measure import gpu
waits = []
gpu.time.sleep = waits.append
with nvml.session():
    device = nvml.own_device({!r}, None)
    metric = gpu.mean_power("idle_power_w", device)
print(json.dumps([metric.value, metric.reason, sum(waits)]))
"""
    # 100, 300, and 500 W from the third of five samples on.
    assert ask(library, GPU, code.format("bb22")) == [380, None, pytest.approx(0.4)]
    assert ask(library, SLICE, code.format("aa11")) == [None, OF_WHOLE_GPU, 0]
