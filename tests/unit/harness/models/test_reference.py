"""The NumPy formulas: small enough to do by hand, and whole models beside torch's."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from tlbench.models import reference
from tlbench.models.reference import Array, Weights
from tlbench.models.vit import build_model
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Attention

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


def convolve3x3_by_loops(image: Array, kernel: Array) -> Array:
    _, height, width, _ = image.shape
    out = np.zeros((*image.shape[:3], kernel.shape[0]))
    for row in range(height):
        for column in range(width):
            for i in range(3):
                for j in range(3):
                    y, x = row + i - 1, column + j - 1
                    if 0 <= y < height and 0 <= x < width:
                        out[:, row, column] += image[:, y, x] @ kernel[:, :, i, j].T
    return out


def test_convolution_is_that_of_every_position_on_its_own(
    random: np.random.Generator,
) -> None:
    image = random.standard_normal((2, 3, 5, 4))
    kernel = random.standard_normal((6, 4, 3, 3))
    expected = convolve3x3_by_loops(image, kernel)
    assert np.abs(reference.convolve3x3(image, kernel) - expected).max() < 1e-13


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


def masking_by_hand(other_tokens: int = 0) -> Weights:
    """An MLP that gives the logits log 3 and 0 to positions (1, 0) and (0, 1).

    Those of the other tokens are 0.
    """
    return {
        "norm.weight": np.ones(2),
        "norm.bias": np.zeros(2),
        "hidden.weight": np.array([[10.0, 0.0]]),  # LN: (1, -1), (-1, 1); gelu: 10, 0
        "hidden.bias": np.zeros(1),
        "output.weight": np.array([[math.log(3) / 10], *[[0.0]] * other_tokens]),
        "output.bias": np.zeros(1 + other_tokens),
    }


def test_v1_1_by_hand() -> None:
    w = {f"token_masking.{name}": array for name, array in masking_by_hand().items()}
    x = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    assert reference.maps_v11(x, w).ravel().tolist() == pytest.approx(
        [0.75, 0.25], 1e-4
    )
    token = reference.token_learner_v11(x, w)
    assert token.ravel().tolist() == pytest.approx([0.75, 0.25], 1e-4)


def test_v1_by_hand() -> None:
    # One position sees the centre of each kernel alone: 10, 10, 10, log 3.
    taps = {0: [10.0, 0.0], 2: [1.0], 4: [1.0], 6: [math.log(3) / 10]}
    w: dict[str, Array] = {"norm.weight": np.ones(2), "norm.bias": np.zeros(2)}
    for index, tap in taps.items():
        kernel = np.zeros((1, len(tap), 3, 3))
        kernel[0, :, 1, 1] = tap
        w[f"convolutions.{index}.weight"] = kernel
    x = np.array([[[1.0, 0.0]]])  # LN: (1, -1)
    assert reference.maps_v1(x, w, (1, 1)).item() == pytest.approx(0.75, 1e-4)
    token = reference.token_learner_v1(x, w, (1, 1))
    assert token.ravel().tolist() == pytest.approx([0.75, 0.0], 1e-4)


def test_fuser_by_hand() -> None:
    masking = masking_by_hand(other_tokens=1)
    w = {f"token_masking.{name}": array for name, array in masking.items()}
    w |= {f"norm_{when}.weight": np.ones(2) for when in ("before", "after")}
    w |= {f"norm_{when}.bias": np.zeros(2) for when in ("before", "after")}
    w |= {"mix.weight": np.array([[0.0, 1.0], [0.0, 0.0]]), "mix.bias": np.zeros(2)}
    tokens = np.array([[[3.0, 1.0], [1.0, 3.0]]])
    original = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    fused = reference.token_fuser(tokens, original, w)
    # LN (1, -1) and (-1, 1), of which the first becomes the second, the second nothing;
    # the sigmoids of the first are 3/4 and 1/2.
    expected = [-0.75, 0.75, -0.5, 0.5]
    assert fused.ravel().tolist() == pytest.approx(expected, 1e-4)


@pytest.mark.parametrize("attention", ["auto", "eager"])
@pytest.mark.parametrize(
    "parts", ["", ":token", ":map", "+TL5@1", "+TL5@0", "+TL20v1@2", "+TL5v1mean@1",
              "+TL5v1fuse@1", "+TL5fuse@0", "+TL5@3", ":map+TL5@1"],
)  # fmt: skip
def test_whole_models_give_what_torch_gives(
    parts: str, attention: Attention, random: np.random.Generator
) -> None:
    spec = parse_model(BASE + parts)
    model = build_model(spec, 7, attention=attention).double().eval()
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
    ("parts", "unseen"),
    [
        ("", []),
        (":token", []),
        (":map", []),
        ("+TL5v1@1", []),
        # A softmax does not see what is added to all of its inputs, nor a LayerNorm
        # what is added to all channels.
        ("+TL5@1", ["blocks.token_learner.token_masking.output.bias"]),
        ("+TL5v1fuse@2", ["blocks.2.fuse.mix.bias"]),
    ],
)
def test_every_weight_counts(
    parts: str, unseen: list[str], random: np.random.Generator
) -> None:
    spec = parse_model(BASE + parts)
    w = {
        name: 0.3 * random.standard_normal(array.shape)
        for name, array in _arrays(build_model(spec, 7)).items()
    }
    images = random.standard_normal((1, *spec.sample_shape))
    right = reference.vit(images, w, spec)
    changes = {}
    for name, array in w.items():
        spoilt = {**w, name: array + 0.1 * random.standard_normal(array.shape)}
        changes[name] = np.abs(reference.vit(images, spoilt, spec) - right).max()
    assert [name for name, change in changes.items() if change < 1e-9] == unseen


def _arrays(model: torch.nn.Module) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}
