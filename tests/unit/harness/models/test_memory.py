"""Predicted memory against torch's trackers, and by its rules."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any
from weakref import finalize

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tlbench.errors import UnknownCostError
from tlbench.models import cost
from tlbench.models.memory import (
    BUCKET_ELEMENTS,
    ZERO_STAGES,
    MemoryForecast,
    forecast_memory,
    memory_settings,
    predicted_growth_bytes,
    predicted_memory_bytes,
    sample_activation_bytes,
)
from tlbench.models.vit import attention_kernel, build_model
from tlbench.suites.model_spec import BuilderSpec, ModelSpec
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Attention, Case, Mode, Parallelism
from tlbench.suites.training import Optimizer

TINY = ModelSpec(
    patch_size=4, image_size=32, embed_dim=32, depth=3, num_heads=2, mlp_dim=80
)
IMAGES, CLIPS = "ViT-d96h4m384l3/8@96", "ViViT-d96h4m384l3/8x2@48x8"
KINDS = [
    *(IMAGES + part for part in ("", ":token", ":map", "+pool2@1")),
    *(IMAGES + part for part in ("+TL8@1", "+TL8v1@1", "+TL8v1fuse@1")),
    *(
        CLIPS + part
        for part in ("", ":encoder2", ":attention", ":dotproduct", "+TL8@1")
    ),
]


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> ModelSpec:
    """A small model of each kind."""
    return parse_model(request.param)


# Against torch.


class PeakBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Follows how much memory the results of operations hold at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.now = 0
        self.peak = 0
        self._owners: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor)
        return result

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        self._owners[place] += 1
        if self._owners[place] == 1:
            self.now += size
            self.peak = max(self.peak, self.now)
        finalize(tensor, self._let_go, place, size)

    def _let_go(self, place: int, size: int) -> None:
        self._owners[place] -= 1
        if not self._owners[place]:
            self.now -= size


def growth_of_a_step(case: Case) -> int:
    """Bytes that the results of one step hold at the peak, over those before it."""
    memory = PeakBytes()
    with memory, attention_kernel(case.attention):
        network = build_model(
            case.model,
            case.num_classes,
            attention=case.attention,
            gradient_checkpointing=case.gradient_checkpointing,
        )
        samples = torch.randn(case.micro_batch_size, *case.model.sample_shape)
        before = memory.peak = memory.now
        if case.mode == "infer":
            with torch.no_grad():
                network(samples)
        else:
            for _ in range(case.accumulation):
                network(samples).sum().backward()
    return memory.peak - before


@pytest.mark.parametrize("attention", ["auto", "eager"])
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_predicted_growth_is_what_the_results_of_a_step_hold(
    model: ModelSpec, mode: Mode, attention: Attention
) -> None:
    case = Case(model=model, mode=mode, batch_size=4, attention=attention)
    growth = growth_of_a_step(case)
    assert predicted_growth_bytes(case) == pytest.approx(growth, rel=0.1)


def test_predicted_growth_holds_with_gradient_checkpointing(model: ModelSpec) -> None:
    case = Case(
        model=model.model_copy(update={"depth": 8}),
        mode="train",
        batch_size=8,
        gradient_checkpointing=True,
    )
    growth = growth_of_a_step(case)
    assert predicted_growth_bytes(case) == pytest.approx(growth, rel=0.1)


def test_predicted_growth_holds_with_accumulated_gradients() -> None:
    optimizer = Optimizer(gradient_accumulation_steps=2)
    case = Case(
        model=parse_model(IMAGES), mode="train", batch_size=4, optimizer=optimizer
    )
    growth = growth_of_a_step(case)
    assert predicted_growth_bytes(case) == pytest.approx(growth, rel=0.1)


def tracked_peak_bytes(case: Case) -> int:
    """The peak of the second training step, by torch's tracker under fake tensors."""
    with torch.device("meta"):
        network = build_model(case.model, case.num_classes)
    with FakeTensorMode(allow_non_fake_inputs=True):
        network.to_empty(device="cpu")
        optimizer = torch.optim.AdamW(network.parameters())
        samples = torch.randn(case.global_batch_size, *case.model.sample_shape)
        tracker = MemTracker()
        tracker.track_external(network, optimizer, samples)
        with tracker:
            train_step(network, optimizer, samples)  # makes AdamW's moments
            tracker.reset_mod_stats()
            train_step(network, optimizer, samples)
        snapshot = tracker.get_tracker_snapshot("peak")
    return sum(parts["Total"] for parts in snapshot.values())


def train_step(network: nn.Module, optimizer: Any, samples: Tensor) -> None:
    network(samples).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("name", ["ViT-S/16[4]", "ViT-B/16[3]", "ViT-B/16[4]+TL8@2"])
