"""A trial that goes the whole way of its kind, and measures nothing."""

from dataclasses import dataclass

from tlbench.suites.spec import Trial


@dataclass(frozen=True)
class Rehearsal(Trial):
    """Holds the devices of its case, and lets them rest."""

    sleep_s: float = 0.0
    """How long each rank holds them."""
