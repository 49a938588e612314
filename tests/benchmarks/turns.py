"""Several sides measured against each other on cores that drift within seconds."""

import random
from collections.abc import Callable, Mapping

WARMUP_ROUNDS = 5


def take_turns(
    sides: Mapping[str, Callable[[], float]], rounds: int, batch_size: int
) -> dict[str, dict[int, float]]:
    """Samples per second of every side in every round, the order shuffled in each.

    Args:
        sides: What runs one step of a side and gives its seconds.
        rounds: How many are kept; a few are run before.
        batch_size: Samples in a step.
    """
    rates: dict[str, dict[int, float]] = {name: {} for name in sides}
    order = random.Random(0)
    for number in range(-WARMUP_ROUNDS, rounds):
        for name in order.sample(list(sides), len(sides)):
            step_time_s = sides[name]()
            if number >= 0:
                rates[name][number] = batch_size / step_time_s
    return rates
