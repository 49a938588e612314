"""A ViT with or without TokenLearner, made of timm's own blocks.

timm's VisionTransformer is set up as the paper's code has it: no class token, the mean
over the tokens after the final LayerNorm, eps 1e-6, tanh GELU, a classifier that starts
at zero, and the initial weights of Flax. Source: scenic `projects/baselines/vit.py`.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tlbench.models.flax_init import init_conv_, init_mlp_
from tlbench.models.timm_vit import vision_transformer_class
from tlbench.models.tokenlearner import (
    LAYER_NORM_EPS,
    FusedBlock,
    MapPooling,
    TokenFuser,
    TokenLearner,
    TokenLearnerV11,
)
from tlbench.suites.spec import Attention, ModelSpec, TokenLearnerSpec

KERNELS: dict[Attention, SDPBackend] = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
"""The settings that tell torch which of its attention kernels to take."""


def build_vit(
    spec: ModelSpec, num_classes: int, *, attention: Attention = "auto"
) -> nn.Module:
    """Build the model on torch's default device, with fresh weights.

    The weights of the ViT are drawn first, so that with the same seed a model with
    TokenLearner has those of the model without. Run it inside `attention_kernel`.
    """
    vit = _build_plain_vit(spec, num_classes)
    for block in vit.blocks:
        block.attn.fused_attn = attention != "eager"
    if spec.token_learner is not None:
        vit.blocks = _insert_token_learner(vit.blocks, spec, spec.token_learner)
    model: nn.Module = vit
    return model


@contextmanager
def attention_kernel(attention: Attention) -> Iterator[None]:
    """Hold torch to one attention kernel for the calls inside.

    `auto` and `eager` leave torch its choice; where the kernel that was asked for
    cannot run, the call inside raises torch's own error.
    """
    if attention in KERNELS:
        with sdpa_kernel(KERNELS[attention]):
            yield
    else:
        yield


def _build_plain_vit(spec: ModelSpec, num_classes: int) -> Any:
    device = torch.get_default_device()
    # Built without storage first: torch would draw all weights, to be drawn anew here.
    with torch.device("meta"):
        vit = vision_transformer_class()(
            img_size=spec.image_size,
            patch_size=spec.patch_size,
            num_classes=num_classes,
            embed_dim=spec.embed_dim,
            depth=spec.depth,
            num_heads=spec.num_heads,
            # timm rounds embed_dim * mlp_ratio down; the half makes that exact.
            mlp_ratio=(spec.mlp_dim + 0.5) / spec.embed_dim,
            class_token=False,
            global_pool="avg",
            fc_norm=False,  # the norm before the mean
            norm_layer=partial(nn.LayerNorm, eps=LAYER_NORM_EPS),
            act_layer=partial(nn.GELU, approximate="tanh"),
            weight_init="skip",
        )
    if device.type != "meta":
        vit.to_empty(device=device)
        _init_vit_(vit)
    return vit


@torch.no_grad()
def _init_vit_(vit: Any) -> None:
    """Draw every weight of timm's VisionTransformer as the public code does."""
    for module in vit.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    init_conv_(vit.patch_embed.proj)
    nn.init.normal_(vit.pos_embed, std=0.02)
    for block in vit.blocks:
        _init_attention_(block.attn.qkv, block.attn.proj)
        init_mlp_(block.mlp.fc1, block.mlp.fc2)
    nn.init.zeros_(vit.head.weight)
    nn.init.zeros_(vit.head.bias)


def _init_attention_(qkv: nn.Linear, projection: nn.Linear) -> None:
    # Xavier uniform. Flax keeps query, key and value apart, each from D to D, which
    # makes the bound larger than that of timm's one layer from D to 3 D.
    bound = math.sqrt(6 / (2 * qkv.in_features))
    nn.init.uniform_(qkv.weight, -bound, bound)
    nn.init.xavier_uniform_(projection.weight)
    nn.init.zeros_(qkv.bias)
    nn.init.zeros_(projection.bias)


def _insert_token_learner(
    blocks: nn.Sequential, spec: ModelSpec, learner: TokenLearnerSpec
) -> nn.Sequential:
    """Put TokenLearner before block `place`, or around all blocks from there on.

    timm's blocks keep their names, so that checkpoints of a plain ViT still fit.
    """
    named: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (name, block) in enumerate(blocks.named_children()):
        if index == learner.place and not learner.fuse:
            named["token_learner"] = _build_token_learner(spec, learner)
        if index >= learner.place and learner.fuse:
            named[name] = FusedBlock(
                block,
                _build_token_learner(spec, learner),
                TokenFuser(spec.embed_dim, learner.num_tokens),
            )
        else:
            named[name] = block
    return nn.Sequential(named)


def _build_token_learner(spec: ModelSpec, learner: TokenLearnerSpec) -> MapPooling:
    if learner.version == "v1.1":
        return TokenLearnerV11(spec.embed_dim, learner.num_tokens)
    grid_size = (spec.grid_size, spec.grid_size)
    return TokenLearner(
        spec.embed_dim, learner.num_tokens, grid_size, pooling=learner.pooling
    )
