"""The workload that `PEERS_WORKLOAD` names, as any tool may run it."""

import contextlib
import os
from collections.abc import Callable
from functools import partial

import timm
import torch
from beside import workloads
from torch import nn

BATCH_SIZE = 8
IMAGE_SIZE = 224

BUILDERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "steady": workloads.steady,
    "noisy": workloads.noisy,
    "recorded": workloads.recorded,
}


def build_vit() -> nn.Module:
    """ViT-Ti/16 as tlbench builds it: no class token, mean of the tokens, tanh GELU."""
    model: nn.Module = timm.models.VisionTransformer(
        embed_dim=192,
        depth=12,
        num_heads=3,
        class_token=False,
        global_pool="avg",
        fc_norm=False,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        act_layer=partial(nn.GELU, approximate="tanh"),
    )
    return model


def build() -> nn.Module:
    """The model to measure, ready for inference."""
    return BUILDERS[os.environ["PEERS_WORKLOAD"]](build_vit()).eval()


def make_step() -> Callable[[], object]:
    """One forward pass of a fixed batch; the process is in inference mode from here on.

    Entered once, that mode costs the steps nothing.
    """
    contextlib.ExitStack().enter_context(torch.inference_mode())
    images = torch.rand(BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE)
    return partial(build(), images)
