"""Image weights in larger images and in clips: what is set, and to which values."""

from typing import Any

import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from tlbench.errors import TrialError
from tlbench.models.transfer import Tubelets, load_weights
from tlbench.models.vit import build_model
from tlbench.suites.names import parse_model

IMAGES = "ViT-d12h2m20l2/4"
CLIPS = "ViViT-d12h2m20l2/4x3"

Weights = dict[str, Tensor]


def build(name: str, seed: int = 0, num_classes: int = 5) -> Any:
    """A model in which every weight is another."""
    torch.manual_seed(seed)
    model: Any = build_model(parse_model(name), num_classes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def weights_of(name: str, **settings: int) -> Weights:
    state: Weights = build(name, seed=1, **settings).state_dict()
    return {key: value.clone() for key, value in state.items()}


def embedded(model: Any, samples: Tensor) -> Tensor:
    """Tokens before the first block, [B, groups, N, D]."""
    vit = getattr(model, "spatial", model)
    tokens: Tensor = vit._pos_embed(vit.patch_embed(samples))
    return tokens.reshape(len(samples), -1, 9, 12)


# To images.


def test_same_model_takes_every_weight() -> None:
    weights, model = weights_of(f"{IMAGES}@12:map"), build(f"{IMAGES}@12:map")
    assert load_weights(model, weights).not_set == ()
    assert all(torch.equal(weights[n], v) for n, v in model.state_dict().items())


@pytest.mark.parametrize("head", ["", ":token"])
@pytest.mark.parametrize("image_size", [8, 22])
def test_positions_are_resampled_as_timm_does_it(head: str, image_size: int) -> None:
    weights = weights_of(f"{IMAGES}@12{head}")
    model = build(f"{IMAGES}@{image_size}{head}")
    assert load_weights(model, weights).not_set == ()
    side, prefix = image_size // 4, int(head == ":token")
    expected = resample_abs_pos_embed(
        weights["pos_embed"], [side, side], num_prefix_tokens=prefix
    )
    assert torch.equal(model.pos_embed, expected)
    assert torch.equal(model.pos_embed[:, :prefix], weights["pos_embed"][:, :prefix])


@pytest.mark.parametrize(
    ("reduction", "left"),
    [
        ("+TL3v1@1", "blocks.token_learner."),
        ("+TL3@0", "blocks.token_learner."),
        ("+TL3fuse@1", "blocks.1."),
        ("+pool2@1", None),
    ],
)
def test_token_reduction_is_what_is_not_set(reduction: str, left: str | None) -> None:
    weights, model = weights_of(f"{IMAGES}@12"), build(f"{IMAGES}@12{reduction}")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    missing = load_weights(model, weights).not_set
    named = dict(model.named_parameters())
    assert len(missing) == len(named) - len(weights)
    for name in missing:
        assert left is not None
        assert name.startswith(left)
        assert torch.equal(named[name], before[name])


@pytest.mark.parametrize("fuse", ["", "fuse"])
def test_token_learner_at_the_depth_itself_stays_the_plain_vit(fuse: str) -> None:
    plain, learned = build(f"{IMAGES}@12"), build(f"{IMAGES}@12+TL3{fuse}@2", seed=4)
    assert load_weights(learned, plain.state_dict()).not_set == ()
    images = torch.randn(2, 3, 12, 12)
    assert torch.equal(plain(images), learned(images))


def test_a_trained_token_learner_is_taken_along_into_clips() -> None:
    weights = weights_of(f"{IMAGES}@12+TL3fuse@1")
    model = build(f"{CLIPS}@12x6+TL3fuse@1")
    assert load_weights(model, weights).not_set == ()
    learned = model.blocks[1].learn.module.token_masking.hidden.weight
    assert torch.equal(learned, weights["blocks.1.learn.token_masking.hidden.weight"])


def test_a_class_token_without_a_position_is_given_zero() -> None:
    weights = weights_of(f"{IMAGES}@12:token")
    weights["pos_embed"] = weights["pos_embed"][:, 1:]  # as big_vision has it
    model = build(f"{IMAGES}@12:token")
    assert load_weights(model, weights).not_set == ()
    assert not model.pos_embed[:, :1].any()
    assert torch.equal(model.pos_embed[:, 1:], weights["pos_embed"])


def test_what_the_model_has_no_place_for_is_named() -> None:
    weights = weights_of(f"{IMAGES}@8:token")
    weights["pre_logits.fc.weight"] = torch.zeros(12, 12)
    transfer = load_weights(build(f"{IMAGES}@12+TL3@1"), weights)
    assert transfer.left_out == ("cls_token", "pre_logits.fc.weight")
    assert transfer.resampled == "2 x 2 to 3 x 3"


def test_weights_of_any_other_module_fit_the_same_module() -> None:
    first, second = (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) for _ in "ab")
    first(torch.randn(4, 2))  # moves the running averages
    assert load_weights(second, first.state_dict()).not_set == ()
    samples = torch.randn(4, 2)
    assert torch.equal(first.eval()(samples), second.eval()(samples))


