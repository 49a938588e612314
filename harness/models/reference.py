"""TokenLearner, TokenFuser and the ViT around them a second time, in NumPy.

For reading beside the paper, and for `tlbench.certify` to hold the torch modules
against: float64, formula by formula, nothing shared with `tlbench.models.tokenlearner`
and nothing made fast. Every function takes its weights as the state dict of the torch
module, as arrays.

Source: the public code, scenic `projects/token_learner/model.py` and
`projects/baselines/vit.py`. Flax keeps a kernel as [in, out] where torch keeps
[out, in]; what is computed is the same.

Shapes: B batch, N positions = H * W, rows first, D embed_dim, S learned tokens,
K heads, E = D / K.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from tlbench.suites.model_spec import ModelSpec, TokenLearnerSpec

Array = Any  # of float64; NumPy's own types call what arithmetic gives Any as well
Weights = Mapping[str, Array]

EPS = 1e-6
"""What `flax.linen.LayerNorm` adds to the variance."""


def part(w: Weights, name: str) -> Weights:
    """The weights of the module `name` inside the one that `w` belongs to."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): array
        for key, array in w.items()
        if key.startswith(prefix)
    }


# ---------------------------------------------------------------- elements


def layer_norm(x: Array, w: Weights) -> Array:
    """(x - mean) / sqrt(variance + eps) * weight + bias, over the channels."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + EPS) * w["weight"] + w["bias"]


def linear(x: Array, w: Weights) -> Array:
    """X W' + b."""
    return x @ w["weight"].T + w["bias"]


def gelu(x: Array) -> Array:
    """Flax's default form, x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))."""
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array, axis: int) -> Array:
    shifted = np.exp(x - x.max(axis=axis, keepdims=True))  # against overflow
    return shifted / shifted.sum(axis=axis, keepdims=True)


def convolve3x3(image: Array, kernel: Array) -> Array:
    """out_yxo = sum over i, j, c of in_(y+i-1)(x+j-1)c * kernel_ocij, 0 outside.

    [B, H, W, C] with [O, C, 3, 3] -> [B, H, W, O].
    """
    _, height, width, _ = image.shape
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[:, :, i, j].T
        for i in range(3)
        for j in range(3)
    )


# ---------------------------------------------------------------- TokenLearner


def maps_v1(x: Array, w: Weights, grid_size: tuple[int, int]) -> Array:
    """Four convolutions without bias, GELU between them, a sigmoid at the end.

    [B, N, D] -> [B, S, N], each value on its own in (0, 1).
    """
    image = layer_norm(x, part(w, "norm")).reshape(len(x), *grid_size, -1)
    for index in (0, 2, 4):
        image = gelu(convolve3x3(image, w[f"convolutions.{index}.weight"]))
    maps = sigmoid(convolve3x3(image, w["convolutions.6.weight"]))  # [B, H, W, S]
    return np.einsum("bns->bsn", maps.reshape(len(x), x.shape[1], -1))


def maps_v11(x: Array, w: Weights) -> Array:
    """An MLP with one hidden layer, then a softmax over the positions.

    [B, N, D] -> [B, S, N], each map with the sum 1.
    """
    logits = masking(x, part(w, "token_masking"))
    return np.einsum("bns->bsn", softmax(logits, axis=1))


def masking(x: Array, w: Weights) -> Array:
    """W2 gelu(W1 LN(x) + b1) + b2: [B, N, D] -> [B, N, S]."""
    hidden = gelu(linear(layer_norm(x, part(w, "norm")), part(w, "hidden")))
    return linear(hidden, part(w, "output"))


def token_learner_v1(
    x: Array,
    w: Weights,
    grid_size: tuple[int, int],
    pooling: Literal["sum", "mean"] = "sum",
) -> Array:
    """token_s = sum (paper: mean) over p of map_sp * x_p: [B, N, D] -> [B, S, D]."""
    tokens = np.einsum("bsn,bnd->bsd", maps_v1(x, w, grid_size), x)
    return tokens / x.shape[1] if pooling == "mean" else tokens


def token_learner_v11(x: Array, w: Weights) -> Array:
    """token_s = sum over p of map_sp * x_p: [B, N, D] -> [B, S, D]."""
    return np.einsum("bsn,bnd->bsd", maps_v11(x, w), x)


def token_learner(
    x: Array, w: Weights, learner: TokenLearnerSpec, grid_size: tuple[int, int]
) -> Array:
    """The version that the spec asks for: [B, N, D] -> [B, S, D]."""
    if learner.version == "v1":
        return token_learner_v1(x, w, grid_size, learner.pooling)
    return token_learner_v11(x, w)


