"""The engines: what DeepSpeed is told, and that their step is a plain step of AdamW.

DeepSpeed keeps its process groups for the life of a process, so the ranks here live in
processes of their own.
"""

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tlbench.engine import (
    DeepSpeedEngine,
    TorchEngine,
    _parameter_groups,
    config,
    join_process_group,
    largest_of_ranks,
    set_environment,
    sum_over_ranks,
    training_engine,
)
from tlbench.errors import UnsupportedError
from tlbench.models.vit import build_model
from tlbench.rank import DeviceKind, Rank
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case

Ranks = Sequence[ProcessPoolExecutor]
State = dict[str, Tensor]

MODEL = ModelSpec(
    name="tiny",
    image_size=8,
    patch_size=4,
    embed_dim=16,
    depth=2,
    num_heads=2,
    mlp_dim=32,
)
STEPS = 3
SMALL_STEPS = 40
STAGES = [("deepspeed", stage) for stage in range(4)]
ALONE = Rank(0, 1, 0, 1, "127.0.0.1", 1, "cpu", 1)
TIMEOUT_S = 120


def make_case(**changes: Any) -> Case:
    settings = {"model": MODEL, "mode": "train", "data": "digits", "batch_size": 16}
    return Case.model_validate(settings | changes)


def test_config_has_the_settings_of_the_case() -> None:
    settings = config(
        make_case(
            batch_size=48,
            parallelism={"world_size": 2, "zero_stage": 3},
            optimizer={"gradient_accumulation_steps": 4, "gradient_clipping": 0.5},
        )
    )
    assert settings["train_batch_size"] == 48
    assert settings["train_micro_batch_size_per_gpu"] == 48 / 2 / 4
    assert settings["gradient_accumulation_steps"] == 4
    assert settings["gradient_clipping"] == 0.5
    assert settings["zero_optimization"]["stage"] == 3


@pytest.mark.parametrize(
    ("precision", "bf16", "fp16"),
    [
        ("fp32", False, False),
        ("tf32", False, False),
        ("bf16", True, False),
        ("fp16", False, True),
    ],
)
def test_config_has_the_precision_of_the_case(
    precision: str, bf16: bool, fp16: bool
) -> None:
    settings = config(make_case(precision=precision))
    assert settings["bf16"] == {"enabled": bf16}
    assert settings["fp16"] == {"enabled": fp16}


@pytest.mark.parametrize(
    ("offload", "moved"),
    [
        ("none", set()),
        ("optimizer", {"offload_optimizer"}),
        ("all", {"offload_optimizer", "offload_param"}),
    ],
)
def test_config_names_what_is_kept_on_the_host(offload: str, moved: set[str]) -> None:
    zero = config(make_case(parallelism={"zero_stage": 3, "offload": offload}))[
        "zero_optimization"
    ]
    assert zero == {"stage": 3} | {name: {"device": "cpu"} for name in moved}


@pytest.mark.parametrize(
    ("parts", "spared"),
    [
        ("+TL3v1@1", {"pos_embed"}),
        (":token", {"pos_embed", "cls_token"}),
        (":map", {"pos_embed", "attn_pool.latent"}),
    ],
)
def test_matrices_decay_and_nothing_else(parts: str, spared: set[str]) -> None:
    with torch.device("meta"):
        model = build_model(parse_model(f"ViT-d16h2m32l2/4@8{parts}"), 7)
    decayed, undecayed = _parameter_groups(model, 0.3)
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.3, 0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert all(names[id(p)].endswith(".weight") for p in decayed["params"])
    assert {names[id(p)] for p in undecayed["params"] if p.ndim > 1} == spared


