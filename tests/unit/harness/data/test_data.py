"""The data sets: the right samples, split for ever in the same way."""

import re
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tlbench.data import (
    CLIP_DATASETS,
    DATASETS,
    OWN_CLIPS,
    OWN_IMAGES,
    InMemory,
    Split,
    Unreadable,
    hold,
    open_dataset,
    unreadable,
)
from tlbench.data.digits import Digits
from tlbench.data.synthetic import Synthetic, SyntheticClips
from tlbench.errors import TrialError
from tlbench.suites.datasets import CLIPS, IMAGES, KINDS
from tlbench.suites.model_spec import VideoSpec
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case

EMBEDDED = [name for name, info in IMAGES.items() if info.is_embedded]
EMBEDDED_CLIPS = [name for name, info in CLIPS.items() if info.is_embedded]


@pytest.fixture(scope="module")
def train() -> Split:
    return Digits().split("train")


@pytest.fixture(scope="module")
def held_out() -> Split:
    return Digits().split("eval")


def rows(split: Split) -> list[tuple[float, ...]]:
    """Each digit as its label and its 64 pixels from 0 to 16."""
    pixels = (split.images[:, 0].flatten(1) + 1) * 8
    table = torch.cat([split.labels[:, None].float(), pixels], dim=1)
    return [tuple(row) for row in table.tolist()]


def test_digits_are_split_into_1442_and_355(train: Split, held_out: Split) -> None:
    assert train.images.shape == (1442, 3, 8, 8)
    assert held_out.images.shape == (355, 3, 8, 8)


def test_digits_are_those_of_scikit_learn(train: Split, held_out: Split) -> None:
    reference = load_digits()
    expected = np.column_stack([reference.target, reference.data])
    assert sorted(rows(train) + rows(held_out)) == sorted(map(tuple, expected.tolist()))


def test_no_digit_is_in_both_splits(train: Split, held_out: Split) -> None:
    # All 1,797 pictures differ, so equal pictures would be the same sample.
    assert len(set(rows(train)) | set(rows(held_out))) == 1797


