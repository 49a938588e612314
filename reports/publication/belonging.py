"""Which cases of a report belong to a figure of the publication."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

from tlbench.reports.cases import CaseTrials
from tlbench.reports.publication.entries import published_name, row_name
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import model_name
from tlbench.suites.published import PublishedResult, Source, published_in

Belonging = Callable[[Sequence[CaseTrials]], list[CaseTrials]]
"""Those that belong; none: the figure is not drawn."""

MIN_SWEEP = 3
"""Places, or numbers of tokens, that make a course: two are a comparison."""


def sweep_of(field: str) -> Belonging:
    """Models that differ in this field of TokenLearner alone, and the same without."""

    def belonging(cases: Sequence[CaseTrials]) -> list[CaseTrials]:
        values: dict[Hashable, set[object]] = defaultdict(set)
        for case in cases:
            values[_swept(case, field)].add(_value(case, field))
        long = {k for k, v in values.items() if k is not None and len(v) >= MIN_SWEEP}
        bases = {_plain_name(case) for case in cases if _swept(case, field) in long}
        return [c for c in cases if _swept(c, field) in long or c.model in bases]

    return belonging


def listed_in(sources: Iterable[Source], fewest: int) -> Belonging:
    """Models of tables of which the report has at least so many of one."""
    tables = [_names(published_in(source)) for source in sources]

    def belonging(cases: Sequence[CaseTrials]) -> list[CaseTrials]:
        names = {published_name(case.case.model) for case in cases}
        wanted = set().union(*(t for t in tables if len(t & names) >= fewest))
        return [case for case in cases if published_name(case.case.model) in wanted]

    return belonging


def beside(belonging: Belonging, is_alike: Callable[[ModelSpec], bool]) -> Belonging:
    """What belongs, and all alike in the same runs, published or not."""

    def widened(cases: Sequence[CaseTrials]) -> list[CaseTrials]:
        runs = {case.run_id for case in belonging(cases)}
        return [c for c in cases if c.run_id in runs and is_alike(c.case.model)]

    return widened


def kinds_of(kind: Callable[[ModelSpec], str | None], *needed: str) -> Belonging:
    """All of a plain model that has reductions of two kinds, the needed among them."""

    def belonging(cases: Sequence[CaseTrials]) -> list[CaseTrials]:
        kinds: dict[str, set[str]] = defaultdict(set)
        for case in cases:
            found = kind(case.case.model)
            if found is not None:
                kinds[_plain_name(case)].add(found)
        chosen = {
            plain for plain, k in kinds.items() if len(k) > 1 and k.issuperset(needed)
        }
        return [
            case
            for case in cases
            if _plain_name(case) in chosen
            and (kind(case.case.model) or case.model in chosen)
        ]

    return belonging


def _swept(case: CaseTrials, field: str) -> Hashable:
    """What the models of one sweep have in common; None of a model that is in none."""
    spec, learner = case.case.model, case.case.model.token_learner
    if learner is None or spec.builder is not None:
        return None
    return _plain_name(case), learner.model_copy(update={field: None})


def _value(case: CaseTrials, field: str) -> object:
    return getattr(case.case.model.token_learner, field, None)


def _plain_name(case: CaseTrials) -> str:
    return model_name(case.case.model.plain)


def _names(rows: Iterable[PublishedResult]) -> set[str]:
    return {name for row in rows if (name := row_name(row)) is not None}
