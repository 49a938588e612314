"""Stages of a forward pass: each gets its own, and together they are the whole."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tlbench.measure import stages
from tlbench.measure.memory import CANNOT_RESET
from tlbench.measure.stages import (
    FUSED,
    MAX_STEPS,
    NOTHING_AFTER,
    HostPeaks,
    HostTimes,
    measure_stages,
    stage_macs,
    stage_peaks,
    stage_times,
    unmeasured_stages,
)
from tlbench.models import cost
from tlbench.models.layers import Stage, layers
from tlbench.models.vit import build_model
from tlbench.result import Metric
from tlbench.suites.model_spec import ModelSpec, TokenLearnerSpec, VideoSpec

CPU = torch.device("cpu")
MB = 10**6
TINY = ModelSpec(
    patch_size=4, image_size=16, embed_dim=16, depth=3, num_heads=2, mlp_dim=32
)
LEARNER = TokenLearnerSpec(num_tokens=4, place=1)
ENCODER = TINY.model_copy(
    update={"video": VideoSpec(num_frames=4, factorisation="encoder", temporal_depth=2)}
)
SPECS = {
    "plain": (TINY, "embedding before head"),
    "map head": (
        TINY.model_copy(update={"global_pool": "map"}),
        "embedding before head",
    ),
    "TokenLearner": (
        TINY.model_copy(update={"token_learner": LEARNER}),
        "embedding before tokenizer after head",
    ),
    "first of all": (
        TINY.model_copy(
            update={"token_learner": LEARNER.model_copy(update={"place": 0})}
        ),
        "embedding tokenizer after head",
    ),
    "fused": (
        TINY.model_copy(
            update={"token_learner": LEARNER.model_copy(update={"fuse": True})}
        ),
        "embedding before tokenizer after head",
    ),
    "factorised encoder": (ENCODER, "embedding before temporal head"),
    "factorised encoder with TokenLearner": (
        ENCODER.model_copy(update={"token_learner": LEARNER}),
        "embedding before tokenizer after temporal head",
    ),
}


class FakeClock:
    """Moves on by what the work says it takes."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Work(nn.Module):
    """Takes a fixed time, or memory while it works."""

    def __init__(self, clock: FakeClock, duration_s: float = 0, size: int = 0) -> None:
        super().__init__()
        self.clock, self.duration_s, self.size = clock, duration_s, size

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += self.duration_s
        torch.ones(self.size // 4)
        return x


STAGE_OF: dict[str, Stage] = {
    "0": "embedding",
    "1": "before",
    "2": "tokenizer",
    "3": "after",
    "4": "tokenizer",
    "5": "after",
    "6": "head",
}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def network(clock: FakeClock) -> nn.Module:
    return nn.Sequential(*(Work(clock, 2.0**power) for power in range(7)))


@pytest.fixture(params=SPECS)
def spec(request: pytest.FixtureRequest) -> tuple[ModelSpec, list[str]]:
    """A tiny model of each kind, and the stages that it has."""
    model, names = SPECS[request.param]
    return model, names.split()


def step_of(model: nn.Module, spec: ModelSpec) -> Callable[[], object]:
    samples = torch.randn(2, *spec.sample_shape)
    return lambda: model(samples)


def test_each_stage_has_the_time_of_its_modules(
    network: nn.Module, clock: FakeClock
) -> None:
    times = stage_times(
        network, lambda: network(torch.zeros(1)), STAGE_OF, HostTimes(clock), 10.0
    )
    assert times == {
        "embedding": 1.0,
        "before": 2.0,
        "tokenizer": 4.0 + 16.0,
        "after": 8.0 + 32.0,
        "head": 64.0,
    }
    assert list(times) == ["embedding", "before", "tokenizer", "after", "head"]


def test_what_lies_between_the_modules_counts_to_the_one_before(
    network: nn.Module, clock: FakeClock
) -> None:
    """Position embeddings, poolings and sums are in no module of their own."""
    few: dict[str, Stage] = {"0": "embedding", "3": "before", "6": "head"}
    times = stage_times(
        network, lambda: network(torch.zeros(1)), few, HostTimes(clock), 10.0
    )
    assert times == {"embedding": 7.0, "before": 56.0, "head": 64.0}
    assert sum(times.values()) == 2.0**7 - 1  # the whole step


def test_the_time_of_a_stage_is_its_median_step(clock: FakeClock) -> None:
    varying = Work(clock)
    network = nn.Sequential(varying, Work(clock, 1.0))
    durations = iter([9.0, 1.0, 2.0, 3.0, 50.0])

    def step() -> None:
        varying.duration_s = next(durations)
        network(torch.zeros(1))

    of: dict[str, Stage] = {"0": "embedding", "1": "head"}
    times = stage_times(network, step, of, HostTimes(clock), math.inf)
    assert times == {"embedding": 3.0, "head": 1.0}
    assert next(durations, None) is None
    assert MAX_STEPS == 5


def test_one_step_is_run_where_there_is_no_time_left(
    network: nn.Module, clock: FakeClock
) -> None:
    calls = []

    def step() -> None:
        calls.append(1)
        network(torch.zeros(1))

    stage_times(network, step, STAGE_OF, HostTimes(clock), max_time_s=0)
    assert len(calls) == 1


def test_memory_of_a_stage_is_the_largest_of_its_modules(clock: FakeClock) -> None:
    """And nothing of what another one had and freed before."""
    network = nn.Sequential(
        Work(clock, size=200 * MB), Work(clock, size=60 * MB), Work(clock)
    )
    of: dict[str, Stage] = {"0": "before", "1": "after", "2": "head"}
    peaks = stage_peaks(network, lambda: network(torch.zeros(1)), of, HostPeaks())
    assert peaks["before"] == pytest.approx(200 * MB, abs=10 * MB)
    assert peaks["after"] == pytest.approx(60 * MB, abs=10 * MB)
    assert peaks["head"] < 10 * MB


def test_no_hook_stays_on_the_model(network: nn.Module, clock: FakeClock) -> None:
    stage_times(network, lambda: network(torch.zeros(1)), STAGE_OF, HostTimes(clock), 0)
    assert all(not module._forward_pre_hooks for module in network.modules())


def test_every_stage_of_a_model_is_measured(
    spec: tuple[ModelSpec, list[str]],
) -> None:
    model_spec, names = spec
    model = build_model(model_spec, 7)
    walk = list(layers(model_spec, 7))
    metrics = measure_stages(model, step_of(model, model_spec), walk, CPU, 1.0)
    assert [m.name for m in metrics] == [
        *(f"stage_{name}_time_s" for name in names),
        "removal_ceiling_ratio",
        *(f"stage_{name}_memory_bytes" for name in names),
    ]
    assert all(m.value is not None for m in metrics if m.name.startswith("stage"))


def test_operations_of_the_stages_are_those_of_the_model(
    spec: tuple[ModelSpec, list[str]],
) -> None:
    model_spec, names = spec
    macs = stage_macs(list(layers(model_spec, 7)))
    assert list(macs) == names
    assert sum(macs.values()) == cost.macs(model_spec, 7)


def test_the_ceiling_is_the_speedup_without_the_blocks_after() -> None:
    times: dict[Stage, float] = {"embedding": 1.0, "before": 2.0, "after": 6.0}
    assert stages._removal_ceiling(times) == Metric("removal_ceiling_ratio", 3.0)


def test_blocks_over_time_are_no_part_of_the_ceiling() -> None:
    times: dict[Stage, float] = {"before": 2.0, "after": 1.0, "temporal": 1.0}
    assert stages._removal_ceiling(times) == Metric("removal_ceiling_ratio", 4 / 3)


@pytest.mark.parametrize("plain", [TINY, ENCODER], ids=["image", "factorised encoder"])
def test_a_model_that_reduces_nothing_has_no_ceiling(plain: ModelSpec) -> None:
    model = build_model(plain, 7)
    walk = list(layers(plain, 7))
    metrics = measure_stages(model, step_of(model, plain), walk, CPU, 0.0)
    assert Metric("removal_ceiling_ratio", None, NOTHING_AFTER) in metrics


def test_a_kernel_that_keeps_its_peak_leaves_the_memory_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stages, "reset_host_peak", lambda: False)
    model = build_model(TINY, 7)
    walk = list(layers(TINY, 7))
    metrics = measure_stages(model, step_of(model, TINY), walk, CPU, 0.0)
    assert [m for m in metrics if m.name.endswith("_bytes")] == [
        Metric(f"stage_{stage}_memory_bytes", None, CANNOT_RESET)
        for stage in ("embedding", "before", "head")
    ]


def test_unmeasured_stages_have_the_reason() -> None:
    metrics = unmeasured_stages(list(layers(TINY, 7)), FUSED)
    model = build_model(TINY, 7)
    walk = list(layers(TINY, 7))
    measured = measure_stages(model, step_of(model, TINY), walk, CPU, 0.0)
    assert {m.name for m in metrics} == {m.name for m in measured}
    assert {(m.value, m.reason) for m in metrics} == {(None, FUSED)}
