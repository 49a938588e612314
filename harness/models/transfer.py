"""Weights of an image model as the start of another one: of larger images, or of clips.

Source: scenic `projects/vivit/model_utils.py:initialise_from_train_state`; positions
are resampled as timm does it.

Shapes: N positions of an image, T time steps, D dim, C channels, P patch size, t frames
of a tubelet.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tlbench.errors import TrialError
from tlbench.models.vivit import FactorisedEncoder

Tubelets = Literal["central", "inflation"]

KERNEL = "patch_embed.proj.weight"
POSITIONS = "pos_embed"
HEAD = frozenset({"head.weight", "head.bias"})
WRAPPERS = frozenset({"spatial", "block", "module"})
"""Modules around those of a plain ViT, which have their own names inside."""


@torch.no_grad()
def load_image_weights(
    model: nn.Module, weights: Mapping[str, Tensor], *, tubelets: Tubelets = "central"
) -> tuple[str, ...]:
    """Start `model` from the state dict of an image ViT, as far as that goes.

    Positions are resampled to the model's grid and repeated at every time step; the
    position of a class token is kept apart. The kernel of the tubelets is that of the
    patches at frame t // 2 and zero elsewhere (`central`), or a t-th of it at every
    frame (`inflation`; Carreira & Zisserman 2017, arXiv 1705.07750). Attention over
    time (model 3) starts as a copy of that over space, as in the public code; the ViViT
    paper starts it at zero. The head is left alone where the classes differ in number.

    Returns:
        The names of the model's parameters that were not set, such as those of
        TokenLearner, of the transformer over time (model 2) and of the norm before
        attention over time (model 3).

    Raises:
        TrialError: The weights of a parameter do not fit it; nothing is set.
    """
    source = {_plain_name(name): value for name, value in weights.items()}
    if KERNEL not in source or source[KERNEL].ndim != 4:
        raise TrialError(
            f"these are not the weights of an image model: it has {KERNEL} of"
            " [D, C, P, P]"
        )
    vit = model.spatial if isinstance(model, FactorisedEncoder) else model
    fitted: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        plain = _plain_name(name)
        value = source.get(plain)
        if value is None or (plain in HEAD and value.shape != parameter.shape):
            continue
        if plain == KERNEL and parameter.ndim == 5:
            value = _tubelet_kernel(value, parameter.shape[2], tubelets)
        if plain == POSITIONS:
            value = _positions(value, parameter, vit, "cls_token" in source)
        _check_fit(name, value, parameter)
        fitted[name] = value
    for name, value in fitted.items():
        model.get_parameter(name).copy_(value)
    return tuple(name for name, _ in model.named_parameters() if name not in fitted)


def _plain_name(name: str) -> str:
    """What a parameter is called in a plain ViT; that over time as that over space."""
    parts = (part for part in name.split(".") if part not in WRAPPERS)
    return ".".join("attn" if part == "time_attn" else part for part in parts)


def _check_fit(name: str, value: Tensor, parameter: Tensor) -> None:
    if value.shape != parameter.shape:
        raise TrialError(
            f"{name} is {list(parameter.shape)} in the model, and the weights have"
            f" {list(value.shape)} for it"
        )


def _tubelet_kernel(kernel: Tensor, frames: int, tubelets: Tubelets) -> Tensor:
    """[D, C, P, P] -> [D, C, t, P, P]."""
    if tubelets == "inflation":
        return (kernel / frames).unsqueeze(2).expand(-1, -1, frames, -1, -1)
    inflated = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[2:])
    inflated[:, :, frames // 2] = kernel
    return inflated


def _positions(
    positions: Tensor, parameter: Tensor, vit: Any, has_class_token: bool
) -> Tensor:
    """[1, N, D] on the grid of the weights -> [1, T*N, D] on that of the model.

    A class token's position comes first; where the weights have none, that of the
    model stays.
    """
    from timm.layers.pos_embed import resample_abs_pos_embed  # timm, once it is needed

    if positions.shape[-1] != parameter.shape[-1]:
        return positions  # which the caller refuses
    first, grid = positions.tensor_split([int(has_class_token)], dim=1)
    if math.isqrt(grid.shape[1]) ** 2 != grid.shape[1]:
        raise TrialError(
            f"{POSITIONS} of the weights has {grid.shape[1]} positions, which make no"
            " square grid"
        )
    grid = resample_abs_pos_embed(grid, vit.patch_embed.grid_size, num_prefix_tokens=0)
    time_steps = vit.patch_embed.num_patches // grid.shape[1]
    if not has_class_token or not vit.has_class_token:
        first = parameter[:, : vit.num_prefix_tokens]
    return torch.cat([first, grid.repeat(1, time_steps, 1)], dim=1)
