"""Opponents of TokenLearner: other ways to few tokens, as a user would write them.

Each function takes the model and its options, and returns the model that competes. They
work on a VisionTransformer of timm's, of images or of clips whose tokens all attend to
each other. A class token is neither merged nor dropped.

Shapes: B batch, N tokens, P class tokens at their head (0 or 1), D dim, H heads, E dim
of one head, r tokens merged away, T time steps.
"""

import math
from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import normalize

from tlbench.errors import TrialError


def merge_tokens(model: Any, *, r: int) -> nn.Module:
    """Token Merging (ToMe): every block merges the `r` most similar pairs of tokens.

    At most half of the patch tokens merge in one block, so that at least one stays. The
    mean over the tokens weighs each by the patches in it; a MAP head does not.

    Source: Bolya et al. 2023 (arXiv 2210.09461), and its public code for timm 0.4,
    `tome/merge.py` and `tome/patch/`.
    """
    if r < 0:
        raise TrialError(f"r={r} is negative; 0 merges nothing")
    blocks, prefix = _blocks(model), model.num_prefix_tokens
    model.blocks = nn.Sequential(
        OrderedDict((name, MergingBlock(block, r, prefix)) for name, block in blocks)
    )
    model.norm = MergedNorm(model.norm, prefix, is_mean=model.global_pool == "avg")
    return model  # type: ignore[no-any-return]  # timm is untyped


def drop_random_tokens(model: Any, *, keep: int, place: int) -> nn.Module:
    """Keep `keep` patch tokens of each image before block `place`, drawn at random.

    They are drawn anew in every forward pass, in evaluation as in training, by torch's
    generator, which a trial seeds.
    """
    if keep < 1:
        raise TrialError(f"keep={keep} leaves no token; 1 is the least")
    blocks = _blocks(model)
    return _insert(model, blocks, place, RandomDrop(keep, model.num_prefix_tokens))


def drop_tokens_between_strides(model: Any, *, step: int, place: int) -> nn.Module:
    """Keep every `step`-th row and column of the grid, the first ones included.

    Of clips, in each time step. At least the token in the corner stays.
    """
    if step < 1:
        raise TrialError(f"step={step} is no distance; 1 keeps every token")
    blocks, grid_size = _blocks(model), model.patch_embed.grid_size
    drop = StridedDrop(step, grid_size, model.num_prefix_tokens)
    return _insert(model, blocks, place, drop)


def pool_by_fixed_maps(model: Any, *, tokens: int, place: int) -> nn.Module:
    """Pool the grid by `tokens` maps before block `place`, whatever they lie over.

    TokenLearner that never looks: the maps are weights, trained like all others, and so
    the same for every input. Of clips, in each time step.
    """
    if tokens < 1:
        raise TrialError(f"tokens={tokens} leaves no token; 1 is the least")
    blocks, grid_size = _blocks(model), model.patch_embed.grid_size
    pool = FixedMaps(tokens, math.prod(grid_size), model.num_prefix_tokens)
    return _insert(model, blocks, place, pool)


# ---------------------------------------------------------------- token merging


class Matching(NamedTuple):
    """Which tokens merge into which: [B, ...] of indices in each half.

    The first half are the tokens at even positions, the second those at odd ones.
    """

    kept: Tensor
    """Of the first half, those that stay alone."""
    merged: Tensor
    """[B, r] of the first half, the most similar pair first."""
    targets: Tensor
    """[B, r] of the second half: what each of `merged` merges into."""


@torch.no_grad()
def match(keys: Tensor, r: int, prefix: int = 0) -> Matching:
    """Bipartite soft matching of [B, N, E]: each even token, and the odd one nearest.

    Of these pairs the r with the largest cosine merge.
    """
    keys = normalize(keys, dim=-1)
    scores = keys[:, ::2] @ keys[:, 1::2].transpose(1, 2)  # [B, N - N // 2, N // 2]
    if prefix:
        scores[:, 0] = -torch.inf  # the class token stays
    similarity, nearest = scores.max(dim=2)
    order = similarity.argsort(dim=1, descending=True)
    kept, merged = order[:, r:], order[:, :r]
    if prefix:
        kept = kept.sort(dim=1).values  # and stays first
    return Matching(kept, merged, nearest.gather(1, merged))


def merge(x: Tensor, matching: Matching) -> Tensor:
    """Add up what merges: [B, N, D] -> [B, N - r, D], the kept before the targets."""
    first, second = x[:, ::2], x[:, 1::2]
    sums = second.scatter_add(
        1, _along(matching.targets, x), _take(first, matching.merged)
    )
    return torch.cat([_take(first, matching.kept), sums], dim=1)


