"""How speed grows with the number of devices: strong and weak scaling.

Strong: the ranks share a batch that stays the same. Weak: every rank has a batch of its
own, and that stays the same.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from tlbench.reports.cases import CaseTrials
from tlbench.reports.cells import (
    Cell,
    Row,
    Table,
    metric_cell,
    missing,
    percent_cell,
    ratio_cell,
    word,
)
from tlbench.reports.compare import THROUGHPUT, TIMED_MODES, ratio_of
from tlbench.reports.findings import describe_evidence
from tlbench.statistics import Interval, Ratio

Kind = Literal["strong", "weak"]
SPREAD_OVER = frozenset({"batch_size", "parallelism.world_size", "parallelism.nodes"})
"""Settings that may differ between the two sides."""
RANK_METRICS = ("communication_fraction", "rank_step_time_spread_fraction")


@dataclass(frozen=True)
class Scaling:
    """A case on some ranks, and the same on the fewest that it ran on."""

    kind: Kind
    base: CaseTrials
    other: CaseTrials

    @property
    def rank_ratio(self) -> float:
        """How many times as many ranks; no speed-up should be larger."""
        return _world_size(self.other) / _world_size(self.base)

    @cached_property
    def speedup(self) -> Ratio:
        """Throughput of the whole job over that of the base."""
        return ratio_of(self.base, self.other)

    @property
    def efficiency_fraction(self) -> float | None:
        """The speed-up over the ratio of the ranks: 1 is perfect."""
        speedup = self.speedup.value
        return None if speedup is None else speedup / self.rank_ratio

    @property
    def efficiency_interval(self) -> Interval | None:
        """Of `efficiency_fraction`; the number of ranks has no error."""
        if self.speedup.interval is None:
            return None
        low, high = self.speedup.interval
        return low / self.rank_ratio, high / self.rank_ratio


def scalings(cases: Sequence[CaseTrials]) -> Iterator[Scaling]:
    """Every case on more ranks than the base of its kind, by kind and in order."""
    timed = [c for c in cases if c.mode in TIMED_MODES and c.case.batch_size != "max"]
    for kind in get_args(Kind):
        alike: dict[tuple[object, ...], list[CaseTrials]] = defaultdict(list)
        for case in timed:
            alike[_all_but_ranks(case, kind)].append(case)
        for group in alike.values():
            base = min(group, key=lambda c: (not c.values(THROUGHPUT), _world_size(c)))
            for case in sorted(group, key=_world_size):
                if _world_size(case) > _world_size(base):
                    yield Scaling(kind, base, case)


def _world_size(case: CaseTrials) -> int:
    return case.case.parallelism.world_size


def _all_but_ranks(case: CaseTrials, kind: Kind) -> tuple[object, ...]:
    batch = case.case.global_batch_size
    share = batch if kind == "strong" else batch / _world_size(case)
    return (share, *case.all_but(*SPREAD_OVER))


def scaling_table(cases: Sequence[CaseTrials]) -> Table:
    """One row for each case that ran on more ranks than its base."""
    return Table(
        headings=(
            "case",
            "mode",
            "precision",
            "ZeRO",
            "scaling",
            "ranks",
            "speed-up",
            "efficiency [%]",
            "communication [% of step]",
            "spread of ranks [%]",
        ),
        rows=tuple(Row(_cells(scaling)) for scaling in scalings(cases)),
    )


def _cells(scaling: Scaling) -> tuple[Cell, ...]:
    case = scaling.other
    settings = case.case
    base_size, world_size = _world_size(scaling.base), _world_size(case)
    return (
        word(case.label),
        word(case.mode),
        word(settings.precision),
        Cell(str(settings.parallelism.zero_stage), key=settings.parallelism.zero_stage),
        word(scaling.kind),
        Cell(f"{world_size}", f"over {base_size}", key=world_size),
        ratio_cell(scaling.speedup),
        _efficiency_cell(scaling),
        *(metric_cell(name, case.summary(name)) for name in RANK_METRICS),
    )


def _efficiency_cell(scaling: Scaling) -> Cell:
    fraction = scaling.efficiency_fraction
    if fraction is None:
        return missing(scaling.speedup.reason or "")
    hint = describe_evidence(scaling.speedup)
    return percent_cell(fraction, scaling.efficiency_interval, hint)
