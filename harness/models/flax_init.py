"""The initial weights of the public code, which is written in Flax.

Flax's defaults are not torch's, and accuracy after a short training depends on them.
Sources: scenic `model_lib/layers/attention_layers.py:MlpBlock`,
`projects/baselines/vit.py`, `projects/token_learner/model.py`; flax.linen.
"""

import math

from torch import Tensor, nn

STD_OF_STANDARD_NORMAL_CUT_AT_2 = 0.87962566103423978
"""What `jax.nn.initializers` divides by, so that the cut normal has the std meant."""


def init_conv_(conv: nn.Conv2d) -> None:
    """Set the defaults of `nn.Conv`: LeCun normal, cut at two std, and no bias."""
    fan_in = conv.weight[0].numel()
    lecun_normal_(conv.weight, fan_in)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def lecun_normal_(weight: Tensor, fan_in: int) -> None:
    """Fill with a normal of variance 1 / fan_in, cut at two standard deviations."""
    std = math.sqrt(1 / fan_in) / STD_OF_STANDARD_NORMAL_CUT_AT_2
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def init_mlp_(*layers: nn.Linear) -> None:
    """Set the layers of an `MlpBlock`: Xavier uniform, biases all but zero."""
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(layer.bias, std=1e-6)
