"""Which sides are held against each other: those that differ in one thing only."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tlbench.errors import ReportError
from tlbench.reports.sides import MACHINE, MODEL, SOFTWARE, Side
from tlbench.suites.names import did_you_mean


@dataclass(frozen=True)
class Match:
    """Two sides that may be compared."""

    base: Side
    other: Side
    differences: Mapping[str, str]
    """What is compared: names, and words with both values; none for one case twice."""


def match_sides(
    bases: Sequence[Side],
    others: Sequence[Side],
    *,
    free: Collection[str] = (),
    over: Collection[str] = (),
    is_by_identity: bool = False,
) -> list[Match]:
    """Match each of the others with the base that it differs least from.

    Args:
        bases: What is compared with.
        others: What is compared.
        free: What may differ on top, as another rule has chosen it.
        over: What may differ; if nothing is named, any one thing.
        is_by_identity: Whether only the same case is compared, in two runs.
    """
    _check_names(over, [*bases, *others])
    matches = []
    for other in others:
        candidates = [
            Match(base, other, _differences(base, other, free))
            for base in bases
            if not base.is_same(other)
            and (not is_by_identity or base.case.identity == other.case.identity)
        ]
        if candidates:
            matches.append(_nearest(candidates, over))
    return matches


def match_unmeasured(
    bases: Sequence[Side],
    others: Sequence[Side],
    *,
    over: Collection[str] = (),
    is_by_identity: bool = False,
) -> list[Match]:
    """Match each of the others with a base that should have a counterpart in it.

    The others ended well without the metric that the bases have. Of another mode that
    says nothing, and what may not be compared is left alone.
    """
    matches = []
    for other in others:
        alike = [base for base in bases if base.case.mode == other.case.mode]
        with suppress(ReportError):
            matches += match_sides(
                alike, [other], over=over, is_by_identity=is_by_identity
            )
    return matches


def _check_names(names: Collection[str], sides: Sequence[Side]) -> None:
    known = dict.fromkeys(name for side in sides for name in side.circumstances)
    for name in names:
        if name not in known:
            raise ReportError(
                f"--over {name}: a setting by its dotted name, {MODEL}, {MACHINE} or"
                f" {SOFTWARE} would be right{did_you_mean(name, known)}"
            )


def _differences(base: Side, other: Side, free: Collection[str]) -> dict[str, str]:
    found = base.differences(other)
    return {name: words for name, words in found.items() if name not in free}


def _nearest(candidates: Sequence[Match], over: Collection[str]) -> Match:
    """The one candidate that is left by what may differ; an error if there is none."""
    fewest = min(len(_surplus(match, over)) for match in candidates)
    nearest = [m for m in candidates if len(_surplus(m, over)) == fewest]
    if fewest:
        raise ReportError(_refusal(nearest[0], over))
    simplest = min(len(match.differences) for match in nearest)
    nearest = [match for match in nearest if len(match.differences) == simplest]
    if len(nearest) > 1:
        labels = ", ".join(match.base.label for match in nearest)
        raise ReportError(
            f"{nearest[0].other.label} could be compared with each of {labels}; a"
            " narrower A would be right"
        )
    return nearest[0]


def _surplus(match: Match, over: Collection[str]) -> list[str]:
    """What differs beside what is compared."""
    if over:
        return [name for name in match.differences if name not in over]
    return list(match.differences)[1:]


def _refusal(match: Match, over: Collection[str]) -> str:
    surplus = _surplus(match, over)
    allowing = " ".join(f"--over {name}" for name in match.differences)
    return (
        f"{match.other.label} cannot be compared with {match.base.label}: they differ"
        f" in {', '.join(match.differences[name] for name in surplus)} as well;"
        f" {allowing} compares them all the same"
    )
