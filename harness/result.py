"""What a trial brings back: plain frozen records that cross processes."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from tlbench.machine import Machine

Status = Literal["ok", "oom", "timeout", "error", "nan", "skipped"]
STATUSES: tuple[Status, ...] = get_args(Status)

WHOLE_JOB = -1
"""The rank of a value that belongs to all ranks together."""


@dataclass(frozen=True)
class Metric:
    """One value of one metric; the name ends in its unit."""

    name: str
    value: float | None
    """None: it could not be measured, and `reason` says why."""
    reason: str | None = None
    rank: int = WHOLE_JOB

    def __post_init__(self) -> None:
        if self.value is None and not self.reason:
            raise ValueError(f"metric {self.name} has neither a value nor a reason")


@dataclass(frozen=True)
class Series:
    """One array of one metric, in the order in which it was measured."""

    name: str
    values: tuple[float, ...]
    rank: int = WHOLE_JOB


@dataclass(frozen=True)
class Artifact:
    """A small file that a trial leaves behind, such as its log."""

    name: str
    media_type: str
    content: bytes


@dataclass(frozen=True)
class TrialResult:
    """Everything that one trial found out, or why it did not."""

    status: Status
    reason: str | None = None
    """One sentence; None only where the status is ok."""
    traceback: str | None = None
    metrics: tuple[Metric, ...] = ()
    series: tuple[Series, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    """Words about the measurement, such as what ended the timing."""
    machine: Machine | None = None
    """Where rank 0 ran; None where no worker came up."""

    def __post_init__(self) -> None:
        if self.status != "ok" and not self.reason:
            raise ValueError(f"status {self.status} needs a reason")