def token_fuser(tokens: Array, original: Array, w: Weights) -> Array:
    """out_p = sum over s of sigmoid(masking(original))_ps * LN(mix(LN(tokens)))_s.

    Mix is a linear layer over the tokens, the same for each channel, with one bias for
    each token: mix_td = sum over s of M_ts * in_sd + b_t. The residual is the caller's.
    [B, S, D] and [B, N, D] -> [B, N, D].
    """
    normed = layer_norm(tokens, part(w, "norm_before"))
    mixed = np.einsum("ts,bsd->btd", w["mix.weight"], normed)
    mixed = layer_norm(mixed + w["mix.bias"][:, None], part(w, "norm_after"))
    masks = sigmoid(masking(original, part(w, "token_masking")))
    return np.einsum("bns,bsd->bnd", masks, mixed)


# ---------------------------------------------------------------- the ViT


def vit(images: Array, w: Weights, spec: ModelSpec) -> Array:
    """The whole model, with or without TokenLearner: [B, C, H, W] -> [B, classes].

    Of images, with each of the three heads, without pooling of the grid.
    """
    x = patches(images, spec.patch_size) @ _flat(w["patch_embed.proj.weight"]).T
    x = x + w["patch_embed.proj.bias"]
    if spec.global_pool == "token":
        first = np.broadcast_to(w["cls_token"], (len(x), 1, spec.embed_dim))
        x = np.concatenate([first, x], axis=1)
    x = x + w["pos_embed"]
    for index in range(spec.depth):
        x = _encoder_step(x, part(w, "blocks"), spec, index)
    return linear(pool(layer_norm(x, part(w, "norm")), w, spec), part(w, "head"))


def _encoder_step(x: Array, w: Weights, spec: ModelSpec, index: int) -> Array:
    """Block `index`, and the TokenLearner before or around it."""
    inside, learner = part(w, str(index)), spec.token_learner
    grid_size = (spec.grid_size, spec.grid_size)
    if learner is None or index < learner.place:
        return block(x, inside, spec.num_heads)
    if learner.fuse:
        tokens = token_learner(x, part(inside, "learn"), learner, grid_size)
        tokens = block(tokens, part(inside, "block"), spec.num_heads)
        return x + token_fuser(tokens, x, part(inside, "fuse"))
    if index == learner.place:
        x = token_learner(x, part(w, "token_learner"), learner, grid_size)
    return block(x, inside, spec.num_heads)


def patches(images: Array, size: int) -> Array:
    """Cut [B, C, H, W] into [B, N, C * size * size]; a rest at the border is lost."""
    batch, channels, height, width = images.shape
    rows, columns = height // size, width // size
    whole = images[:, :, : rows * size, : columns * size]
    cut = whole.reshape(batch, channels, rows, size, columns, size)
    return np.einsum("bchiwj->bhwcij", cut).reshape(batch, rows * columns, -1)


def block(x: Array, w: Weights, num_heads: int) -> Array:
    """Give u + MLP(LN(u)) with u = x + attention(LN(x)): [B, N, D] -> the same."""
    u = x + attention(layer_norm(x, part(w, "norm1")), part(w, "attn"), num_heads)
    return u + mlp(layer_norm(u, part(w, "norm2")), part(w, "mlp"))


def mlp(x: Array, w: Weights) -> Array:
    """W2 gelu(W1 x + b1) + b2."""
    return linear(gelu(linear(x, part(w, "fc1"))), part(w, "fc2"))


def attention(x: Array, w: Weights, num_heads: int) -> Array:
    """Every token looks at all: [B, N, D] -> the same."""
    query, key, value = np.split(linear(x, part(w, "qkv")), 3, axis=-1)
    return linear(mix(query, key, value, num_heads), part(w, "proj"))


def mix(query: Array, key: Array, value: Array, num_heads: int) -> Array:
    """softmax(Q K' / sqrt(E)) V for each head.

    M queries, and N keys and values: [B, M, D] and twice [B, N, D] -> [B, M, D].
    """
    query, key, value = (
        x.reshape(*x.shape[:2], num_heads, -1) for x in (query, key, value)
    )
    scores = np.einsum("bmke,bnke->bkmn", query, key) / math.sqrt(query.shape[-1])
    mixed = np.einsum("bkmn,bnke->bmke", softmax(scores, axis=-1), value)
    return mixed.reshape(*mixed.shape[:2], -1)


def pool(x: Array, w: Weights, spec: ModelSpec) -> Array:
    """What the classifier sees of the normalised tokens: [B, N, D] -> [B, D]."""
    match spec.global_pool:
        case "avg":
            return x.mean(axis=1)
        case "token":
            return x[:, 0]
        case "map":
            return map_head(x, part(w, "attn_pool"), spec.num_heads)


def map_head(x: Array, w: Weights, num_heads: int) -> Array:
    """One learned query looks at all tokens; give u + MLP(LN(u)) of its answer u."""
    query = np.repeat(linear(w["latent"], part(w, "q")), len(x), axis=0)
    key, value = np.split(linear(x, part(w, "kv")), 2, axis=-1)
    u = linear(mix(query, key, value, num_heads), part(w, "proj"))
    return (u + mlp(layer_norm(u, part(w, "norm")), part(w, "mlp")))[:, 0]


def _flat(kernel: Array) -> Array:
    return kernel.reshape(len(kernel), -1)
