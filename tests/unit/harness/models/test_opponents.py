"""Opponents of TokenLearner: against loops in NumPy, and against the plain model."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tlbench.errors import TrialError
from tlbench.models.opponents import (
    Matching,
    MergedNorm,
    MergingBlock,
    drop_random_tokens,
    drop_tokens_between_strides,
    match,
    merge,
    merge_tokens,
    pool_by_fixed_maps,
)
from tlbench.models.vit import build_model
from tlbench.suites.model_spec import ModelSpec, VideoSpec
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Attention

TINY = ModelSpec(
    patch_size=4, image_size=24, embed_dim=16, depth=3, num_heads=2, mlp_dim=32
)
"""36 patches."""
IMAGES = (2, 3, 24, 24)


def build(spec: ModelSpec = TINY, attention: Attention = "auto", **changes: Any) -> Any:
    torch.manual_seed(0)
    model: Any = build_model(
        spec.model_copy(update=changes), num_classes=10, attention=attention
    )
    nn.init.normal_(model.head.weight)  # it starts at zero, which would hide all
    return model


def images(seed: int = 1, shape: tuple[int, ...] = IMAGES) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tokens_of_blocks(model: Any, shape: tuple[int, ...] = IMAGES) -> list[int]:
    """How many tokens enter each block of timm's, and how many the final norm."""
    counts: list[int] = []

    def note(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        state = inputs[0]
        counts.append((state[0] if isinstance(state, tuple) else state).shape[1])

    for name, module in model.blocks.named_children():
        if name.isdigit():
            module.register_forward_pre_hook(note)
    model.norm.register_forward_pre_hook(note)
    model(torch.zeros(shape))
    return counts


# ---------------------------------------------------------------- matching, in loops


def match_in_loops(
    keys: np.ndarray[Any, Any], r: int, prefix: int
) -> tuple[list[int], list[int], list[int]]:
    """Bipartite soft matching of one image, as section 3 of the paper has it.

    Numbers are those of the tokens: alternate tokens go to A and B, each of A draws an
    edge to the most similar of B, and the r strongest edges stay.
    """
    unit = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    edges = []
    for a in range(0, len(keys), 2):
        best = max(range(1, len(keys), 2), key=lambda b: float(unit[a] @ unit[b]))
        strength = float(unit[a] @ unit[best]) if a >= prefix else -np.inf
        edges.append((strength, a, best))
    edges.sort(key=lambda edge: -edge[0])
    kept = [a for _, a, _ in edges[r:]]
    return (
        sorted(kept) if prefix else kept,
        [a for _, a, _ in edges[:r]],
        [b for _, _, b in edges[:r]],
    )


def merge_in_loops(
    x: np.ndarray[Any, Any],
    sizes: list[float],
    kept: list[int],
    merged: list[int],
    targets: list[int],
) -> tuple[np.ndarray[Any, Any], list[float]]:
    """Weighted means of what merges: the kept of A, then all of B."""
    rows, counts = [x[a] for a in kept], [sizes[a] for a in kept]
    for b in range(1, len(x), 2):
        group = [b] + [a for a, t in zip(merged, targets, strict=True) if t == b]
        count = sum(sizes[i] for i in group)
        rows.append(sum(sizes[i] * x[i] for i in group) / count)
        counts.append(count)
    return np.array(rows), counts


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize(("tokens", "r"), [(12, 4), (13, 3), (9, 4), (7, 1), (12, 5)])
def test_matching_is_that_of_the_loops(tokens: int, r: int, prefix: int) -> None:
    keys = torch.randn(3, tokens, 5, dtype=torch.float64)
    found = match(keys, r, prefix)
    for image in range(3):
        kept, merged, targets = match_in_loops(keys[image].numpy(), r, prefix)
        assert (2 * found.kept[image]).tolist() == kept
        assert (2 * found.merged[image]).tolist() == merged
        assert (2 * found.targets[image] + 1).tolist() == targets


@pytest.mark.parametrize("prefix", [0, 1])
def test_merging_twice_is_that_of_the_loops(prefix: int) -> None:
    x = torch.randn(13, 6, dtype=torch.float64)
    sizes = torch.ones(13, 1, dtype=torch.float64)
    looped, counts = x.numpy(), [1.0] * 13
    for r in (5, 3):
        keys = torch.randn(len(x), 4, dtype=torch.float64)
        matching = match(keys[None], r, prefix)
        after = merge(sizes[None], matching)[0]
        x, sizes = merge((x * sizes)[None], matching)[0] / after, after
        looped, counts = merge_in_loops(
            looped, counts, *match_in_loops(keys.numpy(), r, prefix)
        )
    np.testing.assert_allclose(x.numpy(), looped, rtol=1e-12)
    assert sizes[:, 0].tolist() == counts
    assert sum(counts) == 13


def test_what_merges_into_one_target_is_added_up() -> None:
    matching = Matching(
        kept=torch.tensor([[1]]),
        merged=torch.tensor([[0, 2]]),
        targets=torch.tensor([[1, 1]]),
    )
    x = torch.tensor([[[1.0], [2.0], [4.0], [8.0], [16.0]]])
    assert merge(x, matching).flatten().tolist() == [4, 2, 1 + 8 + 16]


# ---------------------------------------------------------------- token merging


@pytest.mark.parametrize("attention", ["auto", "eager"])
@pytest.mark.parametrize("pool", ["avg", "token", "map"])
def test_merging_nothing_is_the_plain_model_to_the_bit(
    pool: str, attention: Attention
) -> None:
    plain = build(global_pool=pool, attention=attention)
    merging = merge_tokens(build(global_pool=pool, attention=attention), r=0)
    assert torch.equal(plain(images()), merging(images()))


@pytest.mark.parametrize(
    ("pool", "r", "expected"),
    [
        ("avg", 4, [36, 32, 28, 24]),
        ("avg", 100, [36, 18, 9, 5]),
        ("token", 4, [37, 33, 29, 25]),
        ("token", 100, [37, 19, 10, 6]),
    ],
)
def test_each_block_merges_r_tokens_and_half_of_them_at_most(
    pool: str, r: int, expected: list[int]
) -> None:
    model = merge_tokens(build(global_pool=pool), r=r)
    assert tokens_of_blocks(model) == expected


@pytest.mark.parametrize(("pool", "least"), [("avg", 1), ("token", 2)])
def test_one_patch_token_is_the_least(pool: str, least: int) -> None:
    model = merge_tokens(build(global_pool=pool, depth=9), r=1000)
    counts = tokens_of_blocks(model)
    assert min(counts) == counts[-1] == least
    assert model(images()).isfinite().all()


def forward_in_loops(model: Any, image: Tensor, r: int) -> Tensor:
    """The logits of one image by the formulas of the paper, token by token.

    From timm's layers only the weights are taken.
    """
    x = (model.patch_embed(image[None]) + model.pos_embed)[0]
    sizes = [1.0] * len(x)
    for merging in model.blocks:
        block = merging.block
        attn = block.attn
        q, k, v = (
            attn.qkv(block.norm1(x)).unflatten(1, (3, attn.num_heads, -1)).unbind(1)
        )
        bias = torch.tensor(sizes, dtype=x.dtype).log()  # proportional attention
        heads = []
        for head in range(attn.num_heads):
            scores = q[:, head] @ k[:, head].T * attn.head_dim**-0.5 + bias
            heads.append(scores.softmax(dim=-1) @ v[:, head])
        x = x + attn.proj(torch.cat(heads, dim=1))
        rows, sizes = merge_in_loops(
            x.numpy(), sizes, *match_in_loops(k.mean(dim=1).numpy(), r, prefix=0)
        )
        x = torch.from_numpy(rows)
        x = x + block.mlp(block.norm2(x))
    weights = torch.tensor(sizes, dtype=x.dtype)[:, None]
    pooled = (model.norm.norm(x) * weights).sum(dim=0) / weights.sum()
    logits: Tensor = model.head(pooled)
    return logits


@pytest.mark.parametrize("attention", ["auto", "eager"])
def test_merging_is_that_of_the_formulas(attention: Attention) -> None:
    model = merge_tokens(build(attention=attention).double(), r=5)
    batch = images().double()
    with torch.no_grad():
        expected = torch.stack([forward_in_loops(model, image, 5) for image in batch])
        found = model(batch)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_identical_patches_merge_without_a_trace() -> None:
    """Tokens that are all the same have their mean for any matching."""
    plain = build()
    plain.pos_embed.data.zero_()
    merging = merge_tokens(build(), r=7)
    merging.load_state_dict(
        {_path_in_merging(path): value for path, value in plain.state_dict().items()}
    )
    image = torch.ones(IMAGES)
    torch.testing.assert_close(merging(image), plain(image), rtol=1e-5, atol=1e-5)


def _path_in_merging(path: str) -> str:
    kind, _, rest = path.partition(".")
    if kind == "blocks":
        index, _, inner = rest.partition(".")
        return f"blocks.{index}.block.{inner}"
    return f"norm.norm.{rest}" if kind == "norm" else path


def test_the_class_token_is_never_merged() -> None:
    model: Any = merge_tokens(build(global_pool="token"), r=9)
    seen: list[Tensor] = []

    def note(_: nn.Module, _inputs: object, output: tuple[Tensor, Tensor]) -> None:
        seen.append(output[1])

    for block in model.blocks:
        block.register_forward_hook(note)
    model(images())
    assert len(seen) == 3
    for sizes in seen:
        assert (sizes[:, 0] == 1).all()
        assert (sizes.sum(dim=1) == 37).all()


def test_keys_do_not_outlive_the_forward_pass() -> None:
    model = merge_tokens(build(), r=2)
    model(images())
    blocks = [m for m in model.modules() if isinstance(m, MergingBlock)]
    assert [block._keys for block in blocks] == [None] * 3


def test_only_a_mean_is_weighted() -> None:
    norm = MergedNorm(nn.Identity(), prefix=1, is_mean=False)
    x, sizes = torch.randn(1, 3, 2), torch.tensor([[[1.0], [3.0], [1.0]]])
    assert torch.equal(norm((x, sizes)), x)
    weighted = MergedNorm(nn.Identity(), prefix=1, is_mean=True)((x, sizes))
    expected = (3 * x[0, 1] + x[0, 2]) / 4
    torch.testing.assert_close(weighted[0, 1:].mean(dim=0), expected)


# ---------------------------------------------------------------- token dropping


@pytest.mark.parametrize(("pool", "extra"), [("avg", 0), ("token", 1), ("map", 0)])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_dropping_counts_from_its_place_on(pool: str, extra: int, place: int) -> None:
    before, after = [36 + extra] * place, 4 - place
    random = drop_random_tokens(build(global_pool=pool), keep=7, place=place)
    assert tokens_of_blocks(random) == before + [7 + extra] * after
    strided = drop_tokens_between_strides(build(global_pool=pool), step=2, place=place)
    assert tokens_of_blocks(strided) == before + [9 + extra] * after


@pytest.mark.parametrize(("step", "kept"), [(1, 36), (2, 9), (4, 4), (5, 4), (99, 1)])
def test_strides_keep_rows_and_columns_and_the_corner_at_least(
    step: int, kept: int
) -> None:
    model: Any = drop_tokens_between_strides(build(), step=step, place=0)
    grid = torch.arange(36.0).view(1, 36, 1)
    expected = [
        6 * row + column for row in range(0, 6, step) for column in range(0, 6, step)
    ]
    assert model.blocks.drop(grid).flatten().tolist() == expected
    assert len(expected) == kept


def test_fixed_maps_are_the_same_weighted_means_of_every_input() -> None:
    model: Any = pool_by_fixed_maps(build(global_pool="token"), tokens=3, place=1)
    pool, x = model.blocks.drop, torch.randn(2, 1 + 2 * 36, 4, dtype=torch.float64)
    nn.init.normal_(pool.logits)
    powers = np.exp(pool.logits.detach().double().numpy())
    maps = powers / powers.sum(axis=1, keepdims=True)
    found = pool.double()(x).detach().numpy()
    np.testing.assert_array_equal(found[:, 0], x[:, 0])  # the class token
    for step in range(2):
        positions = x[:, 1 + 36 * step :][:, :36].numpy()
        pooled = found[:, 1 + 3 * step :][:, :3]
        np.testing.assert_allclose(pooled, np.einsum("sn,bnd->bsd", maps, positions))


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_dropping_nothing_is_the_plain_model_to_the_bit(pool: str) -> None:
    plain = build(global_pool=pool)(images())
    strided = drop_tokens_between_strides(build(global_pool=pool), step=1, place=1)
    assert torch.equal(strided(images()), plain)
    random = drop_random_tokens(build(global_pool=pool), keep=36, place=1)
    assert torch.equal(random(images()), plain)


@pytest.mark.parametrize("is_training", [True, False])
def test_random_tokens_are_drawn_anew_by_the_seeded_generator(
    is_training: bool,
) -> None:
    model: Any = drop_random_tokens(build(), keep=5, place=0).train(is_training)
    grid = torch.arange(36.0).view(1, 36, 1).expand(4, -1, -1)
    torch.manual_seed(3)
    first, second = model.blocks.drop(grid), model.blocks.drop(grid)
    torch.manual_seed(3)
    again = model.blocks.drop(grid)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert len({tuple(row) for row in first[:, :, 0].tolist()}) == 4  # of each image
    for row in first[:, :, 0].tolist():
        assert row == sorted(set(row))


def test_random_tokens_are_drawn_evenly() -> None:
    model: Any = drop_random_tokens(build(), keep=9, place=0)
    torch.manual_seed(0)
    kept = model.blocks.drop(torch.arange(36.0).view(1, 36, 1).expand(4000, -1, -1))
    counts = torch.bincount(kept.flatten().long(), minlength=36)
    # Binomial of 4000 draws at 1/4: mean 1000, standard deviation 27.4.
    assert (counts - 1000).abs().max() < 5 * 27.4


def test_the_class_token_is_never_dropped() -> None:
    model: Any = drop_random_tokens(build(global_pool="token"), keep=1, place=0)
    x = torch.arange(37.0).view(1, 37, 1)
    assert [model.blocks.drop(x)[0, 0].item() for _ in range(20)] == [0.0] * 20


# ---------------------------------------------------------------- all of them

OPPONENTS = {
    "tome": lambda model: merge_tokens(model, r=4),
    "random": lambda model: drop_random_tokens(model, keep=9, place=1),
    "stride": lambda model: drop_tokens_between_strides(model, step=2, place=1),
    "fixed": lambda model: pool_by_fixed_maps(model, tokens=5, place=1),
}


@pytest.mark.parametrize("name", OPPONENTS)
@pytest.mark.parametrize("has_checkpoints", [False, True])
def test_gradients_reach_every_weight(name: str, has_checkpoints: bool) -> None:
    model = build()
    model.set_grad_checkpointing(has_checkpoints)
    model = OPPONENTS[name](model).train()
    model(images()).square().sum().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
        assert parameter.grad.abs().sum() > 0, path


@pytest.mark.parametrize("name", ["tome", "random", "stride", "fixed"])
def test_checkpointing_changes_no_gradient(name: str) -> None:
    gradients = []
    for has_checkpoints in (False, True):
        plain = build()
        plain.set_grad_checkpointing(has_checkpoints)
        model: Any = OPPONENTS[name](plain).train()
        torch.manual_seed(5)
        model(images()).square().sum().backward()
        gradients.append(model.patch_embed.proj.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", OPPONENTS)
def test_opponents_run_in_bf16(name: str) -> None:
    exact = OPPONENTS[name](build()).eval()
    rounded = OPPONENTS[name](build()).eval().to(torch.bfloat16)
    with torch.inference_mode():
        torch.manual_seed(7)
        expected = exact(images())
        torch.manual_seed(7)
        found = rounded(images().to(torch.bfloat16))
    assert found.dtype == torch.bfloat16
    assert found.isfinite().all()
    if name != "tome":  # rounded keys may match other tokens
        # bf16 has 8 bits: 0.4 % of the largest value in each of a dozen roundings.
        assert (found - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("name", OPPONENTS)
def test_opponents_read_clips(name: str) -> None:
    spec = TINY.model_copy(update={"video": VideoSpec(num_frames=4)})
    model = OPPONENTS[name](build(spec))
    clips = (2, 3, 4, 24, 24)
    assert model(torch.zeros(clips)).shape == (2, 10)
    expected = {
        "tome": [72, 68, 64, 60],
        "random": [72, 9, 9, 9],
        "stride": [72, 18, 18, 18],  # 3 x 3 in each of two time steps
        "fixed": [72, 10, 10, 10],
    }
    assert tokens_of_blocks(model, clips) == expected[name]


@pytest.mark.parametrize("name", OPPONENTS)
@pytest.mark.parametrize(
    "model",
    [
        "ViT-Ti/32+TL8@6",
        "ViT-Ti/32+TL8fuse@6",
        "ViT-Ti/32+pool2@6",
        "ViViT-Ti/32x2:encoder",
        "ViViT-d192h4m768l12/32x2:attention",
        "ViViT-d192h4m768l12/32x2:dotproduct",
    ],
)
def test_opponents_refuse_a_model_without_plain_blocks(name: str, model: str) -> None:
    with torch.device("meta"):
        built = build_model(parse_model(model), 10)
        with pytest.raises(TrialError, match="take all blocks of a plain ViT or joint"):
            OPPONENTS[name](built)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (merge_tokens, {"r": -1}, "r=-1 is negative; 0 merges nothing"),
        (drop_random_tokens, {"keep": 0, "place": 1}, "keep=0 leaves no token"),
        (
            drop_random_tokens,
            {"keep": 5, "place": 3},
            "place=3 is none of the 3 blocks; 0 to 2 would be right",
        ),
        (
            drop_tokens_between_strides,
            {"step": 2, "place": -1},
            "place=-1 is none of the 3 blocks",
        ),
        (drop_tokens_between_strides, {"step": 0, "place": 1}, "step=0 is no distance"),
    ],
)
def test_opponents_refuse_what_makes_no_sense(
    function: Any, options: dict[str, int], message: str
) -> None:
    with pytest.raises(TrialError, match=message):
        function(build(), **options)


def test_more_tokens_than_there_are_cannot_be_kept() -> None:
    model = drop_random_tokens(build(), keep=37, place=1)
    with pytest.raises(TrialError, match="keep=37 is more than the 36 patch tokens"):
        model(images())
