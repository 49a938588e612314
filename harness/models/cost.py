"""What a model costs, in closed form: parameters and operations.

Plain integers from a `ModelSpec`, as sums over its `layers`; nothing is built and torch
is not imported. `tlbench.measure.flops` and the tests hold the results against torch's
own counts. Every function raises UnknownCostError for the model of a builder.
"""

from tlbench.models.layers import GELU_OPS, MASKING_HIDDEN_DIM, layers
from tlbench.suites.model_spec import ModelSpec


def params(spec: ModelSpec, num_classes: int) -> int:
    """Count the parameters, the classifier's and the position embedding's included."""
    return sum(layer.params for layer in layers(spec, num_classes))


def macs(spec: ModelSpec, num_classes: int) -> int:
    """Count the multiply-adds of one forward pass of one image or clip.

    Those of matrix products and convolutions, padding counted as if it were pixels:
    half of what torch's FlopCounterMode reports. Norms, activations, softmax and sums
    are left out.
    """
    return sum(layer.macs for layer in layers(spec, num_classes))


def published_flops(spec: ModelSpec, num_classes: int) -> float:
    """Count as the publication's GFLOPS do: multiply-adds, and half of all the rest.

    Its tables give half of the operations that XLA counts in the compiled model, which
    makes a multiply-add one operation and an addition half of one: 0.3 to 1 % more than
    the multiply-adds. Source: scenic `common_lib/debug_utils.py:compute_flops`. A
    TokenFuser is counted as the one of 2021, which drew its masks at a lower cost.
    """
    walk = layers(spec, num_classes)
    total = sum(layer.macs + layer.elementwise / 2 for layer in walk)
    return total - _later_cost_of_masks(spec)


def _later_cost_of_masks(spec: ModelSpec) -> float:
    """Count what the masks of TokenFuser cost more than in 2021, as published_flops.

    One matrix from D to S drew them then; the MLP from D over 64 to S, with its two
    biases and GELU, came later. Source: scenic at dcc80d04 and today,
    `projects/token_learner/model.py:TokenFuser`.
    """
    learner = spec.token_learner
    if learner is None or not learner.fuse:
        return 0
    D, S, hidden = spec.embed_dim, learner.num_tokens, MASKING_HIDDEN_DIM
    macs = (D + S) * hidden - D * S
    elementwise = (GELU_OPS + 1) * hidden + S
    fused_blocks = spec.depth - learner.place
    return fused_blocks * spec.num_patches * (macs + elementwise / 2)


def train_flops(spec: ModelSpec, num_classes: int) -> int:
    """Count the operations of one forward and backward pass; a multiply-add is two.

    The backward pass of a product is two products of the same size, one for the
    gradient of each operand. Only the image needs no gradient, which saves one pass of
    the patch embedding. The optimiser, and what fused attention or gradient
    checkpointing compute anew, are left out.
    """
    walk = list(layers(spec, num_classes))
    return 2 * (3 * sum(layer.macs for layer in walk) - walk[0].macs)
