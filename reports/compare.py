"""Which cases are compared, and what comes out: ratios, differences, speed-ups."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tlbench.errors import ReportError
from tlbench.reports.cases import (
    DEVICE_MEMORY,
    HOST_MEMORY,
    CaseTrials,
    settings,
)
from tlbench.reports.frames import DIRECTIONS
from tlbench.statistics import (
    Difference,
    Interval,
    Ratio,
    compare_difference,
    compare_ratio,
)
from tlbench.suites.model_spec import ModelSpec

THROUGHPUT = "throughput_samples_per_s"
ACCURACY = "top1_percent"
TIMED_MODES = frozenset({"infer", "train"})
"""The modes that measure a throughput."""


@dataclass(frozen=True)
class Comparison:
    """Two cases that differ only in their model."""

    base: CaseTrials
    other: CaseTrials

    def __post_init__(self) -> None:
        differing = differences(self.base, self.other)
        if differing:
            raise ReportError(
                f"{self.other.model} cannot be compared with {self.base.model}:"
                f" they differ in {', '.join(differing)} as well"
            )

    @property
    def has_own_baseline(self) -> bool:
        """Whether the base is the same model with nothing that reduces its tokens."""
        return _is_same_model(self.base.case.model, self.other.case.model.plain)

    @property
    def has_baseline_of_another_depth(self) -> bool:
        """Whether the base is that but for its number of blocks."""
        plain = self.other.case.model.plain
        return not self.has_own_baseline and _is_same_width(self.base.case.model, plain)

    @property
    def memory_metric(self) -> str:
        """Peak memory of the device where both sides have it, of the host otherwise."""
        both = {self.base.memory_metric, self.other.memory_metric}
        return DEVICE_MEMORY if both == {DEVICE_MEMORY} else HOST_MEMORY

    def ratio(self, metric: str) -> Ratio:
        return compare_ratio(
            self.base.values(metric), self.other.values(metric), DIRECTIONS[metric]
        )

    def difference(self, metric: str) -> Difference:
        return compare_difference(self.base.values(metric), self.other.values(metric))

    @cached_property
    def speedup(self) -> Ratio:
        """Realised: throughput over the base's throughput."""
        return self.ratio(THROUGHPUT)

    @cached_property
    def predicted_speedup(self) -> float | None:
        """What fewer operations would give at the same operations per second.

        The base's cost over the other's: MACs of the forward pass, and FLOPs of
        forward and backward in mode train.
        """
        metric = "train_flops" if self.base.mode == "train" else "macs"
        base = self.base.summary(metric).value
        other = self.other.summary(metric).value
        return base / other if base and other else None

    @property
    def realised_speedup_fraction(self) -> float | None:
        realised, predicted = self.speedup.value, self.predicted_speedup
        return realised / predicted if realised and predicted else None

    @property
    def realised_interval(self) -> Interval | None:
        """Interval of `realised_speedup_fraction`; the prediction has no error."""
        interval, predicted = self.speedup.interval, self.predicted_speedup
        if interval is None or predicted is None:
            return None
        return interval[0] / predicted, interval[1] / predicted


def differences(base: CaseTrials, other: CaseTrials) -> list[str]:
    """Everything but the model in which two cases differ, with both values."""
    ours, theirs = _circumstances(base), _circumstances(other)
    return [
        f"{name} ({ours[name]}, {theirs[name]})"
        for name in ours
        if ours[name] != theirs[name]
    ]


def comparisons(cases: Sequence[CaseTrials]) -> list[Comparison]:
    """Each model that reduces its tokens against its baseline, all else being equal.

    The baseline is the same model without the reduction. Where the run does not have
    that at these settings, it is the plain model of another depth, the nearest there is
    (a deepened model against what was deepened), and else the first model of the run.
    """
    first_model: dict[int, ModelSpec] = {}
    alike: dict[tuple[object, ...], list[CaseTrials]] = defaultdict(list)
    for case in cases:
        first_model.setdefault(case.run_id, case.case.model)
        alike[tuple(_circumstances(case).values())].append(case)
    found = []
    for case in cases:
        group = alike[tuple(_circumstances(case).values())]
        base = _baseline(case, group, first_model[case.run_id])
        if base is not None:
            found.append(Comparison(base, case))
    return found


def _circumstances(case: CaseTrials) -> dict[str, object]:
    place = {"run": case.run_id, "machine": case.machine_id}
    return place | settings(case.case)


def _baseline(
    case: CaseTrials, group: Sequence[CaseTrials], first_model: ModelSpec
) -> CaseTrials | None:
    model = case.case.model
    if _is_same_model(model, model.plain):
        return None
    others = [candidate for candidate in group if candidate is not case]
    same = [o for o in others if _is_same_model(o.case.model, model.plain)]
    deepened = sorted(
        (o for o in others if _is_same_width(o.case.model, model.plain)),
        key=lambda o: abs(o.case.model.depth - model.depth),
    )
    first = [o for o in others if _is_same_model(o.case.model, first_model)]
    return next(iter(same + deepened + first), None)


def _is_same_width(left: ModelSpec, right: ModelSpec) -> bool:
    """Whether two models are the same but for their depths."""
    return _is_same_model(left.model_copy(update={"depth": right.depth}), right)


def _is_same_model(left: ModelSpec, right: ModelSpec) -> bool:
    """Whether two models are the same but for what they are called."""
    return left.model_copy(update={"name": None}) == right.model_copy(
        update={"name": None}
    )
