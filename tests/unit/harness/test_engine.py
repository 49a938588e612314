"""The engines: what DeepSpeed is told, and that their step is a plain one of torch.

The ranks live in processes of their own.
"""

import os
from collections.abc import Iterator
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.ranks import Ranks, on_all, started_ranks, this_rank
from tlbench.db.settings import flatten
from tlbench.engine import (
    DeepSpeedEngine,
    TorchEngine,
    TrainingEngine,
    _parameter_groups,
    config,
    describe_communication,
    join_process_group,
    largest_of_ranks,
    set_environment,
    set_head_bias,
    sum_over_ranks,
    training_engine,
)
from tlbench.errors import TrialError, UnsupportedError
from tlbench.models.vit import build_model
from tlbench.rank import DeviceKind, Rank
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case

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


def test_config_lays_the_case_over_the_user_s_own() -> None:
    own = {
        "zero_optimization": {
            "reduce_bucket_size": 1000,
            "offload_optimizer": {"pin_memory": True},
        },
        "steps_per_print": 5,
    }
    parallelism = {"zero_stage": 2, "offload": "optimizer"}
    plain = config(make_case(parallelism=parallelism))
    zero = {
        "stage": 2,
        "reduce_bucket_size": 1000,
        "offload_optimizer": {"device": "cpu", "pin_memory": True},
    }
    assert config(make_case(parallelism=parallelism, deepspeed=own)) == plain | {
        "zero_optimization": zero,
        "steps_per_print": 5,
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("offload", ["optimizer", "all"])
def test_what_deepspeed_is_told_is_what_the_case_is_held_to_decide(
    precision: str, offload: str
) -> None:
    case = make_case(
        precision=precision,
        batch_size=48,
        parallelism={"world_size": 2, "zero_stage": 3, "offload": offload},
        optimizer={"gradient_accumulation_steps": 4, "gradient_clipping": 0.5},
    )
    constants = {k for k in config(case) if k.startswith(("zero_force", "zero_allow"))}
    told = {
        key: value
        for key, value in flatten(config(case))
        if key not in constants | {"steps_per_print"}
    }
    decided = {key: value for key, (value, _) in case.deepspeed_decisions.items()}
    assert told == {key: decided.get(key) for key in told}


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


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize(
    ("device", "offload", "is_fused"),
    [("cpu", "none", False), ("cuda", "none", True), ("cuda", "optimizer", False)],
)
def test_the_optimiser_is_fused_where_it_steps_on_a_gpu(
    kind: str,
    device: DeviceKind,
    offload: str,
    is_fused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import deepspeed

    seen = []

    def initialize(
        optimizer: torch.optim.Optimizer, **_: object
    ) -> tuple[SimpleNamespace]:
        seen.append(optimizer.defaults["fused"])
        return (SimpleNamespace(optimizer=optimizer),)

    monkeypatch.setattr(deepspeed, "initialize", initialize)
    case = make_case(
        parallelism={"zero_stage": 1, "offload": offload}, optimizer={"kind": kind}
    )
    rank = Rank(0, 1, 0, 1, "127.0.0.1", 1, device, 1)
    DeepSpeedEngine(make_model(), case, rank)
    assert seen == [is_fused]


def test_the_biases_of_the_classifier_start_where_the_recipe_says() -> None:
    model = make_model()
    others = {n: p.clone() for n, p in model.named_parameters() if n != "head.bias"}
    set_head_bias(model, -10.0)
    assert model.head.bias.tolist() == [-10.0] * 10
    assert all(torch.equal(model.get_parameter(name), p) for name, p in others.items())


def test_a_bias_for_a_classifier_that_is_not_there_is_refused() -> None:
    with pytest.raises(TrialError, match="head_bias=-10 is for the bias of a layer"):
        set_head_bias(nn.Linear(2, 2), -10.0)


@pytest.mark.parametrize(("device", "local_rank"), [("cpu", "3"), ("cuda", "0")])
def test_a_rank_with_a_gpu_calls_it_the_first_for_it_sees_no_other(
    device: DeviceKind, local_rank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {})
    set_environment(Rank(7, 8, 3, 4, "127.0.0.1", 29500, device, 1))
    assert os.environ["LOCAL_RANK"] == local_rank
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"]) == ("7", "8")


def test_communication_is_told_with_the_settings_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = {"NCCL_DEBUG": "INFO", "GLOO_SOCKET_IFNAME": "lo", "TORCH_NCCL_TRACE": "1"}
    secrets = {"NCCL_TOKEN": "a", "GLOO_MY_KEY": "b", "TORCH_NCCL_PASSWORD_OF": "c"}
    monkeypatch.setattr(os, "environ", told | secrets | {"OMP_NUM_THREADS": "1"})
    assert describe_communication(ALONE) == (
        "gloo, GLOO_SOCKET_IFNAME=lo, NCCL_DEBUG=INFO, TORCH_NCCL_TRACE=1"
    )
    monkeypatch.setattr(os, "environ", secrets)
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 27, 3))
    on_gpu = Rank(0, 2, 0, 2, "127.0.0.1", 1, "cuda", 1)
    assert describe_communication(on_gpu) == "nccl 2.27.3"


