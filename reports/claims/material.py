"""What there is to judge claims by, and which of it is nearest to what they say."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType

from tlbench.reports.cases import CaseTrials, all_but_model, has_trained_weights
from tlbench.reports.claims.records import JudgedClaim
from tlbench.reports.compare import ACCURACY_MODES, TIMED_MODES, Comparison
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import model_name
from tlbench.suites.published import Claim

QUARTER, HALFWAY, THREE_QUARTERS = Fraction(1, 4), Fraction(1, 2), Fraction(3, 4)
TOKENS_OF_THE_PUBLICATION = (8, 16)


@dataclass(frozen=True)
class Material:
    """The measurements of a report, and the claims that are judged already."""

    cases: Sequence[CaseTrials] = ()
    compared: Sequence[Comparison] = ()
    judged: Mapping[str, JudgedClaim] = field(
        default_factory=lambda: MappingProxyType({})
    )

    def timed(self, *places: Fraction) -> list[Comparison]:
        """TokenLearner at these places against its own baseline, timed."""
        return self._against_own_baseline(TIMED_MODES, places)

    def trained(self, *places: Fraction) -> list[Comparison]:
        """The same in accuracy, on labelled images."""
        return self._trained(places, video=False)

    def trained_on_video(self, *places: Fraction) -> list[Comparison]:
        return self._trained(places, video=True)

    def _trained(
        self, places: Collection[Fraction], *, video: bool
    ) -> list[Comparison]:
        return [
            comparison
            for comparison in self._against_own_baseline(ACCURACY_MODES, places)
            if _is_video(comparison.other) == video
            and has_trained_weights(comparison.base.case)
            and has_trained_weights(comparison.other.case)
        ]

    def _against_own_baseline(
        self, modes: Collection[str], places: Collection[Fraction]
    ) -> list[Comparison]:
        return [
            comparison
            for comparison in self.compared
            if comparison.other.mode in modes
            and comparison.has_own_baseline
            and relative_place(comparison.other.case.model) in places
        ]

    def trained_alike(self, *, video: bool | None = None) -> Iterator[list[CaseTrials]]:
        """Trained cases that differ in their models alone.

        Args:
            video: Of clips alone, or of images alone; None: of both.
        """
        for group in self.groups(ACCURACY_MODES):
            yield [
                case
                for case in group
                if has_trained_weights(case.case) and video in (None, _is_video(case))
            ]

    def groups(self, modes: Collection[str]) -> Iterator[list[CaseTrials]]:
        """Cases of the modes that differ in their models alone."""
        alike: dict[Hashable, list[CaseTrials]] = defaultdict(list)
        for case in self.cases:
            if case.mode in modes:
                place = (case.run_id, case.machine_id)
                alike[place, all_but_model(case.case)].append(case)
        yield from alike.values()


def _is_video(case: CaseTrials) -> bool:
    return case.case.model.video is not None


def relative_place(spec: ModelSpec) -> Fraction | None:
    """Where TokenLearner stands, as a share of the depth; None: in no such way."""
    learner = spec.token_learner
    if learner is None or learner.fuse or spec.builder is not None:
        return None
    return Fraction(learner.place, spec.depth)


def is_plain(spec: ModelSpec) -> bool:
    """Whether nothing reduces its tokens."""
    return spec == spec.plain


def nearest(compared: Iterable[Comparison], claim: Claim) -> list[Comparison]:
    """Those whose models come nearest to the ones that the claim speaks of.

    All that are equally near, whatever came out of them: the claim's own models; else
    those but for the version of TokenLearner; else v1 with as many tokens as in the
    publication; else any.
    """
    names = {number.model for number in claim.numbers}
    by_rank: dict[int, list[Comparison]] = defaultdict(list)
    for comparison in compared:
        by_rank[_rank(comparison.other.case.model, names)].append(comparison)
    return by_rank[min(by_rank)] if by_rank else []


def _rank(spec: ModelSpec, names: Collection[str | None]) -> int:
    learner = spec.token_learner
    assert learner is not None, "claims are judged by models with TokenLearner"
    if model_name(spec) in names:
        return 0
    as_v1 = learner.model_copy(update={"version": "v1"})
    if model_name(spec.model_copy(update={"token_learner": as_v1})) in names:
        return 1
    has_as_many = learner.num_tokens in TOKENS_OF_THE_PUBLICATION
    return 2 if learner == as_v1 and has_as_many else 3
