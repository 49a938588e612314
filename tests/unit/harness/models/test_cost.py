"""The closed forms against published numbers, torch's counters and real tensors.

Where a value is published only as GFLOPS, it is multiply-adds plus half of the
element-wise work, and so up to 1.5 % above the multiply-adds.
"""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tlbench.models import cost
from tlbench.models.layers import layers, tokens
from tlbench.models.vit import build_model
from tlbench.suites.model_spec import ModelSpec, TokenLearnerSpec
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Attention

# As the papers give them, not as `parse_model` does: a second source for the totals.
SIZES = {  # embed_dim, depth, mlp_dim, num_heads
    "Ti": (192, 12, 768, 3),
    "S": (384, 12, 1536, 6),
    "B": (768, 12, 3072, 12),
    "L": (1024, 24, 4096, 16),
    "H": (1280, 32, 5120, 16),
    "g": (1408, 40, 6144, 16),
    "G": (1664, 48, 8192, 16),
}


def vit(
    family: str,
    patch_size: int,
    image_size: int = 224,
    token_learner: TokenLearnerSpec | None = None,
    depth: int | None = None,
) -> ModelSpec:
    embed_dim, published_depth, mlp_dim, num_heads = SIZES[family]
    return ModelSpec(
        patch_size=patch_size,
        image_size=image_size,
        embed_dim=embed_dim,
        depth=depth or published_depth,
        num_heads=num_heads,
        mlp_dim=mlp_dim,
        token_learner=token_learner,
    )


def v1(num_tokens: int, place: int, *, fuse: bool = False) -> TokenLearnerSpec:
    return TokenLearnerSpec(num_tokens=num_tokens, place=place, version="v1", fuse=fuse)


IMAGES = "ViT-d32h2m80l3/4@32"
CLIPS = "ViViT-d32h4m80l3/8x2@32x7"  # 3 time steps, one frame too many
VARIANTS = [
    *(f"{IMAGES}{head}" for head in ("", ":token", ":map", ":map+TL5@1")),
    *(f"{IMAGES}+TL5{place}" for place in ("@0", "v1@1", "@3", "v1fuse@1", "fuse@0")),
    f"{IMAGES}+TL70v1mean@2",  # more tokens than patches
    f"{IMAGES}+TL5fuse@3",
    f"{IMAGES}+pool2@1",
    f"{IMAGES}+pool2@0,2",
    *(f"{CLIPS}{head}" for head in (":token", ":map", ":encoder2:token")),
    *(
        f"{CLIPS}{model}{reduction}"
        for model in ("", ":encoder2", ":attention", ":dotproduct")
        for reduction in ("", "+TL5@1", "+TL5v1@0", "+TL5v1fuse@1", "+pool2@1")
    ),
]


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> ModelSpec:
    """A tiny model of each kind."""
    return parse_model(request.param)


# Against what is published.


@pytest.mark.parametrize(
    ("family", "patch_size", "count"),
    [
        ("Ti", 16, 5_717_032),
        ("S", 16, 22_049_896),
        ("S", 32, 22_878_184),
        ("B", 16, 86_566_120),
        ("B", 32, 88_222_696),
        ("L", 16, 304_324_584),
        ("H", 14, 632_043_240),
        ("g", 14, 1_012_608_616),
        ("G", 14, 1_844_437_352),
    ],
)
def test_parameters_of_the_published_models(
    family: str, patch_size: int, count: int
) -> None:
    assert cost.params(vit(family, patch_size), 1000) == count


