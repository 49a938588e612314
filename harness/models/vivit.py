"""What a ViViT has besides the ViT: tubelets, and attention over time.

Source: Arnab et al. 2021 (arXiv 2103.15691) and its public code, scenic
`projects/vivit/model.py` and `model_utils.py`, which is followed where the two differ.
The blocks are timm's; what stands here folds time into their batch.

Shapes: B batch, C channels, F frames, T time steps, N tokens of one time step, D dim,
H heads, E dim of one head. Tokens of a clip stand one time step after the other, and
within each by rows: [B, T*N, D]. T is fixed, N is whatever the input leaves.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn, unflatten


class TubeletEmbed(nn.Module):
    """Makes a token of each tubelet of a clip: [B, C, F, S, S] -> [B, T*N, D].

    Stands where timm embeds patches. Pixels and frames beyond the last whole tubelet
    are dropped. With `folds_time` the result is [B*T, N, D], for a ViT that sees one
    time step at a time.
    """

    def __init__(
        self,
        *,
        num_frames: int,
        tubelet_size: int,
        img_size: int,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        folds_time: bool = False,
        **_: Any,  # timm's settings of images
    ) -> None:
        super().__init__()
        self.clip_size = (num_frames, img_size, img_size)
        self.time_steps = num_frames // tubelet_size
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.folds_time = folds_time
        self.num_patches = math.prod(self.grid_size)
        if not folds_time:
            self.num_patches *= self.time_steps
        kernel_size = (tubelet_size, patch_size, patch_size)
        self.proj = nn.Conv3d(in_chans, embed_dim, kernel_size, stride=kernel_size)

    def forward(self, clips: Tensor) -> Tensor:
        if clips.shape[2:] != self.clip_size:
            raise ValueError(
                f"the model reads clips of {_times(self.clip_size)} (frames, height,"
                f" width), and this one has {_times(clips.shape[2:])}"
            )
        tubelets: Tensor = (
            self.proj(clips).flatten(3).permute(0, 2, 3, 1)
        )  # [B, T, N, D]
        tokens = tubelets.contiguous()  # so that time folds without a copy
        return tokens.flatten(0, 1) if self.folds_time else tokens.flatten(1, 2)


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


class PerTimeStep(nn.Module):
    """Lets a module see each time step alone, all of them through the same weights."""

    def __init__(self, module: nn.Module, time_steps: int) -> None:
        super().__init__()
        self.module = module
        self.time_steps = time_steps

    def forward(self, *tokens: Tensor, **options: Any) -> Tensor:
        """[B, T*N, D] each, folded into [B*T, N, D] and back."""
        T = self.time_steps
        steps = [unflatten(x, 1, (T, -1)).flatten(0, 1) for x in tokens]
        result: Tensor = self.module(*steps, **options)
        return unflatten(result, 0, (-1, T)).flatten(1, 2)


class OverTime(nn.Module):
    """Lets a module see each position alone, at all time steps."""

    def __init__(self, module: nn.Module, time_steps: int) -> None:
        super().__init__()
        self.module = module
        self.time_steps = time_steps

    def forward(self, x: Tensor) -> Tensor:
        """[B, T*N, D], folded into [B*N, T, D] and back."""
        steps = unflatten(x, 1, (self.time_steps, -1)).transpose(1, 2)  # [B, N, T, D]
        result: Tensor = self.module(steps.flatten(0, 1))
        return unflatten(result, 0, steps.shape[:2]).transpose(1, 2).flatten(1, 2)


class TimeSpaceBlock(nn.Module):
    """Model 3: a block that attends over time, then over space: [B, T*N, D] -> same.

    Attention over time has a norm and weights of its own, of the same shapes. Source:
    scenic `EncoderFactorizedSelfAttentionBlock`.
    """

    def __init__(self, block: Any, time_steps: int) -> None:
        """`block` is timm's; its attention becomes that over space."""
        super().__init__()
        self.time_norm = copy.deepcopy(block.norm1)
        self.time_attn = OverTime(copy.deepcopy(block.attn), time_steps)
        self.time_drop_path = copy.deepcopy(block.drop_path1)
        block.attn = PerTimeStep(block.attn, time_steps)
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.time_drop_path(self.time_attn(self.time_norm(x)))
        result: Tensor = self.block(x)
        return result


class SplitHeadAttention(nn.Module):
    """Model 4: the first half of the heads attend over time, the others over space.

    Takes the place and the layers of timm's attention, [B, T*N, D] -> same. Source:
    scenic `factorized_dot_product_attention`.
    """

    def __init__(self, attention: Any, time_steps: int) -> None:
        super().__init__()
        self.qkv = attention.qkv
        self.proj = attention.proj
        self.num_heads: int = attention.num_heads
        self.fused_attn: bool = attention.fused_attn
        self.time_steps = time_steps

    def forward(self, x: Tensor, **_: Any) -> Tensor:  # timm passes on masks: none here
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))
        qkv = qkv.unflatten(1, (self.time_steps, -1))  # [B, T, N, 3, H, E]
        over_time, over_space = qkv.permute(3, 0, 4, 1, 2, 5).chunk(2, dim=2)
        mixed = torch.cat(  # [B, H, T, N, E]
            [
                self._attend(over_time.transpose(3, 4)).transpose(2, 3),
                self._attend(over_space),
            ],
            dim=1,
        )
        result: Tensor = self.proj(
            mixed.permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2)
        )
        return result

    def _attend(self, qkv: Tensor) -> Tensor:
        """Attend along the last but one: [3, B, H, groups, length, E] -> [B, ...]."""
        # The kernels know two leading dimensions.
        query, key, value = (part.flatten(1, 2) for part in qkv.unbind())
        if self.fused_attn:
            # By its full name, or DeepSpeed's profiler does not see it.
            mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        else:
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
            mixed = scores.softmax(dim=-1) @ value
        return unflatten(mixed, 1, qkv.shape[2:4])


class FactorisedEncoder(nn.Module):
    """Model 2: a ViT sees each time step alone, a transformer over time what it says.

    [B, C, F, S, S] -> [B, num_classes]. Both are timm's; the first embeds tubelets with
    `folds_time`, the second is given one token of each time step (`StepTokens`).
    Source: scenic `SpaceTimeViViT`.
    """

    def __init__(self, spatial: Any, temporal: Any, head: nn.Linear) -> None:
        super().__init__()
        self.spatial = spatial
        self.temporal = temporal
        self.head = head

    def forward(self, clips: Tensor) -> Tensor:
        steps = self.spatial(clips).unflatten(0, (len(clips), -1))  # [B, T, D]
        logits: Tensor = self.head(self.temporal(steps))
        return logits

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As timm's, for both transformers."""
        self.spatial.set_grad_checkpointing(enable)
        self.temporal.set_grad_checkpointing(enable)


class StepTokens(nn.Module):
    """Stands where timm embeds patches, for tokens that are there: [B, T, D]."""

    def __init__(self, *, time_steps: int, **_: Any) -> None:  # timm's of images
        super().__init__()
        self.num_patches = time_steps

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens
