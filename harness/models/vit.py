"""Vision transformers for images and clips, with or without TokenLearner.

All are timm's VisionTransformer and timm's blocks, set up as the paper's code has them:
the final LayerNorm before the pooling, eps 1e-6, tanh GELU, a classifier that starts at
zero, and the initial weights of Flax. Source: scenic `projects/baselines/vit.py`. What
reduces the tokens stands between the blocks, or around them.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tlbench.models.flax_init import (
    give_storage,
    init_attention_,
    init_conv_,
    init_mlp_,
    init_tubelet_conv_,
)
from tlbench.models.grid_pool import GridPool
from tlbench.models.timm_vit import vision_transformer_class
from tlbench.models.tokenlearner import (
    LAYER_NORM_EPS,
    FusedBlock,
    MapPooling,
    TokenFuser,
    TokenLearner,
    TokenLearnerV11,
)
from tlbench.models.vivit import (
    FactorisedEncoder,
    PerTimeStep,
    SplitHeadAttention,
    StepTokens,
    TimeSpaceBlock,
    TubeletEmbed,
)
from tlbench.suites.model_spec import CHANNELS, ModelSpec, TokenLearnerSpec, VideoSpec
from tlbench.suites.spec import Attention

KERNELS: dict[Attention, SDPBackend] = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
"""The settings that tell torch which of its attention kernels to take."""


def build_model(
    spec: ModelSpec,
    num_classes: int,
    *,
    attention: Attention = "auto",
    drop_path_rate: float = 0.0,
    gradient_checkpointing: bool = False,
) -> nn.Module:
    """Build the model on torch's default device, with fresh weights.

    What a builder makes of it is left to the builder. The weights of the ViT are drawn
    first, so that with the same seed a model with TokenLearner has those of the model
    without. Call the model inside `attention_kernel`.
    """
    device = torch.get_default_device()
    # Built without storage first: torch would draw all weights, to be drawn anew here.
    with torch.device("meta"):
        model = _build_plain(spec, num_classes, drop_path_rate)
    if device.type != "meta":
        give_storage(model, device)
        _init_(model)
    vit = model.spatial if isinstance(model, FactorisedEncoder) else model
    vit.blocks = _reduce_tokens(vit.blocks, spec)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = attention != "eager"
    model.set_grad_checkpointing(gradient_checkpointing)
    network: nn.Module = model
    return network


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


# ---------------------------------------------------------------- without reduction


def _build_plain(spec: ModelSpec, num_classes: int, drop_path_rate: float) -> Any:
    build = partial(_build_vit, spec, drop_path_rate=drop_path_rate)
    video = spec.video
    if video is None:
        return build(depth=spec.depth, num_classes=num_classes)
    embed_tubelets = partial(
        TubeletEmbed, num_frames=video.num_frames, tubelet_size=video.tubelet_size
    )
    if video.factorisation == "encoder":
        return FactorisedEncoder(
            spatial=build(
                depth=spec.depth,
                num_classes=0,
                embed_layer=partial(embed_tubelets, folds_time=True),
            ),
            temporal=build(
                depth=video.temporal_depth,
                num_classes=0,
                embed_layer=partial(StepTokens, time_steps=spec.time_steps),
            ),
            head=nn.Linear(spec.embed_dim, num_classes),
        )
    vit = build(depth=spec.depth, num_classes=num_classes, embed_layer=embed_tubelets)
    vit.blocks = nn.Sequential(
        *(_factorise(block, video, spec.time_steps) for block in vit.blocks)
    )
    return vit


def _build_vit(
    spec: ModelSpec,
    *,
    depth: int,
    num_classes: int,
    drop_path_rate: float,
    **embedding: Any,
) -> Any:
    return vision_transformer_class()(
        img_size=spec.image_size,
        patch_size=spec.patch_size,
        in_chans=CHANNELS,
        num_classes=num_classes,
        embed_dim=spec.embed_dim,
        depth=depth,
        num_heads=spec.num_heads,
        # timm rounds embed_dim * mlp_ratio down; the half makes that exact.
        mlp_ratio=(spec.mlp_dim + 0.5) / spec.embed_dim,
        class_token=spec.global_pool == "token",
        global_pool=spec.global_pool,
        fc_norm=False,  # the norm before the pooling
        drop_path_rate=drop_path_rate,
        norm_layer=partial(nn.LayerNorm, eps=LAYER_NORM_EPS),
        act_layer=partial(nn.GELU, approximate="tanh"),
        weight_init="skip",
        **embedding,
    )


def _factorise(block: Any, video: VideoSpec, time_steps: int) -> Any:
    """Make timm's block attend over time and space as the video model does."""
    if video.factorisation == "attention":
        return TimeSpaceBlock(block, time_steps)
    if video.factorisation == "dotproduct":
        block.attn = SplitHeadAttention(block.attn, time_steps)
    return block


