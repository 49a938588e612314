"""Claims that are decided by counting: tokens, operations, parameters, places."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from itertools import pairwise

import numpy as np

from tlbench.models import cost
from tlbench.models.layers import layers, tokens
from tlbench.models.publication import TOLERANCE, PublishedCost, published_costs
from tlbench.reports.claims.records import Number, Part, Stand, conclude
from tlbench.suites.model_spec import ModelSpec, TokenLearnerSpec
from tlbench.suites.names import model_name, parse_model
from tlbench.suites.published import (
    PLACEMENT,
    Claim,
    ClaimedMetric,
    ClaimedNumber,
    default_num_classes,
    half_a_digit,
    published_for,
    published_in,
)

DIGITS_OF_RATIO = 0.005
"""Half of the second decimal: a ratio printed as 0.30 loses its zero as a float."""
HALF = 0.5 + half_a_digit(0.5)
"""The most that is still called half: a word stands for one digit."""
THIRD = 1 / 3

SIZES = (224, 384, 512)
"""Image sizes at which the cost of the blocks of ViT-B/16 is followed."""
PLACES_OF = ("ViT-B/16", "ViViT-B/16x2")
"""The models in which TokenLearner is put before every block."""
TOKENS = 8
ROUNDING = 1e-12
"""Shares of a number by which two ways to it may differ."""


# ---------------------------------------------------------------- claimed numbers


def count(claim: Claim) -> Part:
    """The claim's own numbers, as far as they can be counted."""
    return conclude("exact", counted_numbers(claim), agreed=AGREED)


AGREED = "counted here, and equal to the digits given or within 0.5 %"


@cache
def counted_numbers(claim: Claim) -> tuple[Number, ...]:
    """Every number of the claim that follows from its models alone."""
    return tuple(
        _counted(number) for number in claim.numbers if number.metric in COUNTERS
    )


def _counted(number: ClaimedNumber) -> Number:
    own = COUNTERS[number.metric](number)
    stand: Stand = "for" if abs(own - number.value) <= _error(number) else "against"
    value = int(number.value) if isinstance(own, int) else number.value
    return Number(describe(number), value, own, stand=stand, note="counted")


def describe(number: ClaimedNumber) -> str:
    """A claimed number in words."""
    over = f" over {number.baseline}" if number.baseline else ""
    on = f" on {number.dataset}" if number.dataset else ""
    of = f" of {number.model}" if number.model else ""
    return f"{WORDS[number.metric]}{of}{over}{on}"


WORDS: dict[ClaimedMetric, str] = {
    "tokens": "tokens of the first block",
    "tokens_after": "tokens of the last block",
    "gflops": "published GFLOPS",
    "gflops_ratio": "GFLOPS",
    "params_ratio": "parameters",
    "block_macs_ratio": "MACs of the first block over those of the last",
    "later_blocks_share": "share of the blocks behind TokenLearner",
    "five_shot_points": "5-shot points",
    "top1_points": "top-1 points",
    "real_points": "ReaL points",
    "top1_percent": "top-1 %",
    "map_percent": "mAP %",
    "mean_accuracy_percent": "mean accuracy %",
}


def _error(number: ClaimedNumber) -> float:
    """How far our count may lie from the claimed number."""
    if number.metric in ("tokens", "tokens_after"):
        return 0.0
    digits = half_a_digit(number.value)
    if number.metric.endswith("_ratio"):
        digits = min(digits, DIGITS_OF_RATIO)
    return max(digits, TOLERANCE * number.value)


def _model(number: ClaimedNumber) -> ModelSpec:
    assert number.model is not None, f"{number.metric} of no model"
    return parse_model(number.model)


def _baseline(number: ClaimedNumber) -> ModelSpec:
    assert number.baseline is not None, f"{number.metric} over no model"
    return parse_model(number.baseline)


def _gflops(spec: ModelSpec) -> float:
    return cost.published_flops(spec, default_num_classes(spec)) / 1e9


