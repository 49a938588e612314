"""What a model costs, in closed form: parameters, operations and memory.

Plain integers from a `ModelSpec`; nothing is built and torch is not imported. One walk
over the model yields its layers, and every total is a sum or a maximum over them.
`tlbench.measure.flops` and the tests hold the results against torch's own counts.

Shapes: N patches, T tokens a block sees, S learned tokens, D embed_dim, M mlp_dim,
H num_heads, P patch_size. All counts are for one image.

Sources: block and patch embedding, Dosovitskiy et al. 2021 (arXiv 2010.11929), section
3.1; TokenLearner and TokenFuser, scenic `projects/token_learner/model.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tlbench.suites.spec import (
    Attention,
    Case,
    ModelSpec,
    Parallelism,
    Precision,
    TokenLearnerSpec,
)

CHANNELS = 3
MASKING_HIDDEN_DIM = 64
"""Width of the MLP that draws the maps of v1.1 and of TokenFuser."""

BYTES_PER_ELEMENT: dict[Precision, int] = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
UNFUSED: frozenset[Attention] = frozenset({"eager", "math"})
"""The attention settings that store the T x T weights of every head."""


@dataclass(frozen=True)
class Layer:
    """One step of the walk through a model, for one image."""

    params: int
    macs: int
    saved: int
    """Elements that autograd keeps for the backward pass, the layer's input among
    them; 2 T of them are the statistics of a LayerNorm."""
    live: int
    """Elements alive at once while the layer runs without autograd, about."""


def layers(
    spec: ModelSpec, num_classes: int, attention: Attention = "auto"
) -> Iterator[Layer]:
    """Yield the layers in the order in which an image passes them."""
    yield _patch_embedding(spec)
    learner = spec.token_learner
    for index, length in enumerate(tokens(spec)):
        is_fused = learner is not None and learner.fuse and index >= learner.place
        if learner is not None and (is_fused or index == learner.place):
            yield _token_learner(spec, learner)
        yield _block(spec, length, attention)
        if learner is not None and is_fused:
            yield _token_fuser(spec, learner)
    yield _head(spec, num_classes, _tokens_out(spec))


def tokens(spec: ModelSpec) -> list[int]:
    """Count the tokens that enter each block, first block first."""
    learner = spec.token_learner
    if learner is None:
        return [spec.num_patches] * spec.depth
    learned = spec.depth - learner.place
    return [spec.num_patches] * learner.place + [learner.num_tokens] * learned


def params(spec: ModelSpec, num_classes: int) -> int:
    """Count the parameters, the classifier's and the position embedding's included."""
    return sum(layer.params for layer in layers(spec, num_classes))


def macs(spec: ModelSpec, num_classes: int) -> int:
    """Count the multiply-adds of one forward pass.

    Those of matrix products and convolutions, padding counted as if it were pixels:
    half of what torch's FlopCounterMode reports. Norms, activations, softmax and sums
    are left out; with half of those, as the publication counts, it is 0.3 to 1 % more.
    """
    return sum(layer.macs for layer in layers(spec, num_classes))


def train_flops(spec: ModelSpec, num_classes: int) -> int:
    """Count the operations of one forward and backward pass; a multiply-add is two.

    The backward pass of a product is two products of the same size, one for the
    gradient of each operand. Only the image needs no gradient, which saves one pass of
    the patch embedding. The optimiser, and what fused attention recomputes, are left
    out.
    """
    return 2 * (3 * macs(spec, num_classes) - _patch_embedding(spec).macs)


def predicted_memory_bytes(case: Case) -> int:
    """Predict the memory that the case needs at its peak on each device.

    infer: the weights, the images, and the largest set of tensors alive at once.
    train and fit: weights and gradients in the case's precision, AdamW's two moments in
    fp32, a master copy of the weights in fp32 (half precision, or any ZeRO stage), each
    divided by world_size from the ZeRO stage on that shards it; all that autograd
    keeps of the forward pass; and gradients of activations as large as the largest set
    alive in inference. profile runs on no device and needs none.

    Left out: the allocator's rounding and fragments, workspaces of kernels, buffers of
    communication, parameters that ZeRO 3 gathers, what torch.compile saves, and the
    memory of the process itself.
    """
    if case.mode == "profile":
        return 0
    spec, num_classes = case.model, case.num_classes
    walk = list(layers(spec, num_classes, case.attention))
    largest = max(layer.live for layer in walk)
    if case.mode == "infer":
        held = CHANNELS * spec.image_size**2
        states = sum(layer.params for layer in walk) * BYTES_PER_ELEMENT[case.precision]
    else:
        held = sum(layer.saved for layer in walk)
        states = _training_states_bytes(
            sum(layer.params for layer in walk), case.precision, case.parallelism
        )
    elements = case.micro_batch_size * (held + largest)
    return states + elements * BYTES_PER_ELEMENT[case.precision]


def _tokens_out(spec: ModelSpec) -> int:
    learner = spec.token_learner
    if learner is not None and learner.fuse:
        return spec.num_patches
    return tokens(spec)[-1]


def _patch_embedding(spec: ModelSpec) -> Layer:
    """The strided convolution and the position embedding."""
    N, D = spec.num_patches, spec.embed_dim
    kernel = CHANNELS * spec.patch_size**2 * D
    return Layer(
        params=kernel + D + N * D,
        macs=N * kernel,
        saved=CHANNELS * spec.image_size**2,
        live=2 * N * D,
    )


def _block(spec: ModelSpec, T: int, attention: Attention) -> Layer:
    """Self-attention and MLP, each behind a LayerNorm and beside a residual."""
    D, M, H = spec.embed_dim, spec.mlp_dim, spec.num_heads
    projections = 4 * D * D  # query, key, value, output
    weights_kept = H * T * T if attention in UNFUSED else H * T  # or their log-sums
    weights_live = 2 * H * T * T if attention in UNFUSED else 0
    return Layer(
        params=4 * D + projections + 4 * D + 2 * D * M + M + D,
        macs=T * (projections + 2 * D * M) + 2 * T * T * D,
        # Inputs and outputs of both norms, query, key, value, attention's output; the
        # MLP's hidden layer before and after GELU.
        saved=8 * T * D + 2 * T * M + 4 * T + weights_kept,
        live=max(6 * T * D + weights_live, 3 * T * D + 2 * T * M),
    )


def _token_learner(spec: ModelSpec, learner: TokenLearnerSpec) -> Layer:
    """The maps over the positions, and the sums of the input under them."""
    N, D, S = spec.num_patches, spec.embed_dim, learner.num_tokens
    pooling = N * S * D
    if learner.version == "v1.1":
        return Layer(
            params=2 * D + _masking_params(D, S),
            macs=_masking_macs(N, D, S) + pooling,
            saved=2 * N * D + 2 * N + 2 * N * MASKING_HIDDEN_DIM + N * S,
            live=2 * N * D + 2 * N * MASKING_HIDDEN_DIM,
        )
    kernels = 9 * D * S + 3 * 9 * S * S  # four 3 x 3 convolutions
    return Layer(
        params=2 * D + kernels,
        macs=N * kernels + pooling,
        saved=2 * N * D + 2 * N + 7 * N * S,  # three GELUs twice, and the maps
        live=2 * N * D + 2 * N * S,
    )


def _token_fuser(spec: ModelSpec, learner: TokenLearnerSpec) -> Layer:
    """The mixing of the tokens, and their sums under the maps of every position."""
    N, D, S = spec.num_patches, spec.embed_dim, learner.num_tokens
    return Layer(
        params=6 * D + S * S + S + _masking_params(D, S),
        macs=S * S * D + _masking_macs(N, D, S) + N * S * D,
        # What was there before the block is the TokenLearner's input, counted there.
        saved=4 * S * D + 4 * S + N * D + 2 * N + 2 * N * MASKING_HIDDEN_DIM + N * S,
        live=max(3 * N * D + N * S, 2 * N * D + 2 * N * MASKING_HIDDEN_DIM),
    )


def _head(spec: ModelSpec, num_classes: int, T: int) -> Layer:
    """The final LayerNorm, the mean over the tokens, and the classifier."""
    D = spec.embed_dim
    return Layer(
        params=2 * D + D * num_classes + num_classes,
        macs=D * num_classes,
        saved=T * D + 2 * T + D,
        live=2 * T * D,
    )


def _masking_params(D: int, S: int) -> int:
    """The weights and biases of the MLP from D over 64 to S, without its norm."""
    return (D + 1) * MASKING_HIDDEN_DIM + (MASKING_HIDDEN_DIM + 1) * S


def _masking_macs(N: int, D: int, S: int) -> int:
    return N * (D + S) * MASKING_HIDDEN_DIM


def _training_states_bytes(
    params: int, precision: Precision, parallelism: Parallelism
) -> int:
    """Sum up weights, gradients and AdamW's states on one device.

    Source: Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054), section 3.1, with the
    master copy that DeepSpeed's ZeRO also makes in fp32.
    """
    stage = parallelism.zero_stage
    width = BYTES_PER_ELEMENT[precision]
    has_master = stage > 0 or width < 4
    shared = {1: 8 + 4 * has_master, 2: width, 3: width}  # states, gradients, weights
    return sum(
        -(-params * size // (parallelism.world_size if stage >= first_stage else 1))
        for first_stage, size in shared.items()
    )
