"""Attention maps: that they are those the model uses, and what the numbers say."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL.Image import Image
from PIL.Image import new as new_image
from scipy.stats import entropy as scipy_entropy
from torch import Tensor, nn

from support.ranks import on_all, started_ranks, this_rank
from tlbench.data import Dataset, Label, Split, SplitName, hold, open_dataset
from tlbench.data.moving_digits import MovingDigits
from tlbench.engine import training_engine
from tlbench.measure import attention_maps as module
from tlbench.measure.attention_maps import (
    KEPT_SAMPLES,
    MEASURED_SAMPLES,
    NO_OBJECT,
    PATH_METRICS,
    SHAPE_METRICS,
    attention_maps,
    centres,
    chosen_samples,
    entropy,
    map_findings,
    variation,
)
from tlbench.measure.map_file import MAPS_NAME, SavedMaps, read_maps
from tlbench.models.tokenlearner import FusedBlock, MapPooling
from tlbench.models.vit import build_model
from tlbench.rank import Rank
from tlbench.result import Artifact, Metric
from tlbench.suites.model_spec import ModelSpec, TokenLearnerSpec, VideoSpec
from tlbench.suites.spec import Case

SIDE, TOKENS = 4, 3
"""Of the grid, and learned."""
CLIP = VideoSpec(num_frames=6, tubelet_size=2)
ENCODER = CLIP.model_copy(update={"factorisation": "encoder", "temporal_depth": 1})


def make_rank(rank: int = 0, world_size: int = 1) -> Rank:
    return Rank(rank, world_size, rank, world_size, "127.0.0.1", 29500, "cpu", 1)


def make_spec(video: VideoSpec | None = None, **learner: Any) -> ModelSpec:
    return ModelSpec(
        image_size=32,
        patch_size=8,
        embed_dim=16,
        depth=2,
        num_heads=2,
        mlp_dim=16,
        video=video,
        token_learner=(
            TokenLearnerSpec(num_tokens=TOKENS, **{"place": 1, **learner})
            if learner
            else None
        ),
    )


def make_case(spec: ModelSpec, **changes: Any) -> Case:
    settings = {
        "model": spec,
        "mode": "fit",
        "data": "digits" if spec.video is None else "moving-digits",
        "batch_size": 20,
    }
    return Case.model_validate(settings | changes)


def make_model(spec: ModelSpec) -> nn.Module:
    torch.manual_seed(3)
    return build_model(spec, 40).eval()


def find(
    spec: ModelSpec, rank: Rank | None = None
) -> tuple[list[Metric], list[Artifact]]:
    case = make_case(spec)
    return map_findings(
        make_model(spec), open_dataset(case, None), case, rank or make_rank()
    )


def values(metrics: list[Metric]) -> dict[str, float | None]:
    return {metric.name: metric.value for metric in metrics}


def learned_in(model: nn.Module, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """What each TokenLearner is given, and the tokens that it makes of it."""
    passed: list[tuple[Tensor, Tensor]] = []
    for learner in model.modules():
        if isinstance(learner, MapPooling):
            learner.register_forward_hook(
                lambda _, given, tokens: passed.append((given[0], tokens))
            )
    with torch.no_grad():
        model(images)
    return passed


# ---------------------------------------------------------------- the maps


@pytest.mark.parametrize("video", [None, CLIP, ENCODER])
@pytest.mark.parametrize(
    "learner",
    [
        {"version": "v1", "pooling": "sum"},
        {"version": "v1", "pooling": "mean"},
        {"version": "v1.1"},
        {"version": "v1.1", "fuse": True, "place": 0},
    ],
)
def test_the_input_under_the_maps_makes_the_tokens_of_the_module(
    learner: dict[str, Any], video: VideoSpec | None
) -> None:
    spec = make_spec(video, **learner)
    model = make_model(spec)
    images = torch.randn(2, *spec.sample_shape)
    found = attention_maps(model, images)
    passed = learned_in(model, images)
    assert len(found) == len(passed) == (2 if learner.get("fuse") else 1)
    for maps, (given, tokens) in zip(found, passed, strict=True):
        steps = spec.time_steps
        assert maps.shape == (2, steps, TOKENS, SIDE, SIDE)
        grid = given.view(2, steps, SIDE, SIDE, -1)
        pooled = torch.einsum("btshw,bthwd->btsd", maps, grid)
        if learner.get("pooling") == "mean":
            pooled /= SIDE * SIDE
        assert torch.allclose(pooled, tokens.view(pooled.shape), atol=1e-5)


def test_maps_of_the_softmax_sum_to_one_and_those_of_the_sigmoid_stay_below() -> None:
    images = torch.randn(2, 3, 32, 32)
    (soft,) = attention_maps(make_model(make_spec(version="v1.1")), images)
    assert torch.allclose(soft.sum((-2, -1)), torch.ones(2, 1, TOKENS))
    (free,) = attention_maps(make_model(make_spec(version="v1")), images)
    assert 0 < free.min() < free.max() < 1


def test_a_model_is_left_without_hooks_and_in_its_mode() -> None:
    spec = make_spec(version="v1.1")
    model, case = make_model(spec).train(), make_case(spec)
    map_findings(model, open_dataset(case, None), case, make_rank())
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())


def test_a_compiled_model_shows_the_maps_of_the_plain_one() -> None:
    spec = make_spec(version="v1.1")
    images = torch.randn(2, *spec.sample_shape)
    plain, compiled = make_model(spec), make_model(spec)
    compiled.compile(backend="eager")
    for first, second in zip(
        attention_maps(plain, images), attention_maps(compiled, images), strict=True
    ):
        assert torch.equal(first, second)


def test_a_model_without_token_learner_has_nothing_to_find() -> None:
    spec = make_spec()
    assert attention_maps(make_model(spec), torch.randn(1, *spec.sample_shape)) == []
    assert find(spec) == ([], [])


def test_tokens_that_stand_in_no_square_are_a_reason_and_no_failure() -> None:
    class KeepsSeven(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :7]

    spec = make_spec(version="v1.1")
    model: Any = make_model(spec)
    model.blocks = nn.Sequential(KeepsSeven(), *model.blocks)
    case = make_case(spec)
    metrics, artifacts = map_findings(
        model, open_dataset(case, None), case, make_rank()
    )
    assert artifacts == []
    assert values(metrics) == dict.fromkeys((*SHAPE_METRICS, *PATH_METRICS))
    for metric in metrics:
        assert "7" in str(metric.reason)
        assert "no square grid" in str(metric.reason)


# ---------------------------------------------------------------- numbers


def test_entropy_is_that_of_scipy_over_its_largest() -> None:
    weights = np.random.default_rng(1).random((2, 3, 4, 9))
    by_scipy = scipy_entropy(weights, axis=-1) / math.log(9)
    shares = torch.from_numpy(weights / weights.sum(-1, keepdims=True))
    assert entropy(shares) == pytest.approx(by_scipy.mean(), rel=1e-9)


def test_entropy_goes_from_a_single_position_to_all() -> None:
    single, all_alike = torch.eye(9)[None, None, :1], torch.full((1, 1, 1, 9), 1 / 9)
    assert entropy(single) == 0
    assert entropy(all_alike) == pytest.approx(1)


def test_variation_is_the_mean_of_all_pairs() -> None:
    rng = np.random.default_rng(2)
    shares = rng.dirichlet(np.ones(5), size=(4, 2, 3))  # [M, T, S, N]
    pairs = [
        np.abs(shares[i] - shares[j]).sum(-1).mean() / 2
        for i in range(4)
        for j in range(i)
    ]
    found = variation(torch.from_numpy(shares))
    assert found == pytest.approx(np.mean(pairs), rel=1e-9)


def test_variation_goes_from_one_map_for_all_to_nothing_in_common() -> None:
    apart = torch.eye(4)[:, None, None]
    assert variation(apart) == pytest.approx(1)
    assert variation(apart[:1].expand(4, -1, -1, -1)) == 0


def test_the_centre_of_a_blob_is_where_it_was_put() -> None:
    rows, columns = torch.arange(8) + 0.5, torch.arange(8) + 0.5
    y, x = 3.0, 4.5  # in cells; the blob is symmetric about both
    blob = (1.6 - (rows - y).abs()).clamp_min(0)[:, None] * (
        1.1 - (columns - x).abs()
    ).clamp_min(0)
    assert centres(blob).tolist() == pytest.approx([3 / 8, 4.5 / 8])
    covered = centres(blob, covered=0.75).tolist()
    assert covered == pytest.approx([0.75 * 3 / 8, 0.75 * 4.5 / 8])


class LooksAtLight(MapPooling):
    """Its first map is where the input is bright, its second everywhere."""

    def attention(self, x: Tensor) -> Tensor:
        light = (x.mean(-1) + 1).clamp_min(0)
        return torch.stack([light, torch.ones_like(light)], dim=1)


class SeesPixels(nn.Module):
    """A model of clips whose tokens are pixels, one frame to a step."""

    def __init__(self) -> None:
        super().__init__()
        self.learner = LooksAtLight()

    def forward(self, clips: Tensor) -> Tensor:
        pixels = clips.permute(0, 2, 3, 4, 1).flatten(2, 3).flatten(0, 1)
        tokens: Tensor = self.learner(pixels)  # [B * T, S, C]
        return torch.unflatten(tokens, 0, (len(clips), -1)).mean((1, 3))


def test_a_map_of_the_moving_digit_follows_it() -> None:
    spec = make_spec(VideoSpec(num_frames=4, tubelet_size=1), version="v1.1")
    spec = spec.model_copy(update={"patch_size": 1})
    case = make_case(spec, batch_size=7)
    dataset = open_dataset(case, None)
    assert isinstance(dataset, MovingDigits)
    metrics, (artifact,) = map_findings(SeesPixels(), dataset, case, make_rank())
    found = values(metrics)
    assert found.keys() == {*SHAPE_METRICS, *PATH_METRICS, "map_samples"}
    chosen = chosen_samples(hold(dataset, "eval"))
    known = torch.stack([dataset.positions("eval", index) for index in chosen])
    middle = (known - 0.5).norm(dim=-1).mean().item()
    assert found["map_distance_middle"] == pytest.approx(middle)
    # Light of a digit is not centred in its square, but goes along with it exactly.
    assert found["map_correlation_best"] == pytest.approx(1, abs=1e-4)
    assert found["map_gain_best"] == pytest.approx(1, abs=1e-4)
    assert 0 < (found["map_distance_best"] or 0) < 0.06
    # The mean of a map that follows and one that stands still goes half as far.
    assert found["map_gain_mean"] == pytest.approx(0.5, abs=1e-4)
    saved = read_maps(artifact.content)
    assert saved.positions is not None
    place = chosen.index(next(i for i in chosen if named(dataset, i) == saved.names[1]))
    assert saved.positions[1] == pytest.approx(known[place].numpy())


def test_a_map_that_never_moves_has_no_direction() -> None:
    path = torch.full((5, 4, 2), 0.4)
    positions = torch.linspace(0.2, 0.8, 4)[None, :, None].expand(5, 4, 2)
    for metric in module._along("best", path, positions):
        assert metric.value is None
        assert "does not move" in str(metric.reason)


@pytest.mark.parametrize(
    ("video", "view", "reason"),
    [
        (None, {}, NO_OBJECT),
        (CLIP, {"crop_fraction": 0.875}, "and view.crop_fraction=0.875 cuts them"),
    ],
)
def test_why_it_is_not_known_where_the_object_is_stands_beside_every_such_number(
    video: VideoSpec | None, view: dict[str, float], reason: str
) -> None:
    spec = make_spec(video, version="v1.1")
    case = make_case(spec, view=view)
    metrics, (artifact,) = map_findings(
        make_model(spec), open_dataset(case, None), case, make_rank()
    )
    reasons = {m.name: str(m.reason) for m in metrics if m.value is None}
    assert reasons.keys() == {*PATH_METRICS}
    assert all(given.endswith(reason) for given in reasons.values())
    assert read_maps(artifact.content).positions is None


def named(dataset: Dataset, index: int) -> str:
    return dataset.stored("eval").name(index)


# ---------------------------------------------------------------- samples, file


@pytest.mark.parametrize("video", [None, CLIP])
def test_the_file_has_the_samples_with_labels_and_answers(
    video: VideoSpec | None,
) -> None:
    spec = make_spec(video, version="v1.1")
    metrics, (artifact,) = find(spec)
    saved = read_maps(artifact.content)
    steps, side = spec.time_steps, spec.image_size
    assert artifact.name == MAPS_NAME
    assert saved.pictures.shape == (KEPT_SAMPLES, steps, side, side, 3)
    assert saved.maps.shape == (KEPT_SAMPLES, steps, TOKENS, SIDE, SIDE)
    assert values(metrics)["map_samples"] == KEPT_SAMPLES
    case, model = make_case(spec), make_model(spec)
    dataset = open_dataset(case, None)
    split = hold(dataset, "eval").split
    assert split is not None
    names = [named(dataset, index) for index in range(len(split))]
    for place, name in enumerate(saved.names):
        index = torch.tensor([names.index(name)])
        images, labels = split.batch(index, side)
        assert saved.labels[place] == str(labels.item())
        with torch.no_grad():
            assert saved.answers[place] == str(model(images).argmax().item())
        (maps,) = attention_maps(model, images)
        assert saved.maps[place] == pytest.approx(maps[0].numpy(), abs=1e-3)
        frames = images[0] if video is None else images[0, :, 1::2]  # the middle ones
        shades = (frames.reshape(3, steps, side, side) + 1) * 127.5
        assert saved.pictures[place] == pytest.approx(
            shades.permute(1, 2, 3, 0).numpy(), abs=0.51
        )


def test_measured_samples_are_spread_over_the_classes() -> None:
    dataset = open_dataset(make_case(make_spec()), None)
    held = hold(dataset, "eval")
    assert held.split is not None
    chosen = chosen_samples(held)
    assert len(set(chosen)) == MEASURED_SAMPLES
    counts = held.split.labels[chosen].bincount(minlength=10)
    assert 4 <= counts.min() <= counts.max() <= 6


def test_all_ranks_look_at_the_same_samples_and_only_the_first_tells() -> None:
    spec = make_spec(version="v1.1")
    alone, beside = find(spec), find(spec, make_rank(0, 2))
    assert values(alone[0]) == values(beside[0])
    assert find(spec, make_rank(1, 2)) == ([], [])


def test_a_file_that_would_be_too_large_has_fewer_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = make_spec(version="v1.1")
    _, (artifact,) = find(spec)
    size = len(artifact.content)
    monkeypatch.setattr(module, "MAX_BYTES", size - 1)
    metrics, (smaller,) = find(spec)
    kept = len(read_maps(smaller.content).names)
    assert 0 < kept < KEPT_SAMPLES
    assert values(metrics)["map_samples"] == kept
    monkeypatch.setattr(module, "MAX_BYTES", 1)
    metrics, artifacts = find(spec)
    assert artifacts == []
    assert values(metrics)["map_samples"] is None


def _look_after_a_step() -> tuple[list[Metric], list[Artifact]]:
    spec = make_spec(version="v1.1")
    parallelism = {"world_size": 2, "zero_stage": 3}
    case = make_case(spec, parallelism=parallelism, optimizer={"weight_decay": 0.0})
    model, dataset = make_model(spec), open_dataset(case, None)
    engine = training_engine(model, case, this_rank())
    engine.step(torch.zeros(10, *spec.sample_shape), torch.zeros(10).long())
    with engine.averaged():
        return map_findings(model, dataset, case, this_rank())


@pytest.mark.slow
def test_sharded_parameters_give_the_maps_of_whole_ones() -> None:
    with started_ranks(2) as ranks:
        first, second = on_all(ranks, _look_after_a_step)
    assert second == ([], [])
    alone = values(find(make_spec(version="v1.1"))[0])
    found = values(first[0])
    # The classifier starts at zero: the first step changes nothing else.
    assert found == {name: pytest.approx(value) for name, value in alone.items()}


class Several:
    """Two samples on disk, the first with several labels; a third cannot be read."""

    num_classes = 157

    def stored(self, split: SplitName) -> "Several":
        return self

    def __len__(self) -> int:
        return 2

    def name(self, index: int) -> str:
        return f"video {index}"

    def read(self, index: int) -> tuple[list[Image], Label]:
        frames = [new_image("RGB", (40, 32), (10 * n, 0, 200)) for n in range(6)]
        return frames, ((4, 7) if index == 0 else ())


def test_samples_on_disk_may_have_several_labels_or_none() -> None:
    spec = make_spec(CLIP, version="v1.1")
    case = make_case(spec, data="charades")
    dataset = Several()
    metrics, (artifact,) = map_findings(make_model(spec), dataset, case, make_rank())
    saved = read_maps(artifact.content)
    assert saved.names == ("video 0", "video 1")
    assert saved.labels == ("4, 7", "none")
    assert values(metrics)["map_samples"] == 2
    assert values(metrics)["map_distance_best"] is None
    assert saved.pictures[0, 2, 0, 0].tolist() == pytest.approx([50, 0, 200], abs=1)


@pytest.fixture
def saved() -> SavedMaps:
    return SavedMaps(
        pictures=np.arange(24, dtype=np.uint8).reshape(2, 1, 2, 2, 3),
        maps=np.linspace(0, 1, 16, dtype=np.float16).reshape(2, 1, 2, 2, 2),
        names=("a", "b \N{SNOWMAN}"),
        labels=("1", "none"),
        answers=("1", "0"),
        covered=0.875,
    )


def test_maps_are_read_as_they_were_written(saved: SavedMaps) -> None:
    again = read_maps(saved.as_bytes())
    assert (again.names, again.labels, again.answers, again.covered) == (
        saved.names,
        saved.labels,
        saved.answers,
        0.875,
    )
    assert np.array_equal(again.pictures, saved.pictures)
    assert np.array_equal(again.maps, saved.maps)
    assert again.positions is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda _: b"x" * 99,
        lambda _: b"PK\3\4",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole.replace(b"maps.npy", b"caps.npy"),
        lambda whole: bytes(
            byte ^ 255 if place == whole.index(b"maps.npy") + 60 else byte
            for place, byte in enumerate(whole)
        ),
    ],
)
def test_what_is_no_file_of_maps_is_told(
    spoil: Callable[[bytes], bytes], saved: SavedMaps
) -> None:
    with pytest.raises(ValueError, match="no attention maps"):
        read_maps(spoil(saved.as_bytes()))


def test_every_block_of_a_fused_model_has_maps_and_the_first_is_kept() -> None:
    spec = make_spec(version="v1.1", fuse=True, place=0)
    model = make_model(spec)
    assert sum(isinstance(m, FusedBlock) for m in model.modules()) == 2
    _, (artifact,) = find(spec)
    saved = read_maps(artifact.content)
    shown = torch.from_numpy(saved.pictures).float().permute(0, 4, 1, 2, 3) / 127.5 - 1
    first, second = attention_maps(model, shown[:, :, 0])
    assert saved.maps == pytest.approx(first.numpy(), abs=2e-3)
    assert np.abs(saved.maps - second.numpy()).max() > 2e-3


def test_labels_in_memory_need_not_be_in_order() -> None:
    class Shuffled:
        num_classes = 2

        def stored(self, split: SplitName) -> "Shuffled":
            return self

        def __len__(self) -> int:
            return 4

        def name(self, index: int) -> str:
            return str(index)

        def read(self, index: int) -> tuple[list[Image], Label]:
            raise NotImplementedError

        def split(self, name: SplitName) -> Split:
            return Split(torch.zeros(4, 3, 2, 2), torch.tensor([1, 0, 1, 0]))

    dataset = Shuffled()
    assert chosen_samples(hold(dataset, "eval")) == [1, 3, 0, 2]