@pytest.mark.parametrize(
    ("nodes", "users", "interface"),
    [(2, {}, "lo"), (1, {}, "lo"), (2, {"GLOO_SOCKET_IFNAME": "eth7"}, "eth7")],
)
def test_ranks_take_the_way_to_the_first_unless_the_user_says(
    nodes: int,
    users: dict[str, str],
    interface: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", dict(users))
    set_environment(Rank(3, 4, 1, 4 // nodes, "127.0.0.1", 29500, "cpu", 1))
    assert os.environ.get("GLOO_SOCKET_IFNAME") == interface


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
    *_, last = plain_states(case)
    return last


def plain_states(case: Case) -> Iterator[tuple[State, list[float]]]:
    """The weights after each step, and the losses until then."""
    model, settings = make_model(), case.optimizer
    take = take_adamw_step if settings.kind == "adamw" else take_sgd_step
    memory: dict[Any, Any] = {}
    losses: list[float] = []
    for step in range(STEPS):
        images, labels = make_batch(case, step)
        loss = nn.functional.cross_entropy(model(images), labels)
        model.zero_grad()
        torch.autograd.backward(loss)
        if settings.gradient_clipping:
            norm = nn.utils.clip_grad_norm_(
                model.parameters(), settings.gradient_clipping
            )
            assert norm > settings.gradient_clipping, "there is nothing to clip"
        take(model, case, memory)
        losses.append(loss.item())
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        yield weights, [*losses]


DECAYED = ("embed.weight", "head.weight")


def take_adamw_step(model: nn.Module, case: Case, memory: dict[Any, Any]) -> None:
    if not memory:
        named, settings = dict(model.named_parameters()), case.optimizer
        decayed = [p for n, p in named.items() if n in DECAYED]
        others = [p for n, p in named.items() if n not in DECAYED]
        memory["optimizer"] = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": settings.weight_decay},
                {"params": others, "weight_decay": 0},
            ],
            lr=settings.learning_rate,
        )
    memory["optimizer"].step()


@torch.no_grad()
def take_sgd_step(model: nn.Module, case: Case, memory: dict[Any, Any]) -> None:
    """Momentum 0.9 by hand; the decay is that of the weights, not of the gradient."""
    rate, decay = case.optimizer.learning_rate, case.optimizer.weight_decay
    for name, weight in model.named_parameters():
        assert weight.grad is not None
        velocity = 0.9 * memory.get(name, 0) + weight.grad
        memory[name] = velocity
        kept = 1 - rate * decay if name in DECAYED else 1.0
        weight.copy_(weight * kept - rate * velocity)


def _train(case: Case) -> tuple[State, list[float]]:
    """Train on this rank's share of the batch; the whole weights and mean losses."""
    import deepspeed

    model = make_model()
    engine = training_engine(model, case, this_rank())
    losses = _take_steps(engine, case, range(STEPS))
    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        state = {name: p.detach().clone() for name, p in model.named_parameters()}
    return state, losses


def _train_averaged(case: Case) -> list[State]:
    """The average of the weights after the training, and what they are after that."""
    engine = training_engine(make_model(), case, this_rank())
    _take_steps(engine, case, range(STEPS))
    with engine.averaged():
        average = engine.whole_weights()
    return [average, engine.whole_weights()]


def _interrupt(case: Case) -> list[tuple[State, State, list[float]]]:
    """The same training in one piece, and by two engines: the second goes on."""
    whole = training_engine(make_model(), case, this_rank())
    losses = _take_steps(whole, case, range(STEPS + 2))
    first = training_engine(make_model(), case, this_rank())
    _take_steps(first, case, range(STEPS))
    file = BytesIO()
    torch.save(first.state(), file)
    file.seek(0)
    torch.manual_seed(9)  # what it starts from makes no difference
    second = training_engine(TinyNet(), case, this_rank())
    second.load_state(torch.load(file, weights_only=True))
    resumed = _take_steps(second, case, range(STEPS, STEPS + 2))
    return [
        (*_weights_and_average(whole), losses[STEPS:]),
        (*_weights_and_average(second), resumed),
    ]


def _weights_and_average(engine: TrainingEngine) -> tuple[State, State]:
    weights = engine.whole_weights()
    with engine.averaged():
        return weights, engine.whole_weights()


def _take_steps(engine: TrainingEngine, case: Case, steps: range) -> list[float]:
    """Step on this rank's share of each batch; the losses of the whole batches."""
    rank, losses = this_rank(), []
    for step in steps:
        images, labels = (
            whole.chunk(rank.world_size)[rank.rank] for whole in make_batch(case, step)
        )
        if case.precision == "bf16":
            images = images.bfloat16()
        loss = sum_over_ranks(engine.step(images, labels)) / rank.world_size
        losses.append(loss.item())
    return losses


def _train_at_rate_zero(case: Case) -> bool:
    """Whether the weights stay as they are."""
    import deepspeed

    model = make_model()
    engine = training_engine(model, case, this_rank())
    engine.set_learning_rate(0.0)
    engine.step(*make_batch(case, 0))
    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        after = [p.detach().clone() for p in model.parameters()]
    return all(map(torch.equal, after, make_model().parameters()))


def _train_in_bf16(case: Case) -> list[Tensor]:
    """How far many small steps move the weights that the model computes with."""
    model = make_model()
    before = [p.detach().bfloat16() for p in model.parameters()]
    engine = training_engine(model, case, this_rank())
    for _ in range(SMALL_STEPS):
        images, labels = make_batch(case, 0)
        engine.step(images.bfloat16(), labels)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    pairs = zip(model.parameters(), before, strict=True)
    return [(after.detach().float() - start.float()) for after, start in pairs]


def _train_in_bf16_once(case: Case) -> State:
    engine = training_engine(make_model(), case, this_rank())
    _take_steps(engine, case, range(1))
    return engine.whole_weights()


def _combine() -> tuple[int, list[float]]:
    mine = this_rank().rank + 1
    return largest_of_ranks(mine), sum_over_ranks(torch.tensor([mine, 10.0])).tolist()


@pytest.fixture(scope="module", params=[1, 2], ids=["one_rank", "two_ranks"])
def ranks(request: pytest.FixtureRequest) -> Iterator[Ranks]:
    """Processes that have met over gloo."""
    with started_ranks(request.param) as started:
        yield started


@pytest.fixture(scope="module")
def two_ranks() -> Iterator[Ranks]:
    with started_ranks(2) as started:
        yield started


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
@pytest.mark.parametrize(("stack", "zero_stage"), [*STAGES, ("ray", 0)])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_step_of_sgd_is_the_same_on_all_ranks_and_at_all_stages(
    ranks: Ranks, stack: str, zero_stage: int, accumulation: int
) -> None:
    case = make_case(
        stack=stack,
        parallelism={"world_size": len(ranks), "zero_stage": zero_stage},
        optimizer={
            "kind": "sgd",
            "learning_rate": 0.1,
            "weight_decay": 0.3,
            "gradient_clipping": 0.05,
            "gradient_accumulation_steps": accumulation,
        },
    )
    for trained in on_all(ranks, _train, case):
        assert_same(trained, case)


AVERAGED = {
    "mode": "fit",
    "optimizer": {
        "learning_rate": 0.01,
        "weight_decay": 0.3,
        "gradient_clipping": 0.0,
    },
    "fit": {"ema_decay": 0.75},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("zero_stage", "offload"),
    [*((stage, "none") for stage in range(4)), (2, "optimizer"), (3, "all")],
)
def test_the_average_is_that_of_the_whole_weights(
    ranks: Ranks, zero_stage: int, offload: str
) -> None:
    parallelism = {"world_size": len(ranks), "zero_stage": zero_stage}
    case = make_case(**AVERAGED, parallelism=parallelism | {"offload": offload})
    expected = {n: p.detach().double() for n, p in make_model().named_parameters()}
    for weights, _ in plain_states(case):
        for name, weight in weights.items():
            expected[name] = 0.75 * expected[name] + 0.25 * weight.double()
    average, after = on_all(ranks, _train_averaged, case)[0]
    for name, weight in by_plain_torch(case)[0].items():
        torch.testing.assert_close(
            average[name].double(), expected[name], rtol=0, atol=1e-6
        )
        torch.testing.assert_close(after[name], weight, rtol=0, atol=1e-6)
        assert not torch.allclose(average[name], after[name], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("stack", "zero_stage"), [*STAGES, ("ray", 0)])
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_engine_goes_on_from_the_state_of_one(
    ranks: Ranks, stack: str, zero_stage: int, kind: str, precision: str
) -> None:
    case = make_case(
        stack=stack,
        mode="fit",
        precision=precision,
        parallelism={"world_size": len(ranks), "zero_stage": zero_stage},
        optimizer={"kind": kind, "learning_rate": 0.01, "weight_decay": 0.3},
        fit={"ema_decay": 0.75},
    )
    if stack == "ray":  # which has no such mode, but whose engine can
        case = case.model_copy(update={"stack": "ray"})
    whole, resumed = on_all(ranks, _interrupt, case)[0]
    assert whole[2] == resumed[2]
    for weights, others in zip(whole[:2], resumed[:2], strict=True):
        assert weights.keys() == dict(make_model().named_parameters()).keys()
        assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.slow
def test_bf16_without_zero_is_that_of_torch_alone(ranks: Ranks) -> None:
    # DeepSpeed makes the states of its optimiser by a step that decays the weights.
    def averages(stack: str) -> State:
        case = make_case(
            precision="bf16",
            parallelism={"world_size": len(ranks)},
            optimizer={"learning_rate": 0.1, "weight_decay": 2.0},
        )
        case = case.model_copy(update={"stack": stack})
        weights: State = on_all(ranks, _train_in_bf16_once, case)[0]
        return weights

    one, other = averages("deepspeed"), averages("ray")
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0.01, atol=0.01)


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


