"""NVML: the NVIDIA GPUs of this machine, and which of them CUDA shows to a process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pynvml

Handle = Any
"""NVML's own: of a GPU, or of a slice of one."""


@dataclass(frozen=True)
class Device:
    """What CUDA counts as one device: a GPU, or a slice of one in MIG mode."""

    handle: Handle
    gpu: Handle
    """The GPU that it is, or is a slice of."""

    @property
    def is_slice(self) -> bool:
        return self.handle is not self.gpu


@contextmanager
def session() -> Iterator[None]:
    """Open NVML, which has to be open for all else here.

    Raises:
        pynvml.NVMLError: There is no driver, or it does not answer.
    """
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def visible_devices(visible: str | None) -> list[Device]:
    """The devices that CUDA shows, by its rules for CUDA_VISIBLE_DEVICES.

    An entry is an index or the beginning of a UUID; the first that fits nothing ends
    the list. NVML counts in the order of the bus and CUDA in that of speed, which
    differ only where unlike GPUs sit in one machine.
    """
    gpus = [
        pynvml.nvmlDeviceGetHandleByIndex(index)
        for index in range(pynvml.nvmlDeviceGetCount())
    ]
    if visible is None:
        return [_as_cuda_counts(gpu) for gpu in gpus]
    devices = []
    for entry in visible.split(","):
        device = _device(gpus, entry.strip())
        if device is None:
            break
        devices.append(device)
    return devices


def own_device(uuid: str | None, visible: str | None) -> Device | None:
    """The device that this process computes on; None where NVML does not know it.

    Args:
        uuid: Of its current device, as CUDA gives it: without saying of what it is.
        visible: CUDA_VISIBLE_DEVICES, whose first device it is where CUDA gives none.
    """
    if uuid is None:
        return next(iter(visible_devices(visible)), None)
    for prefix, device in (("GPU-", _as_cuda_counts), ("MIG-", _slice)):
        try:
            return device(pynvml.nvmlDeviceGetHandleByUUID(prefix + uuid))
        except (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument):
            continue
    return None


def _device(gpus: list[Handle], entry: str) -> Device | None:
    if entry.isdecimal():
        index = int(entry)
        return _as_cuda_counts(gpus[index]) if index < len(gpus) else None
    if entry.startswith("MIG-"):  # only its UUID finds a slice
        try:
            return _slice(pynvml.nvmlDeviceGetHandleByUUID(entry))
        except pynvml.NVMLError:
            return None
    if entry.startswith("GPU-"):
        for gpu in gpus:
            if pynvml.nvmlDeviceGetUUID(gpu).startswith(entry):
                return _as_cuda_counts(gpu)
    return None


def _as_cuda_counts(gpu: Handle) -> Device:
    """The GPU; in MIG mode its first slice, the only one that CUDA then uses."""
    try:
        is_sliced, _ = pynvml.nvmlDeviceGetMigMode(gpu)
        slots = pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu) if is_sliced else 0
    except pynvml.NVMLError:
        return Device(gpu, gpu)  # knows no slices
    for slot in range(slots):
        try:
            return Device(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, slot), gpu)
        except pynvml.NVMLError_NotFound:
            continue  # an empty slot
    return Device(gpu, gpu)


def _slice(handle: Handle) -> Device:
    return Device(handle, pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle))
