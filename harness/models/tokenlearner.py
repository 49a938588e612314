"""TokenLearner and TokenFuser: a few tokens that the image itself chooses.

A TokenLearner draws S maps over the positions of its input and pools the input once
under each map; a TokenFuser spreads the S tokens over the positions again.

Source: the paper (Ryoo et al. 2021, arXiv 2106.11297) and its public code, scenic
`projects/token_learner/model.py`. Where the two differ the code is followed, down to
LayerNorm's eps of 1e-6, the tanh form of GELU and the initial weights.

Shapes: B batch, N positions = H * W, rows first, D dim, S num_tokens.
"""

import math
from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor, nn

from tlbench.models.flax_init import init_conv_, init_mlp_

LAYER_NORM_EPS = 1e-6


class MapPooling(nn.Module, ABC):
    """What both versions share: tokens are sums of the input, weighted by the maps.

    The maps are drawn from the normalised input; what is pooled is the input as it is.
    """

    @abstractmethod
    def attention(self, x: Tensor) -> Tensor:
        """Draw the maps: [B, N, D] -> [B, S, N]."""

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x) @ x  # [B, S, N] @ [B, N, D] -> [B, S, D]


class TokenLearner(MapPooling):
    """TokenLearner as published (v1): four 3x3 convolutions draw sigmoid maps.

    token_s = sum over p of sigmoid(convolutions(LN(x)))_sp * x_p, where the public code
    sums over the positions p and the paper takes their mean (`pooling`).
    """

    def __init__(
        self,
        dim: int,
        num_tokens: int,
        grid_size: tuple[int, int] | None = None,
        *,
        pooling: Literal["sum", "mean"] = "sum",
    ) -> None:
        """`grid_size` is (H, W); None stands for any square grid."""
        super().__init__()
        self.grid_size = grid_size
        self.pooling = pooling
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.convolutions = nn.Sequential(
            _conv3x3(dim, num_tokens),
            nn.GELU(approximate="tanh"),
            _conv3x3(num_tokens, num_tokens),
            nn.GELU(approximate="tanh"),
            _conv3x3(num_tokens, num_tokens),
            nn.GELU(approximate="tanh"),
            _conv3x3(num_tokens, num_tokens),
        )

    def attention(self, x: Tensor) -> Tensor:
        """Draw the maps, each value in (0, 1) on its own: [B, N, D] -> [B, S, N]."""
        grid_size = grid_of(x, self.grid_size, "TokenLearner")
        grid = self.norm(x).unflatten(1, grid_size)  # [B, H, W, D]
        # A view in channels-last order, which convolutions take as it is.
        maps: Tensor = self.convolutions(grid.permute(0, 3, 1, 2))  # [B, S, H, W]
        return maps.flatten(2).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        tokens = super().forward(x)
        return tokens / x.shape[1] if self.pooling == "mean" else tokens


class TokenLearnerV11(MapPooling):
    """TokenLearner v1.1: an MLP draws maps that a softmax normalises over positions.

    token_s = sum over p of softmax_p(mlp(LN(x)))_sp * x_p.
    """

    def __init__(self, dim: int, num_tokens: int, hidden_dim: int = 64) -> None:
        super().__init__()
        self.token_masking = TokenMasking(dim, num_tokens, hidden_dim)

    def attention(self, x: Tensor) -> Tensor:
        """Draw the maps, each of which sums to 1: [B, N, D] -> [B, S, N]."""
        logits: Tensor = self.token_masking(x)  # [B, N, S]
        return logits.transpose(1, 2).softmax(dim=-1)


class TokenFuser(nn.Module):
    """Spreads the tokens over the positions they were learned from.

    out_p = sum over s of sigmoid(mlp(LN(original)))_ps * LN(mix(LN(tokens)))_s, where
    `mix` is a linear layer over the tokens, the same for every channel. It starts at
    zero, and with it the output; adding the residual is left to the caller.
    """

    def __init__(self, dim: int, num_tokens: int, hidden_dim: int = 64) -> None:
        super().__init__()
        self.norm_before = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mix = nn.Linear(num_tokens, num_tokens)
        self.norm_after = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.token_masking = TokenMasking(dim, num_tokens, hidden_dim)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def attention(self, original: Tensor) -> Tensor:
        """Weigh the tokens at every position: [B, N, D] -> [B, N, S]."""
        logits: Tensor = self.token_masking(original)
        return logits.sigmoid()

    def forward(self, tokens: Tensor, original: Tensor) -> Tensor:
        """Fuse [B, S, D] into [B, N, D], both from the same `original`."""
        channels = self.norm_before(tokens).transpose(1, 2)  # [B, D, S]
        mixed = self.norm_after(self.mix(channels).transpose(1, 2))  # [B, S, D]
        fused: Tensor = self.attention(original) @ mixed  # [B, N, D]
        return fused


class TokenMasking(nn.Module):
    """The MLP that gives each position one logit per token: [B, N, D] -> [B, N, S]."""

    def __init__(self, dim: int, num_tokens: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.hidden = nn.Linear(dim, hidden_dim)
        self.activation = nn.GELU(approximate="tanh")
        self.output = nn.Linear(hidden_dim, num_tokens)
        init_mlp_(self.hidden, self.output)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.activation(self.hidden(self.norm(x))))
        return logits


class FusedBlock(nn.Module):
    """A transformer block that works on learned tokens inside: [B, N, D] -> same.

    `learn` is a TokenLearner and `fuse` a TokenFuser, or what lets them see the time
    steps of a clip one by one.
    """

    def __init__(self, block: nn.Module, learn: nn.Module, fuse: nn.Module) -> None:
        super().__init__()
        self.learn = learn
        self.block = block
        self.fuse = fuse

    def forward(self, x: Tensor) -> Tensor:
        fused: Tensor = self.fuse(self.block(self.learn(x)), x)
        return x + fused


def grid_of(
    x: Tensor, grid_size: tuple[int, int] | None, module: str
) -> tuple[int, int]:
    """The grid of [B, N, D], or a ValueError that says why `module` has none.

    Without `grid_size`, (height, width), the grid must be square.
    """
    positions = x.shape[1]
    if grid_size is None:
        side = math.isqrt(positions)
        if side * side != positions:
            raise ValueError(
                f"{positions} positions make no square grid;"
                f" give {module} their grid_size=(height, width)"
            )
        return side, side
    if math.prod(grid_size) != positions:
        raise ValueError(
            f"grid_size={grid_size} has {math.prod(grid_size)}"
            f" positions, but the input has {positions}"
        )
    return grid_size


def _conv3x3(channels: int, num_tokens: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, num_tokens, kernel_size=3, padding=1, bias=False)
    init_conv_(conv)
    return conv