def _published_params(spec: ModelSpec) -> int:
    """Counted at the image size and with the classifier of the published number."""
    counted_on = (
        row.params_counted_on()
        for row in published_for(model_name(spec))
        if row.params_millions is not None
    )
    return cost.params(*next(counted_on, (spec, default_num_classes(spec))))


def _first_over_last(number: ClaimedNumber) -> float:
    blocks = [layer for layer in layers(_model(number), 1) if layer.is_block]
    return blocks[0].macs / blocks[-1].macs


def _later_share(number: ClaimedNumber) -> float:
    spec = _model(number)
    later = sum(
        layer.macs + layer.elementwise / 2
        for layer in layers(spec, 1)
        if layer.is_block and layer.stage == "after"
    )
    return later / 1e9 / _gflops(spec)


COUNTERS: dict[ClaimedMetric, Callable[[ClaimedNumber], float]] = {
    "tokens": lambda number: tokens(_model(number))[0],
    "tokens_after": lambda number: tokens(_model(number))[-1],
    "gflops": lambda number: _gflops(_model(number)),
    "gflops_ratio": lambda n: _gflops(_model(n)) / _gflops(_baseline(n)),
    "params_ratio": lambda n: (
        _published_params(_model(n)) / _published_params(_baseline(n))
    ),
    "block_macs_ratio": _first_over_last,
    "later_blocks_share": _later_share,
}
"""What can be counted of a claimed number."""


# ---------------------------------------------------------------- more than numbers


def under_a_third(claim: Claim) -> Part:
    """The ratios as printed, and all of them below a third."""
    return _ratios_within(claim, THIRD, f"{AGREED}; both are under a third")


def about_half(claim: Claim) -> Part:
    agreed = (
        f"{AGREED}. A word has one digit: up to {HALF:.2f} is taken for half; to the"
        " letter, a little less than half is saved"
    )
    return _ratios_within(claim, HALF, agreed)


def _ratios_within(claim: Claim, most: float, agreed: str) -> Part:
    numbers = counted_numbers(claim)
    beyond = [n for n in numbers if n.own is not None and n.own > most]
    if beyond:
        note = f"the statement allows {most:.3f} at the most"
        worst = Number(beyond[0].what, most, beyond[0].own, stand="against", note=note)
        numbers = (*numbers, worst)
    return conclude("exact", numbers, agreed=agreed)


def fewer_params(claim: Claim) -> Part:
    """The ratios as published, and those with equal classifiers beside them."""
    shown = tuple(
        Number(
            f"{describe(number)}, both with 1,000 classes",
            own=cost.params(_model(number), 1000)
            / cost.params(_baseline(number), 1000),
            note="counted",
        )
        for number in claim.numbers
        if number.metric == "params_ratio"
    )
    return conclude("exact", counted_numbers(claim) + shown, agreed=AGREED)


def square_of_tokens(_: Claim) -> Part:
    """Whether the blocks cost a N + b N^2, and how large the square is."""
    specs = [parse_model(f"ViT-B/16@{size}") for size in SIZES]
    lengths = [spec.num_patches for spec in specs]
    macs = [_block_macs(spec) for spec in specs]
    slopes = np.diff([m / n for m, n in zip(macs, lengths, strict=True)])
    quadratic = slopes / np.diff(lengths)  # (a + b N) grows by b with each token
    holds = bool(quadratic[0] > 0 and math.isclose(*quadratic, rel_tol=ROUNDING))
    shares = [
        float(quadratic[0]) * n * n / m for n, m in zip(lengths, macs, strict=True)
    ]
    power = math.log(macs[-1] / macs[0]) / math.log(lengths[-1] / lengths[0])
    stand: Stand = "for" if holds else "against"
    shown = [
        Number(
            f"share of the square at {n:,} tokens in the blocks of ViT-B/16",
            own=share,
            note="counted",
        )
        for n, share in zip(lengths, shares, strict=True)
    ]
    numbers = [
        Number(
            "power of the tokens in attention between them",
            2,
            2 if holds else None,
            stand=stand,
            note="counted",
        ),
        *shown,
        Number(
            f"power of the tokens in all blocks of ViT-B/16, {lengths[0]:,} to"
            f" {lengths[-1]:,} tokens",
            own=power,
            note="counted",
        ),
    ]
    agreed = (
        "N tokens cost aN + bN\N{SUPERSCRIPT TWO}, exactly; the square is"
        f" {100 * shares[0]:.0f} % of the blocks at {lengths[0]:,} tokens and"
        f" {100 * shares[-1]:.0f} % at {lengths[-1]:,}, where the whole still grows"
        f" with the power {power:.2f}"
    )
    return conclude("exact", numbers, agreed=agreed)


