"""What a machine is: the fingerprint stored beside every trial."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """Hardware and software that a trial ran on. Unknown is None."""

    hostname: str
    os: str
    cpu_model: str | None
    cpu_cores: int
    """Logical cores that this process may use."""
    memory_bytes: int
    gpu_name: str | None
    gpu_count: int
    gpu_memory_bytes: int | None
    gpu_driver: str | None
    python: str
    versions: dict[str, str | None]
    """Of tlbench, torch, cuda, nccl, deepspeed, ray, timm; None: not there."""
    commit: str | None
    """Git commit of tlbench's own source, where it is known."""
    is_dirty: bool | None
    """Whether that source had uncommitted changes."""