def _train_configured(case: Case) -> tuple[int, list[float]]:
    """The size of a bucket that DeepSpeed goes by, and the losses."""
    engine = training_engine(make_model(), case, this_rank())
    losses = _take_steps(engine, case, range(STEPS))
    settings: Any = engine.model.config
    return settings["zero_optimization"]["reduce_bucket_size"], losses


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_the_user_s_own_configuration_reaches_deepspeed(
    ranks: Ranks, zero_stage: int
) -> None:
    parallelism = {"world_size": len(ranks), "zero_stage": zero_stage}
    own = {"zero_optimization": {"reduce_bucket_size": 700, "overlap_comm": False}}
    clipped = {"learning_rate": 0.01, "weight_decay": 0.3, "gradient_clipping": 0.05}
    case, plain = (
        make_case(parallelism=parallelism, optimizer=clipped, deepspeed=config)
        for config in (own, None)
    )
    _, expected = by_plain_torch(plain)
    for bucket, losses in on_all(ranks, _train_configured, case):
        assert bucket == 700
        assert losses == pytest.approx(expected, abs=1e-6)


FAST = {"learning_rate": 0.01}


def _train_vit(case: Case) -> list[float]:
    """The losses of a model with blocks that can be computed anew."""
    torch.manual_seed(1)
    model = build_model(
        case.model, 10, gradient_checkpointing=case.gradient_checkpointing
    )
    engine = training_engine(model, case, this_rank())
    return _take_steps(engine, case, range(STEPS))


@pytest.fixture(scope="module")
def by_one_rank() -> list[float]:
    """The losses of steps that take the whole batch at once, and keep all."""
    with started_ranks(1) as one:
        (losses,) = on_all(one, _train_vit, make_case(optimizer=FAST))
    return list(losses)


@pytest.mark.slow
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize(
    ("zero_stage", "offload"),
    [
        *((stage, "none") for stage in range(4)),
        *((stage, "optimizer") for stage in (1, 2, 3)),
        (3, "all"),
    ],
)
def test_every_way_to_save_memory_trains_as_one_rank_with_all_of_it(
    two_ranks: Ranks,
    by_one_rank: list[float],
    zero_stage: int,
    offload: str,
    accumulation: int,
    gradient_checkpointing: bool,
) -> None:
    parallelism = {"world_size": 2, "zero_stage": zero_stage, "offload": offload}
    case = make_case(
        parallelism=parallelism,
        optimizer=FAST | {"gradient_accumulation_steps": accumulation},
        gradient_checkpointing=gradient_checkpointing,
    )
    for losses in on_all(two_ranks, _train_vit, case):
        assert losses == pytest.approx(by_one_rank, abs=1e-6)


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