@pytest.mark.parametrize(
    ("family", "patch_size", "image_size", "giga"),
    [
        ("S", 32, 224, 1.121),
        ("S", 32, 384, 3.419),
        ("S", 32, 512, 6.342),
        ("S", 16, 224, 4.574),
        ("S", 16, 384, 15.459),
        ("S", 16, 512, 31.709),
        ("B", 32, 224, 4.322),
        ("B", 32, 384, 12.953),
        ("B", 32, 512, 23.556),
        ("B", 16, 224, 17.472),
        ("B", 16, 384, 55.378),
        ("B", 16, 512, 106.905),
        ("L", 16, 224, 61.233),
        ("L", 16, 384, 190.708),
        ("L", 16, 512, 361.584),
    ],
)
def test_macs_of_the_published_models(
    family: str, patch_size: int, image_size: int, giga: float
) -> None:
    macs = cost.macs(vit(family, patch_size, image_size), 1000)
    assert macs / 1e9 == pytest.approx(giga, abs=0.0006)  # three decimals are given


def test_macs_of_the_largest_published_model() -> None:
    assert cost.macs(vit("G", 14, 518), 1000) == 2_820_030_566_912


# Tokens, block, GFLOPS as read off the publication's figure, to 0.03.
PLACEMENT = [
    (8, 0, 0.78),
    (8, 3, 5.00),
    (8, 6, 9.18),
    (8, 9, 13.35),
    (8, 12, 17.53),
    (16, 0, 1.51),
    (16, 3, 5.53),
    (16, 6, 9.50),
    (16, 9, 13.52),
    (16, 12, 17.53),
]


@pytest.mark.parametrize(("tokens", "place", "published"), PLACEMENT)
def test_macs_of_the_placement_study(tokens: int, place: int, published: float) -> None:
    # The terms one by one: D = 768, N = 196, M = 3072.
    def block(length: int) -> int:
        return 4 * length * 768**2 + 2 * length * 768 * 3072 + 2 * length**2 * 768

    learner = 9 * 196 * 768 * tokens + 27 * 196 * tokens**2 + 196 * 768 * tokens
    expected = 196 * 3 * 16**2 * 768 + 768 * 1000
    expected += place * block(196) + (12 - place) * block(tokens)
    expected += learner if place < 12 else 0
    macs = cost.macs(vit("B", 16, 224, v1(tokens, place)), 1000)
    assert macs == expected
    assert macs / 1e9 == pytest.approx(published, rel=0.015, abs=0.03)


@pytest.mark.parametrize(
    ("spec", "published"),
    [
        (vit("S", 32, 384), 3.4),
        (vit("B", 16, 384), 55.6),
        (vit("S", 32, 384, v1(8, 6)), 1.9),
        (vit("B", 16, 384, v1(16, 6)), 28.7),
        (vit("S", 32, 384, v1(8, 11), depth=22), 3.3),
        (vit("B", 32, 384, v1(8, 10), depth=20), 11.5),
        (vit("B", 16, 384, v1(8, 10), depth=21), 47.1),
        (vit("L", 16, 512, v1(16, 12)), 184.6),
        (vit("L", 16, 512, v1(16, 12), depth=35), 186.8),
        (vit("L", 16, 512, v1(8, 18), depth=30), 274.2),
        (vit("L", 14, 512, v1(16, 18), depth=35), 361.6),
        (vit("L", 10, 512, v1(16, 18), depth=35), 849.0),
        (vit("L", 16, 512, v1(16, 12, fuse=True)), 187.1),
        (vit("L", 16, 512, v1(8, 18, fuse=True)), 273.8),
    ],
)
def test_macs_are_just_below_the_published_gflops(
    spec: ModelSpec, published: float
) -> None:
    macs = cost.macs(spec, 1000) / 1e9
    assert 0.985 * published < macs < published + 0.05


