"""What happens in a run, in its order: for the store, and for people to see."""

from dataclasses import dataclass
from datetime import datetime

from tlbench.result import TrialResult
from tlbench.suites.spec import Trial


@dataclass(frozen=True)
class Finished:
    """A trial that has ended, one way or the other."""

    trial: Trial
    result: TrialResult
    started_at: datetime
    wall_time_s: float
    attempt: int = 1
    """Which try of the trial this was, from 1."""
    nodes: tuple[str, ...] = ()
    """Where it was placed, by the names that people know the nodes by."""


@dataclass(frozen=True)
class Begun:
    """A trial has its devices, and starts."""

    trial: Trial
    attempt: int
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Waiting:
    """The next trial could run here, but what it needs is taken by others."""

    trial: Trial
    reason: str


@dataclass(frozen=True)
class Refused:
    """A node has joined that trials may not run on."""

    reason: str
    """Which one, and why."""


@dataclass(frozen=True)
class Retried:
    """An attempt that came to nothing; it is stored, and the trial runs again."""

    finished: Finished


@dataclass(frozen=True)
class Stored:
    """A finished trial and where it is kept."""

    run_id: int
    trial_id: int
    finished: Finished


@dataclass(frozen=True)
class Delayed:
    """The database does not take a result now; it is kept here, and offered again."""

    reason: str


Event = Begun | Waiting | Refused | Retried | Stored | Delayed
