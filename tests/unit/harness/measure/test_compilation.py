"""What torch.compile did, as Dynamo counts it."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from tlbench.measure.compilation import NOT_COMPILED, measure_compilation
from tlbench.result import Metric

NAMES = "compile_time_s", "graph_breaks"


class Broken(nn.Module):
    """Two layers, and in between as many graph breaks as are asked for."""

    def __init__(self, breaks: int) -> None:
        super().__init__()
        self.breaks = breaks
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x).sin()
        if self.breaks:
            torch._dynamo.graph_break()
        return x.cos()


def _measure(breaks: int) -> tuple[list[Metric], list[Metric]]:
    """Before and after a model is compiled and run, in a process of its own."""
    before = measure_compilation()
    model = Broken(breaks)
    model.compile(backend="eager")  # Dynamo's part; no C++ compiler
    for _ in range(2):
        model(torch.ones(2, 4)).sum().backward()
    return before, measure_compilation()


@pytest.mark.slow
@pytest.mark.parametrize("breaks", [0, 1])
def test_compilation_is_timed_and_its_graph_breaks_are_counted(breaks: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as process:
        before, after = process.submit(_measure, breaks).result(120)
    assert before == [Metric(name, None, NOT_COMPILED) for name in NAMES]
    assert [metric.name for metric in after] == list(NAMES)
    compile_time, graph_breaks = (metric.value for metric in after)
    assert compile_time is not None
    assert compile_time > 0
    assert graph_breaks == breaks
