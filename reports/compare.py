"""Which cases are compared, and what comes out: ratios, differences, speed-ups."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tlbench.errors import ReportError
from tlbench.reports.cases import (
    CHECKPOINT,
    DEEPSPEED,
    DEVICE_MEMORY,
    HOST_MEMORY,
    CaseTrials,
    all_but_model,
    circumstances,
    differing,
    weights_of,
)
from tlbench.reports.quantities import DIRECTIONS
from tlbench.statistics import (
    Difference,
    Interval,
    Ratio,
    compare_difference,
    compare_ratio,
)
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.spec import Case

THROUGHPUT = "throughput_samples_per_s"
ACCURACY = "top1_percent"
TIMED_MODES = frozenset({"infer", "train"})
"""The modes that measure a throughput."""
ACCURACY_MODES = frozenset({"fit", "evaluate", "fewshot"})
"""The modes that tell how good a model is."""


@dataclass(frozen=True)
class Comparison:
    """Two cases that differ only in their model."""

    base: CaseTrials
    other: CaseTrials

    def __post_init__(self) -> None:
        surplus = differences(self.base, self.other)
        if surplus:
            raise ReportError(
                f"{self.other.model} cannot be compared with {self.base.model}:"
                f" they differ in {', '.join(surplus)} as well"
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
        return ratio_of(self.base, self.other, metric)

    def difference(self, metric: str) -> Difference:
        return compare_difference(self.base.values(metric), self.other.values(metric))

    @property
    def accuracy_metric(self) -> str:
        """What says how good both models are; top-1 where nobody asks."""
        return self.base.case.accuracy_metric or ACCURACY

    @property
    def accuracy(self) -> Difference:
        """By how many points the other one is better."""
        return self.difference(self.accuracy_metric)

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


def ratio_of(base: CaseTrials, other: CaseTrials, metric: str = THROUGHPUT) -> Ratio:
    """One case over another; the noise floor is that of the noisier machine."""
    return compare_ratio(
        base.values(metric),
        other.values(metric),
        DIRECTIONS[metric],
        floor=max(base.floor, other.floor),
    )


def differences(base: CaseTrials, other: CaseTrials) -> list[str]:
    """Everything but the model in which two cases differ, with both values.

    Weights belong to their model: other ones of another model are no difference, but
    none are.
    """
    ours, theirs = _circumstances(base), _circumstances(other)
    keys = differing(ours.pop(DEEPSPEED), theirs.pop(DEEPSPEED), str)
    both_have = None not in (ours[CHECKPOINT], theirs[CHECKPOINT])
    is_same = _is_same_model(base.case.model, other.case.model)
    left_out = {CHECKPOINT} if both_have and not is_same else set()
    told = differing(ours, theirs, str)
    return [
        *(words for name, words in told.items() if name not in left_out),
        *(f"{DEEPSPEED}.{words}" for words in keys.values()),
    ]


def comparisons(cases: Sequence[CaseTrials]) -> list[Comparison]:
    """Each model that reduces its tokens against its baseline, all else being equal.

    The baseline is the same model without the reduction, first of all that of the same
    checkpoint. Where the run does not have that at these settings, it is the plain
    model of another depth, the nearest there is (a deepened model against what was
    deepened), and else the first model of the run.
    """
    alike = [(c.run_id, c.machine_id, *all_but_model(c.case)) for c in cases]
    pairs = _pairs([case.run_id for case in cases], [c.case for c in cases], alike)
    return [Comparison(cases[base], cases[other]) for base, other in pairs]


def planned_pairs(cases: Sequence[Case]) -> list[tuple[Case, Case]]:
    """Baseline and other side of each comparison that a run of the cases will have."""
    pairs = _pairs([0] * len(cases), cases, list(map(all_but_model, cases)))
    return [(cases[base], cases[other]) for base, other in pairs]


def _pairs(
    run_ids: Sequence[int], cases: Sequence[Case], alike: Sequence[Hashable]
) -> list[tuple[int, int]]:
    """The places of each baseline and its other side.

    Args:
        run_ids: The run of each case.
        cases: All that there are.
        alike: Of each, what is the same for cases that may be compared.
    """
    first_model: dict[int, ModelSpec] = {}
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for place, (run_id, case) in enumerate(zip(run_ids, cases, strict=True)):
        first_model.setdefault(run_id, case.model)
        groups[alike[place]].append(place)
    weights = list(map(weights_of, cases))
    found = []
    for place, (run_id, case) in enumerate(zip(run_ids, cases, strict=True)):
        group = [p for p in groups[alike[place]] if p != place]
        own = [p for p in group if weights[p] == weights[place]]
        others = {p: cases[p].model for p in own + group}
        base = _baseline(case.model, others, first_model[run_id])
        if base is not None:
            found.append((base, place))
    return found


def _circumstances(case: CaseTrials) -> dict[str, Any]:
    place = {"run": case.run_id, "machine": case.machine_id}
    return place | circumstances(case.case)


def _baseline(
    model: ModelSpec, others: Mapping[int, ModelSpec], first_model: ModelSpec
) -> int | None:
    """The place of the baseline of a model among the others."""
    if _is_same_model(model, model.plain):
        return None
    same = [p for p, o in others.items() if _is_same_model(o, model.plain)]
    deepened = sorted(
        (p for p, o in others.items() if _is_same_width(o, model.plain)),
        key=lambda p: abs(others[p].depth - model.depth),
    )
    first = [p for p, o in others.items() if _is_same_model(o, first_model)]
    return next(iter(same + deepened + first), None)


def _is_same_width(left: ModelSpec, right: ModelSpec) -> bool:
    """Whether two models are the same but for their depths."""
    return _is_same_model(left.model_copy(update={"depth": right.depth}), right)


def _is_same_model(left: ModelSpec, right: ModelSpec) -> bool:
    """Whether two models are the same but for what they are called."""
    return left.model_copy(update={"name": None}) == right.model_copy(
        update={"name": None}
    )
