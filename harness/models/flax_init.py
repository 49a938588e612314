"""The initial weights of the public code, which is written in Flax.

Flax's defaults are not torch's, and accuracy after a short training depends on them.
Sources: scenic `model_lib/layers/attention_layers.py:MlpBlock`,
`projects/baselines/vit.py`, `projects/vivit/model_utils.py`,
`projects/token_learner/model.py`; flax.linen.
"""

import math

import torch
from torch import Tensor, nn

STD_OF_STANDARD_NORMAL_CUT_AT_2 = 0.87962566103423978
"""What `jax.nn.initializers` divides by, so that the cut normal has the std meant."""


def init_conv_(conv: nn.Conv2d | nn.Conv3d) -> None:
    """Set the defaults of `nn.Conv`: LeCun normal, cut at two std, and no bias."""
    fan_in = conv.weight[0].numel()
    lecun_normal_(conv.weight, fan_in)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


@torch.no_grad()
def init_tubelet_conv_(conv: nn.Conv3d) -> None:
    """Set what `central_frame_initializer` says: only the frame t // 2 counts.

    Its kernel is drawn as a part of the whole. The public function zeroes columns of
    the kernel where its docstring, and the loading of image weights, say frames; frames
    are meant.
    """
    init_conv_(conv)
    central = conv.kernel_size[0] // 2
    conv.weight[:, :, :central] = 0
    conv.weight[:, :, central + 1 :] = 0


def lecun_normal_(weight: Tensor, fan_in: int) -> None:
    """Fill with a normal of variance 1 / fan_in, cut at two standard deviations."""
    std = math.sqrt(1 / fan_in) / STD_OF_STANDARD_NORMAL_CUT_AT_2
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def init_attention_(*projections: nn.Linear) -> None:
    """Set the projections of a `MultiHeadDotProductAttention`: Xavier uniform, no bias.

    Flax keeps query, key and value apart, each from D to D, which makes the bound
    larger than that of one layer from D to 2 D or 3 D, as timm has it.
    """
    for projection in projections:
        bound = math.sqrt(6 / (2 * projection.in_features))
        nn.init.uniform_(projection.weight, -bound, bound)
        nn.init.zeros_(projection.bias)


def init_mlp_(*layers: nn.Linear) -> None:
    """Set the layers of an `MlpBlock`: Xavier uniform, biases all but zero."""
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(layer.bias, std=1e-6)


def give_storage(model: nn.Module, device: torch.device | str) -> None:
    """Give a model that was built on the meta device room for its weights, not drawn.

    As `nn.Module.to_empty`, which asks torch for something like a tensor without
    storage, and for that torch imports sympy: a third of a second in each process.
    """
    model._apply(  # type: ignore[no-untyped-call]  # torch's
        lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    )
