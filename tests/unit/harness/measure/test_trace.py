"""The profiler's trace: what is in it, and that it is never too large."""

import gzip
import json
from typing import Any

import pytest
import torch

from tlbench.measure import trace
from tlbench.measure.trace import (
    TRACED_STEPS,
    WARMUP_STEPS,
    run_traced_steps,
    trace_steps,
    why_not_kept,
)
from tlbench.result import Artifact

SIDE = 64


def multiply(device: str) -> Any:
    matrix = torch.ones(SIDE, SIDE, device=device)
    return lambda: matrix @ matrix


def events(artifact: Artifact) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(gzip.decompress(artifact.content))[
        "traceEvents"
    ]
    return found


def test_a_trace_holds_every_operator_of_the_steps_and_none_of_the_warm_up() -> None:
    artifact = trace_steps(multiply("cpu"), torch.device("cpu"))
    assert (artifact.name, artifact.media_type) == ("trace.json.gz", "application/gzip")
    names = [event.get("name") for event in events(artifact)]
    assert names.count("aten::mm") == TRACED_STEPS


def test_a_rank_that_keeps_no_trace_takes_as_many_steps() -> None:
    taken = {"traced": 0, "plain": 0}

    def count(which: str) -> None:
        taken[which] += 1

    trace_steps(lambda: count("traced"), torch.device("cpu"))
    run_traced_steps(lambda: count("plain"))
    assert taken["traced"] == taken["plain"] == WARMUP_STEPS + TRACED_STEPS


def test_a_trace_that_is_too_large_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MAX_TRACE_BYTES", 2**20)
    artifact = Artifact("trace.json.gz", "application/gzip", bytes(3 * 2**20))
    assert why_not_kept(artifact) == (
        "not kept: 3 steps have 3 MiB of events, compressed, and 1 MiB is the limit"
    )
    small = Artifact("trace.json.gz", "application/gzip", bytes(2**20))
    assert why_not_kept(small) is None


@pytest.mark.gpu
def test_a_trace_of_a_gpu_holds_its_kernels() -> None:
    if not torch.cuda.is_available():
        pytest.skip("this machine has no NVIDIA GPU")
    found = events(trace_steps(multiply("cuda"), torch.device("cuda")))
    kernels = [event for event in found if event.get("cat") == "kernel"]
    assert len(kernels) >= TRACED_STEPS