class MergingBlock(nn.Module):
    """A block of timm's that merges tokens between its attention and its MLP.

    It takes the tokens [B, N, D], and from another block also how many patches are in
    each [B, N, 1]; it gives both. A token counts in the attention as its patches would.
    """

    def __init__(self, block: Any, r: int, prefix: int) -> None:
        super().__init__()
        self.block = block
        self.r = r
        self.prefix = prefix
        self._keys: Tensor | None = None
        block.attn.k_norm.register_forward_hook(self._keep_keys)

    def forward(
        self, state: Tensor | tuple[Tensor, Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        x, sizes = state if isinstance(state, tuple) else (state, None)
        block = self.block
        bias = None if sizes is None else sizes.log().to(x.dtype)[:, None, None, :, 0]
        attended = block.attn(block.norm1(x), attn_mask=bias)
        x = x + block.drop_path1(block.ls1(attended))
        x, sizes = self._merge(x, sizes)
        x = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
        return x, sizes

    def _merge(self, x: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Average what merges, weighted by its patches, in fp32 at least."""
        keys, self._keys = self._keys, None
        assert keys is not None, "timm's attention did not pass its keys to k_norm"
        r = min(self.r, (x.shape[1] - self.prefix) // 2)
        if r == 0:
            return x, sizes
        if sizes is None:
            precise = torch.promote_types(x.dtype, torch.float32)
            sizes = torch.ones(*x.shape[:2], 1, device=x.device, dtype=precise)
        matching = match(keys.mean(dim=1), r, self.prefix)
        merged_sizes = merge(sizes, matching)
        return (merge(x * sizes, matching) / merged_sizes).to(x.dtype), merged_sizes

    def _keep_keys(self, _module: nn.Module, _inputs: object, keys: Tensor) -> None:
        self._keys = keys.detach()  # [B, H, N, E]


class MergedNorm(nn.Module):
    """The final norm; before a mean over the tokens it weighs each by its patches."""

    def __init__(self, norm: nn.Module, prefix: int, *, is_mean: bool) -> None:
        super().__init__()
        self.norm = norm
        self.prefix = prefix
        self.is_mean = is_mean

    def forward(self, state: tuple[Tensor, Tensor | None]) -> Tensor:
        tokens, sizes = state
        x: Tensor = self.norm(tokens)
        if sizes is None or not self.is_mean:
            return x
        weights = sizes / sizes[:, self.prefix :].mean(dim=1, keepdim=True)
        return x * weights.to(x.dtype)


# ---------------------------------------------------------------- token dropping


class RandomDrop(nn.Module):
    """Keeps a fixed number of patch tokens, other ones of each image: [B, N, D]."""

    def __init__(self, keep: int, prefix: int) -> None:
        super().__init__()
        self.keep = keep
        self.prefix = prefix

    def forward(self, x: Tensor) -> Tensor:
        patches = x[:, self.prefix :]
        if self.keep > patches.shape[1]:
            raise TrialError(
                f"keep={self.keep} is more than the {patches.shape[1]} patch tokens"
            )
        chances = torch.rand(patches.shape[:2], device=x.device)
        kept = chances.topk(self.keep, dim=1).indices.sort(dim=1).values
        return torch.cat([x[:, : self.prefix], _take(patches, kept)], dim=1)


class StridedDrop(nn.Module):
    """Keeps every `step`-th row and column of the grid (height, width): [B, N, D]."""

    def __init__(self, step: int, grid_size: tuple[int, int], prefix: int) -> None:
        super().__init__()
        self.step = step
        self.grid_size = grid_size
        self.prefix = prefix

    def forward(self, x: Tensor) -> Tensor:
        B, _, D = x.shape
        grids = x[:, self.prefix :].reshape(B, -1, *self.grid_size, D)
        kept = grids[:, :, :: self.step, :: self.step].flatten(1, 3)
        return torch.cat([x[:, : self.prefix], kept], dim=1)


class FixedMaps(nn.Module):
    """Weighted means over the grid by maps that no input changes: [B, N, D].

    Each map is the softmax of its weights over the positions of one time step. They
    start as small noise: equal maps would stay equal.
    """

    def __init__(self, tokens: int, positions: int, prefix: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(tokens, positions) * 0.02)
        self.prefix = prefix

    def forward(self, x: Tensor) -> Tensor:
        B, _, D = x.shape
        grids = x[:, self.prefix :].reshape(B, -1, self.logits.shape[1], D)
        pooled = self.logits.softmax(dim=1) @ grids  # [B, T, tokens, D]
        return torch.cat([x[:, : self.prefix], pooled.flatten(1, 2)], dim=1)


# ---------------------------------------------------------------- what they share


def _take(x: Tensor, indices: Tensor) -> Tensor:
    """The tokens at the indices: [B, N, D] and [B, K] -> [B, K, D]."""
    return x.gather(1, _along(indices, x))


def _along(indices: Tensor, x: Tensor) -> Tensor:
    """Indices of tokens for every channel of x: [B, K] -> [B, K, D]."""
    return indices[:, :, None].expand(-1, -1, x.shape[2])


def _insert(
    model: Any, blocks: list[tuple[str, nn.Module]], place: int, drop: nn.Module
) -> nn.Module:
    """Put `drop` before block `place`; the blocks keep their names."""
    if not 0 <= place < len(blocks):
        raise TrialError(
            f"place={place} is none of the {len(blocks)} blocks;"
            f" 0 to {len(blocks) - 1} would be right"
        )
    blocks.insert(place, ("drop", drop))
    model.blocks = nn.Sequential(OrderedDict(blocks))
    return model  # type: ignore[no-any-return]  # timm is untyped


def _blocks(model: Any) -> list[tuple[str, nn.Module]]:
    """The blocks of the model by name, all of which attend as timm's do."""
    blocks = list(getattr(model, "blocks", nn.Sequential()).named_children())
    for _, block in blocks:
        if not isinstance(block, Block) or not hasattr(block.attn, "k_norm"):
            blocks = []
            break
    if not blocks:
        raise TrialError(
            "token merging and dropping take all blocks of a plain ViT or joint ViViT:"
            " one without TokenLearner, pooling or a factorisation"
        )
    return blocks
