"""TokenLearner and TokenFuser against their formulas, written out in NumPy.

Shapes: B batch, N positions, D dim, S num_tokens.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tlbench.models.tokenlearner import (
    FusedBlock,
    MapPooling,
    TokenFuser,
    TokenLearner,
    TokenLearnerV11,
)

Array = Any  # a NumPy array of float64; NumPy types what arithmetic gives as Any
Weights = dict[str, Array]

BUILDERS: dict[str, Callable[[int, int], MapPooling]] = {
    "v1": TokenLearner,
    "v1mean": lambda dim, tokens: TokenLearner(dim, tokens, pooling="mean"),
    "v1.1": TokenLearnerV11,
}
every_version = pytest.mark.parametrize("version", BUILDERS)


# The formulas, from the paper and its public code.


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    deviation = x - x.mean(axis=-1, keepdims=True)
    variance = (deviation**2).mean(axis=-1, keepdims=True)
    return deviation / np.sqrt(variance + 1e-6) * weight + bias


def gelu(x: Array) -> Array:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + np.tanh(inner))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def convolve3x3(image: Array, kernel: Array) -> Array:
    """[B, H, W, C] with [O, C, 3, 3] -> [B, H, W, O], zeros beyond the border."""
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


def v1_maps(w: Weights, x: Array, grid_size: tuple[int, int]) -> Array:
    batch, positions, dim = x.shape
    image = layer_norm(x, w["norm.weight"], w["norm.bias"])
    image = image.reshape(batch, *grid_size, dim)
    for index in (0, 2, 4):
        image = gelu(convolve3x3(image, w[f"convolutions.{index}.weight"]))
    logits = convolve3x3(image, w["convolutions.6.weight"])
    return sigmoid(logits.reshape(batch, positions, -1).transpose(0, 2, 1))


def masking_logits(w: Weights, x: Array) -> Array:
    """[B, N, D] -> [B, N, S]."""
    w = {
        name.removeprefix("token_masking."): value
        for name, value in w.items()
        if name.startswith("token_masking.")
    }
    hidden = layer_norm(x, w["norm.weight"], w["norm.bias"]) @ w["hidden.weight"].T
    return gelu(hidden + w["hidden.bias"]) @ w["output.weight"].T + w["output.bias"]


def v11_maps(w: Weights, x: Array) -> Array:
    exponentials = np.exp(masking_logits(w, x))
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).transpose(0, 2, 1)


def pool(maps: Array, x: Array) -> Array:
    return np.einsum("bsn,bnd->bsd", maps, x)


def fuse(w: Weights, tokens: Array, original: Array) -> Array:
    before = layer_norm(tokens, w["norm_before.weight"], w["norm_before.bias"])
    mixed = np.einsum("ts,bsd->btd", w["mix.weight"], before)
    mixed = mixed + w["mix.bias"][None, :, None]
    after = layer_norm(mixed, w["norm_after.weight"], w["norm_after.bias"])
    return np.einsum("bns,bsd->bnd", sigmoid(masking_logits(w, original)), after)


# Drawing inputs and weights.


def randomised(module: Any) -> Any:
    """The module in float64, with no weight left at a value that hides a mistake."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return module.double()


def weights_of(module: nn.Module) -> Weights:
    return {name: value.numpy() for name, value in module.state_dict().items()}


def close(actual: torch.Tensor, expected: Array) -> bool:
    return np.allclose(actual.detach().numpy(), expected, rtol=0, atol=1e-10)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# The modules against the formulas.


@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("grid_size", [(4, 4), (2, 5), (1, 3)])
def test_v1_is_the_published_formula(pooling: Any, grid_size: tuple[int, int]) -> None:
    learner = randomised(TokenLearner(6, 3, grid_size, pooling=pooling))
    x = torch.randn(2, math.prod(grid_size), 6, dtype=torch.float64)
    maps = v1_maps(weights_of(learner), x.numpy(), grid_size)
    assert close(learner.attention(x), maps)
    divisor = {"sum": 1, "mean": x.shape[1]}[pooling]
    assert close(learner(x), pool(maps, x.numpy()) / divisor)


def test_v1_1_is_the_published_formula() -> None:
    learner = randomised(TokenLearnerV11(6, 3, hidden_dim=5))
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    maps = v11_maps(weights_of(learner), x.numpy())
    assert close(learner.attention(x), maps)
    assert close(learner(x), pool(maps, x.numpy()))