# To clips.


@pytest.mark.parametrize("tubelets", ["central", "inflation"])
@pytest.mark.parametrize("kind", ["", ":encoder2", ":attention", ":dotproduct"])
def test_a_clip_of_one_image_is_embedded_as_the_image(
    kind: str, tubelets: Tubelets
) -> None:
    image_model, model = build(f"{IMAGES}@12"), build(f"{CLIPS}@12x6{kind}", seed=4)
    load_weights(model, image_model.state_dict(), tubelets=tubelets)
    image = torch.randn(2, 3, 12, 12)
    clip = image.unsqueeze(2).expand(-1, -1, 6, -1, -1)
    expected = embedded(image_model, image).expand(-1, 2, -1, -1)
    assert torch.allclose(embedded(model, clip), expected, atol=1e-5)


def test_only_the_central_frame_counts_or_all_alike() -> None:
    weights = weights_of(f"{IMAGES}@12")
    kernel = weights["patch_embed.proj.weight"]
    model = build(f"{CLIPS}@12x6")
    load_weights(model, weights)
    central = model.patch_embed.proj.weight
    assert torch.equal(central[:, :, 1], kernel)
    assert not central[:, :, ::2].any()
    load_weights(model, weights, tubelets="inflation")
    for frame in model.patch_embed.proj.weight.unbind(dim=2):
        assert torch.allclose(frame, kernel / 3)


def test_positions_are_resampled_then_repeated_at_every_time_step() -> None:
    weights, model = weights_of(f"{IMAGES}@12:token"), build(f"{CLIPS}@8x6:token")
    assert load_weights(model, weights).not_set == ()
    first, grid = weights["pos_embed"][:, :1], weights["pos_embed"][:, 1:]
    resampled = resample_abs_pos_embed(grid, [2, 2], num_prefix_tokens=0)
    expected = torch.cat([first, resampled, resampled], dim=1)
    assert torch.equal(model.pos_embed, expected)


@pytest.mark.parametrize(
    ("image", "clips", "side"),
    [
        (f"{IMAGES}@24", f"{CLIPS}@12x12", 3),  # 6 x 6 = 4 x 3 x 3
        (f"{IMAGES}@28:token", f"{CLIPS}@20x6", 5),  # 1 + 7 x 7 = 2 x 5 x 5
    ],
)
def test_as_many_positions_of_an_image_are_not_taken_for_those_of_a_clip(
    image: str, clips: str, side: int
) -> None:
    weights, model = weights_of(image), build(clips)
    assert weights["pos_embed"].shape == model.pos_embed.shape
    transfer = load_weights(model, weights)
    grid = weights["pos_embed"][:, int("cls_token" in weights) :]
    resampled = resample_abs_pos_embed(grid, [side, side], num_prefix_tokens=0)
    expected = resampled.repeat(1, model.patch_embed.time_steps, 1)
    assert torch.equal(model.pos_embed, expected)
    assert transfer.resampled is not None
    assert transfer.resampled.endswith(f" to {side} x {side}")


def test_factorised_encoder_starts_its_spatial_transformer() -> None:
    weights, model = weights_of(f"{IMAGES}@12"), build(f"{CLIPS}@12x6:encoder2")
    missing = load_weights(model, weights).not_set
    assert missing
    assert all(name.startswith("temporal.") for name in missing)
    assert torch.equal(model.spatial.pos_embed, weights["pos_embed"])
    assert torch.equal(
        model.spatial.blocks[1].mlp.fc1.weight, weights["blocks.1.mlp.fc1.weight"]
    )


def test_attention_over_time_starts_as_that_over_space_but_not_its_norm() -> None:
    weights, model = weights_of(f"{IMAGES}@12"), build(f"{CLIPS}@12x6:attention")
    missing = load_weights(model, weights).not_set
    norms = [f"blocks.{i}.time_norm.{w}" for i in (0, 1) for w in ("weight", "bias")]
    assert list(missing) == norms
    block = model.blocks[1]
    for attention in (block.time_attn, block.block.attn):
        given = weights["blocks.1.attn.qkv.weight"]
        assert torch.equal(attention.module.qkv.weight, given)


# From clips to clips.


@pytest.mark.parametrize("kind", ["", ":token", ":encoder2", ":attention", "+TL3@1"])
def test_a_model_of_clips_takes_the_weights_of_its_like(kind: str) -> None:
    given, model = build(f"{CLIPS}@12x6{kind}"), build(f"{CLIPS}@12x6{kind}", seed=4)
    transfer = load_weights(model, given.state_dict())
    assert (transfer.not_set, transfer.left_out) == ((), ())
    clips = torch.randn(2, 3, 6, 12, 12)
    assert torch.equal(given(clips), model(clips))


