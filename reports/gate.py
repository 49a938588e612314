"""Two selections held against each other: by how much they differ, and a verdict.

The comparisons of one question are a family: each has its interval and its verdict at
the level that Holm's method leaves it.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from tlbench.calibrate import noise_floor
from tlbench.errors import ReportError
from tlbench.machine import Machine
from tlbench.reports.compare import THROUGHPUT
from tlbench.reports.frames import DIRECTIONS
from tlbench.reports.iso import ISO_BATCH, Iso, choose
from tlbench.reports.matching import Match, match_sides
from tlbench.reports.selection import Selected, Selection, select
from tlbench.reports.sides import BATCH, Side, make_sides
from tlbench.statistics import (
    EQUIVALENCE_BAND,
    LEVEL,
    NOISE_FLOOR,
    Ratio,
    compare_ratio,
    holm_levels,
    proposed_trials,
)
from tlbench.suites.names import did_you_mean

FEWEST_TRIALS = 2
"""A side with fewer has no interval."""


@dataclass(frozen=True)
class Question:
    """What is to be decided, and how surely."""

    metric: str = THROUGHPUT
    level: float = LEVEL
    """Confidence over all comparisons together."""
    band: float = EQUIVALENCE_BAND
    iso: Iso = ISO_BATCH
    over: frozenset[str] = frozenset()
    """What may differ between the sides; empty: any one thing."""

    def __post_init__(self) -> None:
        if self.metric not in DIRECTIONS:
            raise ReportError(
                f"--metric {self.metric}: no metric that gets better or worse"
                f"{did_you_mean(self.metric, DIRECTIONS)}"
            )

    def ratio(
        self, match: Match, floor: float = NOISE_FLOOR, level: float | None = None
    ) -> Ratio:
        """The other side over its base."""
        return compare_ratio(
            match.base.values(self.metric),
            match.other.values(self.metric),
            DIRECTIONS[self.metric],
            self.level if level is None else level,
            self.band,
            floor,
        )


@dataclass(frozen=True)
class Proposal:
    """What would settle a comparison, if its ratio stays where it is."""

    repeats: int
    """More trials of each side."""
    time_s: float


@dataclass(frozen=True)
class Judgement:
    """Two sides and the verdict on them."""

    match: Match
    ratio: Ratio
    floor: float
    """Share below which the machine's own noise lies."""
    proposal: Proposal | None
    """None: it is settled, or no number of repeats that anyone would wait for does."""

    @property
    def base(self) -> Side:
        return self.match.base

    @property
    def other(self) -> Side:
        return self.match.other

    @property
    def title(self) -> str:
        """What is compared, such as `infer mini+TL8@1 over mini`."""
        base, other = self.base.label, self.other.label
        subject = other if base == other else f"{other} over {base}"
        return f"{self.other.case.mode} {subject}"


@dataclass(frozen=True)
class Answer:
    """All comparisons of a question."""

    question: Question
    a: Selected
    b: Selected
    judgements: tuple[Judgement, ...]
    only_a: tuple[Side, ...]
    """Sides that nothing is compared with."""
    only_b: tuple[Side, ...]
    unmeasured: tuple[Side, ...]
    """Sides whose mode does not measure the metric."""

    def failing(self, verdicts: Collection[str]) -> list[Judgement]:
        """Those that a gate on these verdicts stops.

        What was measured of the base only is stopped by any gate: a side that no
        longer runs is not one that is no worse.
        """
        return [
            judgement
            for judgement in self.judgements
            if verdicts
            and (judgement.ratio.verdict in verdicts or self._is_lost(judgement))
        ]

    def _is_lost(self, judgement: Judgement) -> bool:
        metric = self.question.metric
        base, other = judgement.base, judgement.other
        return bool(base.values(metric)) and not other.values(metric)


