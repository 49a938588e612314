"""Claims about TokenLearner itself, tried by its formulas in NumPy."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from tlbench.models.reference import (
    Array,
    Weights,
    maps_v1,
    maps_v11,
    token_learner_v1,
)
from tlbench.reports.claims.counted import ROUNDING, TOKENS
from tlbench.reports.claims.records import Number, Part, Stand, conclude
from tlbench.suites.published import Claim

WIDTH, GRID = 8, (4, 4)
"""Of the input on which the formulas of TokenLearner are tried."""
STEP = 1e-6
"""By which share weights are moved to see whether the tokens follow."""


@cache
def maps_and_pooling(_: Claim) -> Part:
    """The formulas of v1: shapes, maps of their own, every weight at work."""
    x, weights = _inputs(), _v1_weights()
    numbers = [
        _is_so(
            "tokens, all at once",
            TOKENS,
            token_learner_v1(x, weights, GRID).shape[1],
        ),
        _is_so("maps that differ from all others", TOKENS, _distinct(x, weights)),
        _is_so(
            "tokens that follow the last filter of the first map",
            1,
            _following_one_filter(x, weights),
        ),
        _is_so(
            "tensors of weights that move the tokens",
            len(weights),
            sum(_moves(x, weights, name) for name in weights),
        ),
    ]
    agreed = (
        "by the formulas of v1 in NumPy, which tlbench models --certify holds the"
        " built modules against; of the four convolutions, only the last has filters"
        " for each map alone"
    )
    return conclude("exact", numbers, agreed=agreed)


@cache
def soft_selection(_: Claim) -> Part:
    """Whether the weights of v1.1 sum to 1, and what those of v1 sum to."""
    x = _inputs()
    sums = maps_v11(x, _v11_weights()).sum(axis=-1)
    of_v1 = maps_v1(x, _v1_weights(), GRID)
    off = float(np.abs(sums - 1).max())
    within = bool(((of_v1 > 0) & (of_v1 < 1)).all())
    numbers = [
        Number(
            "sum of a map of v1.1 over the positions",
            own=float(sums.mean()),
            stand="for" if off <= ROUNDING else "against",
            note=f"by the formula; none is further than {off:.0e} from 1",
        ),
        Number(
            "largest weight of v1, which opens or closes a position",
            own=float(of_v1.max()),
            stand="for" if within else "against",
            note="by the formula; all lie between 0 and 1",
        ),
        Number(
            "sum of a map of v1 over its 16 positions, on average",
            own=float(of_v1.sum(axis=-1).mean()),
            note="by the formula",
        ),
    ]
    agreed = (
        "by the formulas in NumPy: a token is the sum of all positions, each times a"
        " weight of that token between 0 and 1"
    )
    return conclude("exact", numbers, agreed=agreed)


def _is_so(what: str, expected: int, own: int) -> Number:
    stand: Stand = "for" if own == expected else "against"
    note = f"of {expected} by the formula"
    return Number(what, own=int(own), stand=stand, note=note)


def _inputs() -> Array:
    """One sample: [1, N, D]."""
    random = np.random.default_rng(0)
    return random.standard_normal((1, math.prod(GRID), WIDTH))


def _v1_weights() -> dict[str, Array]:
    shapes = {f"convolutions.{i}.weight": (TOKENS, TOKENS, 3, 3) for i in (2, 4, 6)}
    shapes["convolutions.0.weight"] = (TOKENS, WIDTH, 3, 3)
    return _drawn(shapes | {"norm.weight": (WIDTH,), "norm.bias": (WIDTH,)})


def _v11_weights() -> dict[str, Array]:
    hidden = 2 * WIDTH
    shapes: dict[str, tuple[int, ...]] = {
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
        "hidden.weight": (hidden, WIDTH),
        "hidden.bias": (hidden,),
        "output.weight": (TOKENS, hidden),
        "output.bias": (TOKENS,),
    }
    return _drawn({f"token_masking.{name}": size for name, size in shapes.items()})


def _drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    random = np.random.default_rng(1)
    return {
        name: random.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))
        for name, shape in shapes.items()
    }


def _distinct(x: Array, weights: Weights) -> int:
    """How many maps no other map is equal to."""
    maps: Sequence[Array] = maps_v1(x, weights, GRID)[0]
    return sum(
        not any(np.allclose(a, b) for j, b in enumerate(maps) if j != i)
        for i, a in enumerate(maps)
    )


def _following_one_filter(x: Array, weights: Weights) -> int:
    """How many tokens change where the last filter of the first map does."""
    name = "convolutions.6.weight"
    filters = weights[name].copy()
    filters[0] *= 2
    changed = token_learner_v1(x, {**weights, name: filters}, GRID)
    differs = ~np.isclose(changed, token_learner_v1(x, weights, GRID)).all(axis=-1)
    return int(differs.sum())


def _moves(x: Array, weights: Weights, name: str) -> bool:
    """Whether the tokens follow the weights of a tensor, as a gradient would."""
    moved = {**weights, name: weights[name] * (1 + STEP)}
    before, after = (token_learner_v1(x, w, GRID) for w in (weights, moved))
    return bool(np.abs(after - before).max() > ROUNDING)
