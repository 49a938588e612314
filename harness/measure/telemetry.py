"""What the device and its host were doing while steps were timed.

The device is sampled by NVML; of the host, the kernel's counters are read at both ends.
What cannot be read is None with the reason, never 0.
"""

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pynvml
import torch

from tlbench import nvml
from tlbench.measure.gpu import (
    ENERGY,
    GPU_METRICS,
    Energy,
    GpuWatch,
    NotListedError,
    explain,
    mean_power,
)
from tlbench.measure.host import Moment, host_metrics, look
from tlbench.measure.memory import NO_GPU
from tlbench.result import Metric, Series
from tlbench.units import format_counted


class Telemetry:
    """Watches this trial's device and its host, from the first timed step to the last.

    It is the context of the timed steps.
    """

    def __init__(self, gpu: GpuWatch | None, no_gpu: str, pids: Sequence[int]) -> None:
        """Watch `gpu`, or say by `no_gpu` why there is none, and this host's ranks."""
        self._gpu, self._no_gpu, self._pids = gpu, no_gpu, pids
        self._moments: list[Moment] = []

    def __enter__(self) -> None:
        self._moments.append(look(self._pids))
        if self._gpu is not None:
            self._gpu.start()

    def __exit__(self, *_: object) -> None:
        if self._gpu is not None:
            self._gpu.stop()
        self._moments.append(look(self._pids))

    def metrics(self, samples: int) -> list[Metric]:
        """All that was found out.

        Args:
            samples: Images or clips of the whole job that were processed meanwhile.
        """
        before, after = self._moments
        return [*host_metrics(before, after), *self._gpu_metrics(samples)]

    def _gpu_metrics(self, samples: int) -> list[Metric]:
        if self._gpu is None:
            return [Metric(name, None, self._no_gpu) for name in (*GPU_METRICS, ENERGY)]
        energy = self._gpu.energy()
        if isinstance(energy, Energy):
            per_sample = Metric(ENERGY, energy.joules / samples)
        else:
            per_sample = Metric(ENERGY, None, energy)
        return [*map(self._gpu.metric, GPU_METRICS), per_sample]

    @property
    def series(self) -> list[Series]:
        return self._gpu.series if self._gpu is not None else []

    @property
    def notes(self) -> dict[str, str]:
        if self._gpu is None:
            return {}
        energy, throttled_by = self._gpu.energy(), self._gpu.throttled_by
        notes = {"telemetry": self._gpu.rate}
        if isinstance(energy, Energy):
            notes["energy_from"] = energy.source
        if throttled_by is not None:
            notes["throttled_by"] = throttled_by
        return notes


@contextmanager
def open_telemetry(device: torch.device, pids: Sequence[int]) -> Iterator[Telemetry]:
    """Get ready to watch; NVML stays open until the block ends.

    Args:
        device: Where the steps run.
        pids: Of this trial's ranks on this host, ours among them.
    """
    with ExitStack() as stack:
        gpu, no_gpu = None, NO_GPU
        if device.type == "cuda":
            try:
                gpu = GpuWatch(stack.enter_context(_own_device()), pids)
            except (pynvml.NVMLError, NotListedError) as error:
                no_gpu = explain(error)
        yield Telemetry(gpu, no_gpu, pids)


def measure_idle_power(device: torch.device) -> Metric:
    """Mean power of the device before it is given work."""
    name = "idle_power_w"
    if device.type != "cuda":
        return Metric(name, None, NO_GPU)
    try:
        with _own_device() as found:
            return mean_power(name, found)
    except (pynvml.NVMLError, NotListedError) as error:
        return Metric(name, None, explain(error))


def describe_device(device: torch.device, threads: int) -> str:
    """Which one it is: a GPU by its name and UUID, a CPU by its host.

    Args:
        device: What a rank computes on.
        threads: With how many it does on a CPU.
    """
    if device.type != "cuda":
        return f"{platform.node()}, {format_counted(threads, 'thread')}"
    try:
        with _own_device() as found:
            name = pynvml.nvmlDeviceGetName(found.gpu)
            return f"{name}, {pynvml.nvmlDeviceGetUUID(found.handle)}"
    except (pynvml.NVMLError, NotListedError) as error:
        return f"{torch.cuda.get_device_name()} ({explain(error)})"


@contextmanager
def _own_device() -> Iterator[nvml.Device]:
    """The device that torch computes on here, by its UUID where torch tells it."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    uuid = getattr(properties, "uuid", None)  # torch tells it since 2.4
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    with nvml.session():
        found = nvml.own_device(None if uuid is None else str(uuid), visible)
        if found is None:
            raise NotListedError(f"NVML does not know the device {uuid or visible}")
        yield found