# ---------------------------------------------------------------- initial weights


@torch.no_grad()
def _init_(model: Any) -> None:
    """Draw every weight as the public code does."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    is_factorised = isinstance(model, FactorisedEncoder)
    for vit in (model.spatial, model.temporal) if is_factorised else (model,):
        _init_vit_(vit)
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)


def _init_vit_(vit: Any) -> None:
    """Draw the weights of timm's VisionTransformer but those of norms and head."""
    for layer in vit.patch_embed.children():
        if isinstance(layer, nn.Conv2d):
            init_conv_(layer)
        elif isinstance(layer, nn.Conv3d):
            init_tubelet_conv_(layer)
    if vit.cls_token is not None:
        nn.init.zeros_(vit.cls_token)
    nn.init.normal_(vit.pos_embed, std=0.02)
    for module in vit.blocks.modules():
        if hasattr(module, "qkv"):
            init_attention_(module.qkv, module.proj)
        if hasattr(module, "fc1"):
            init_mlp_(module.fc1, module.fc2)
    if vit.attn_pool is not None:
        _init_map_head_(vit.attn_pool)


def _init_map_head_(pool: Any) -> None:
    # Xavier as Flax sees the probe, [1, 1, D]: from one input to D.
    nn.init.xavier_uniform_(pool.latent[0])
    init_attention_(pool.q, pool.kv, pool.proj)
    init_mlp_(pool.mlp.fc1, pool.mlp.fc2)


# ---------------------------------------------------------------- token reduction


def _reduce_tokens(blocks: nn.Sequential, spec: ModelSpec) -> nn.Sequential:
    """Put what reduces tokens before blocks, or around them.

    timm's blocks keep their names, so that checkpoints of a plain ViT still fit.
    """
    learner, pool = spec.token_learner, spec.grid_pool
    side = spec.grid_size
    named: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (name, block) in enumerate(blocks.named_children()):
        if pool is not None and index in pool.places:
            grid_pool = GridPool(pool.window, (side, side))
            named[f"pool_{index}"] = _per_time_step(spec, grid_pool)
            side //= pool.window
        if learner is not None and index >= learner.place:
            if learner.fuse:
                block = _fuse(block, spec, learner)
            elif index == learner.place:
                token_learner = _build_token_learner(spec, learner)
                named["token_learner"] = _per_time_step(spec, token_learner)
        named[name] = block
    return nn.Sequential(named)


def _fuse(block: nn.Module, spec: ModelSpec, learner: TokenLearnerSpec) -> FusedBlock:
    fuser = TokenFuser(spec.embed_dim, learner.num_tokens)
    return FusedBlock(
        block,
        learn=_per_time_step(spec, _build_token_learner(spec, learner)),
        fuse=_per_time_step(spec, fuser),
    )


def _per_time_step(spec: ModelSpec, module: nn.Module) -> nn.Module:
    """The module as it is where it sees one time step at a time already."""
    if spec.video is None or spec.factorisation == "encoder":
        return module
    return PerTimeStep(module, spec.time_steps)


def _build_token_learner(spec: ModelSpec, learner: TokenLearnerSpec) -> MapPooling:
    if learner.version == "v1.1":
        return TokenLearnerV11(spec.embed_dim, learner.num_tokens)
    grid_size = (spec.grid_size, spec.grid_size)
    return TokenLearner(
        spec.embed_dim, learner.num_tokens, grid_size, pooling=learner.pooling
    )