def test_the_split_of_the_digits_is_stratified(train: Split, held_out: Split) -> None:
    both = torch.stack([train.labels.bincount(), held_out.labels.bincount()])
    counts = both.sum(dim=0)
    assert both[1].tolist() == (counts // 5).tolist()


def test_the_split_is_the_same_every_time(held_out: Split) -> None:
    again = Digits().split("eval")
    assert torch.equal(again.images, held_out.images)
    assert torch.equal(again.labels, held_out.labels)


def test_the_three_channels_of_a_digit_are_equal(train: Split) -> None:
    assert torch.equal(train.images[:, 0], train.images[:, 1])
    assert torch.equal(train.images[:, 0], train.images[:, 2])


def test_digits_use_the_whole_range(train: Split) -> None:
    assert (train.images.min().item(), train.images.max().item()) == (-1, 1)


def test_the_stored_digits_are_those_of_their_split(held_out: Split) -> None:
    stored = Digits().stored("eval")
    assert len(stored) == 355
    (picture,), label = stored.read(354)
    assert label == held_out.labels[354]
    shades = (held_out.images[354, 0] + 1) * 127.5
    assert np.asarray(picture)[..., 0] == pytest.approx(shades.numpy(), abs=0.5)


# ---------------------------------------------------------------- opening


def make_case(data: str, **changes: Any) -> Case:
    """A case that reads `data`; of a name that is not known, ten classes."""
    settings: dict[str, Any] = {
        "model": parse_model("ViT-d16h2m32l2/4@8"),
        "mode": "train",
        "data": data,
    }
    if not any(data in known for known in KINDS.values()):
        settings["classes"] = 10
    return Case.model_validate(settings | changes)


def make_clip_case(data: str, num_frames: int = 4) -> Case:
    model = parse_model("ViViT-d16h2m32l2/4x2@8")
    video = VideoSpec(num_frames=num_frames)
    return make_case(data, model=model.model_copy(update={"video": video}))


def open_in_memory(case: Case) -> InMemory:
    dataset = open_dataset(case, None)
    assert isinstance(dataset, InMemory)
    return dataset


def test_every_data_set_of_the_schema_can_be_opened() -> None:
    assert set(DATASETS) == set(IMAGES)
    assert set(CLIP_DATASETS) == set(CLIPS)


@pytest.mark.parametrize(
    "place", [*DATASETS.values(), *CLIP_DATASETS.values(), OWN_IMAGES, OWN_CLIPS]
)
def test_what_reads_a_data_set_is_there(place: str) -> None:
    module, name = place.split(":")
    assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize("name", EMBEDDED)
def test_data_sets_have_as_many_classes_as_the_schema_says(name: str) -> None:
    dataset = open_in_memory(make_case(name))
    assert dataset.num_classes == IMAGES[name].num_classes
    for split in (dataset.split("train"), dataset.split("eval")):
        assert 0 <= split.labels.min() <= split.labels.max() < dataset.num_classes


def test_digits_are_as_many_as_the_schema_says() -> None:
    info, digits = IMAGES["digits"], open_in_memory(make_case("digits"))
    assert len(digits.split("train")) == info.train_samples
    assert len(digits.split("eval")) == info.eval_samples


@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.parametrize("image_size", [8, 28, 224])
def test_batches_come_in_the_size_of_the_model(name: str, image_size: int) -> None:
    split = open_in_memory(make_case(name)).split("train")
    images, labels = split.batch(torch.tensor([3, 0, 3]), image_size)
    assert images.shape == (3, 3, image_size, image_size)
    assert images.dtype == torch.float32
    assert labels.shape == (3,)
    assert -1 <= images.min() <= images.max() <= 1
    assert torch.equal(images[0], images[2])


@pytest.mark.parametrize("name", EMBEDDED_CLIPS)
def test_data_sets_of_clips_have_as_many_classes_as_the_schema_says(name: str) -> None:
    dataset = open_in_memory(make_clip_case(name))
    assert dataset.num_classes == CLIPS[name].num_classes
    for split in (dataset.split("train"), dataset.split("eval")):
        assert 0 <= split.labels.min() <= split.labels.max() < dataset.num_classes


@pytest.mark.parametrize("name", EMBEDDED_CLIPS)
@pytest.mark.parametrize(("num_frames", "image_size"), [(5, 14), (32, 32), (2, 224)])
def test_clips_come_in_the_frames_and_the_size_of_the_model(
    name: str, num_frames: int, image_size: int
) -> None:
    split = open_in_memory(make_clip_case(name, num_frames)).split("train")
    clips, labels = split.batch(torch.tensor([3, 0, 3]), image_size)
    assert clips.shape == (3, 3, num_frames, image_size, image_size)
    assert labels.shape == (3,)
    assert -1 <= clips.min() <= clips.max() <= 1
    assert torch.equal(clips[0], clips[2])
    assert not torch.equal(clips[0], clips[1])


def test_each_frame_of_a_clip_is_scaled_as_an_image() -> None:
    frames = torch.rand(4, 3, 8, 8)
    labels = torch.zeros(1)
    clip, _ = Split(frames.transpose(0, 1)[None], labels).batch(torch.tensor([0]), 20)
    images, _ = Split(frames, torch.zeros(4)).batch(torch.arange(4), 20)
    assert torch.allclose(clip[0].transpose(0, 1), images, atol=1e-6)


def test_the_clips_in_memory_are_few_and_small() -> None:
    split = SyntheticClips(VideoSpec(num_frames=32)).split("train")
    assert split.images.nbytes < 4e6


def test_a_batch_at_the_recorded_size_is_left_as_it_is(train: Split) -> None:
    images, labels = train.batch(torch.tensor([5, 2]), 8)
    assert torch.equal(images, train.images[[5, 2]])
    assert torch.equal(labels, train.labels[[5, 2]])


def test_an_image_is_scaled_by_bilinear_interpolation() -> None:
    # Between the centres of two pixels of -1 and 1, and level beyond them.
    image = torch.tensor([[-1.0, 1.0]]).expand(1, 3, 2, 2)
    images, _ = Split(image, torch.zeros(1)).batch(torch.tensor([0]), 4)
    assert images[0, 0, 0].tolist() == pytest.approx([-1, -0.5, 0.5, 1])


def test_a_scaled_image_stays_in_its_range() -> None:
    split = Split(torch.ones(1, 3, 32, 32), torch.zeros(1))
    sizes = range(8, 225)
    images = [split.batch(torch.tensor([0]), size)[0] for size in sizes]
    assert max(image.max().item() for image in images) == 1


def test_synthetic_images_are_the_same_every_time_and_differ_by_split() -> None:
    first, second = Synthetic(), Synthetic()
    assert torch.equal(first.split("train").images, second.split("train").images)
    assert not torch.equal(first.split("train").images, first.split("eval").images)


@pytest.mark.parametrize("data", ["imagenet-1k", "my-pictures"])
def test_data_without_a_path_are_refused_with_all_ways_to_name_one(data: str) -> None:
    message = (
        f"data {data}: nobody says where it lies; --data {data}=PATH would, or paths:"
        rf" {{{data}: PATH}} in the suite, or TLBENCH_DATA with a folder {data} in it"
    )
    with pytest.raises(TrialError, match=re.escape(message)):
        open_dataset(make_case(data), None)


def test_few_unreadable_samples_are_listed_and_of_many_the_first() -> None:
    account = Unreadable({f"{n}.jpg": "it is empty" for n in range(22)})
    assert account.count == 22
    text = account.describe()
    assert text.startswith("0.jpg (it is empty); 1.jpg (it is empty)")
    assert text.endswith("19.jpg (it is empty); 2 more")


def test_what_is_held_of_a_split_is_held_once() -> None:
    first, second = Digits(), Digits()
    assert hold(first, "train") is hold(first, "train")
    assert hold(first, "train") is not hold(first, "eval")
    assert hold(first, "train") is not hold(second, "train")
    unreadable(first, "eval").reasons["3"] = "it is gone"
    assert unreadable(first, "eval").count == 1
    assert unreadable(first, "train").count == unreadable(second, "eval").count == 0
