"""What reaches the model: crops beside torchvision's, augmentation beside timm's.

Pictures are gradients where a place shall be read off a pixel, and noise elsewhere.
"""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import Mixup
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torchvision.transforms import v2

from tlbench.data.epochs import drawing
from tlbench.data.transforms import (
    JITTER,
    Frames,
    Variation,
    Views,
    is_varied,
    mix,
    timm_draws,
)
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case
from tlbench.suites.training import Augment


def make_case(size: int = 32, *, is_clip: bool = False, **changes: Any) -> Case:
    name = f"ViViT-d16h2m32l2/4x2@{size}" if is_clip else f"ViT-d16h2m32l2/4@{size}"
    data = "moving-digits" if is_clip else "digits"
    settings = {"model": parse_model(name), "mode": "fit", "data": data}
    return Case.model_validate(settings | changes)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(
        256, size=(height, width, 3), dtype=np.uint8
    )
    return Image.fromarray(pixels)


def ramp(width: int, height: int) -> Image.Image:
    """Red counts the columns, green the rows."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    return Image.fromarray(pixels)


def vary(frames: Frames, place: int = 0, **changes: Any) -> Tensor:
    variation = Variation(make_case(**changes))
    with drawing(0, place):
        return variation(frames)


def by_torchvision(image: Image.Image, *steps: Any) -> Tensor:
    normalise = v2.Normalize([0.5] * 3, [0.5] * 3)
    to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), normalise]
    sample: Tensor = v2.Compose([*steps, *to_tensor])(image)
    return sample


# ---------------------------------------------------------------- evaluation


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(50, 40), (40, 61), (32, 32), (20, 90)])
@pytest.mark.parametrize("fraction", [0.875, 1.0, 0.5])
def test_a_central_crop_is_that_of_torchvision(
    size: tuple[int, int], fraction: float, interpolation: str
) -> None:
    image = noise(*size)
    view = {"crop_fraction": fraction, "interpolation": interpolation}
    (found,) = Views(make_case(view=view))([image])
    scaled = v2.Resize(int(32 / fraction), v2.InterpolationMode(interpolation))
    expected = by_torchvision(image, scaled, v2.CenterCrop(32))
    assert torch.allclose(found, expected, atol=1e-6)


def test_without_a_crop_all_of_the_sample_is_seen() -> None:
    image = noise(50, 40)
    (found,) = Views(make_case())([image])
    assert torch.allclose(found, by_torchvision(image, v2.Resize((32, 32))), atol=1e-6)


def test_colours_are_normalised_as_timm_does() -> None:
    image = noise(32, 32)
    (found,) = Views(make_case(view={"normalize": "imagenet"}))([image])
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    expected = v2.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)(pixels)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "starts"),
    [((96, 32), [(0, 0), (32, 0), (64, 0)]), ((32, 96), [(0, 0), (0, 32), (0, 64)])],
)
def test_three_crops_lie_along_the_longer_side(
    size: tuple[int, int], starts: list[tuple[int, int]]
) -> None:
    views = Views(make_case(view={"spatial_crops": 3}))([ramp(*size)])
    corners = (views[:, :2, 0, 0] + 1) * 127.5  # red and green of the first pixel
    assert corners.round().int().tolist() == [list(start) for start in starts]
    assert views.shape == (3, 3, 32, 32)


def test_the_views_of_a_video_are_its_clips_and_of_each_the_crops() -> None:
    case = make_case(is_clip=True, view={"spatial_crops": 3, "temporal_clips": 2})
    assert case.model.video is not None
    num_frames = case.model.video.num_frames
    frames = [ramp(96, 32) for _ in range(num_frames)]
    frames += [Image.new("RGB", (96, 32), (0, 0, 255))] * num_frames
    views = Views(case)
    found = views(frames)
    assert found.shape == (6, 3, num_frames, 32, 32)
    assert views.count == 6
    assert (found[:3, 2] == -1).all()
    assert (found[3:, 2] == 1).all()
    lefts = ((found[:3, 0, :, 0, 0] + 1) * 127.5).round()
    assert lefts.tolist() == [[left] * num_frames for left in (0, 32, 64)]


def test_frames_that_make_no_whole_clips_are_refused() -> None:
    case = make_case(is_clip=True, view={"temporal_clips": 2})
    with pytest.raises(ValueError, match="3 frames make no 2 clips"):
        Views(case)([noise(32, 32)] * 3)


# ---------------------------------------------------------------- training


def test_without_augmentation_a_sample_is_what_evaluation_sees() -> None:
    image = noise(50, 40)
    assert torch.equal(vary([image]), Views(make_case())([image])[0])


def test_a_random_crop_has_its_share_of_the_area_and_a_common_shape() -> None:
    # As one pixel is worth one of red or green, corners give the crop's size.
    augment = {"crop": "random", "min_area": 0.25}
    shares, shapes = [], []
    for place in range(300):
        sample = (vary([ramp(200, 100)], place, augment=augment)[:2] + 1) * 127.5
        width = float(sample[0, 0, -1] - sample[0, 0, 0]) * 32 / 31
        height = float(sample[1, -1, 0] - sample[1, 0, 0]) * 32 / 31
        shares.append(width * height / (200 * 100))
        shapes.append(width / height)
    assert 0.23 < min(shares) < 0.3
    assert max(shares) <= 0.68  # that of the widest crop as high as the picture
    assert 0.73 < min(shapes) < 0.8
    assert 1.25 < max(shapes) < 1.37
    assert len(set(shares)) > 200


def test_a_corner_crop_is_scaled_at_random_and_lies_anywhere() -> None:
    # The short side becomes 64 x (0.5 to 2), and 32 pixels of that are cut out.
    augment = {"crop": "corner", "min_scale": 0.5, "max_scale": 2.0}
    widths, lefts = [], []
    for place in range(300):
        sample = vary(
            [ramp(160, 80)], place, augment=augment, view={"crop_fraction": 0.5}
        )
        row = (sample[0, 16] + 1) * 127.5
        widths.append(float(row[-1] - row[0]) * 32 / 31)
        lefts.append(float(row[0]))
    assert 19 < min(widths) < 22  # 80 x 32 / 128 = 20
    assert 70 < max(widths) < 82  # 80 x 32 / 32 = 80
    assert min(lefts) < 5
    assert 120 < max(lefts) <= 140


def test_a_corner_crop_fits_where_the_scale_is_too_small_for_it() -> None:
    augment = {"crop": "corner", "min_scale": 0.5, "max_scale": 0.5}
    sample = vary([ramp(80, 80)], augment=augment)
    row = (sample[0, 16] + 1) * 127.5
    assert float(row[-1] - row[0]) * 32 / 31 == pytest.approx(80, abs=2)


def test_samples_are_mirrored_as_often_as_asked_for() -> None:
    image = ramp(32, 32)
    plain, mirrored = vary([image]), vary([image], augment={"flip": 1.0})
    assert torch.equal(mirrored, plain.flip(-1))
    found = [vary([image], place, augment={"flip": 0.25}) for place in range(400)]
    count = sum(torch.equal(sample, mirrored) for sample in found)
    assert count == pytest.approx(100, abs=35)  # four standard deviations


def test_grey_samples_have_equal_channels() -> None:
    sample = vary([noise(32, 32)], augment={"grayscale": 1.0})
    assert torch.equal(sample[0], sample[1])
    assert torch.equal(sample[0], sample[2])
    expected = by_torchvision(noise(32, 32), v2.Grayscale(3))
    assert torch.allclose(sample, expected, atol=1e-6)


def test_colours_change_no_further_than_the_source_says() -> None:
    grey = Image.new("RGB", (32, 32), (100, 100, 100))  # neither hue nor saturation
    means = []
    for place in range(200):
        sample = vary([grey], place, augment={"color_jitter": 1.0})
        means.append(float((sample.mean() + 1) * 127.5))
    furthest = 100 * (1 + JITTER["brightness"]) + 1
    assert 200 - furthest <= min(means) < max(means) <= furthest
    assert max(means) > 110


def test_rand_augment_makes_as_many_changes_as_layers() -> None:
    # At p = 0.5 a layer, n layers leave a sample as it is with 2^-n at least.
    def share_changed(layers: int) -> float:
        augment = {"rand_augment_layers": layers, "rand_augment_magnitude": 9}
        plain = vary([noise(32, 32)])
        varied = [vary([noise(32, 32)], n, augment=augment) for n in range(200)]
        return sum(not torch.equal(sample, plain) for sample in varied) / 200

    assert 0.3 < share_changed(1) < share_changed(3)


def test_rand_augment_is_stronger_beyond_magnitude_ten() -> None:
    def change(magnitude: int) -> float:
        augment = {"rand_augment_layers": 2, "rand_augment_magnitude": magnitude}
        plain = vary([ramp(32, 32)])
        varied = [vary([ramp(32, 32)], n, augment=augment) for n in range(100)]
        return float(sum((sample - plain).abs().mean() for sample in varied))

    assert change(10) < change(15)


def test_erasing_leaves_the_mean_colour_in_a_rectangle() -> None:
    plain = vary([noise(32, 32)])
    erased = vary([noise(32, 32)], augment={"erasing": 1.0})
    changed = (plain != erased).any(dim=0)
    assert (erased[:, changed] == 0).all()
    rows, columns = changed.any(dim=1).sum(), changed.any(dim=0).sum()
    assert changed.sum() == rows * columns
    assert 0.02 * 1024 * 0.7 < changed.sum() < 1024 / 3 * 1.2  # timm's own limits


@pytest.mark.parametrize(
    "augment",
    [
        {"crop": "random", "flip": 0.5},
        {"crop": "corner", "max_scale": 2.0},
        {"rand_augment_layers": 3, "rand_augment_magnitude": 10},
        {"color_jitter": 1.0, "grayscale": 0.3},
        {"erasing": 1.0},
    ],
)
def test_the_frames_of_a_clip_are_varied_alike(augment: dict[str, Any]) -> None:
    frames = [noise(48, 40)] * 4
    clips = [vary(frames, place, is_clip=True, augment=augment) for place in range(20)]
    for clip in clips:
        assert torch.equal(clip[:, :1].expand_as(clip), clip)
    assert not all(torch.equal(clip, clips[0]) for clip in clips)


@pytest.mark.parametrize(
    ("augment", "is_so"),
    [({}, False), ({"mixup": 0.2, "cutmix": 1.0}, False), ({"flip": 0.5}, True)],
)
def test_mixing_is_no_variation_of_a_sample(augment: Any, is_so: bool) -> None:
    assert is_varied(Augment.model_validate(augment)) == is_so


# ---------------------------------------------------------------- mixing


@pytest.mark.parametrize(
    ("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (0.8, 1.0), (5.0, 3.0)]
)
def test_batches_are_mixed_as_timm_does(mixup: float, cutmix: float) -> None:
    images = torch.rand(6, 3, 16, 16)
    labels = torch.tensor([3, 1, 4, 1, 5, 0])
    by_timm = Mixup(mixup, cutmix, label_smoothing=0.0, num_classes=7)
    augment = Augment(mixup=mixup, cutmix=cutmix)
    for seed in range(20):
        np.random.seed(seed)
        expected, expected_targets = by_timm(images.clone(), labels)
        np.random.seed(seed)
        np.random.rand()  # timm asks first whether to mix at all
        one_hot = torch.nn.functional.one_hot(labels, 7).float()
        found, targets = mix(images.clone(), one_hot, augment)
        assert torch.allclose(found, expected, atol=1e-6)
        assert torch.allclose(targets, expected_targets, atol=1e-6)


def test_a_clip_is_cut_at_the_same_place_in_all_frames() -> None:
    clips = torch.stack([torch.zeros(3, 5, 16, 16), torch.ones(3, 5, 16, 16)])
    with timm_draws(1):
        found, targets = mix(clips, torch.eye(2), Augment(cutmix=1.0))
    cut = found[0, 0, 0]
    assert 0 < cut.mean() < 1
    assert torch.equal(found[0], cut.expand(3, 5, 16, 16))
    assert targets[0, 1] == pytest.approx(float(cut.mean()))  # shares of the area


def test_an_odd_batch_is_mixed_and_its_middle_stays() -> None:
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 4, 4).clone()
    with timm_draws(0):
        found, _ = mix(images.clone(), torch.eye(3), Augment(mixup=1.0))
    assert torch.equal(found[1], images[1])
    assert torch.allclose(found[0] + found[2], images[0] + images[2])


def test_where_both_are_asked_for_half_of_the_batches_are_cut() -> None:
    kinds: Counter[bool] = Counter()
    for place in range(200):
        images = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
        with timm_draws(place):
            found, _ = mix(images, torch.eye(2), Augment(mixup=1.0, cutmix=1.0))
        kinds[bool(((found == 0) | (found == 1)).all())] += 1
    assert kinds[True] == pytest.approx(100, abs=29)  # four standard deviations
