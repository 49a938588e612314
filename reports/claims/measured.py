"""Claims that are decided by the times and the memory of the reader's own machine."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

from tlbench.models.memory import forecast_memory
from tlbench.reports.cases import HOST_MEMORY, CaseTrials
from tlbench.reports.claims.counted import HALF
from tlbench.reports.claims.material import (
    HALFWAY,
    THREE_QUARTERS,
    Material,
    is_plain,
    nearest,
)
from tlbench.reports.claims.records import (
    Number,
    Part,
    Stand,
    above,
    below,
    conclude,
)
from tlbench.reports.compare import THROUGHPUT, TIMED_MODES, Comparison, ratio_of
from tlbench.reports.findings import describe_circumstances, describe_evidence
from tlbench.statistics import (
    LEVEL,
    Interval,
    Ratio,
    compare_ratio,
    repeats_to_settle,
)
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.published import Claim
from tlbench.units import format_counted, format_number

SQUARE = 2
MOSTLY_SQUARE = 1.5
"""A power from here on is nearer to the square than to the tokens themselves."""


def faster(claim: Claim, material: Material) -> Part:
    """Throughput at 3/4 over that of the baseline, beyond the noise floor."""
    numbers = [_faster(c) for c in nearest(material.timed(THREE_QUARTERS), claim)]
    missing = (
        ""
        if numbers
        else "no model with TokenLearner at 3/4 was timed beside the same model without"
        " it; tlbench run placement --scale cpu does that"
    )
    agreed = "every throughput here is higher by more than the noise of the machine"
    return conclude("measured", numbers, agreed=agreed, missing=missing)


def _faster(comparison: Comparison) -> Number:
    base, other = comparison.base, comparison.other
    bound = 1 + max(base.floor, other.floor)
    stand = _beyond_noise(comparison.speedup.interval, bound)
    needed = f", and the statement needs {format_number(bound)} at the least"
    if stand == "open":
        needed += _more_trials(base.values(THROUGHPUT), other.values(THROUGHPUT), bound)
    return _number("throughput", comparison, comparison.speedup, stand, needed)


def _beyond_noise(interval: Interval | None, bound: float) -> Stand:
    """Faster beyond the noise; against it only as far below 1."""
    if below(interval, 1 / bound) == "for":
        return "against"
    return "for" if above(interval, bound) == "for" else "open"


def saves_half(claim: Claim, material: Material) -> Part:
    """What training at 1/2 takes, over that of the baseline: whether half is left.

    Time, and the memory of inference, are shown: the statement speaks of compute, which
    is counted, and the peak of inference is that of a block before TokenLearner.
    """
    timed = material.timed(HALFWAY)
    training = nearest(filter(_has_training_memory, timed), claim)
    numbers = [_training_memory(comparison) for comparison in training]
    missing = (
        ""
        if numbers
        else "no model with TokenLearner at 1/2 has its training memory beside that of"
        " the same model without it, at one batch size; tlbench run placement does that"
    )
    numbers += [number for c in nearest(timed, claim) for number in _shown(c)]
    agreed = f"training takes at most {HALF:.2f} of the baseline's memory"
    return conclude("measured", numbers, agreed=agreed, missing=missing)


def _has_training_memory(comparison: Comparison) -> bool:
    """Not at the largest batch, which fills the same memory on both sides."""
    case = comparison.other.case
    if case.mode != "train" or case.batch_size == "max":
        return False
    metric = comparison.memory_metric
    return all(side.values(metric) for side in (comparison.base, comparison.other))


def _training_memory(comparison: Comparison) -> Number:
    """What the steps hold at their peak, without what no number of tokens changes.

    Gradients come while activations go. So a peak above the bound is against the
    statement only by more than gradients, and the copy in which they are averaged,
    could make of it.
    """
    base, other = comparison.base, comparison.other
    before, after = (_steps_memory(c, comparison.memory_metric) for c in (base, other))
    floor = max(base.floor, other.floor)
    ratio = compare_ratio(before, after, "lower", floor=floor)
    stand = below(ratio.interval, HALF)
    needed = f", and the statement needs {format_number(HALF)} at the most"
    if stand == "against":
        gradients = 2 * forecast_memory(base.case).gradients_bytes
        most = HALF + gradients / min(before.values())
        if above(ratio.interval, most) != "for":
            stand = "open"
            needed += (
                f"; up to {format_number(most)} it may be gradients, which take as much"
                " with few tokens; a larger batch would settle it"
            )
    elif stand == "open":
        needed += _more_trials(before, after, HALF)
    what = "training memory, without weights and optimiser states,"
    return _number(what, comparison, ratio, stand, needed)


def _steps_memory(case: CaseTrials, metric: str) -> dict[int, float]:
    """Peak of the steps in each block over what is held between them.

    On a host it is measured so. On a device, weights and optimiser states are taken
    off, in closed form.
    """
    peaks = case.values(metric)
    if metric == HOST_MEMORY:
        return peaks
    forecast = forecast_memory(case.case)
    held = forecast.weights_bytes + forecast.optimizer_bytes
    return {block: peak - held for block, peak in peaks.items()}


def _shown(comparison: Comparison) -> Iterator[Number]:
    """What decides nothing: the times, and the memory of inference."""
    yield _number("throughput", comparison, comparison.speedup)
    case, metric = comparison.other.case, comparison.memory_metric
    ratio = comparison.ratio(metric)
    if case.mode == "infer" and case.batch_size != "max" and ratio.value is not None:
        what = "memory of the steps" if metric == HOST_MEMORY else "peak memory"
        why = "; in inference the peak is that of a block before TokenLearner"
        yield _number(what, comparison, ratio, note=why)


def _number(
    title: str,
    comparison: Comparison,
    ratio: Ratio,
    stand: Stand | None = None,
    note: str = "",
) -> Number:
    base, other = comparison.base, comparison.other
    return Number(
        f"{title} of {other.model} over {base.model}, {describe_case(other)}",
        own=ratio.value,
        interval=ratio.interval,
        stand=stand,
        note=f"{_value(ratio)} ({describe_evidence(ratio)}){note}",
    )


def _value(ratio: Ratio) -> str:
    return "no trial" if ratio.value is None else format_number(ratio.value)


def _more_trials(base: dict[int, float], other: dict[int, float], bound: float) -> str:
    """How many more trials would tell the ratio from the bound."""
    if any(value <= 0 for value in (*base.values(), *other.values())):
        return ""
    scaled = {block: bound * value for block, value in base.items()}
    more = repeats_to_settle(scaled, other, level=LEVEL, band=0.0, floor=0.0)
    if more is None:
        return "; more trials of both would settle it"
    return f"; about {format_counted(more, 'more trial')} of both would settle it"


def describe_case(case: CaseTrials) -> str:
    """Under which circumstances a case ran, and in which run."""
    return f"{describe_circumstances(case.case)} (run {case.run_id})"


# ---------------------------------------------------------------- growth with tokens


def grows_with_square(_: Claim, material: Material) -> Part:
    """The power of the tokens with which the time of a plain model grows."""
    numbers = [_growth(series) for series in _by_length(material)]
    missing = (
        ""
        if numbers
        else "no model was timed at two image sizes; tlbench run tradeoff does that"
    )
    agreed = "the time grows with a power of the tokens that is nearer to 2 than to 1"
    return conclude("measured", numbers, agreed=agreed, missing=missing)


def _by_length(material: Material) -> Iterator[list[CaseTrials]]:
    """Timed cases that differ in nothing but the number of tokens, fewest first."""
    for group in material.groups(TIMED_MODES):
        series: dict[ModelSpec, list[CaseTrials]] = defaultdict(list)
        for case in group:
            if is_plain(case.case.model) and case.values(THROUGHPUT):
                series[_without_size(case.case.model)].append(case)
        for cases in series.values():
            if len({case.case.model.num_patches for case in cases}) > 1:
                yield sorted(cases, key=lambda case: case.case.model.num_patches)


def _without_size(spec: ModelSpec) -> ModelSpec:
    """The model with another size of its images, the same for all."""
    return spec.model_copy(update={"image_size": spec.patch_size, "name": None})


def _growth(series: Sequence[CaseTrials]) -> Number:
    """Of the longest over the shortest; what lies between is not needed."""
    short, long = series[0], series[-1]
    lengths = [case.case.model.num_patches for case in (short, long)]
    ratio = ratio_of(short, long)
    power = _power(ratio.value, lengths)
    interval = _power_interval(ratio.interval, lengths)
    stand = _stand_of_power(interval)
    note = f"power {format_number(power)} ({describe_evidence(ratio)} of throughput)"
    if stand == "open":
        spec = long.case.model
        note += (
            "; at these sizes what grows with the tokens alone is the larger, and"
            f" beyond {2 * spec.embed_dim + spec.mlp_dim:,} tokens it is not"
        )
    return Number(
        f"power of the tokens in the time of {short.model} and {long.model},"
        f" {lengths[0]:,} and {lengths[1]:,} tokens, {describe_case(short)}",
        SQUARE,
        power,
        interval,
        stand,
        note,
    )


def _power(throughput_ratio: float | None, lengths: Sequence[int]) -> float | None:
    if throughput_ratio is None:
        return None
    return -math.log(throughput_ratio) / math.log(lengths[1] / lengths[0])


def _power_interval(
    interval: Interval | None, lengths: Sequence[int]
) -> Interval | None:
    if interval is None:
        return None
    ends = [-math.log(end) / math.log(lengths[1] / lengths[0]) for end in interval]
    return min(ends), max(ends)


def _stand_of_power(interval: Interval | None) -> Stand:
    """Against only without any growth beyond the tokens themselves.

    Between the two the square has its share, and what there is of it does not tell.
    """
    if above(interval, MOSTLY_SQUARE) == "for":
        return "for"
    return "against" if below(interval, 1.0) == "for" else "open"
