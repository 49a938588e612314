"""Claims that are decided by the times and the memory of the reader's own machine."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

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
from tlbench.statistics import LEVEL, Interval, Ratio, repeats_to_settle
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.published import Claim
from tlbench.units import format_number

_Side = Callable[[Interval | None, float], Stand]
"""What an interval says of a bound: `above`, `below` or `_beyond_noise`."""

SQUARE = 2
MOSTLY_SQUARE = 1.5
"""A power from here on is nearer to the square than to the tokens themselves."""


def faster(claim: Claim, material: Material) -> Part:
    """Throughput at 3/4 over that of the baseline, beyond the noise floor."""
    numbers = [
        _ratio_number(comparison, THROUGHPUT, "throughput", 1 + floor, _beyond_noise)
        for comparison in nearest(material.timed(THREE_QUARTERS), claim)
        for floor in [max(comparison.base.floor, comparison.other.floor)]
    ]
    missing = "" if numbers else _not_timed("3/4")
    agreed = "every throughput here is higher by more than the noise of the machine"
    return conclude("measured", numbers, agreed=agreed, missing=missing)


def _beyond_noise(interval: Interval | None, bound: float) -> Stand:
    """Faster beyond the noise; against it only as far below 1."""
    if below(interval, 1 / bound) == "for":
        return "against"
    return "for" if above(interval, bound) == "for" else "open"


def saves_half(claim: Claim, material: Material) -> Part:
    """Time and memory at 1/2 over those of the baseline, and whether half is left."""
    compared = nearest(material.timed(HALFWAY), claim)
    numbers = [number for c in compared for number in _time_and_memory(c)]
    missing = "" if numbers else _not_timed("1/2")
    agreed = f"every time and memory here is at most {HALF:.2f} of the baseline's"
    return conclude("measured", numbers, agreed=agreed, missing=missing)


def _not_timed(place: str) -> str:
    return (
        f"no model with TokenLearner at {place} was timed beside the same model without"
        " it; tlbench run placement --scale cpu does that"
    )


def _time_and_memory(comparison: Comparison) -> Iterator[Number]:
    yield _ratio_number(comparison, THROUGHPUT, "throughput", 1 / HALF, above)
    metric = comparison.memory_metric
    if comparison.ratio(metric).value is not None:
        what = "memory of the steps" if metric == HOST_MEMORY else "peak memory"
        number = _ratio_number(comparison, metric, what, HALF, below)
        yield _explained(number) if comparison.other.mode == "infer" else number


def _explained(memory: Number) -> Number:
    """Why inference keeps its peak, where it is said not to."""
    if memory.stand == "for":
        return memory
    why = "in inference the peak is that of a block before TokenLearner"
    return replace(memory, note=f"{memory.note}; {why}")


def _ratio_number(
    comparison: Comparison,
    metric: str,
    title: str,
    bound: float,
    side: _Side,
) -> Number:
    ratio = comparison.ratio(metric)
    stand: Stand = side(ratio.interval, bound)
    base, other = comparison.base, comparison.other
    note = f"{_value(ratio)} ({describe_evidence(ratio)})"
    limit = f"{format_number(bound)} at the {'most' if side is below else 'least'}"
    note += f", and the statement needs {limit}"
    if stand == "open":
        note += _more_trials(base.values(metric), other.values(metric), bound)
    return Number(
        f"{title} of {other.model} over {base.model}, {describe_case(other)}",
        own=ratio.value,
        interval=ratio.interval,
        stand=stand,
        note=note,
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
    return f"; about {more} more trials of both would settle it"


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