@pytest.mark.parametrize(
    ("device", "offload", "is_fused"),
    [("cpu", "none", False), ("cuda", "none", True), ("cuda", "optimizer", False)],
)
def test_the_optimiser_is_fused_where_it_steps_on_a_gpu(
    device: DeviceKind, offload: str, is_fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import deepspeed

    seen = []

    def initialize(optimizer: torch.optim.Optimizer, **_: object) -> tuple[None]:
        seen.append(optimizer.defaults["fused"])
        return (None,)

    monkeypatch.setattr(deepspeed, "initialize", initialize)
    case = make_case(parallelism={"zero_stage": 1, "offload": offload})
    rank = Rank(0, 1, 0, 1, "127.0.0.1", 1, device, 1)
    DeepSpeedEngine(make_model(), case, rank)
    assert seen == [is_fused]


@pytest.mark.parametrize(("device", "local_rank"), [("cpu", "3"), ("cuda", "0")])
def test_a_rank_with_a_gpu_calls_it_the_first_for_it_sees_no_other(
    device: DeviceKind, local_rank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {})
    set_environment(Rank(7, 8, 3, 4, "10.0.0.1", 29500, device, 1))
    assert os.environ["LOCAL_RANK"] == local_rank
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"]) == ("7", "8")


def test_torch_alone_refuses_what_needs_a_scaled_loss() -> None:
    case = make_case(precision="fp16", stack="ray")
    with pytest.raises(UnsupportedError, match="stack=ray does not scale the loss"):
        TorchEngine(make_model(), case, ALONE)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_torch_alone_leaves_weights_that_take_no_part_as_they_are(
    precision: str,
) -> None:
    case, model = make_case(precision=precision, stack="ray"), make_model()
    model.unused = nn.Parameter(torch.ones(3))
    images, labels = make_batch(case, 0)
    engine = TorchEngine(model, case, ALONE)
    engine.step(images.to(model.unused.dtype), labels)
    assert model.unused.tolist() == [1, 1, 1]
    assert not torch.equal(model.head.weight, make_model().head.weight)


@pytest.mark.parametrize(
    ("stack", "needs_group"), [("deepspeed", True), ("ray", False)]
)
def test_a_rank_that_is_alone_joins_no_group_but_deepspeed_s(
    stack: str, needs_group: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = []
    monkeypatch.setattr(
        "tlbench.engine._join_by_deepspeed", lambda *a: joined.append(a)
    )
    join_process_group(make_case(stack=stack), ALONE)
    assert joined == [("gloo", ALONE)] * needs_group
    assert not torch.distributed.is_initialized()


def test_without_a_process_group_a_rank_is_alone() -> None:
    assert largest_of_ranks(7) == 7
    assert sum_over_ranks(torch.tensor([1.0, 2.0])).tolist() == [1, 2]


class TinyNet(nn.Module):
    """Layers with every kind of parameter that weight decay tells apart."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, 16, 6) * 0.1)
        self.embed = nn.Linear(12, 6)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = images.reshape(len(images), 16, 12)  # [B, 3, 8, 8] -> [B, N, 12]
        x = self.norm(torch.tanh(self.embed(x) + self.pos_embed))
        return torch.as_tensor(self.head(x.mean(dim=1)))


def make_model() -> TinyNet:
    torch.manual_seed(1)
    return TinyNet()


def make_batch(case: Case, step: int) -> tuple[Tensor, Tensor]:
    """The whole job's samples of one step."""
    size, generator = case.global_batch_size, torch.Generator().manual_seed(step)
    images = torch.randn(size, 3, 8, 8, generator=generator)
    return images, torch.randint(10, (size,), generator=generator)


def by_plain_torch(case: Case) -> tuple[State, list[float]]:
    """The same training on one device without DeepSpeed, the batch in one piece."""
    model, settings = make_model(), case.optimizer
    decayed = ("embed.weight", "head.weight")
    named = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [p for n, p in named.items() if n in decayed],
                "weight_decay": settings.weight_decay,
            },
            {
                "params": [p for n, p in named.items() if n not in decayed],
                "weight_decay": 0,
            },
        ],
        lr=settings.learning_rate,
    )
    losses = []
    for step in range(STEPS):
        images, labels = make_batch(case, step)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        if settings.gradient_clipping:
            norm = nn.utils.clip_grad_norm_(
                model.parameters(), settings.gradient_clipping
            )
            assert norm > settings.gradient_clipping, "there is nothing to clip"
        optimizer.step()
        losses.append(loss.item())
    return model.state_dict(), losses


_rank: Rank | None = None
"""Which rank this process is, in the processes of the ranks."""


def _join(rank: Rank) -> None:
    global _rank
    _rank = rank
    torch.set_num_threads(1)
    set_environment(rank)
    join_process_group(make_case(), rank)


def _train(case: Case) -> tuple[State, list[float]]:
    """Train on this rank's share of the batch; the whole weights and mean losses."""
    import deepspeed

    assert _rank is not None
    model = make_model()
    engine = training_engine(model, case, _rank)
    losses = []
    for step in range(STEPS):
        images, labels = (
            whole.chunk(_rank.world_size)[_rank.rank]
            for whole in make_batch(case, step)
        )
        loss = sum_over_ranks(engine.step(images, labels)) / _rank.world_size
        losses.append(loss.item())
    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        state = {name: p.detach().clone() for name, p in model.named_parameters()}
    return state, losses


def _train_at_rate_zero(case: Case) -> bool:
    """Whether the weights stay as they are."""
    import deepspeed

    assert _rank is not None
    model = make_model()
    engine = training_engine(model, case, _rank)
    engine.set_learning_rate(0.0)
    engine.step(*make_batch(case, 0))
    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        after = [p.detach().clone() for p in model.parameters()]
    return all(map(torch.equal, after, make_model().parameters()))


