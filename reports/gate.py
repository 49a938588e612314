"""Two selections held against each other: by how much they differ, and a verdict.

The comparisons of one question are a family: each has its interval and its verdict at
the level that Holm's method leaves it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from tlbench.calibrate import noise_floor
from tlbench.errors import ReportError
from tlbench.machine import Machine
from tlbench.reports.compare import THROUGHPUT
from tlbench.reports.iso import ISO_BATCH, Iso, choose
from tlbench.reports.matching import Match, match_sides, match_unmeasured
from tlbench.reports.quantities import DIRECTIONS
from tlbench.reports.selection import Selected, Selection, select
from tlbench.reports.sides import BATCH, Side, make_sides
from tlbench.statistics import (
    EQUIVALENCE_BAND,
    LEVEL,
    NOISE_FLOOR,
    Ratio,
    compare_counts,
    compare_ratio,
    holm,
    holm_levels,
    repeats_to_settle,
)
from tlbench.suites.names import did_you_mean
from tlbench.suites.spec import Case
from tlbench.units import format_counted

FEWEST_TRIALS = 2
"""A side with fewer has no interval."""
COUNTED = ("params", "macs", "flops", "graph_breaks")
"""How the names of metrics end that are counted: the same in every trial."""


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
        base, other = (s.values(self.metric) for s in (match.base, match.other))
        counts = {*base.values()}, {*other.values()}
        if self.metric.endswith(COUNTED) and [*map(len, counts)] == [1, 1]:
            ours, theirs = (found.pop() for found in counts)
            return compare_counts(ours, theirs, DIRECTIONS[self.metric], self.level)
        return compare_ratio(
            base,
            other,
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
    adjusted_p_value: float | None
    """The ratio's by Holm's method; None: it was not tested."""
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

    def missing(self, verdicts: Collection[str]) -> list[Side]:
        """Cases of A that a gate on these verdicts stops, as B does not have them.

        Two whole runs should have the same cases; queries choose theirs.
        """
        is_of_whole_runs = all(s.selection.is_of_whole_runs for s in (self.a, self.b))
        if not verdicts or not is_of_whole_runs:
            return []
        return [side for side in self.only_a if side.values(self.question.metric)]

    def _is_lost(self, judgement: Judgement) -> bool:
        metric = self.question.metric
        base, other = judgement.base, judgement.other
        return bool(base.values(metric)) and not other.values(metric)


def compare(session: Session, a: Selection, b: Selection, question: Question) -> Answer:
    """Match what the selections find, and judge each match."""
    found_a, found_b = select(session, a), select(session, b)
    is_by_identity = a.is_of_whole_runs and b.is_of_whole_runs
    if is_by_identity and _in_common(found_a, found_b):
        raise ReportError(_nothing_matched(found_a, found_b))
    sides_a, unmeasured_a = _measured_sides(found_a, question)
    sides_b, unmeasured_b = _measured_sides(found_b, question)
    if not sides_a:
        raise ReportError(_not_measured(found_a, unmeasured_a, question))
    matches = match_sides(
        sides_a,
        sides_b,
        free={BATCH} if question.iso.is_free_of_batch else (),
        over=question.over,
        is_by_identity=is_by_identity,
    )
    if not question.iso.is_free_of_batch:  # else another batch may stand for it
        matches += match_unmeasured(
            sides_a, unmeasured_b, over=question.over, is_by_identity=is_by_identity
        )
    if not matches and not sides_b:
        raise ReportError(_not_measured(found_b, unmeasured_b, question))
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
        unmeasured=tuple(
            side for side in (*unmeasured_a, *unmeasured_b) if id(side) not in compared
        ),
    )


def _measured_sides(
    found: Selected, question: Question
) -> tuple[list[Side], list[Side]]:
    """The sides to compare, and those that ended well without the metric."""
    metric = question.metric
    sides = make_sides(found.cases, found.machines)
    # What failed may be compared: that it did is the answer.
    measured = [s for s in sides if s.values(metric) or not s.ended_well]
    unmeasured = [s for s in sides if s.ended_well and not s.values(metric)]
    if not measured:
        return [], unmeasured
    neighbours = make_sides(found.neighbours, found.machines)
    return choose(measured, question.iso, metric, neighbours), unmeasured


def _not_measured(
    found: Selected, unmeasured: Sequence[Side], question: Question
) -> str:
    why = unmeasured[0].why_missing(question.metric)
    return f"{found.selection}: {question.metric} is not there: {why}"


def _in_common(a: Selected, b: Selected) -> list[int]:
    """The runs whose trials are on both sides."""
    both = a.trial_ids & b.trial_ids
    trials = [trial for case in a.cases for trial in case.trials]
    return sorted({trial.run_id for trial in trials if trial.id in both})


def _nothing_matched(a: Selected, b: Selected) -> str:
    if a.trial_ids == b.trial_ids:
        return (
            f"{a.selection} and {b.selection} are the same"
            f" {format_counted(len(a.trial_ids), 'trial')}; another run or another"
            " query would be right"
        )
    if in_common := _in_common(a, b):
        runs = ", ".join(f"run {run_id}" for run_id in in_common)
        return (
            f"{a.selection} and {b.selection}: trials of {runs} are on both sides; runs"
            " that are on one side only would be right"
        )
    return (
        f"{a.selection} and {b.selection} have no case in common; their models and"
        " settings differ, which a query for each, such as model=NAME,run=3, compares"
    )


def judge(
    matches: Sequence[Match],
    question: Question,
    floor_of: Callable[[Machine | None, Case], float] = lambda *_: NOISE_FLOOR,
) -> list[Judgement]:
    """A verdict on each; those that can be tested share the level by Holm's method."""
    floors = [
        max(floor_of(side.machine, side.case) for side in (match.base, match.other))
        for match in matches
    ]
    alone = [question.ratio(m, floor) for m, floor in zip(matches, floors, strict=True)]
    p_values = {n: r.p_value for n, r in enumerate(alone) if r.p_value is not None}
    levels = holm_levels([*p_values.values()], question.level)
    level_of = dict(zip(p_values, levels, strict=True))
    adjusted = dict(zip(p_values, holm([*p_values.values()]), strict=True))
    judgements = []
    for number, (match, floor) in enumerate(zip(matches, floors, strict=True)):
        ratio = question.ratio(match, floor, level_of.get(number))
        proposal = _proposal(match, question, ratio, floor)
        judgements.append(
            Judgement(match, ratio, adjusted.get(number), floor, proposal)
        )
    return judgements


def _proposal(
    match: Match, question: Question, ratio: Ratio, floor: float
) -> Proposal | None:
    """How many more trials of each side should settle what is not settled."""
    is_counted = match.base.case.mode == "profile"  # and comes out the same each time
    if ratio.verdict != "inconclusive" or ratio.value is None or is_counted:
        return None
    base, other = (s.values(question.metric) for s in (match.base, match.other))
    repeats: int | None
    if ratio.interval is None:
        repeats = FEWEST_TRIALS - min(len(base), len(other))
    else:
        repeats = repeats_to_settle(
            base, other, level=ratio.level, band=question.band, floor=floor
        )
    if repeats is None:
        return None
    block_s = match.base.wall_time_s + match.other.wall_time_s
    return Proposal(repeats, repeats * block_s)