def test_fuser_is_the_published_formula() -> None:
    fuser = randomised(TokenFuser(6, 3, hidden_dim=5))
    tokens = torch.randn(2, 3, 6, dtype=torch.float64)
    original = torch.randn(2, 7, 6, dtype=torch.float64)
    expected = fuse(weights_of(fuser), tokens.numpy(), original.numpy())
    assert close(fuser(tokens, original), expected)
    masks = sigmoid(masking_logits(weights_of(fuser), original.numpy()))
    assert close(fuser.attention(original), masks)


def test_fused_block_adds_what_it_fused_to_its_input() -> None:
    block = nn.Linear(6, 6)
    fused = FusedBlock(block, TokenLearnerV11(6, 3), TokenFuser(6, 3))
    fused = randomised(fused)
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    tokens = pool(v11_maps(weights_of(fused.learn), x.numpy()), x.numpy())
    inner = tokens @ weights_of(block)["weight"].T + weights_of(block)["bias"]
    expected = x.numpy() + fuse(weights_of(fused.fuse), inner, x.numpy())
    assert close(fused(x), expected)


# Small enough to do by hand.


@pytest.mark.parametrize(
    ("version", "token"), [("v1", 5.0), ("v1mean", 1.25), ("v1.1", 2.5)]
)
def test_one_channel_is_pooled_evenly(version: str, token: float) -> None:
    # LayerNorm over one channel gives 0 everywhere: sigmoid(0) = 1/2 of 1+2+3+4.
    learner = BUILDERS[version](1, 2)
    tokens = learner(torch.tensor([[[1.0], [2.0], [3.0], [4.0]]]))
    assert tokens.flatten().tolist() == pytest.approx([token, token])


def test_v1_1_by_hand() -> None:
    learner = TokenLearnerV11(2, 1, hidden_dim=1)
    masking = learner.token_masking
    with torch.no_grad():  # LN: (1, -1) and (-1, 1); hidden: gelu(10), gelu(-10)
        masking.hidden.weight.copy_(torch.tensor([[10.0, 0.0]]))
        masking.output.weight.fill_(math.log(3) / 10)  # logits log 3 and 0
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert learner.attention(x).flatten().tolist() == pytest.approx([0.75, 0.25], 1e-4)
    assert learner(x).flatten().tolist() == pytest.approx([0.75, 0.25], 1e-4)


def test_v1_by_hand() -> None:
    learner = TokenLearner(2, 1)
    taps = [torch.tensor(tap) for tap in ([10.0, 0.0], 1.0, 1.0, math.log(3) / 10)]
    with torch.no_grad():  # one position sees the centre tap only: 10, 10, 10, log 3
        for conv, tap in zip(learner.convolutions[::2], taps, strict=True):
            conv.get_parameter("weight")[0, :, 1, 1] = tap
    token = learner(torch.tensor([[[1.0, 0.0]]]))
    assert token.flatten().tolist() == pytest.approx([0.75, 0.0], 1e-4)


def test_fuser_by_hand() -> None:
    fuser = TokenFuser(2, 2)
    with torch.no_grad():  # LN: (1, -1) and (-1, 1), which the mixing swaps
        fuser.mix.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        fuser.token_masking.output.weight.zero_()
        fuser.token_masking.output.bias.copy_(torch.tensor([math.log(3), 0.0]))
    tokens = torch.tensor([[[3.0, 1.0], [1.0, 3.0]]])
    fused = fuser(tokens, torch.randn(1, 4, 2))  # 3/4 (-1, 1) + 1/2 (1, -1)
    assert fused.flatten().tolist() == pytest.approx([-0.25, 0.25] * 4, 1e-4)


# Properties.


@every_version
@pytest.mark.parametrize(("batch", "side", "tokens"), [(1, 3, 1), (2, 2, 9), (3, 4, 8)])
def test_shapes_with_more_or_fewer_tokens_than_positions(
    version: str, batch: int, side: int, tokens: int
) -> None:
    learner = BUILDERS[version](5, tokens)
    x = torch.randn(batch, side**2, 5)
    assert learner.attention(x).shape == (batch, tokens, side**2)
    assert learner(x).shape == (batch, tokens, 5)
    fuser = TokenFuser(5, tokens)
    assert fuser(learner(x), x).shape == x.shape
    assert fuser.attention(x).shape == (batch, side**2, tokens)


def test_maps_of_v1_1_sum_to_one() -> None:
    maps = TokenLearnerV11(8, 4).attention(torch.randn(2, 9, 8))
    assert torch.allclose(maps.sum(dim=-1), torch.ones(2, 4))


def test_maps_of_v1_are_squashed_one_by_one() -> None:
    maps = randomised(TokenLearner(8, 4)).attention(torch.randn(2, 9, 8).double())
    assert ((maps > 0) & (maps < 1)).all()
    assert not torch.allclose(maps.sum(dim=-1), torch.ones(2, 4).double())


