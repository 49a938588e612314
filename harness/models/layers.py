"""A walk through a model, layer by layer, in closed form: nothing is built.

Every total that `cost` and `memory` give is a sum or a maximum over these layers, and
`tlbench.certify` holds each of them against the built module of the same name.

Shapes: T time steps (1 for images), N tokens of one time step, S learned tokens,
D embed_dim, M mlp_dim, H num_heads. All counts are for one image or clip.

Sources: block and patch embedding, Dosovitskiy et al. 2021 (arXiv 2010.11929), section
3.1; attention over time, Arnab et al. 2021 (arXiv 2103.15691), section 3.3;
TokenLearner and TokenFuser, scenic `projects/token_learner/model.py`; MAP head, Zhai et
al. 2022 (arXiv 2106.04560), section 3.2.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from tlbench.errors import UnknownCostError
from tlbench.suites.model_spec import ModelSpec, TokenLearnerSpec
from tlbench.suites.spec import Attention

MASKING_HIDDEN_DIM = 64
"""Width of the MLP that draws the maps of v1.1 and of TokenFuser."""
UNFUSED: frozenset[Attention] = frozenset({"eager", "math"})
"""The attention settings that store the weights of every head."""

Stage = Literal["embedding", "before", "tokenizer", "after", "temporal", "head"]
"""Where a layer stands. Blocks are `before` until the first reduction of tokens, and
`after` from there on. `temporal` is a factorised encoder's summary of each time step
and the transformer over these, which is as long whatever was reduced before."""

# Element-wise operations on one element; exp, tanh and roots are not counted, as in
# XLA's cost analysis.
NORM_OPS = 7
GELU_OPS = 8
SOFTMAX_OPS = 4


@dataclass(frozen=True)
class Layer:
    """One step of the walk through a model, for one image or clip."""

    modules: tuple[str, ...]
    """Paths of the modules in the built model that do this."""
    stage: Stage
    tokens: int
    """Tokens that enter, class tokens included; pixels do not count."""
    params: int
    macs: int
    """Multiply-adds of matrix products and convolutions, padding counted as if it were
    pixels."""
    elementwise: int
    """Other operations: norms, activations, softmax, biases, sums."""
    saved: int
    """Elements that autograd keeps for the backward pass, the layer's input among
    them; 2 for each token of a LayerNorm are its statistics."""
    live: int
    """Elements alive at once while the layer runs without autograd, about."""
    is_block: bool = False

    @property
    def name(self) -> str:
        return self.modules[0]


class Groups(NamedTuple):
    """Tokens that attend to each other, in groups of one length."""

    number: int
    length: int
    head_share: float = 1.0
    """Share of the heads that attend in this way."""


def layers(
    spec: ModelSpec, num_classes: int, attention: Attention = "auto"
) -> Iterator[Layer]:
    """Yield the layers in the order in which an image or clip passes them.

    Raises:
        UnknownCostError: The model is a builder's, whose code alone knows its cost.
    """
    if spec.builder is not None:
        raise UnknownCostError(spec.builder.function)
    if spec.factorisation != "encoder":
        yield from _encoder(spec, attention)
        yield _head(spec, num_classes, _tokens_out(spec), "norm", attention)
        return
    for layer in _encoder(spec, attention):
        yield replace(layer, modules=tuple(f"spatial.{m}" for m in layer.modules))
    yield _summary(spec, _tokens_out(spec))
    yield from _temporal(spec, attention)
    n = _temporal_tokens(spec)
    yield _head(spec, num_classes, n, "temporal.norm", attention)


def tokens(spec: ModelSpec) -> list[int]:
    """Count the tokens that enter each block, first block first; all time steps.

    Those that a block reduces inside, between TokenLearner and TokenFuser, are the
    learned ones.
    """
    return [layer.tokens for layer in layers(spec, 1) if layer.is_block]


# ---------------------------------------------------------------- the walk


def _encoder(spec: ModelSpec, attention: Attention) -> Iterator[Layer]:
    """The embedding, and the blocks with what reduces tokens between them."""
    yield _patch_embedding(spec)
    learner, pool = spec.token_learner, spec.grid_pool
    stage: Stage = "before"
    for index in range(spec.depth):
        name = f"blocks.{index}"
        if pool is not None and index in pool.places:
            stage = "after"
            yield _grid_pool(spec, index)
        if learner is not None and index >= learner.place:
            stage = "after"
            if learner.fuse:
                yield from _fused(spec, learner, name, attention)
                continue
            if index == learner.place:
                yield _token_learner(spec, learner, "blocks.token_learner")
        groups = _attended(spec, _tokens_of_a_step(spec, index))
        yield _block(spec, name, stage, groups, attention)


def _fused(
    spec: ModelSpec, learner: TokenLearnerSpec, name: str, attention: Attention
) -> Iterator[Layer]:
    groups = _attended(spec, learner.num_tokens)
    yield _token_learner(spec, learner, f"{name}.learn")
    yield _block(spec, f"{name}.block", "after", groups, attention)
    yield _token_fuser(spec, learner, f"{name}.fuse")


def _temporal(spec: ModelSpec, attention: Attention) -> Iterator[Layer]:
    """The transformer over time of a factorised encoder."""
    assert spec.video is not None
    groups = [[Groups(1, _temporal_tokens(spec))]]
    for index in range(spec.video.temporal_depth):
        name = f"temporal.blocks.{index}"
        yield _block(spec, name, "temporal", groups, attention)


def _attended(spec: ModelSpec, per_step: int) -> list[list[Groups]]:
    """Who attends to whom, for each attention layer of a block."""
    steps = spec.time_steps
    time, space = Groups(per_step, steps), Groups(steps, per_step)
    match spec.factorisation:
        case "joint":
            return [[Groups(1, steps * per_step + _class_tokens(spec))]]
        case "encoder":
            return [[Groups(steps, per_step + _class_tokens(spec))]]
        case "attention":
            return [[time], [space]]
        case "dotproduct":
            return [[time._replace(head_share=0.5), space._replace(head_share=0.5)]]


def _class_tokens(spec: ModelSpec) -> int:
    return int(spec.global_pool == "token")


def _temporal_tokens(spec: ModelSpec) -> int:
    return spec.time_steps + _class_tokens(spec)


def _tokens_of_a_step(spec: ModelSpec, index: int) -> int:
    """Tokens of each time step that enter block `index`, class token left out.

    Before the first block, -1, they are all patches; none is lost inside a block.
    """
    learner, pool = spec.token_learner, spec.grid_pool
    if learner is not None and not learner.fuse and learner.place <= index:
        return learner.num_tokens
    if pool is None:
        return spec.grid_size**2
    times = sum(place <= index for place in pool.places)
    return int(spec.grid_size // pool.window**times) ** 2


def _tokens_out(spec: ModelSpec) -> int:
    """Tokens that leave the last block of the encoder, all time steps together."""
    per_step = _tokens_of_a_step(spec, spec.depth - 1)
    is_per_step = spec.factorisation == "encoder"
    classes = _class_tokens(spec) * (spec.time_steps if is_per_step else 1)
    return spec.time_steps * per_step + classes


# ---------------------------------------------------------------- the layers


def _patch_embedding(spec: ModelSpec) -> Layer:
    """The strided convolution, class token and position embedding.

    A factorised encoder embeds positions of one time step here, and those in time
    before its second transformer.
    """
    N, D, T = spec.grid_size**2, spec.embed_dim, spec.time_steps
    frames = 1 if spec.video is None else spec.video.tubelet_size
    kernel = spec.sample_shape[0] * frames * spec.patch_size**2 * D
    classes = _class_tokens(spec)
    positions = N if spec.factorisation == "encoder" else T * N
    return Layer(
        modules=("patch_embed",),
        stage="embedding",
        tokens=0,
        params=kernel + D + (positions + classes) * D + classes * D,
        macs=T * N * kernel,
        elementwise=2 * T * N * D,  # the bias and the positions
        saved=math.prod(spec.sample_shape),
        live=2 * T * N * D,
    )


def _block(
    spec: ModelSpec,
    name: str,
    stage: Stage,
    attended: Sequence[Sequence[Groups]],
    attention: Attention,
) -> Layer:
    """Self-attention, once or twice, and MLP: each behind a norm, beside a residual."""
    D, M, H = spec.embed_dim, spec.mlp_dim, spec.num_heads
    n = round(sum(g.number * g.length * g.head_share for g in attended[0]))
    projections = 4 * D * D  # query, key, value, output
    scores = [
        sum(round(H * g.head_share * g.number * g.length**2) for g in groups)
        for groups in attended
    ]
    times, is_unfused = len(attended), attention in UNFUSED
    return Layer(
        modules=(name,),
        stage=stage,
        tokens=n,
        params=times * (2 * D + projections + 4 * D) + 2 * D + 2 * D * M + M + D,
        macs=n * (times * projections + 2 * D * M) + sum(scores) * 2 * (D // H),
        elementwise=n * (times * (NORM_OPS + 6) * D + (NORM_OPS + 2) * D)
        + n * (1 + GELU_OPS) * M
        + SOFTMAX_OPS * sum(scores),
        # Of each attention: its norm's input and output, query, key, value and its
        # output, and the scores or their log-sums. Of the MLP: its norm's input and
        # output, and the hidden layer before and after GELU. Fused attention in two
        # groups of heads also keeps their outputs from before they are joined.
        saved=(6 * times + 2) * n * D
        + (n * D if len(attended[0]) > 1 and not is_unfused else 0)
        + 2 * n * M
        + 2 * (times + 1) * n
        + (sum(scores) if is_unfused else times * H * n),
        live=max(
            6 * n * D + (2 * max(scores) if is_unfused else 0), 3 * n * D + 2 * n * M
        ),
        is_block=True,
    )


def _token_learner(spec: ModelSpec, learner: TokenLearnerSpec, name: str) -> Layer:
    """The maps over the positions, and the sums of the input under them."""
    D, S = spec.embed_dim, learner.num_tokens
    n = spec.num_patches
    pooling = n * S * D
    if learner.version == "v1.1":
        return Layer(
            modules=(name,),
            stage="tokenizer",
            tokens=n,
            params=2 * D + _masking_params(D, S),
            macs=_masking_macs(n, D, S) + pooling,
            elementwise=_masking_elementwise(n, D, S) + SOFTMAX_OPS * n * S,
            saved=2 * n * D + 2 * n + 2 * n * MASKING_HIDDEN_DIM + n * S,
            live=2 * n * D + 2 * n * MASKING_HIDDEN_DIM,
        )
    kernels = 9 * D * S + 3 * 9 * S * S  # four 3 x 3 convolutions
    return Layer(
        modules=(name,),
        stage="tokenizer",
        tokens=n,
        params=2 * D + kernels,
        macs=n * kernels + pooling,
        elementwise=NORM_OPS * n * D + 3 * GELU_OPS * n * S,
        saved=2 * n * D + 2 * n + 7 * n * S,  # three GELUs twice, and the maps
        live=2 * n * D + 2 * n * S,
    )


def _token_fuser(spec: ModelSpec, learner: TokenLearnerSpec, name: str) -> Layer:
    """The mixing of the tokens, and their sums under the maps of every position."""
    D, S, T = spec.embed_dim, learner.num_tokens, spec.time_steps
    n, learned = spec.num_patches, T * S
    return Layer(
        modules=(name,),
        stage="tokenizer",
        tokens=n,
        params=6 * D + S * S + S + _masking_params(D, S),
        macs=learned * S * D + _masking_macs(n, D, S) + n * S * D,
        elementwise=2 * NORM_OPS * learned * D
        + learned * D
        + _masking_elementwise(n, D, S)
        + n * D,
        # What was there before the block is the TokenLearner's input, counted there.
        saved=4 * learned * D
        + 4 * learned
        + n * D
        + 2 * n
        + 2 * n * MASKING_HIDDEN_DIM
        + n * S,
        live=max(3 * n * D + n * S, 2 * n * D + 2 * n * MASKING_HIDDEN_DIM),
    )


def _grid_pool(spec: ModelSpec, index: int) -> Layer:
    """The mean over the windows of the tokens that would enter block `index`."""
    n = spec.time_steps * _tokens_of_a_step(spec, index - 1)
    return Layer(
        modules=(f"blocks.pool_{index}",),
        stage="tokenizer",
        tokens=n,
        params=0,
        macs=0,
        elementwise=n * spec.embed_dim,
        saved=n * spec.embed_dim,
        live=2 * n * spec.embed_dim,
    )


def _summary(spec: ModelSpec, n: int) -> Layer:
    """What a factorised encoder makes of each time step: norm, pooling, its place."""
    D, T = spec.embed_dim, _temporal_tokens(spec)
    return Layer(
        modules=("spatial.norm",),
        stage="temporal",
        tokens=n,
        params=2 * D + T * D + _class_tokens(spec) * D,
        macs=0,
        elementwise=(NORM_OPS + 1) * n * D + T * D,
        saved=n * D + 2 * n,
        live=2 * n * D,
    )


def _head(
    spec: ModelSpec, num_classes: int, n: int, norm: str, attention: Attention
) -> Layer:
    """The final LayerNorm, the pooling over the tokens, and the classifier."""
    D, M, H = spec.embed_dim, spec.mlp_dim, spec.num_heads
    head = Layer(
        modules=("head", norm),
        stage="head",
        tokens=n,
        params=2 * D + D * num_classes + num_classes,
        macs=D * num_classes,
        elementwise=(NORM_OPS + 1) * n * D + num_classes,
        # A class token is a view of the norm's output, and keeps all of it.
        saved=n * D + 2 * n + (n * D if _class_tokens(spec) else D),
        live=2 * n * D,
    )
    if spec.global_pool != "map":
        return head
    # One learned query attends to all tokens; its answer passes an MLP.
    return replace(
        head,
        modules=(*head.modules, "attn_pool"),
        params=head.params + D + 4 * (D * D + D) + 2 * D + 2 * D * M + M + D,
        macs=head.macs + 2 * D * D + 2 * n * D * D + 2 * n * D + 2 * D * M,
        elementwise=head.elementwise + 2 * n * D + SOFTMAX_OPS * n * H,
        # Key, value and what they are made of; the one query, its answer, the input
        # and output of its norm, and the hidden layer before and after GELU.
        saved=head.saved
        + 3 * n * D
        + 4 * D
        + 2
        + 2 * M
        + (H * n if attention in UNFUSED else H),
        live=4 * n * D,
    )


def _masking_params(D: int, S: int) -> int:
    """The weights and biases of the MLP from D over 64 to S, without its norm."""
    return (D + 1) * MASKING_HIDDEN_DIM + (MASKING_HIDDEN_DIM + 1) * S


def _masking_macs(n: int, D: int, S: int) -> int:
    return n * (D + S) * MASKING_HIDDEN_DIM


def _masking_elementwise(n: int, D: int, S: int) -> int:
    return n * (NORM_OPS * D + (GELU_OPS + 1) * MASKING_HIDDEN_DIM + S)