def test_attention_over_time_is_told_from_that_over_space() -> None:
    weights = weights_of(f"{CLIPS}@12x6:attention")
    model = build(f"{CLIPS}@12x6:attention+TL3fuse@1")
    load_weights(model, weights)
    time_space = model.blocks[1].block
    for ours, theirs in [
        (time_space.time_attn, "blocks.1.time_attn.module.qkv.weight"),
        (time_space.block.attn, "blocks.1.block.attn.module.qkv.weight"),
    ]:
        assert torch.equal(ours.module.qkv.weight, weights[theirs])


def test_positions_of_clips_are_resampled_at_each_time_step() -> None:
    weights, model = weights_of(f"{CLIPS}@12x6:token"), build(f"{CLIPS}@8x6:token")
    transfer = load_weights(model, weights)
    first, *steps = weights["pos_embed"].tensor_split([1, 10], dim=1)
    expected = [
        resample_abs_pos_embed(step, [2, 2], num_prefix_tokens=0) for step in steps
    ]
    assert torch.equal(model.pos_embed, torch.cat([first, *expected], dim=1))
    assert transfer.resampled == "3 x 3 to 2 x 2"


# What does not fit.


def test_head_of_other_classes_is_left_alone() -> None:
    model = build(f"{IMAGES}@12")
    head = model.head.weight.clone()
    weights = weights_of(f"{IMAGES}@12", num_classes=7)
    transfer = load_weights(model, weights)
    assert transfer.not_set == transfer.left_out == ("head.weight", "head.bias")
    assert torch.equal(model.head.weight, head)


def test_a_class_token_on_one_side_alone_is_left_out() -> None:
    plain, token = f"{IMAGES}@12", f"{IMAGES}@12:token"
    model = build(plain)
    assert load_weights(model, weights_of(token)).not_set == ()
    assert torch.equal(model.pos_embed, weights_of(token)["pos_embed"][:, 1:])
    model = build(token)
    own = model.pos_embed[:, :1].clone()
    assert load_weights(model, weights_of(plain)).not_set == ("cls_token",)
    expected = torch.cat([own, weights_of(plain)["pos_embed"]], dim=1)
    assert torch.equal(model.pos_embed, expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "ViT-d12h2m20l2/3@12",
            r"patch_embed.proj.weight is \[12, 3, 3, 3\] in the model, and the weights"
            r" have \[12, 3, 4, 4\]",
        ),
        ("ViT-d16h2m20l2/4@12", r"pos_embed is \[1, 9, 16\] in the model, .* 12\]"),
        ("ViT-d12h2m24l2/4@12", r"blocks.0.mlp.fc1.weight is \[24, 12\] in the"),
        ("ViViT-d12h2m24l2/4x3@12x6:encoder2", r"spatial.blocks.0.mlp.fc1.weight is"),
    ],
)
def test_a_parameter_that_cannot_fit_is_named_and_nothing_is_set(
    name: str, message: str
) -> None:
    model = build(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(TrialError, match=message):
        load_weights(model, weights_of(f"{IMAGES}@12"))
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())


def test_a_model_of_images_refuses_weights_of_clips() -> None:
    with pytest.raises(TrialError, match="of a model of clips, and the model reads im"):
        load_weights(build(f"{IMAGES}@12"), weights_of(f"{CLIPS}@12x6"))


@pytest.mark.parametrize("image_size", [12, 24])
def test_a_factorised_encoder_refuses_positions_of_all_time_steps(
    image_size: int,
) -> None:
    # 4 grids of 3 x 3 would pass for one of 6 x 6.
    model = build(f"{CLIPS}@{image_size}x12:encoder2")
    with pytest.raises(TrialError, match="has the same positions at each"):
        load_weights(model, weights_of(f"{CLIPS}@12x12"))


def test_weights_of_something_else_are_refused() -> None:
    weights = {"conv1.weight": torch.zeros(3), "fc.weight": torch.zeros(3)}
    message = r"patch_embed.proj.weight is not among their 2 names \(conv1.weight, fc"
    with pytest.raises(TrialError, match=message):
        load_weights(build(f"{IMAGES}@12"), weights)


def test_positions_of_no_square_grid_are_refused() -> None:
    weights = weights_of(f"{IMAGES}@12")
    weights["pos_embed"] = weights["pos_embed"][:, :7]
    with pytest.raises(TrialError, match=r"pos_embed of the weights has 7 positions"):
        load_weights(build(f"{IMAGES}@12"), weights)


def test_more_blocks_than_the_weights_have_are_named() -> None:
    model: nn.Module = build("ViT-d12h2m20l3/4@12")
    missing = load_weights(model, weights_of(f"{IMAGES}@12")).not_set
    assert missing
    assert all(name.startswith("blocks.2.") for name in missing)
