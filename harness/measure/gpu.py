"""Samples of one GPU by NVML, at a steady rate, from a thread that sleeps in between.

Inside NVML the thread leaves Python's lock to the steps. What NVML does not give is
unknown, with its reason. Nothing here needs torch.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

import pynvml

from tlbench import nvml
from tlbench.result import TELEMETRY, Metric, Series

RATE_HZ = 10.0
"""Samples a second; NVML renews most of its values about as often."""
PROCESSES_EVERY = 10
"""Samples from one look at the processes on the device to the next: a slower call."""
MIN_ENERGY_S = 0.5
"""The counter of energy moves in steps of up to 0.1 s."""
IDLE_TIME_S = 0.5
"""How long the power of the idle device is sampled."""

HARMLESS = (
    pynvml.nvmlClocksEventReasonGpuIdle
    | pynvml.nvmlClocksEventReasonApplicationsClocksSetting
)
"""Reasons for a lower clock that are no throttling: there is nothing to do, or the user
has set it."""
THERMAL = (
    pynvml.nvmlClocksEventReasonHwSlowdown
    | pynvml.nvmlClocksEventReasonSwThermalSlowdown
    | pynvml.nvmlClocksEventReasonHwThermalSlowdown
    | pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown
)
"""The device was too hot, or its power supply braked it."""
THROTTLE_WORDS = {
    pynvml.nvmlClocksEventReasonSwPowerCap: "power cap",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksEventReasonSyncBoost: "sync boost",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "thermal slowdown by software",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "thermal slowdown by hardware",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power brake",
    pynvml.nvmlClocksEventReasonDisplayClockSetting: "display clock",
}

OF_WHOLE_GPU = "NVML tells it of whole GPUs only, and this is a slice of one (MIG)"
NOT_LISTED = "NVML does not list even this process on the device"

Read = Callable[[], float]
Summary = Callable[[Sequence[float]], float]


class NotListedError(Exception):
    """NVML does not show what must be there."""


def _share_of(reasons: int) -> Summary:
    """The share of samples in which one of these throttle reasons stood."""
    return lambda samples: fmean(bool(int(sample) & reasons) for sample in samples)


GPU_METRICS: dict[str, tuple[str, Summary]] = {
    "gpu_utilization_fraction": ("utilization_fraction", fmean),
    "gpu_memory_used_bytes": ("memory_used_bytes", max),
    "gpu_clock_hz": ("clock_hz", median),
    "gpu_memory_clock_hz": ("memory_clock_hz", median),
    "gpu_temperature_celsius": ("temperature_celsius", max),
    "power_w": ("power_w", fmean),
    "throttled_fraction": ("throttle_reasons", _share_of(~HARMLESS)),
    "thermal_slowdown_fraction": ("throttle_reasons", _share_of(THERMAL)),
    "foreign_processes": ("foreign_processes", max),
}
"""Each metric: the sampled value that it sums up, and how."""
ENERGY = "energy_j_per_sample"


@dataclass(frozen=True)
class Energy:
    """What the device took in the window."""

    joules: float
    source: str


class GpuWatch:
    """Samples of one device; of a value that NVML fails to give, the reason alone."""

    def __init__(self, device: nvml.Device, pids: Sequence[int]) -> None:
        """Sample `device`, on which only this trial's ranks, `pids`, should compute."""
        self._device = device
        self._pids = frozenset(pids)
        self._often = _reads(device)
        self._seldom: dict[str, Read] = {"foreign_processes": self._count_foreign}
        self._times: list[float] = []
        self._values: dict[str, list[float]] = {}
        self._reasons: dict[str, str] = {}
        self._counter_j: list[float] = []
        if device.is_slice:
            unknown = ("utilization_fraction", "power_w", ENERGY)
            self._reasons |= dict.fromkeys(unknown, OF_WHOLE_GPU)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_sampling, daemon=True)

    def start(self) -> None:
        """Begin the window: the first sample, and a thread that goes on."""
        self.begin()
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and the window with a last sample."""
        self._stop.set()
        self._thread.join()
        self.end()

    def begin(self) -> None:
        self._read_counter()
        self.sample()

    def end(self) -> None:
        self._read_counter()
        self.sample()
        self._read(self._seldom)

    def sample(self) -> None:
        if len(self._times) % PROCESSES_EVERY == 0:
            self._read(self._seldom)
        self._times.append(time.perf_counter())
        self._read(self._often)

    def _keep_sampling(self) -> None:
        while not self._stop.wait(1 / RATE_HZ):
            self.sample()

    def _read(self, reads: dict[str, Read]) -> None:
        for name, read in list(reads.items()):
            try:
                self._values.setdefault(name, []).append(read())
            except (pynvml.NVMLError, NotListedError) as error:
                del reads[name], self._values[name]
                self._reasons[name] = explain(error)

    def _read_counter(self) -> None:
        if ENERGY in self._reasons:
            return
        try:
            millijoules = pynvml.nvmlDeviceGetTotalEnergyConsumption(self._device.gpu)
            self._counter_j.append(millijoules / 1e3)
        except pynvml.NVMLError as error:
            self._reasons[ENERGY] = explain(error)

    def _count_foreign(self) -> float:
        """Processes that compute on the device and are not of this trial.

        In a container NVML may give ids that mean nothing there. One of those listed
        must be this process, since it holds the device.
        """
        listed = {
            process.pid
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses_v3(
                self._device.handle
            )
        }
        if not listed:
            raise NotListedError(NOT_LISTED)
        if os.getpid() not in listed:
            return len(listed) - 1
        return len(listed - self._pids)

    @property
    def rate(self) -> str:
        return f"{len(self._times)} samples by NVML, at {RATE_HZ:g} a second"

    @property
    def series(self) -> list[Series]:
        """All samples, over the seconds since the first."""
        sampled = {"time_s": [at - self._times[0] for at in self._times]}
        sampled |= {name: self._values[name] for name in self._often}
        return [Series(TELEMETRY + name, tuple(v)) for name, v in sampled.items()]

    def metric(self, name: str) -> Metric:
        value, summary = GPU_METRICS[name]
        if value in self._reasons:
            return Metric(name, None, self._reasons[value])
        return Metric(name, summary(self._values[value]))

    @property
    def throttled_by(self) -> str | None:
        """Which reasons stood in how many samples; None: no throttling was seen."""
        samples = self._values.get("throttle_reasons", [])
        seen = Counter(words for s in samples for words in _throttle_words(int(s)))
        counts = [f"{words} in {count}" for words, count in seen.items()]
        return f"{', '.join(counts)} of {len(samples)} samples" if seen else None

    def energy(self) -> Energy | str:
        """Of the window; else why it is unknown."""
        window_s = self._times[-1] - self._times[0]
        if window_s < MIN_ENERGY_S:
            return (
                f"steps were timed for {window_s:.2f} s, and the counter of energy"
                f" needs {MIN_ENERGY_S} s; more timing.min_steps would do"
            )
        if ENERGY not in self._reasons:
            return Energy(self._counter_j[-1] - self._counter_j[0], "NVML's counter")
        if "power_w" in self._values:
            joules = _integral(self._times, self._values["power_w"])
            return Energy(
                joules, f"the sampled power, integrated over {window_s:.1f} s"
            )
        return self._reasons[ENERGY]


def _reads(device: nvml.Device) -> dict[str, Read]:
    """How each value is asked for, in base units.

    A slice of a GPU has memory of its own; clocks and temperature it shares.
    """
    handle, gpu = device.handle, device.gpu
    reads: dict[str, Read] = {
        "memory_used_bytes": lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).used,
        "clock_hz": lambda: _clock_hz(gpu, pynvml.NVML_CLOCK_SM),
        "memory_clock_hz": lambda: _clock_hz(gpu, pynvml.NVML_CLOCK_MEM),
        "temperature_celsius": lambda: _temperature_celsius(gpu),
        "throttle_reasons": lambda: _throttle_reasons(gpu),
    }
    if not device.is_slice:
        reads["utilization_fraction"] = lambda: _utilization_fraction(gpu)
        reads["power_w"] = lambda: _power_w(gpu)
    return reads


def _utilization_fraction(gpu: nvml.Handle) -> float:
    return float(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)


def _clock_hz(gpu: nvml.Handle, clock: int) -> float:
    return float(pynvml.nvmlDeviceGetClockInfo(gpu, clock) * 1e6)


def _temperature_celsius(gpu: nvml.Handle) -> float:
    return float(pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU))


def _power_w(gpu: nvml.Handle) -> float:
    return float(pynvml.nvmlDeviceGetPowerUsage(gpu) / 1e3)


def _throttle_reasons(gpu: nvml.Handle) -> float:
    """Bits; the function's name changed with driver 535."""
    try:
        return float(pynvml.nvmlDeviceGetCurrentClocksEventReasons(gpu))
    except pynvml.NVMLError_FunctionNotFound:
        return float(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu))


def _throttle_words(reasons: int) -> list[str]:
    throttling = reasons & ~HARMLESS
    bits = (1 << place for place in range(throttling.bit_length()))
    return [THROTTLE_WORDS.get(b, f"reason {b:#x}") for b in bits if throttling & b]


def _integral(times: Sequence[float], values: Sequence[float]) -> float:
    """Of straight lines from sample to sample."""
    return sum(
        (end - start) * (before + after) / 2
        for (start, end), (before, after) in zip(
            pairwise(times), pairwise(values), strict=True
        )
    )


def explain(error: Exception) -> str:
    return f"NVML: {error}" if isinstance(error, pynvml.NVMLError) else str(error)


def mean_power(name: str, device: nvml.Device) -> Metric:
    if device.is_slice:
        return Metric(name, None, OF_WHOLE_GPU)
    powers = [_power_w(device.gpu)]
    while len(powers) < IDLE_TIME_S * RATE_HZ:
        time.sleep(1 / RATE_HZ)
        powers.append(_power_w(device.gpu))
    return Metric(name, fmean(powers))