def test_prediction_agrees_with_torchs_tracker_under_fake_tensors(name: str) -> None:
    case = Case(model=parse_model(name), mode="train", batch_size=8)
    growth, held = predicted_growth_bytes(case), forecast_memory(case)
    assert growth is not None
    samples = 4 * 8 * 3 * 224**2
    predicted = growth + held.weights_bytes + held.optimizer_bytes + samples
    assert predicted == pytest.approx(tracked_peak_bytes(case), rel=0.05)


# By its rules.


def train(**settings: Any) -> Case:
    return Case.model_validate({"model": TINY, "mode": "train"} | settings)


@pytest.mark.parametrize(
    ("precision", "zero_stage", "weights", "gradients", "optimizer"),
    [  # bytes of each parameter, whole: two moments and a master copy are 12
        ("fp32", 0, 4, 4, 8),
        ("fp32", 1, 4, 4, 12 / 4),
        ("fp32", 2, 4, 4 / 4, 12 / 4),
        ("fp32", 3, 4 / 4, 4 / 4, 12 / 4),
        ("bf16", 0, 2, 2, 12),
        ("bf16", 1, 2, 2, 12 / 4),
        ("bf16", 2, 2, 2 / 4, 12 / 4),
        ("bf16", 3, 2 / 4, 2 / 4, 12 / 4),
    ],
)
def test_zero_shards_the_training_states_over_four_ranks(
    precision: str, zero_stage: int, weights: float, gradients: float, optimizer: float
) -> None:
    parallelism = {"world_size": 4, "zero_stage": zero_stage}
    case = train(batch_size=4, precision=precision, parallelism=parallelism)
    memory, params = forecast_memory(case), cost.params(TINY, 1000)
    width = 4 if precision == "fp32" else 2
    head = 2 * 32 + 32 * 1000 + 1000  # the largest layer, with its norm
    gathered = head * width if zero_stage == 3 else 0
    assert memory.weights_bytes == pytest.approx(weights * params + gathered, abs=1)
    assert memory.gradients_bytes == pytest.approx(gradients * params, abs=1)
    assert memory.optimizer_bytes == pytest.approx(optimizer * params, abs=1)
    assert memory.host_bytes == 0


def test_the_total_is_the_sum_of_the_parts_on_the_device() -> None:
    memory = MemoryForecast(1, 20, 300, 4000, host_bytes=50_000)
    assert memory.total_bytes == 4321
    case = train()
    assert predicted_memory_bytes(case) == forecast_memory(case).total_bytes


@pytest.mark.parametrize(
    ("precision", "zero_stage", "parts", "on_device", "on_host"),
    [  # bytes of each parameter, whole; over two ranks
        # On the host: moments, master copy and gradients in fp32 are 16. Besides, in
        # the precision of the case, new weights (1, 2) or summed gradients (3).
        ("bf16", 1, 1, 2, 18 / 2),
        ("bf16", 2, 1, 0, 18 / 2),
        ("bf16", 3, 1, 0, 18 / 2),
        ("fp32", 1, 1, 4, 20 / 2),
        ("fp32", 2, 1, 0, 20 / 2),
        ("fp32", 3, 1, 0, 20 / 2),
        # ZeRO 2 sums accumulated gradients there too, ZeRO 1 on the device.
        ("bf16", 1, 4, 2, 18 / 2),
        ("bf16", 2, 4, 0, 20 / 2),
        ("bf16", 3, 4, 0, 18 / 2),
    ],
)
def test_offload_moves_the_states_and_gradients_of_a_rank_to_the_host(
    precision: str, zero_stage: int, parts: int, on_device: float, on_host: float
) -> None:
    parallelism = {"world_size": 2, "zero_stage": zero_stage}
    settings: dict[str, Any] = {
        "batch_size": 8,
        "precision": precision,
        "optimizer": {"gradient_accumulation_steps": parts},
    }
    kept = forecast_memory(train(parallelism=parallelism, **settings))
    offloaded = parallelism | {"offload": "optimizer"}
    moved = forecast_memory(train(parallelism=offloaded, **settings))
    params = cost.params(TINY, 1000)
    assert moved.gradients_bytes == on_device * params
    assert moved.host_bytes == pytest.approx(on_host * params, abs=2)
    assert (moved.optimizer_bytes, kept.host_bytes) == (0, 0)
    assert moved.weights_bytes == kept.weights_bytes
    assert moved.activations_bytes == kept.activations_bytes


def test_offload_of_all_moves_the_weights_too() -> None:
    parallelism = {"world_size": 2, "zero_stage": 3}
    states, everything = (
        forecast_memory(train(parallelism=parallelism | {"offload": offload}))
        for offload in ("optimizer", "all")
    )
    weights = 4 * cost.params(TINY, 1000) / 2
    assert everything.host_bytes - states.host_bytes == weights
    head = 2 * 32 + 32 * 1000 + 1000  # the largest layer, gathered while it runs
    assert everything.weights_bytes == 4 * head == states.weights_bytes - weights