@every_version
def test_tokens_depend_on_the_image_and_differ_from_each_other(version: str) -> None:
    maps = BUILDERS[version](8, 2).attention(torch.randn(2, 9, 8))
    assert not torch.allclose(maps[0], maps[1])
    assert not torch.allclose(maps[:, 0], maps[:, 1])


def test_v1_refuses_positions_that_make_no_square() -> None:
    with pytest.raises(ValueError, match=r"10 positions make no square grid; give"):
        TokenLearner(4, 2)(torch.randn(1, 10, 4))


def test_v1_refuses_positions_that_do_not_fill_its_grid() -> None:
    with pytest.raises(ValueError, match=r"grid_size=\(2, 3\) has 6.* has 9"):
        TokenLearner(4, 2, (2, 3))(torch.randn(1, 9, 4))


@pytest.mark.parametrize("version", ["v1", "v1mean"])
def test_gradient_reaches_every_weight_of_v1(version: str) -> None:
    learner = randomised(BUILDERS[version](6, 3))
    (learner(torch.randn(2, 9, 6).double()) ** 2).sum().backward()
    assert all(parameter.grad.any() for parameter in learner.parameters())


def test_gradient_reaches_every_weight_of_v1_1_but_the_last_bias() -> None:
    learner = randomised(TokenLearnerV11(6, 3))
    (learner(torch.randn(2, 9, 6).double()) ** 2).sum().backward()
    gradients = {name: value.grad for name, value in learner.named_parameters()}
    # A softmax does not see what is added to all of its inputs.
    shift = gradients.pop("token_masking.output.bias")
    assert shift.abs().max() < 1e-12
    assert all(gradient.abs().max() > 1e-6 for gradient in gradients.values())


def test_gradient_reaches_every_weight_of_the_fuser() -> None:
    fuser = randomised(TokenFuser(6, 3))
    x = torch.randn(2, 9, 6).double()
    (fuser(torch.randn(2, 3, 6).double(), x) ** 2).sum().backward()
    assert all(parameter.grad.any() for parameter in fuser.parameters())


@pytest.mark.parametrize(
    ("module", "dim", "tokens", "count"),
    [
        (TokenLearner, 768, 8, 58_560),
        (TokenLearner, 768, 16, 119_040),
        (TokenLearner, 1024, 8, 77_504),
        (TokenLearner, 1024, 16, 156_416),
        (TokenLearner, 384, 8, 30_144),
        (TokenLearner, 384, 16, 62_976),
        (TokenLearnerV11, 768, 8, 51_272),
        (TokenLearnerV11, 768, 16, 51_792),
        (TokenLearnerV11, 1024, 8, 68_168),
        (TokenLearnerV11, 1024, 16, 68_688),
        (TokenLearnerV11, 384, 8, 25_928),
        (TokenLearnerV11, 384, 16, 26_448),
        (TokenFuser, 768, 8, 54_416),
        (TokenFuser, 768, 16, 55_136),
    ],
)
def test_parameters_are_those_of_the_public_code(
    module: Callable[[int, int], nn.Module], dim: int, tokens: int, count: int
) -> None:
    with torch.device("meta"):
        parameters = module(dim, tokens).parameters()
    assert sum(parameter.numel() for parameter in parameters) == count


def test_fuser_starts_at_zero() -> None:
    x = torch.randn(2, 9, 6)
    assert not TokenFuser(6, 3)(torch.randn(2, 3, 6), x).any()


def test_maps_start_from_the_weights_of_flax() -> None:
    convs = TokenLearner(64, 32).convolutions[::2]
    for conv, fan_in in zip(convs, [9 * 64, *[9 * 32] * 3], strict=True):
        std = math.sqrt(1 / fan_in)
        assert conv.bias is None
        assert conv.weight.std().item() == pytest.approx(std, rel=0.05)
        assert conv.weight.abs().max() <= 2 * std / 0.8796
    hidden = TokenLearnerV11(64, 32, hidden_dim=100).token_masking.hidden
    bound = math.sqrt(6 / (64 + 100))
    assert hidden.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert 0 < hidden.bias.abs().max() < 1e-5


@every_version
def test_bf16_runs_near_fp32(version: str) -> None:
    learner = BUILDERS[version](16, 4)
    x = torch.randn(2, 9, 16)
    exact = learner(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = learner(x)
    half = learner.to(torch.bfloat16)(x.to(torch.bfloat16))
    assert mixed.dtype == half.dtype == torch.bfloat16
    assert torch.allclose(mixed.float(), exact, atol=0.1)
    assert torch.allclose(half.float(), exact, atol=0.1)
