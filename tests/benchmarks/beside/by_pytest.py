"""The step as a benchmark of pytest-benchmark."""

from beside.bare import make_step
from pytest_benchmark.fixture import (  # type: ignore[import-not-found]  # a peer's
    BenchmarkFixture,
)


def test_step(benchmark: BenchmarkFixture) -> None:
    benchmark(make_step())