def compare(session: Session, a: Selection, b: Selection, question: Question) -> Answer:
    """Match what the selections find, and judge each match."""
    found_a, found_b = select(session, a), select(session, b)
    sides_a, unmeasured_a = _measured_sides(found_a, question)
    sides_b, unmeasured_b = _measured_sides(found_b, question)
    matches = match_sides(
        sides_a,
        sides_b,
        free={BATCH} if question.iso.is_free_of_batch else (),
        over=question.over,
        is_by_identity=a.is_of_whole_runs and b.is_of_whole_runs,
    )
    if not matches:
        raise ReportError(_nothing_matched(found_a, found_b))
    compared = {id(side) for match in matches for side in (match.base, match.other)}
    return Answer(
        question=question,
        a=found_a,
        b=found_b,
        judgements=tuple(judge(matches, question, partial(noise_floor, session))),
        only_a=tuple(side for side in sides_a if id(side) not in compared),
        only_b=tuple(side for side in sides_b if id(side) not in compared),
        unmeasured=(*unmeasured_a, *unmeasured_b),
    )


def _measured_sides(
    found: Selected, question: Question
) -> tuple[list[Side], list[Side]]:
    """The sides to compare, and those that the metric says nothing of."""
    metric = question.metric
    sides = make_sides(found.cases, found.machines)
    # What failed may be compared: that it did is the answer.
    measured = [s for s in sides if s.values(metric) or not s.ended_well]
    unmeasured = [s for s in sides if s.ended_well and not s.values(metric)]
    if not measured:
        why = unmeasured[0].why_missing(metric)
        raise ReportError(f"{found.selection}: {metric} is not there: {why}")
    neighbours = make_sides(found.neighbours, found.machines)
    return choose(measured, question.iso, metric, neighbours), unmeasured


def _nothing_matched(a: Selected, b: Selected) -> str:
    if a.trial_ids == b.trial_ids:
        return (
            f"{a.selection} and {b.selection} are the same {len(a.trial_ids)} trials;"
            " another run or another query would be right"
        )
    return (
        f"{a.selection} and {b.selection} have no case in common; their models and"
        " settings differ, which a query for each, such as model=NAME,run=3, compares"
    )


def judge(
    matches: Sequence[Match],
    question: Question,
    floor_of: Callable[[Machine | None], float] = lambda machine: NOISE_FLOOR,
) -> list[Judgement]:
    """A verdict on each; those that can be tested share the level by Holm's method."""
    floors = [max(floor_of(m.base.machine), floor_of(m.other.machine)) for m in matches]
    alone = [question.ratio(m, floor) for m, floor in zip(matches, floors, strict=True)]
    p_values = {n: r.p_value for n, r in enumerate(alone) if r.p_value is not None}
    levels = holm_levels([*p_values.values()], question.level)
    level_of = dict(zip(p_values, levels, strict=True))
    judgements = []
    for number, (match, floor) in enumerate(zip(matches, floors, strict=True)):
        ratio = question.ratio(match, floor, level_of.get(number))
        proposal = _proposal(match, question, ratio, floor)
        judgements.append(Judgement(match, ratio, floor, proposal))
    return judgements


def _proposal(
    match: Match, question: Question, ratio: Ratio, floor: float
) -> Proposal | None:
    """How many more trials of each side should settle what is not settled."""
    is_counted = match.base.case.mode == "profile"  # and comes out the same each time
    if ratio.verdict != "inconclusive" or ratio.value is None or is_counted:
        return None
    base, other = (s.values(question.metric) for s in (match.base, match.other))
    if ratio.interval is None:
        repeats = FEWEST_TRIALS - min(len(base), len(other))
    else:
        needed = proposed_trials(
            base,
            other,
            shift=_decisive_shift(ratio.value, question.band, floor),
            level=ratio.level,
            floor=floor,
        )
        if needed is None:
            return None
        repeats = max(needed - ratio.n, 1)
    block_s = match.base.wall_time_s + match.other.wall_time_s
    return Proposal(repeats, repeats * block_s)


def _decisive_shift(ratio: float, band: float, floor: float) -> float:
    """The shift that takes an interval as narrow as this ratio takes to be settled.

    The interval has to reach neither back to the floor nor, where the ratio lies near
    1, out of the band; in logarithms, the longer of the two ways is how far it may
    reach, and a shift so far beyond the floor allows just that.
    """
    off = abs(math.log(ratio))
    to_floor, to_band = math.log1p(floor), math.log1p(max(band, floor))
    return math.expm1(to_floor + max(off - to_floor, to_band - off))
