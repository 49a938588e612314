"""The NumPy formulas: small enough to do by hand, and whole models beside torch's."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tlbench.models import reference
from tlbench.models.reference import Array, Weights
from tlbench.models.vit import build_model
from tlbench.suites.names import parse_model

BASE = "ViT-d24h3m40l3/4@19"  # a 4 x 4 grid; three pixels at the border are lost


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_layer_norm_by_hand() -> None:
    w = {"weight": np.array([2.0, 2.0]), "bias": np.array([0.0, 1.0])}
    normed = reference.layer_norm(np.array([3.0, 1.0]), w)
    assert normed.tolist() == pytest.approx([2.0, -1.0], abs=2e-6)  # eps 1e-6


def test_layer_norm_of_what_does_not_vary_is_its_bias() -> None:
    w = {"weight": np.array([5.0, 5.0]), "bias": np.array([0.25, 1.0])}
    assert reference.layer_norm(np.array([7.0, 7.0]), w).tolist() == [0.25, 1.0]


def test_gelu_is_the_tanh_form() -> None:
    # tanh(sqrt(2 / pi) * 1.044715) = 0.682384; the error function gives 0.682689.
    assert reference.gelu(np.array([1.0]))[0] == pytest.approx(0.841192, abs=1e-6)


def test_softmax_of_large_values_stays_finite() -> None:
    weights = reference.softmax(np.array([1000.0, 1000.0 + math.log(3)]), axis=0)
    assert weights.tolist() == pytest.approx([0.25, 0.75])


def test_convolution_puts_zeros_around_the_image() -> None:
    ones = np.ones((1, 2, 3, 1))
    summed = reference.convolve3x3(ones, np.ones((1, 1, 3, 3)))
    assert summed[0, :, :, 0].tolist() == [[4, 6, 4], [4, 6, 4]]


def test_convolution_does_not_turn_its_kernel_around() -> None:
    image = np.arange(4.0).reshape(1, 2, 2, 1)  # 0 1 / 2 3
    kernel = np.zeros((1, 1, 3, 3))
    kernel[0, 0, 1, 2] = 1  # the neighbour to the right
    moved = reference.convolve3x3(image, kernel)
    assert moved[0, :, :, 0].tolist() == [[1, 0], [3, 0]]


def test_patches_are_cut_by_rows() -> None:
    image = np.arange(2 * 3.0).reshape(1, 1, 2, 3)  # 0 1 2 / 3 4 5, one column too many
    assert reference.patches(image, 1)[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert reference.patches(image, 2).tolist() == [[[0, 1, 3, 4]]]


@pytest.mark.parametrize(("pooling", "token"), [("sum", 5.0), ("mean", 1.25)])
def test_v1_pools_one_channel_evenly(pooling: Any, token: float) -> None:
    # LayerNorm over one channel gives 0 everywhere: sigmoid(0) = 1/2 of 1+2+3+4.
    w = {"norm.weight": np.ones(1), "norm.bias": np.zeros(1)}
    w |= {f"convolutions.{i}.weight": np.ones((1, 1, 3, 3)) for i in (0, 2, 4, 6)}
    x = np.array([[[1.0], [2.0], [3.0], [4.0]]])
    tokens = reference.token_learner_v1(x, w, (2, 2), pooling)
    assert tokens.item() == pytest.approx(token)


def masking_by_hand() -> Weights:
    """An MLP that gives the logits log 3 and 0 to positions (1, 0) and (0, 1)."""
    return {
        "norm.weight": np.ones(2),
        "norm.bias": np.zeros(2),
        "hidden.weight": np.array([[10.0, 0.0]]),  # LN: (1, -1), (-1, 1); gelu: 10, 0
        "hidden.bias": np.zeros(1),
        "output.weight": np.array([[math.log(3) / 10]]),
        "output.bias": np.zeros(1),
    }


def test_v1_1_by_hand() -> None:
    w = {f"token_masking.{name}": array for name, array in masking_by_hand().items()}
    x = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    assert reference.maps_v11(x, w).ravel().tolist() == pytest.approx(
        [0.75, 0.25], 1e-4
    )
    token = reference.token_learner_v11(x, w)
    assert token.ravel().tolist() == pytest.approx([0.75, 0.25], 1e-4)


def test_fuser_by_hand() -> None:
    w = {f"token_masking.{name}": array for name, array in masking_by_hand().items()}
    w |= {f"norm_{when}.weight": np.ones(2) for when in ("before", "after")}
    w |= {f"norm_{when}.bias": np.zeros(2) for when in ("before", "after")}
    w |= {"mix.weight": np.array([[-1.0]]), "mix.bias": np.array([0.0])}
    tokens, original = np.array([[[3.0, 1.0]]]), np.array([[[1.0, 0.0], [0.0, 1.0]]])
    fused = reference.token_fuser(tokens, original, w)
    # LN (1, -1), mixed (-1, 1); sigmoids 3/4 at the first position, 1/2 at the second.
    expected = [-0.75, 0.75, -0.5, 0.5]
    assert fused.ravel().tolist() == pytest.approx(expected, 1e-4)


def test_maps_keep_their_kind(random: np.random.Generator) -> None:
    model = build_model(parse_model(f"{BASE}+TL5v1@1"), 7)
    x = random.standard_normal((2, 16, 24))
    w = reference.part(_arrays(model), "blocks.token_learner")
    maps = reference.maps_v1(x, w, (4, 4))
    assert maps.shape == (2, 5, 16)
    assert ((maps > 0) & (maps < 1)).all()
    model = build_model(parse_model(f"{BASE}+TL5@1"), 7)
    w = reference.part(_arrays(model), "blocks.token_learner")
    assert reference.maps_v11(x, w).sum(axis=-1) == pytest.approx(np.ones((2, 5)))


@pytest.mark.parametrize(
    "reduction", ["", "+TL5@1", "+TL5@0", "+TL20v1@2", "+TL5v1mean@1", "+TL5v1fuse@1",
                  "+TL5fuse@0", "+TL5@3"],
)  # fmt: skip
def test_whole_models_give_what_torch_gives(
    reduction: str, random: np.random.Generator
) -> None:
    spec = parse_model(BASE + reduction)
    model = build_model(spec, 7).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # no weight hides a mistake at its start
            noise = random.standard_normal(parameter.shape)
            parameter.copy_(torch.from_numpy(0.3 * noise))
    images = random.standard_normal((2, *spec.sample_shape))
    expected = reference.vit(images, _arrays(model), spec)
    with torch.inference_mode():
        logits = model(torch.from_numpy(images)).numpy()
    scale = np.abs(expected).max()
    assert expected.shape == (2, 7)
    assert np.abs(logits - expected).max() < 1e-12 * scale


@pytest.mark.parametrize(
    "spoil",
    [
        lambda w: w | {"blocks.token_learner.norm.bias": 1 + w["norm.bias"]},
        lambda w: {**w, "blocks.1.attn.qkv.bias": 1 + w["blocks.1.attn.qkv.bias"]},
    ],
)
def test_every_weight_counts(
    spoil: Callable[[dict[str, Array]], Weights], random: np.random.Generator
) -> None:
    spec = parse_model(f"{BASE}+TL5v1@1")
    w = {name: 0.3 * random.standard_normal(array.shape)
         for name, array in _arrays(build_model(spec, 7)).items()}  # fmt: skip
    images = random.standard_normal((1, *spec.sample_shape))
    right = reference.vit(images, w, spec)
    assert np.abs(reference.vit(images, spoil(w), spec) - right).max() > 1e-6


def _arrays(model: torch.nn.Module) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}
