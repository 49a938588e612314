"""A trial that measures nothing but the memory of its steps."""

from dataclasses import dataclass

from tlbench.suites.spec import Trial


@dataclass(frozen=True)
class Probe(Trial):
    """One step in the search for the largest batch, at a batch of its own."""

    stop_bytes: int | None = None
    """Host memory that its steps may add before they are refused more; None: as much
    as there is."""
