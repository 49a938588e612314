"""Telemetry of a window: of the host, and of a GPU that a library stands in for."""

import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import pynvml
import pytest
import torch

from support.nvml import ask, compile_library
from tlbench import nvml
from tlbench.measure.gpu import ENERGY, GPU_METRICS
from tlbench.measure.memory import NO_GPU
from tlbench.measure.telemetry import (
    describe_device,
    measure_idle_power,
    open_telemetry,
)
from tlbench.measure.timing import host_clock, time_steps
from tlbench.result import Metric
from tlbench.suites.spec import Timing

CPU = torch.device("cpu")

GPU = """
nvml.count 2
gpu0.uuid GPU-00000000-0000-0000-0000-00000000aa11
gpu1.uuid GPU-00000000-0000-0000-0000-00000000bb22
gpu1.utilization 80
gpu1.memory_total 80000
gpu1.memory_used 500
gpu1.clock 1980
gpu1.memory_clock 2619
gpu1.temperature 60
gpu1.power 100000
gpu1.energy 5000000 5600000
gpu1.reasons 0x4
gpu1.processes self
"""
WATCH = """
import json, os, time, types, torch
uuid = {uuid!r}
properties = types.SimpleNamespace(**({{"uuid": uuid}} if uuid else {{}}))
torch.cuda.current_device = lambda: 0
torch.cuda.get_device_properties = lambda index: properties
from tlbench.measure.telemetry import measure_idle_power, open_telemetry
cuda = torch.device("cuda")
idle = measure_idle_power(cuda)
with open_telemetry(cuda, [os.getpid()]) as telemetry:
    with telemetry:
        time.sleep(0.7)
metrics = {{m.name: [m.value, m.reason] for m in [idle, *telemetry.metrics(60)]}}
print(json.dumps([metrics, [s.name for s in telemetry.series], telemetry.notes]))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(tmp_path_factory.mktemp("nvml"))


def watch(
    library: Path, uuid: str | None, visible: str, script: str = GPU
) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    chosen = {"CUDA_VISIBLE_DEVICES": visible}
    metrics, series, notes = ask(library, script, WATCH.format(uuid=uuid), chosen)
    return metrics, series, notes


def test_gpu_metrics_are_unknown_on_a_cpu() -> None:
    with open_telemetry(CPU, [os.getpid()]) as telemetry, telemetry:
        pass
    metrics = {m.name: m for m in telemetry.metrics(samples=1)}
    for name in (*GPU_METRICS, ENERGY):
        assert metrics[name] == Metric(name, None, NO_GPU)
    assert (telemetry.series, telemetry.notes) == ([], {})
    assert measure_idle_power(CPU) == Metric("idle_power_w", None, NO_GPU)


def test_only_timed_steps_are_watched() -> None:
    events: list[str] = []

    class Watch:
        def __enter__(self) -> None:
            events.append("watch")

        def __exit__(self, *_: object) -> None:
            events.append("end")

    def step() -> None:
        events.append("step")
        time.sleep(0.001)

    timing = Timing(min_steps=12, max_steps=12)
    times = time_steps(step, host_clock, timing, int, Watch())
    assert events == [
        *["step"] * len(times.warmup),
        "watch",
        *["step"] * 12,
        "end",
    ]


def test_the_device_is_that_of_torch_whatever_is_visible(library: Path) -> None:
    uuid = "00000000-0000-0000-0000-00000000bb22"
    metrics, series, notes = watch(library, uuid, "0,1")
    assert metrics["energy_j_per_sample"] == [600 / 60, None]
    assert metrics["power_w"] == [100, None]
    assert metrics["idle_power_w"] == [100, None]
    assert metrics["foreign_processes"] == [0, None]
    assert metrics["throttled_fraction"] == [1, None]
    assert {"foreign_cpu_fraction", "steal_fraction"} <= set(metrics)
    assert "telemetry_power_w" in series
    assert notes["energy_from"] == "NVML's counter"
    assert notes["throttled_by"].startswith("power cap in ")
    assert notes["telemetry"].endswith("samples by NVML, at 10 a second")


def test_the_device_is_the_first_visible_one_where_torch_tells_no_uuid(
    library: Path,
) -> None:
    metrics, _, _ = watch(library, None, "1,0")
    assert metrics["gpu_memory_used_bytes"] == [500, None]


@pytest.mark.parametrize(
    ("uuid", "script", "reason"),
    [
        ("cc33", GPU, "NVML does not know the device cc33"),
        ("bb22", "nvml.init !9", "NVML: Driver Not Loaded"),
    ],
)
def test_a_device_that_nvml_does_not_show_has_a_reason(
    library: Path, uuid: str, script: str, reason: str
) -> None:
    metrics, series, notes = watch(library, uuid, "0", script)
    for name in (*GPU_METRICS, ENERGY, "idle_power_w"):
        assert metrics[name] == [None, reason]
    assert (series, notes) == ([], {})
    assert metrics["involuntary_switches_per_s"][0] is not None


DESCRIBE = """
import json, types, torch
torch.cuda.current_device = lambda: 0
torch.cuda.get_device_properties = lambda index: types.SimpleNamespace(uuid={uuid!r})
torch.cuda.get_device_name = lambda: "Torch's"
from tlbench.measure.telemetry import describe_device
print(json.dumps(describe_device(torch.device("cuda"), 1)))
"""


@pytest.mark.parametrize(
    ("uuid", "told"),
    [
        (
            "00000000-0000-0000-0000-00000000bb22",
            "H200, GPU-00000000-0000-0000-0000-00000000bb22",
        ),
        ("cc33", "Torch's (NVML does not know the device cc33)"),
    ],
)
def test_a_gpu_is_told_by_its_name_and_uuid(
    library: Path, uuid: str, told: str
) -> None:
    script = GPU + "gpu1.name H200\n"
    assert ask(library, script, DESCRIBE.format(uuid=uuid), {}) == told


def test_a_cpu_is_told_by_its_host_and_threads() -> None:
    assert describe_device(CPU, 1) == f"{platform.node()}, 1 thread"
    assert describe_device(CPU, 4) == f"{platform.node()}, 4 threads"


@pytest.fixture
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no NVIDIA GPU")
    return torch.device("cuda")


@pytest.mark.gpu
def test_energy_and_power_of_a_gpu_grow_with_its_work(gpu: torch.device) -> None:
    weights = torch.randn(4096, 4096, device=gpu)
    idle = measure_idle_power(gpu).value
    with open_telemetry(gpu, [os.getpid()]) as telemetry, telemetry:
        deadline = time.perf_counter() + 3
        while time.perf_counter() < deadline:
            weights = torch.nn.functional.normalize(weights @ weights)
            torch.cuda.synchronize()
    found = {m.name: m.value for m in telemetry.metrics(samples=1)}
    assert None not in found.values()
    metrics = {name: value or 0.0 for name, value in found.items()}
    assert metrics["power_w"] > 1.2 * (idle or math.inf)
    # Power is a mean over a second on some GPUs, and lags behind the counter.
    assert metrics[ENERGY] == pytest.approx(3 * metrics["power_w"], rel=0.3)
    assert metrics["gpu_memory_used_bytes"] >= weights.nbytes
    assert 0.5 < metrics["gpu_utilization_fraction"] <= 1
    assert metrics["foreign_processes"] == 0


@pytest.mark.gpu
def test_uuid_of_torch_is_known_to_nvml(gpu: torch.device) -> None:
    uuid = str(torch.cuda.get_device_properties(gpu).uuid)
    with nvml.session():
        device = nvml.own_device(uuid, visible=None)
        assert device is not None
        found = pynvml.nvmlDeviceGetUUID(device.handle)
    assert found.partition("-")[2] == uuid
