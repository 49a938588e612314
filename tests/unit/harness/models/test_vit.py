"""The ViT: what it computes, what it starts from, and where TokenLearner stands."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tlbench.models.tokenlearner import FusedBlock, TokenLearner, TokenLearnerV11
from tlbench.models.vit import attention_kernel, build_model
from tlbench.suites.model_spec import GlobalPool, ModelSpec, TokenLearnerSpec
from tlbench.suites.names import model_name, parse_model
from tlbench.suites.spec import Attention

TINY = ModelSpec(
    patch_size=4, image_size=18, embed_dim=12, depth=3, num_heads=2, mlp_dim=20
)
IMAGES = torch.randn(2, 3, 18, 18, generator=torch.Generator().manual_seed(1))


def tiny(**token_learner: Any) -> ModelSpec:
    learner = TokenLearnerSpec(**token_learner)
    return TINY.model_copy(update={"token_learner": learner})


def build(spec: ModelSpec, attention: Attention = "auto") -> Any:
    """The model from a fixed seed, its classifier no longer zero."""
    torch.manual_seed(0)
    model: Any = build_model(spec, 5, attention=attention)
    nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    return model.eval()


def test_token_learner_stands_before_the_block_named() -> None:
    model = build(tiny(num_tokens=3, place=1))
    names = [name for name, _ in model.blocks.named_children()]
    assert names == ["0", "token_learner", "1", "2"]
    lengths = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, out: lengths.append(out.shape[1]))
    assert model(IMAGES).shape == (2, 5)
    assert lengths == [16, 3, 3, 3]


def test_fused_blocks_keep_all_tokens_between_them() -> None:
    model = build(tiny(num_tokens=3, place=1, fuse=True))
    assert [type(block) is FusedBlock for block in model.blocks] == [False, True, True]
    learners = {id(block.learn) for block in model.blocks[1:]}
    assert len(learners) == 2
    inner = []
    model.blocks[2].block.register_forward_hook(
        lambda _, __, out: inner.append(out.shape[1])
    )
    assert model.forward_features(IMAGES).shape == (2, 16, 12)
    assert inner == [3]


def test_fused_blocks_start_as_the_identity() -> None:
    features = build(tiny(num_tokens=3, place=0, fuse=True)).forward_features(IMAGES)
    model = build(TINY)
    model.blocks = nn.Sequential()
    assert torch.equal(features, model.forward_features(IMAGES))


@pytest.mark.parametrize("fuse", [False, True])
def test_token_learner_at_the_depth_itself_is_the_plain_vit(fuse: bool) -> None:
    plain, learned = build(TINY), build(tiny(num_tokens=3, place=3, fuse=fuse))
    assert plain.state_dict().keys() == learned.state_dict().keys()
    assert torch.equal(plain(IMAGES), learned(IMAGES))


def test_same_seed_gives_the_vit_the_same_weights_with_and_without() -> None:
    plain = build(TINY).state_dict()
    learned = build(tiny(num_tokens=3, place=1)).state_dict()
    assert all(torch.equal(plain[name], learned[name]) for name in plain)


@pytest.mark.parametrize(
    ("version", "pooling", "kind"),
    [
        ("v1", "sum", TokenLearner),
        ("v1", "mean", TokenLearner),
        ("v1.1", "sum", TokenLearnerV11),
    ],
)
def test_version_and_pooling_reach_the_module(
    version: str, pooling: str, kind: type[nn.Module]
) -> None:
    spec = tiny(num_tokens=3, place=1, version=version, pooling=pooling)
    learner = build(spec).blocks.token_learner
    assert type(learner) is kind
    if isinstance(learner, TokenLearner):
        assert (learner.pooling, learner.grid_size) == (pooling, (4, 4))


@pytest.mark.parametrize(("height", "width"), [(20, 18), (18, 20), (14, 14)])
def test_an_image_of_another_size_is_refused(height: int, width: int) -> None:
    with pytest.raises(AssertionError, match=r"^Input (height|width).*\(18\)"):
        build(TINY)(torch.randn(1, 3, height, width))


@pytest.mark.parametrize(
    ("embed_dim", "mlp_dim"), [(1664, 8192), (1408, 6144), (1280, 5120), (7, 13)]
)
def test_mlp_is_as_wide_as_the_spec_says(embed_dim: int, mlp_dim: int) -> None:
    sizes = {"embed_dim": embed_dim, "mlp_dim": mlp_dim, "num_heads": 1, "depth": 1}
    with torch.device("meta"):
        model: Any = build_model(TINY.model_copy(update=sizes), 5)
    assert model.blocks[0].mlp.fc1.out_features == mlp_dim


def test_grid_is_pooled_before_the_blocks_named() -> None:
    spec = parse_model("ViT-d12h2m20l3/2@19+pool2@1,2")  # 9 x 9, 4 x 4, 2 x 2
    model = build(spec)
    names = [name for name, _ in model.blocks.named_children()]
    assert names == ["0", "pool_1", "1", "pool_2", "2"]
    lengths = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, out: lengths.append(out.shape[1]))
    assert model(torch.randn(1, 3, 19, 19)).shape == (1, 5)
    assert lengths == [81, 16, 16, 4, 4]


HEADS: list[GlobalPool] = ["avg", "token", "map"]


@pytest.mark.parametrize("global_pool", HEADS)
def test_each_head_sees_what_it_should_of_the_normalised_tokens(
    global_pool: GlobalPool,
) -> None:
    model = build(TINY.model_copy(update={"global_pool": global_pool}))
    tokens = model.forward_features(IMAGES)
    assert tokens.shape == (2, 17 if global_pool == "token" else 16, 12)
    pooled = {
        "avg": lambda: tokens.mean(dim=1),
        "token": lambda: tokens[:, 0],
        "map": lambda: model.attn_pool(tokens),
    }[global_pool]()
    assert torch.allclose(model(IMAGES), model.head(pooled), atol=1e-6)
    deviation = (tokens.std(dim=-1, unbiased=False) - 1).abs().max()
    assert deviation < 1e-3  # the norm comes before the pooling


def test_class_token_has_a_position_of_its_own() -> None:
    model = build(TINY.model_copy(update={"global_pool": "token"}))
    assert model.pos_embed.shape == (1, 17, 12)
    first: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, x: first.append(x[0][:, 0]))
    model(IMAGES)
    expected = (model.cls_token + model.pos_embed[:, :1])[:, 0]
    assert torch.equal(first[0], expected.expand(2, -1))


EDGES = [
    {"num_tokens": 1, "place": 0},
    {"num_tokens": 1, "place": 0, "version": "v1"},
    {"num_tokens": 20, "place": 1},  # of 16 positions
    {"num_tokens": 20, "place": 2, "version": "v1"},
    {"num_tokens": 1, "place": 0, "fuse": True},
    {"num_tokens": 20, "place": 0, "version": "v1", "fuse": True},
]


@pytest.mark.parametrize("learner", EDGES)
def test_one_image_and_one_token_or_more_tokens_than_positions_run(
    learner: dict[str, Any],
) -> None:
    model = build(tiny(**learner))
    assert model(IMAGES[:1]).shape == (1, 5)
    assert torch.allclose(model(IMAGES[:1]), model(IMAGES)[:1], atol=1e-5)


def test_pixels_beyond_the_last_whole_patch_are_dropped() -> None:
    model, images = build(TINY), IMAGES.clone()
    images[..., 16:, :] = 9
    images[..., 16:] = 9
    assert torch.equal(model(images), model(IMAGES))


# Initial weights.


@pytest.fixture
def _nan_in_fresh_memory() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # fills what torch.empty gives with NaN
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_nan_in_fresh_memory")
def test_every_weight_is_drawn() -> None:
    assert torch.empty(3).isnan().all()
    model = build_model(tiny(num_tokens=3, place=1, fuse=True), 5)
    assert not any(value.isnan().any() for value in model.state_dict().values())


def test_initial_weights_are_those_of_flax() -> None:
    torch.manual_seed(0)
    sizes = {"embed_dim": 64, "mlp_dim": 200, "image_size": 64}
    model: Any = build_model(TINY.model_copy(update=sizes), 5)
    block = model.blocks[0]
    bounds = {  # Xavier: sqrt(6 / (inputs + outputs)), each of q, k, v for itself
        block.attn.qkv: math.sqrt(6 / 128),
        block.attn.proj: math.sqrt(6 / 128),
        block.mlp.fc1: math.sqrt(6 / 264),
        block.mlp.fc2: math.sqrt(6 / 264),
    }
    for layer, bound in bounds.items():
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), 0.05)
    assert not block.attn.qkv.bias.any()
    assert 0 < block.mlp.fc1.bias.abs().max() < 1e-5
    patches = model.patch_embed.proj.weight
    assert patches.std().item() == pytest.approx(math.sqrt(1 / 48), rel=0.05)
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
    assert not model.head.weight.any()
    assert not model.head.bias.any()


def test_initial_weights_of_the_heads_are_those_of_flax() -> None:
    torch.manual_seed(0)
    sizes = {"embed_dim": 64, "mlp_dim": 200}
    token: Any = build_model(
        TINY.model_copy(update={**sizes, "global_pool": "token"}), 5
    )
    assert not token.cls_token.any()
    model: Any = build_model(TINY.model_copy(update={**sizes, "global_pool": "map"}), 5)
    pool = model.attn_pool
    bounds = {  # Xavier; the probe is one input wide, key and value each for itself
        pool.latent: math.sqrt(6 / 65),
        pool.q.weight: math.sqrt(6 / 128),
        pool.kv.weight: math.sqrt(6 / 128),
        pool.proj.weight: math.sqrt(6 / 128),
        pool.mlp.fc1.weight: math.sqrt(6 / 264),
        pool.mlp.fc2.weight: math.sqrt(6 / 264),
    }
    for weight, bound in bounds.items():
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.05)
        assert weight.abs().max() <= bound
    assert not any(layer.bias.any() for layer in (pool.q, pool.kv, pool.proj))
    assert not model.head.weight.any()


# Training settings.


def trained(spec: ModelSpec, **training: Any) -> tuple[Tensor, list[Tensor]]:
    """What one step in training mode gives: the logits, and all gradients."""
    torch.manual_seed(0)
    model: Any = build_model(spec, 5, **training)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    torch.manual_seed(3)  # which paths are dropped
    logits = model.train()(IMAGES)
    (logits**2).sum().backward()
    return logits.detach(), [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("drop_path_rate", [0.0, 0.5])
@pytest.mark.parametrize(
    "spec",
    [
        TINY,
        TINY.model_copy(update={"global_pool": "token"}),
        TINY.model_copy(update={"global_pool": "map"}),
        tiny(num_tokens=3, place=1, version="v1"),
        tiny(num_tokens=3, place=0, fuse=True),
        parse_model("ViT-d12h2m20l3/4@18+pool2@1,2"),
    ],
    ids=model_name,
)
def test_checkpointing_changes_neither_values_nor_gradients(
    spec: ModelSpec, drop_path_rate: float
) -> None:
    logits, gradients = trained(spec, drop_path_rate=drop_path_rate)
    again, regained = trained(
        spec, drop_path_rate=drop_path_rate, gradient_checkpointing=True
    )
    assert torch.equal(logits, again)
    for gradient, other in zip(gradients, regained, strict=True):
        assert torch.equal(gradient, other)


def test_checkpointing_keeps_less_for_the_backward_pass() -> None:
    def kept(**training: Any) -> int:
        elements = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal elements
            elements += tensor.numel()
            return tensor

        model = build_model(TINY, 5, **training)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model(IMAGES)
        return elements

    assert kept(gradient_checkpointing=True) < kept() / 2


def test_stochastic_depth_grows_from_zero_to_its_rate() -> None:
    model: Any = build_model(TINY, 5, drop_path_rate=0.4)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in model.blocks]
    assert rates == pytest.approx([0, 0.2, 0.4])
    assert all(
        getattr(block.drop_path2, "drop_prob", 0.0) == rate
        for block, rate in zip(model.blocks, rates, strict=True)
    )


def test_stochastic_depth_drops_paths_in_training_only() -> None:
    torch.manual_seed(0)
    model: Any = build_model(TINY, 5, drop_path_rate=0.5)
    nn.init.normal_(model.head.weight)
    assert torch.equal(model.eval()(IMAGES), model(IMAGES))
    model.train()
    assert not torch.equal(model(IMAGES), model(IMAGES))


# Attention kernels.


def test_eager_and_fused_attention_agree() -> None:
    fused, eager = build(TINY), build(TINY, "eager")
    assert not any(block.attn.fused_attn for block in eager.blocks)
    assert torch.allclose(fused(IMAGES), eager(IMAGES), atol=1e-5)


def kernels_allowed() -> tuple[bool, bool]:
    """Whether torch may take its math and its flash kernel."""
    flags: Any = torch.backends.cuda
    return flags.math_sdp_enabled(), flags.flash_sdp_enabled()


@pytest.mark.parametrize(
    ("attention", "allowed"),
    [
        ("auto", (True, True)),
        ("eager", (True, True)),
        ("math", (True, False)),
        ("flash", (False, True)),
        ("efficient", (False, False)),
        ("cudnn", (False, False)),
    ],
)
def test_attention_kernel_holds_torch_to_one_kernel_and_lets_go(
    attention: Attention, allowed: tuple[bool, bool]
) -> None:
    with attention_kernel(attention):
        assert kernels_allowed() == allowed
    assert kernels_allowed() == (True, True)


# Devices and precisions.


def test_meta_build_allocates_nothing() -> None:
    with torch.device("meta"):
        model = build_model(tiny(num_tokens=3, place=1, fuse=True), 5)
        assert model(torch.empty(1, 3, 18, 18)).shape == (1, 5)
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("fuse", [False, True])
def test_bf16_runs(fuse: bool) -> None:
    model = build(tiny(num_tokens=3, place=1, version="v1", fuse=fuse))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(IMAGES)
    assert torch.allclose(mixed.float(), model(IMAGES), atol=0.2)
    half = model.to(torch.bfloat16)(IMAGES.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("learner", [{"version": "v1"}, {"fuse": True}])
def test_compiled_model_computes_the_same(learner: dict[str, Any]) -> None:
    model = build(tiny(num_tokens=3, place=1, **learner))
    compiled: Any = torch.compile(model, fullgraph=True)
    assert torch.allclose(compiled(IMAGES), model(IMAGES), atol=1e-5)
