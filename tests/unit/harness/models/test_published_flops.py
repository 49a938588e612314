"""The publication's way of counting, on the TokenFuser that it counted."""

import pytest

from tlbench.models import cost
from tlbench.models.layers import GELU_OPS, NORM_OPS, Layer, layers
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import parse_model


def published_gflops(name: str, num_classes: int = 1000) -> float:
    return cost.published_flops(parse_model(name), num_classes) / 1e9


# Half of what XLA counts in the model of 2021, in G.
@pytest.mark.parametrize(
    ("name", "num_classes", "counted"),
    [
        ("ViT-B/16@384+TL8v1fuse@6", 1000, 28.60),
        ("ViT-B/16@384+TL16v1fuse@6", 1000, 29.20),
        ("ViT-L/16@512+TL16v1fuse@12", 1000, 186.91),
        ("ViT-L/16@512+TL8v1fuse@18", 1000, 273.79),
        ("ViT-L/10[24+11]@512+TL16v1fuse@18", 1000, 857.17),
        ("ViViT-L/10x2[24+11]+TL16v1fuse@18", 600, 4091.9),
    ],
)
def test_a_model_with_the_fuser_of_2021_costs_what_xla_counts(
    name: str, num_classes: int, counted: float
) -> None:
    assert published_gflops(name, num_classes) == pytest.approx(counted, rel=0.001)


def test_masks_of_the_fuser_are_one_matrix_and_no_mlp() -> None:
    spec = parse_model("ViT-d48h3m192l4/4@28+TL5v1fuse@1")
    N, D, S, fused_blocks = 49, 48, 5, 3
    fuser_macs = S * S * D + N * D * S + N * S * D  # mixing, masks, remapping
    # Two norms and the bias of the mixing on S tokens; norm and residual on N.
    fuser_elementwise = (2 * NORM_OPS + 1) * S * D + (NORM_OPS + 1) * N * D
    others = [x for x in layers(spec, 10) if not x.name.endswith(".fuse")]
    expected = sum(_published(layer) for layer in others)
    expected += fused_blocks * (fuser_macs + fuser_elementwise / 2)
    assert cost.published_flops(spec, 10) == expected


@pytest.mark.parametrize(
    "name", ["ViT-B/16", "ViT-B/16+TL8v1@6", "ViT-B/16+TL8v1fuse@12"]
)
def test_models_without_a_fuser_are_counted_as_they_are(name: str) -> None:
    spec = parse_model(name)
    assert cost.published_flops(spec, 1000) == _total(spec)


def test_a_gelu_counts_half_of_its_operations() -> None:
    narrow, wide = (
        parse_model(f"ViT-d48h3m{mlp_dim}l1/4@28") for mlp_dim in (192, 193)
    )
    added = cost.published_flops(wide, 10) - cost.published_flops(narrow, 10)
    assert added == 49 * (2 * 48 + (GELU_OPS + 1) / 2)  # two products, bias and GELU


def _published(layer: Layer) -> float:
    return layer.macs + layer.elementwise / 2


def _total(spec: ModelSpec) -> float:
    return sum(_published(layer) for layer in layers(spec, 1000))
