"""What each layer between a model and its user costs: torch, torchrun, Ray, DeepSpeed.

The same steps run under each; the lowest layer that was measured is what those above
it are held against.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from tlbench.reports.cases import CaseTrials
from tlbench.reports.cells import Cell, Row, Table, ratio_cell, verdict_cell, word
from tlbench.reports.compare import THROUGHPUT, TIMED_MODES, ratio_of
from tlbench.statistics import Ratio

STACKS = ("torch", "torchrun", "ray", "deepspeed")
"""From the lowest layer up; several ranks need torchrun at least."""


@dataclass(frozen=True)
class StackCost:
    """A case under one stack, and the same under the lowest one that was measured."""

    base: CaseTrials
    other: CaseTrials

    @cached_property
    def ratio(self) -> Ratio:
        """Throughput over that of the base."""
        return ratio_of(self.base, self.other)


def stack_costs(cases: Sequence[CaseTrials]) -> Iterator[StackCost]:
    """Every case that was measured under a lower stack too, from the lowest up."""
    alike: dict[tuple[object, ...], list[CaseTrials]] = defaultdict(list)
    for case in cases:
        if case.mode in TIMED_MODES:
            alike[case.all_but("stack")].append(case)
    for group in alike.values():
        ordered = sorted(group, key=_height)
        base = min(ordered, key=lambda case: not case.values(THROUGHPUT))
        for other in ordered:
            if _height(other) > _height(base):
                yield StackCost(base, other)


def _height(case: CaseTrials) -> int:
    return STACKS.index(case.case.stack)


def stack_name(case: CaseTrials) -> str:
    """What ran the steps: inference stops at the workers of Ray."""
    is_inference = case.mode == "infer" and case.case.stack == "deepspeed"
    return "ray" if is_inference else case.case.stack


def stack_table(cases: Sequence[CaseTrials]) -> Table:
    """One row for each case that was measured under a lower stack too."""
    return Table(
        headings=("case", "mode", "ranks", "stack", "over", "throughput", "verdict"),
        rows=tuple(
            Row(
                (
                    word(cost.other.model),
                    word(cost.other.mode),
                    _ranks_cell(cost.other),
                    word(stack_name(cost.other)),
                    word(stack_name(cost.base)),
                    ratio_cell(cost.ratio),
                    verdict_cell(cost.ratio),
                )
            )
            for cost in stack_costs(cases)
        ),
    )


def _ranks_cell(case: CaseTrials) -> Cell:
    world_size = case.case.parallelism.world_size
    return Cell(str(world_size), key=world_size)