def test_a_suite_is_forecast_in_each_precision_and_zero_stage() -> None:
    case = train(
        batch_size=4, parallelism={"world_size": 4, "zero_stage": 3, "offload": "all"}
    )
    settings = {(s.precision, s.zero_stage): s.memory for s in memory_settings(case)}
    assert list(settings) == [(p, z) for p in ("fp32", "bf16") for z in ZERO_STAGES]
    assert settings["fp32", 3] == forecast_memory(case)
    # Each stage offloads what it can: nothing, the states, and the weights too.
    on_host = [settings["fp32", stage].host_bytes for stage in ZERO_STAGES]
    assert on_host[0] == 0 < on_host[1] == on_host[2] < on_host[3]
    half = settings["bf16", 0].activations_bytes
    assert half == settings["fp32", 0].activations_bytes / 2


def test_one_sample_takes_its_activations_in_fp32() -> None:
    case = Case(model=TINY, mode="infer", batch_size=4)
    four = forecast_memory(case).activations_bytes
    assert 4 * sample_activation_bytes(TINY) == four


def test_inference_has_weights_and_activations_in_each_precision() -> None:
    fp32, bf16 = memory_settings(Case(model=TINY, mode="infer"))
    assert (fp32.precision, bf16.precision) == ("fp32", "bf16")
    assert fp32.zero_stage is bf16.zero_stage is None
    assert fp32.memory.weights_bytes == 4 * cost.params(TINY, 1000)
    assert fp32.memory.total_bytes == 2 * bf16.memory.total_bytes
    assert fp32.memory.gradients_bytes == fp32.memory.optimizer_bytes == 0


def test_checkpointing_keeps_the_inputs_of_the_blocks_and_computes_one_anew() -> None:
    """By hand: L blocks of N x D inputs, and what one block of them keeps."""

    def activations(depth: int) -> int:
        spec = parse_model("ViT-B/16").model_copy(update={"depth": depth})
        case = Case(model=spec, mode="train", batch_size=1, gradient_checkpointing=True)
        return forecast_memory(case).activations_bytes

    tokens = 196 * 768
    assert activations(13) - activations(12) == 4 * tokens
    # Of a block: eight times its input, the hidden layer twice, four for each token
    # and one for each head. Going back: the gradients of input and hidden layer.
    block = 8 * tokens + 2 * 196 * 3072 + 4 * 196 + 12 * 196
    going_back = tokens + 196 * 3072
    expected = 3 * 224**2 + 11 * tokens + block + going_back
    assert activations(12) == 4 * expected


def test_memory_grows_with_the_micro_batch_alone() -> None:
    def memory(batch_size: int, world_size: int) -> int:
        parallelism = Parallelism(world_size=world_size)
        return predicted_memory_bytes(
            train(batch_size=batch_size, parallelism=parallelism)
        )

    assert memory(8, 2) == memory(4, 1)
    assert memory(8, 1) - memory(4, 1) == 2 * (memory(4, 1) - memory(2, 1))


def test_samples_of_all_micro_batches_wait_on_the_device() -> None:
    accumulated = train(batch_size=8, optimizer={"gradient_accumulation_steps": 4})
    waiting = 6 * 3 * 32**2 * 4
    expected = predicted_memory_bytes(train(batch_size=2)) + waiting
    assert predicted_memory_bytes(accumulated) == expected


def test_a_small_batch_grows_by_the_gradients_and_their_bucket() -> None:
    case = train(model=parse_model("ViT-B/16"), batch_size=1)
    params = cost.params(case.model, 1000)
    assert params < BUCKET_ELEMENTS
    assert predicted_growth_bytes(case) == 2 * 4 * params


@pytest.mark.parametrize(
    "settings", [{"precision": "bf16"}, {"parallelism": {"zero_stage": 1}}]
)
def test_growth_is_not_predicted_where_deepspeed_keeps_gradients(
    settings: dict[str, Any],
) -> None:
    assert predicted_growth_bytes(train(**settings)) is None


def test_profile_needs_no_memory() -> None:
    case = Case(model=TINY, mode="profile")
    assert predicted_memory_bytes(case) == predicted_growth_bytes(case) == 0
    assert list(memory_settings(case)) == []


@pytest.mark.parametrize("predict", [predicted_memory_bytes, predicted_growth_bytes])
def test_memory_of_a_builders_model_is_not_known(
    predict: Callable[[Case], int | None],
) -> None:
    spec = TINY.model_copy(update={"builder": BuilderSpec(function="build")})
    with pytest.raises(UnknownCostError, match="build"):
        predict(Case(model=spec, mode="train"))


def test_memory_needs_no_torch() -> None:
    code = "import sys, tlbench.models.memory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
