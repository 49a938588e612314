"""TokenLearner and TokenFuser against their formulas in NumPy.

Shapes: B batch, N positions, D dim, S num_tokens.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tlbench.models import reference
from tlbench.models.reference import Array, Weights
from tlbench.models.tokenlearner import (
    FusedBlock,
    MapPooling,
    TokenFuser,
    TokenLearner,
    TokenLearnerV11,
)

BUILDERS: dict[str, Callable[[int, int], MapPooling]] = {
    "v1": TokenLearner,
    "v1mean": lambda dim, tokens: TokenLearner(dim, tokens, pooling="mean"),
    "v1.1": TokenLearnerV11,
}
every_version = pytest.mark.parametrize("version", BUILDERS)


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
    w = weights_of(learner)
    assert close(learner.attention(x), reference.maps_v1(x.numpy(), w, grid_size))
    tokens = reference.token_learner_v1(x.numpy(), w, grid_size, pooling)
    assert close(learner(x), tokens)


def test_v1_1_is_the_published_formula() -> None:
    learner = randomised(TokenLearnerV11(6, 3, hidden_dim=5))
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    w = weights_of(learner)
    assert close(learner.attention(x), reference.maps_v11(x.numpy(), w))
    assert close(learner(x), reference.token_learner_v11(x.numpy(), w))


def test_fuser_is_the_published_formula() -> None:
    fuser = randomised(TokenFuser(6, 3, hidden_dim=5))
    tokens = torch.randn(2, 3, 6, dtype=torch.float64)
    original = torch.randn(2, 7, 6, dtype=torch.float64)
    w = weights_of(fuser)
    expected = reference.token_fuser(tokens.numpy(), original.numpy(), w)
    assert close(fuser(tokens, original), expected)
    masking = reference.part(w, "token_masking")
    masks = reference.sigmoid(reference.masking(original.numpy(), masking))
    assert close(fuser.attention(original), masks)


def test_fused_block_adds_what_it_fused_to_its_input() -> None:
    block = nn.Linear(6, 6)
    fused = FusedBlock(block, TokenLearnerV11(6, 3), TokenFuser(6, 3))
    fused = randomised(fused)
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    tokens = reference.token_learner_v11(x.numpy(), weights_of(fused.learn))
    inner = reference.linear(tokens, weights_of(block))
    added = reference.token_fuser(inner, x.numpy(), weights_of(fused.fuse))
    assert close(fused(x), x.numpy() + added)


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