def _block_macs(spec: ModelSpec) -> int:
    return sum(layer.macs for layer in layers(spec, 1) if layer.is_block)


def at_any_place(_: Claim) -> Part:
    """Tokens of every block, for every place in an image and a video model."""
    numbers = [_places(name) for name in PLACES_OF]
    agreed = (
        "before each block of both in turn, every token reaches the blocks before it"
        f" and {TOKENS} of each time step those behind it: in closed form, which the"
        " tests of tlbench hold against models that are built and run"
    )
    return conclude("exact", numbers, agreed=agreed)


def _places(name: str) -> Number:
    plain = parse_model(name)
    fitting = sum(_fits_at(plain, place) for place in range(plain.depth))
    return Number(
        f"blocks of {name} that TokenLearner fits before",
        own=fitting,
        stand="for" if fitting == plain.depth else "against",
        note=f"of {plain.depth}, counted",
    )


def _fits_at(plain: ModelSpec, place: int) -> bool:
    learner = TokenLearnerSpec(num_tokens=TOKENS, place=place, version="v1")
    spec = plain.model_copy(update={"token_learner": learner})
    behind = TOKENS * plain.time_steps
    expected = [plain.num_patches] * place + [behind] * (plain.depth - place)
    return tokens(spec) == expected


def compute_by_place(_: Claim) -> Part:
    """The GFLOPS of every place in the figure, and that they rise with it."""
    models = dict.fromkeys(row.model for row in published_in(PLACEMENT))
    names = [name for name in models if name is not None]
    rows = [_in_figure(name) for name in names]
    numbers = [*map(_gflops_number, rows), _rising(map(parse_model, names))]
    misread = [row for row in rows if row.verdict == "misprint"]
    agreed = "counted here, and as the figure shows them: the earlier, the fewer"
    if misread:
        agreed += f"; but for {misread[0].label}: {misread[0].misprint}"
    return conclude("exact", numbers, agreed=agreed)


def _in_figure(name: str) -> PublishedCost:
    costs = published_costs(parse_model(name))
    return next(row for row in costs if row.source == PLACEMENT.name)


def _gflops_number(row: PublishedCost) -> Number:
    return Number(
        f"published GFLOPS, {row.label}",
        row.published_gflops,
        row.gflops,
        stand="against" if row.verdict == "differs" else "for",
        note="counted; the published one is misread" if row.misprint else "counted",
    )


def _rising(specs: Iterable[ModelSpec]) -> Number:
    """How many places need more than the one before, with as many tokens."""
    by_tokens: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for spec in specs:
        learner = spec.token_learner
        if learner is not None:
            by_tokens[learner.num_tokens].append((learner.place, _gflops(spec)))
    pairs = [pair for costs in by_tokens.values() for pair in pairwise(sorted(costs))]
    rising = sum(later[1] > earlier[1] for earlier, later in pairs)
    return Number(
        "places with more GFLOPS than the place before",
        own=rising,
        stand="for" if rising == len(pairs) else "against",
        note=f"of {len(pairs)}, counted",
    )


def code_is_public(_: Claim) -> Part:
    return Part(
        "exact",
        "quoted only",
        "not looked up here, as no report goes online; tlbench names the files of"
        " scenic whose formulas it follows",
    )
