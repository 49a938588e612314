"""What a machine is: the fingerprint stored beside every trial, and how it is taken."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import pynvml

from tlbench import nvml

CPU_INFO = Path("/proc/cpuinfo")
CGROUP_MEMBERSHIP = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")
PACKAGE = Path(__file__).resolve().parent

PACKAGES = ("tlbench", "torch", "deepspeed", "ray", "timm")
"""Packages whose versions are part of the fingerprint."""

GIT_TIMEOUT_S = 2.0

_SCM_VERSION = re.compile(r"\+(?:g(?P<commit>[0-9a-f]+))?\.?(?P<dirty>d\d{8})?$")
"""The end of a version of setuptools-scm: `+gabc1234.d20261122`."""


@dataclass(frozen=True)
class Machine:
    """Hardware and software that a trial ran on. Unknown is None."""

    hostname: str
    os: str
    cpu_model: str | None
    cpu_cores: int
    """Logical cores that this process may use."""
    memory_bytes: int
    """Of the machine, or what the control group allows where that is less."""
    gpu_name: str | None
    """Of the visible GPUs; different ones are joined by ` + `."""
    gpu_count: int
    """GPUs that CUDA_VISIBLE_DEVICES leaves to this process."""
    gpu_memory_bytes: int | None
    """Of one GPU, the smallest."""
    gpu_driver: str | None
    python: str
    versions: dict[str, str | None]
    """Of tlbench, torch, cuda, nccl, deepspeed, ray, timm; None: not there. cuda and
    nccl are those of torch, and None where torch has not been imported."""
    commit: str | None
    """Git commit of tlbench's own source, where it is known."""
    is_dirty: bool | None
    """Whether that source had uncommitted changes."""


def fingerprint() -> Machine:
    """Look at the machine that this process runs on.

    Nothing heavy is imported for it, and no environment variable is kept.
    """
    gpus = _gpus()
    commit, is_dirty = _source_state()
    return Machine(
        hostname=platform.node(),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu_model=_cpu_model(),
        cpu_cores=_cpu_cores(),
        memory_bytes=_memory_bytes(),
        gpu_name=" + ".join(sorted(set(gpus.names))) or None,
        gpu_count=len(gpus.names),
        gpu_memory_bytes=min(gpus.memory_bytes, default=None),
        gpu_driver=gpus.driver,
        python=platform.python_version(),
        versions=_versions(),
        commit=commit,
        is_dirty=is_dirty,
    )


def _cpu_model() -> str | None:
    try:
        with CPU_INFO.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() == "model name" and value.strip():
                    return value.strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or None


def _cpu_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return psutil.cpu_count() or 1


def _memory_bytes() -> int:
    return min([psutil.virtual_memory().total, *_cgroup_limits()])


def _cgroup_limits() -> Iterator[int]:
    """Memory limits of this process's control group and of those around it.

    A line reads `hierarchy:controllers:path`, without controllers in version 2; see
    cgroups(7). In a container the path may be the host's, which then does not exist
    below the root here; the root itself holds the container's limits.
    """
    try:
        lines = CGROUP_MEMBERSHIP.read_text().splitlines()
    except OSError:
        return  # not Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = CGROUP_ROOT, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = CGROUP_ROOT / "memory", "memory.limit_in_bytes"
        else:
            continue
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            yield from _limit(group / name)
            if group == root:
                break


def _limit(file: Path) -> Iterator[int]:
    try:
        yield int(file.read_text())
    except (OSError, ValueError):
        return  # no such group, or "max": no limit


@dataclass(frozen=True)
class _Gpus:
    names: tuple[str, ...] = ()
    memory_bytes: tuple[int, ...] = ()
    """Of those that have memory of their own, apart from the machine's."""
    driver: str | None = None


def _gpus() -> _Gpus:
    """The visible NVIDIA GPUs; none where there is no driver, or it does not answer."""
    try:
        with nvml.session():
            devices = nvml.visible_devices(os.environ.get("CUDA_VISIBLE_DEVICES"))
            handles = [device.handle for device in devices]
            return _Gpus(
                names=tuple(pynvml.nvmlDeviceGetName(handle) for handle in handles),
                memory_bytes=tuple(size for h in handles for size in _memory_of(h)),
                driver=pynvml.nvmlSystemGetDriverVersion(),
            )
    except pynvml.NVMLError:
        return _Gpus()


def _memory_of(handle: nvml.Handle) -> Iterator[int]:
    try:
        yield int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError_NotSupported:
        return  # shares the memory of the machine


def _versions() -> dict[str, str | None]:
    versions = {name: _package_version(name) for name in PACKAGES}
    return versions | _torch_libraries()


def _package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _torch_libraries() -> dict[str, str | None]:
    """Versions of CUDA and NCCL as torch has them, if torch is there already."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {"cuda": None, "nccl": None}
    try:
        nccl = ".".join(str(part) for part in torch.cuda.nccl.version())
    except AttributeError:
        nccl = None  # built without CUDA
    return {"cuda": torch.version.cuda, "nccl": nccl}


def _source_state() -> tuple[str | None, bool | None]:
    """The commit of tlbench's own source, and whether it has uncommitted changes."""
    checkout = PACKAGE.parent
    # Only there is the package's folder called `harness`; installed it is `tlbench`.
    if PACKAGE.name == "harness" and (checkout / ".git").exists():
        return _checkout_state(checkout)
    return _version_state(_package_version("tlbench") or "")


def _checkout_state(checkout: Path) -> tuple[str | None, bool | None]:
    command = ("git", "--no-optional-locks", "-C", str(checkout), "status")
    options = ("--porcelain=v2", "--branch", "--untracked-files=no")
    try:
        status = subprocess.run(
            (*command, *options),
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None, None  # no git, or one that refuses or hangs
    headers = dict(
        line.removeprefix("# ").split(" ", 1)
        for line in status.splitlines()
        if line.startswith("# ")
    )
    changes = [line for line in status.splitlines() if not line.startswith("# ")]
    commit = headers.get("branch.oid")
    return None if commit == "(initial)" else commit, bool(changes)


def _version_state(text: str) -> tuple[str | None, bool | None]:
    """What setuptools-scm has written into the version of an installed tlbench."""
    match = _SCM_VERSION.search(text)
    if match is None:
        return None, None
    return match["commit"], match["dirty"] is not None
