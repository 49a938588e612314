"""The step as a benchmark of pyperf, which starts worker processes that run this file.

Takes pyperf's own options.
"""

from collections.abc import Callable
from functools import cache

import pyperf  # type: ignore[import-not-found]  # installed with the peers only


@cache
def prepare() -> Callable[[], object]:
    from beside.bare import make_step  # torch: only the workers need it

    return make_step()


def time_steps(count: int) -> float:
    step = prepare()
    start = pyperf.perf_counter()
    for _ in range(count):
        step()
    return float(pyperf.perf_counter() - start)


if __name__ == "__main__":
    pyperf.Runner().bench_time_func("step", time_steps)