def _train_in_bf16(case: Case) -> list[Tensor]:
    """How far many small steps move the weights that the model computes with."""
    assert _rank is not None
    model = make_model()
    before = [p.detach().bfloat16() for p in model.parameters()]
    engine = training_engine(model, case, _rank)
    for _ in range(SMALL_STEPS):
        images, labels = make_batch(case, 0)
        engine.step(images.bfloat16(), labels)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    pairs = zip(model.parameters(), before, strict=True)
    return [(after.detach().float() - start.float()) for after, start in pairs]


def _combine() -> tuple[int, list[float]]:
    assert _rank is not None
    mine = _rank.rank + 1
    return largest_of_ranks(mine), sum_over_ranks(torch.tensor([mine, 10.0])).tolist()


def start_ranks(world_size: int) -> list[ProcessPoolExecutor]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_join,
            initargs=(
                Rank(rank, world_size, rank, world_size, "127.0.0.1", port, "cpu", 1),
            ),
        )
        for rank in range(world_size)
    ]


@pytest.fixture(scope="module", params=[1, 2], ids=["one_rank", "two_ranks"])
def ranks(request: pytest.FixtureRequest) -> Iterator[Ranks]:
    """Processes that have met over gloo."""
    started = start_ranks(request.param)
    yield started
    for process in started:
        process.shutdown()


def on_all(ranks: Ranks, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    calls = [process.submit(function, *arguments) for process in ranks]
    return [call.result(TIMEOUT_S) for call in calls]


def assert_same(trained: tuple[State, list[float]], case: Case) -> None:
    expected_state, expected_losses = by_plain_torch(case)
    state, losses = trained
    assert losses == pytest.approx(expected_losses, abs=1e-6)
    assert state.keys() == expected_state.keys()
    for name, weights in state.items():
        torch.testing.assert_close(weights, expected_state[name], rtol=0, atol=1e-6)
        assert not torch.equal(weights, make_model().state_dict()[name])


@pytest.mark.slow
@pytest.mark.parametrize(("stack", "zero_stage"), [*STAGES, ("ray", 0)])
@pytest.mark.parametrize("clipping", [0.0, 0.05])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_step_is_that_of_plain_adamw_on_the_whole_batch(
    ranks: Ranks, stack: str, zero_stage: int, clipping: float, accumulation: int
) -> None:
    case = make_case(
        stack=stack,
        parallelism={"world_size": len(ranks), "zero_stage": zero_stage},
        optimizer={
            "learning_rate": 0.01,
            "weight_decay": 0.3,
            "gradient_clipping": clipping,
            "gradient_accumulation_steps": accumulation,
        },
    )
    for trained in on_all(ranks, _train, case):
        assert_same(trained, case)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("zero_stage", "offload"),
    [(1, "optimizer"), (2, "optimizer"), (3, "optimizer"), (3, "all")],
)
@pytest.mark.parametrize("accumulation", [1, 4])
def test_an_offloaded_step_is_that_of_plain_adamw(
    ranks: Ranks, zero_stage: int, offload: str, accumulation: int
) -> None:
    parallelism = {"world_size": len(ranks), "zero_stage": zero_stage}
    case = make_case(
        parallelism=parallelism | {"offload": offload},
        optimizer={
            "learning_rate": 0.01,
            "weight_decay": 0.3,
            "gradient_clipping": 0.0,
            "gradient_accumulation_steps": accumulation,
        },
    )
    for trained in on_all(ranks, _train, case):
        assert_same(trained, case)


@pytest.mark.slow
@pytest.mark.parametrize(("stack", "zero_stage"), [*STAGES, ("ray", 0)])
def test_the_learning_rate_that_is_set_is_the_one_used(
    ranks: Ranks, stack: str, zero_stage: int
) -> None:
    case = make_case(
        stack=stack,
        batch_size=16 * len(ranks),
        parallelism={"world_size": len(ranks), "zero_stage": zero_stage},
    )
    assert on_all(ranks, _train_at_rate_zero, case) == [True] * len(ranks)


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["deepspeed", "ray"])
def test_steps_too_small_for_bf16_add_up(ranks: Ranks, stack: str) -> None:
    # Half of the spacing of bf16 at the weights' typical 0.2 is five times a step.
    case = make_case(
        stack=stack,
        precision="bf16",
        batch_size=16 * len(ranks),
        parallelism={"world_size": len(ranks)},
        optimizer={"learning_rate": 1e-4, "weight_decay": 0.0},
    )
    for moved in on_all(ranks, _train_in_bf16, case):
        embed = moved[1]
        # AdamW on one batch moves every weight by about the rate in each step.
        assert embed.abs().mean() == pytest.approx(1e-4 * SMALL_STEPS, rel=0.2)


@pytest.mark.slow
def test_all_ranks_get_the_largest_value_and_the_sum(ranks: Ranks) -> None:
    largest = len(ranks)
    total = sum(range(1, largest + 1))
    expected = (largest, [total, 10.0 * largest])
    assert on_all(ranks, _combine) == [expected] * len(ranks)
