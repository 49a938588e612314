"""ViViT's four models against their formulas, written out over time and space.

Shapes: B batch, T time steps, N tokens of one time step, D dim, H heads, E dim of one
head.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, unflatten
from torch.nn.functional import gelu, layer_norm

from tlbench.models.vit import build_model
from tlbench.models.vivit import OverTime, PerTimeStep, TubeletEmbed
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Attention

# 7 frames in tubelets of 2: 3 time steps; 14 pixels in patches of 4: a grid of 3 x 3.
TINY = "ViViT-d12h2m20l2/4x2@14x7"
MODELS = ["", ":token", ":map", ":encoder2", ":encoder2:token"]
MODELS += [":attention", ":dotproduct"]
every_model = pytest.mark.parametrize("kind", MODELS)
T, H, D = 3, 2, 12
CLIPS = torch.randn(2, 3, 7, 14, 14, generator=torch.Generator().manual_seed(1))

Weights = dict[str, Tensor]


def build(name: str, attention: Attention = "auto", **training: Any) -> Any:
    """The model with no weight left at a value that hides a mistake."""
    torch.manual_seed(0)
    model: Any = build_model(parse_model(name), 5, attention=attention, **training)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


# The formulas, from the paper and its public code, on [B, T, N, D].


def norm(w: Weights, x: Tensor, name: str) -> Tensor:
    return layer_norm(x, (D,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)


def dense(w: Weights, x: Tensor, name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def mlp(w: Weights, x: Tensor, name: str) -> Tensor:
    hidden = gelu(dense(w, x, f"{name}.fc1"), approximate="tanh")
    return dense(w, hidden, f"{name}.fc2")


def embed(w: Weights, clips: Tensor, name: str = "patch_embed.proj") -> Tensor:
    """Cut every tubelet out by hand."""
    kernel, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    rows = []
    for t in range(3):
        for y in range(3):
            for x in range(3):
                tubelet = clips[
                    :, :, 2 * t : 2 * t + 2, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4
                ]
                rows.append(torch.einsum("bcfhw,dcfhw->bd", tubelet, kernel) + bias)
    return unflatten(torch.stack(rows, dim=1), 1, (T, 9))


def heads(w: Weights, x: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, [B, T, N, H, E] each."""
    qkv = unflatten(dense(w, x, f"{name}.qkv"), -1, (3, H, D // H))
    query, key, value = qkv.unbind(-3)
    return query / math.sqrt(D // H), key, value


def over_space(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    weights = torch.einsum("btnhe,btmhe->bthnm", query, key).softmax(-1)
    return torch.einsum("bthnm,btmhe->btnhe", weights, value)


def over_time(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    weights = torch.einsum("btnhe,bsnhe->bnhts", query, key).softmax(-1)
    return torch.einsum("bnhts,bsnhe->btnhe", weights, value)


def attend(w: Weights, x: Tensor, name: str, way: Callable[..., Tensor]) -> Tensor:
    return dense(w, way(*heads(w, x, name)).flatten(-2), f"{name}.proj")


def plain_block(w: Weights, x: Tensor, name: str) -> Tensor:
    x = x + attend(w, norm(w, x, f"{name}.norm1"), f"{name}.attn", over_space)
    return x + mlp(w, norm(w, x, f"{name}.norm2"), f"{name}.mlp")


def time_space_block(w: Weights, x: Tensor, name: str) -> Tensor:
    over = norm(w, x, f"{name}.time_norm")
    x = x + attend(w, over, f"{name}.time_attn.module", over_time)
    inside = norm(w, x, f"{name}.block.norm1")
    x = x + attend(w, inside, f"{name}.block.attn.module", over_space)
    return x + mlp(w, norm(w, x, f"{name}.block.norm2"), f"{name}.block.mlp")


def split_head_block(w: Weights, x: Tensor, name: str) -> Tensor:
    def both(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        halves = (part.chunk(2, dim=3) for part in (query, key, value))
        first, second = zip(*halves, strict=True)
        return torch.cat([over_time(*first), over_space(*second)], dim=3)

    x = x + attend(w, norm(w, x, f"{name}.norm1"), f"{name}.attn", both)
    return x + mlp(w, norm(w, x, f"{name}.norm2"), f"{name}.mlp")


def encode(w: Weights, x: Tensor, prefix: str = "") -> Tensor:
    """[B, groups, N, D]: a ViT in each group, from class token to final norm."""
    if f"{prefix}cls_token" in w:
        token = w[f"{prefix}cls_token"][:, None].expand(*x.shape[:2], -1, -1)
        x = torch.cat([token, x], dim=2)
    x = x + w[f"{prefix}pos_embed"]
    for index in range(2):
        x = plain_block(w, x, f"{prefix}blocks.{index}")
    return norm(w, x, f"{prefix}norm")


def pool(w: Weights, x: Tensor, kind: str) -> Tensor:
    """[B, groups, N, D] -> [B, groups, D]."""
    if kind.endswith(":token"):
        return x[:, :, 0]
    if not kind.endswith(":map"):
        return x.mean(dim=2)
    query = dense(w, w["attn_pool.latent"], "attn_pool.q") / math.sqrt(D // H)
    kv = unflatten(dense(w, x, "attn_pool.kv"), -1, (2, H, -1))
    keys, values = kv.unbind(-3)
    query = unflatten(query, -1, (H, -1))[0, 0]  # [H, E]
    weights = torch.einsum("he,bgnhe->bghn", query, keys).softmax(-1)
    seen = torch.einsum("bghn,bgnhe->bghe", weights, values).flatten(-2)
    seen = dense(w, seen, "attn_pool.proj")
    return seen + mlp(w, norm(w, seen, "attn_pool.norm"), "attn_pool.mlp")


def reference(w: Weights, clips: Tensor, kind: str) -> Tensor:
    if kind.startswith(":encoder"):
        steps = embed(w, clips, "spatial.patch_embed.proj")
        frames = pool(w, encode(w, steps, "spatial."), kind)  # [B, T, D]
        clip = pool(w, encode(w, frames[:, None], "temporal."), kind)[:, 0]
        return dense(w, clip, "head")
    x = embed(w, clips)
    if kind in (":attention", ":dotproduct"):
        x = x + unflatten(w["pos_embed"], 1, (T, -1))
        block = time_space_block if kind == ":attention" else split_head_block
        for index in range(2):
            x = block(w, x, f"blocks.{index}")
        return dense(w, norm(w, x, "norm").mean(dim=(1, 2)), "head")
    together = encode(w, x.flatten(1, 2)[:, None])  # all time steps in one group
    return dense(w, pool(w, together, kind)[:, 0], "head")


@every_model
@pytest.mark.parametrize("attention", ["auto", "eager"])
def test_model_is_the_published_formula(kind: str, attention: Attention) -> None:
    model = build(TINY + kind, attention).double()
    expected = reference(model.state_dict(), CLIPS.double(), kind)
    assert torch.allclose(model(CLIPS.double()), expected, rtol=0, atol=1e-10)


@every_model
def test_eager_reaches_every_attention(kind: str) -> None:
    settings: dict[Attention, bool] = {"auto": True, "eager": False}
    for attention, is_fused in settings.items():
        model = build_model(parse_model(TINY + kind), 5, attention=attention)
        flags = [m.fused_attn for m in model.modules() if hasattr(m, "fused_attn")]
        assert len(flags) >= 2
        assert set(flags) == {is_fused}


# Tubelets.


def test_tokens_of_a_time_step_stand_together_row_by_row() -> None:
    embedding = TubeletEmbed(
        num_frames=4, tubelet_size=2, img_size=4, patch_size=2, in_chans=1, embed_dim=1
    )
    with torch.no_grad():  # each token is the sum of its tubelet
        embedding.proj.weight.fill_(1)
        embedding.proj.bias.fill_(0)  # type: ignore[union-attr]  # it has one
    clip = torch.zeros(1, 1, 4, 4, 4)
    for index in range(8):
        step, row, column = index // 4, index // 2 % 2, index % 2
        clip[0, 0, 2 * step + 1, 2 * row, 2 * column] = index
    assert embedding(clip).flatten().tolist() == list(range(8))


def test_pixels_and_frames_of_no_whole_tubelet_are_dropped() -> None:
    model = build(TINY)
    rest = CLIPS.clone()
    rest[:, :, 6:] = 9
    rest[..., 12:, :] = 9
    rest[..., 12:] = 9
    assert torch.equal(model(rest), model(CLIPS))


@every_model
def test_a_clip_of_another_size_is_refused(kind: str) -> None:
    message = r"reads clips of 7 x 14 x 14 \(frames, .* this one has 8 x 14 x 14"
    with pytest.raises(ValueError, match=message):
        build(TINY + kind)(torch.zeros(1, 3, 8, 14, 14))


# Time, folded.


class Mixing(nn.Module):
    """Mixes all tokens that it sees at once, each in its own way."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(dim=1) * x.shape[1]


def test_a_module_per_time_step_sees_one_time_step() -> None:
    x = torch.randn(2, 12, 5)
    expected = torch.cat([Mixing()(step) for step in x.chunk(3, dim=1)], dim=1)
    assert torch.equal(PerTimeStep(Mixing(), 3)(x), expected)


def test_a_module_over_time_sees_one_position() -> None:
    x = torch.randn(2, 12, 5)
    positions = [Mixing()(x[:, index::4]) for index in range(4)]
    expected = torch.stack(positions, dim=2).flatten(1, 2)
    assert torch.equal(OverTime(Mixing(), 3)(x), expected)


# Token reduction.

REDUCTIONS = ["+TL4@1", "+TL4v1@0", "+TL11v1mean@1", "+pool2@1", "+TL4fuse@1"]
REDUCTIONS += ["+TL1v1fuse@0"]


def reducers(model: Any) -> dict[str, Any]:
    """The modules that change the number of tokens, by where they stand."""
    blocks = getattr(model, "spatial", model).blocks
    kinds = ("token_learner", "pool_1", "0.learn", "1.learn", "0.fuse", "1.fuse")
    found = dict(blocks.named_modules())
    return {name: found[name] for name in kinds if name in found}


@pytest.mark.parametrize("kind", ["", ":encoder2", ":attention", ":dotproduct"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_tokens_are_reduced_at_each_time_step_alone(kind: str, reduction: str) -> None:
    model = build(TINY + kind + reduction)
    calls: list[tuple[Any, tuple[Tensor, ...], Tensor]] = []
    for module in reducers(model).values():
        module.register_forward_hook(lambda *call: calls.append(call))
    assert model(CLIPS).shape == (2, 5)
    assert calls
    for module, inputs, output in tuple(calls):
        alone = getattr(module, "module", module)
        for clip in range(2):
            for step in range(T):
                inside = [steps_of(x)[clip, step][None] for x in inputs]
                expected = alone(*inside)[0]
                actual = steps_of(output)[clip, step]
                assert torch.allclose(actual, expected, atol=1e-4)


def steps_of(x: Tensor) -> Tensor:
    """Both what is folded and what is not, as [B, T, N, D]."""
    return x.reshape(2, T, -1, x.shape[-1])


@pytest.mark.parametrize("kind", ["", ":encoder2", ":attention", ":dotproduct", ":map"])
@pytest.mark.parametrize("fuse", ["", "fuse"])
def test_token_learner_at_the_depth_itself_is_the_plain_model(
    kind: str, fuse: str
) -> None:
    plain, learned = build(TINY + kind), build(f"{TINY}{kind}+TL4{fuse}@2")
    assert plain.state_dict().keys() == learned.state_dict().keys()
    assert torch.equal(plain(CLIPS), learned(CLIPS))


def test_same_seed_gives_the_model_the_same_weights_with_and_without() -> None:
    for kind in (":encoder2", ":attention"):
        states = []
        for reduction in ("", "+TL4@1"):
            torch.manual_seed(0)
            model = build_model(parse_model(TINY + kind + reduction), 5)
            states.append(model.state_dict())
        plain, learned = states
        assert all(torch.equal(plain[name], learned[name]) for name in plain)


@pytest.mark.parametrize("kind", ["", ":encoder2", ":attention", ":dotproduct"])
@pytest.mark.parametrize("reduction", ["", "+TL1@0", "+TL11v1@1", "+TL1fuse@0"])
def test_one_clip_and_one_token_or_more_tokens_than_positions_run(
    kind: str, reduction: str
) -> None:
    model = build(TINY + kind + reduction)
    assert model(CLIPS[:1]).shape == (1, 5)
    assert torch.allclose(model(CLIPS[:1]), model(CLIPS)[:1], atol=1e-5)


# Initial weights.


def test_only_the_central_frame_of_a_tubelet_counts_at_first() -> None:
    torch.manual_seed(0)
    for frames, central in ((1, 0), (2, 1), (3, 1), (4, 2)):
        spec = parse_model(f"ViViT-d64h2m20l1/4x{frames}@8x8")
        kernel = build_model(spec, 5).get_parameter("patch_embed.proj.weight")
        counts = kernel.abs().sum(dim=(0, 1, 3, 4)) > 0
        assert counts.nonzero().flatten().tolist() == [central]
        std = math.sqrt(1 / (3 * frames * 16))  # of the kernel as a whole
        assert kernel[:, :, central].std().item() == pytest.approx(std, rel=0.05)


def test_initial_weights_of_both_transformers_are_those_of_flax() -> None:
    torch.manual_seed(0)
    spec = parse_model("ViViT-d64h2m200l2/4x2@32x64:encoder2:token")
    model: Any = build_model(spec, 5)
    for vit in (model.spatial, model.temporal):
        assert vit.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)
        assert not vit.cls_token.any()
        for block in vit.blocks:
            bound = math.sqrt(6 / 128)
            largest = block.attn.qkv.weight.abs().max().item()
            assert largest == pytest.approx(bound, rel=0.01)
            assert 0 < block.mlp.fc1.bias.abs().max() < 1e-5
    assert not model.head.weight.any()


def test_attention_over_time_is_drawn_anew() -> None:
    torch.manual_seed(0)
    model: Any = build_model(parse_model("ViViT-d64h2m20l1/4x2@8x8:attention"), 5)
    block = model.blocks[0]
    time, space = block.time_attn.module.qkv.weight, block.block.attn.module.qkv.weight
    assert not torch.equal(time, space)
    bound = math.sqrt(6 / 128)
    assert time.abs().max().item() == pytest.approx(bound, rel=0.01)


# Training settings.


def trained(name: str, **training: Any) -> tuple[Tensor, list[Tensor]]:
    """What one step in training mode gives: the logits, and all gradients."""
    model = build(name, **training).train()
    torch.manual_seed(3)  # which paths are dropped
    logits = model(CLIPS)
    (logits**2).sum().backward()
    return logits.detach(), [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize(
    "kind",
    MODELS
    + [
        kind + reduction
        for kind in ("", ":encoder2", ":attention", ":dotproduct")
        for reduction in ("+TL4v1@1", "+TL4fuse@0", "+pool2@1")
    ],
)
@pytest.mark.parametrize("drop_path_rate", [0.0, 0.5])
def test_checkpointing_changes_neither_values_nor_gradients(
    kind: str, drop_path_rate: float
) -> None:
    name = TINY + kind
    logits, gradients = trained(name, drop_path_rate=drop_path_rate)
    again, regained = trained(
        name, drop_path_rate=drop_path_rate, gradient_checkpointing=True
    )
    assert torch.equal(logits, again)
    for gradient, other in zip(gradients, regained, strict=True):
        assert torch.equal(gradient, other)


@every_model
def test_stochastic_depth_grows_over_the_blocks_of_each_transformer(kind: str) -> None:
    model = build(TINY + kind, drop_path_rate=0.4)
    rates: dict[str, set[float]] = {}
    for name, module in model.named_modules():
        if type(module).__name__ == "DropPath":
            where = name.split("blocks.")[0] + name.split("blocks.")[1][0]
            rates.setdefault(where, set()).add(round(module.drop_prob, 6))
    prefixes = ("spatial.", "temporal.") if kind.startswith(":encoder") else ("",)
    assert rates == {f"{prefix}1": {0.4} for prefix in prefixes}  # that of block 0 is 0
    paths = sum(type(module).__name__ == "DropPath" for module in model.modules())
    assert paths == {":attention": 3}.get(kind, 2) * len(prefixes)


# Precision and compilation.


@every_model
def test_bf16_is_as_near_as_its_mantissa_allows(kind: str) -> None:
    model = build(TINY + kind)
    exact = model(CLIPS)
    half = model.to(torch.bfloat16)(CLIPS.to(torch.bfloat16)).float()
    # 8 bits: a relative error of 2**-9 at each rounding; a few dozen roundings one
    # after another, each of random sign, leave some 2**-6 of the norm.
    assert (half - exact).norm() < 2**-5 * exact.norm()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["", ":encoder2", ":attention", ":dotproduct"])
def test_compiled_model_computes_the_same(kind: str) -> None:
    model = build(TINY + kind + "+TL4v1@1")
    compiled: Any = torch.compile(model, fullgraph=True)
    assert torch.allclose(compiled(CLIPS), model(CLIPS), atol=1e-4)