def test_parameters_of_the_published_large_models_with_token_learner() -> None:
    for patch_size, millions in ((10, 445.0), (8, 446.4)):
        spec = vit("L", patch_size, 512, v1(16, 18), depth=35)
        params = cost.params(spec, 1000)
        assert params / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("ViT-Ti/16:token", 5_717_416),
        ("ViT-B/16:token", 86_567_656),
        ("ViT-G/14:token", 1_844_440_680),
        ("ViT-Ti/16:map", 6_161_704),
        ("ViT-S/16:map", 23_823_976),
        ("ViT-B/16:map", 93_653_224),
        ("ViT-L/16:map", 316_919_784),
        ("ViT-H/14:map", 651_719_400),
        ("ViT-g/14:map", 1_037_857_384),
        ("ViT-G/14:map", 1_882_797_416),
    ],
)
def test_parameters_with_a_class_token_and_with_a_map_head(
    name: str, count: int
) -> None:
    assert cost.params(parse_model(name), 1000) == count
    with torch.device("meta"):
        model = build_model(parse_model(name), 1000)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize(  # Arnab et al. 2021, table 3 of the ViViT paper
    ("name", "millions", "published"),
    [
        ("ViViT-B/16x2:token", 88.9, 455.2),
        ("ViViT-B/16x2:encoder:token", 115.1, 284.4),
        ("ViViT-B/16x2:attention", 117.3, 372.3),
        ("ViViT-B/16x2:dotproduct", 88.9, 277.1),
    ],
)
def test_video_models_cost_what_is_published(
    name: str, millions: float, published: float
) -> None:
    spec = parse_model(name)
    assert cost.params(spec, 400) / 1e6 == pytest.approx(millions, abs=0.06)
    assert 0.985 * published < cost.macs(spec, 400) / 1e9 < published


# Against torch.


@pytest.mark.parametrize("size", ["B", "L"])
@pytest.mark.parametrize("kind", ["", ":token", ":encoder", ":attention", "+TL16v1@6"])
def test_large_video_models_are_what_torch_counts(size: str, kind: str) -> None:
    spec = parse_model(f"ViViT-{size}/16x2{kind}")
    with torch.device("meta"):
        model = build_model(spec, 400)
        sample = torch.empty(1, *spec.sample_shape)
    assert cost.params(spec, 400) == sum(p.numel() for p in model.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(sample)
    assert 2 * cost.macs(spec, 400) == counter.get_total_flops()


def test_parameters_and_macs_are_what_torch_counts(variant: ModelSpec) -> None:
    with torch.device("meta"):
        model = build_model(variant, 7)
        sample = torch.empty(1, *variant.sample_shape)
    assert cost.params(variant, 7) == sum(p.numel() for p in model.parameters())
    with FlopCounterMode(display=False) as counter:
        model(sample)
    assert 2 * cost.macs(variant, 7) == counter.get_total_flops()


def test_train_flops_are_what_torch_counts(variant: ModelSpec) -> None:
    with torch.device("meta"):
        model = build_model(variant, 7)
        sample = torch.empty(1, *variant.sample_shape)
    with FlopCounterMode(display=False) as counter:
        model(sample).sum().backward()
    assert cost.train_flops(variant, 7) == counter.get_total_flops()


def test_tokens_are_those_that_enter_the_blocks(variant: ModelSpec) -> None:
    with torch.device("meta"):
        model: Any = build_model(variant, 7)
        sample = torch.empty(1, *variant.sample_shape)
    seen = []
    for module in model.modules():
        if type(module).__name__ == "Block":
            module.register_forward_pre_hook(
                lambda _, x: seen.append(x[0].shape[:2].numel())
            )
    model(sample)
    assert tokens(variant) == seen


@pytest.mark.parametrize("attention", ["auto", "eager"])
def test_saved_elements_are_those_that_autograd_keeps(
    variant: ModelSpec, attention: Attention
) -> None:
    model = build_model(variant, 7, attention=attention)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    samples = torch.randn(2, *variant.sample_shape)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(samples)
    elements = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) // 8
    predicted = sum(layer.saved for layer in layers(variant, 7, attention))
    assert predicted == pytest.approx(elements, rel=0.002)


def test_cost_needs_no_torch() -> None:
    code = "import sys, tlbench.models.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
