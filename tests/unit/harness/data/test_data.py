"""The data sets: the right samples, split for ever in the same way."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tlbench.data import CLIP_DATASETS, DATASETS, Split, load_dataset
from tlbench.data.digits import Digits
from tlbench.errors import SuiteError
from tlbench.suites.model_spec import VideoSpec
from tlbench.suites.spec import NUM_CLASSES, NUM_CLIP_CLASSES, TRAIN_SAMPLES


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


def test_every_data_set_of_the_schema_can_be_opened() -> None:
    assert set(DATASETS) == set(NUM_CLASSES)
    assert set(CLIP_DATASETS) == set(NUM_CLIP_CLASSES)


@pytest.mark.parametrize("name", DATASETS)
def test_data_sets_have_as_many_classes_as_the_schema_says(name: str) -> None:
    dataset = load_dataset(name)
    classes = {str(key): value for key, value in NUM_CLASSES.items()}
    assert dataset.num_classes == classes[name]
    for split in (dataset.split("train"), dataset.split("eval")):
        assert 0 <= split.labels.min() <= split.labels.max() < dataset.num_classes


@pytest.mark.parametrize("name", TRAIN_SAMPLES)
def test_data_sets_have_as_many_training_samples_as_the_schema_says(name: str) -> None:
    samples = {str(key): value for key, value in TRAIN_SAMPLES.items()}
    assert len(load_dataset(name).split("train")) == samples[name]


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("image_size", [8, 28, 224])
def test_batches_come_in_the_size_of_the_model(name: str, image_size: int) -> None:
    images, labels = (
        load_dataset(name).split("train").batch(torch.tensor([3, 0, 3]), image_size)
    )
    assert images.shape == (3, 3, image_size, image_size)
    assert images.dtype == torch.float32
    assert labels.shape == (3,)
    assert -1 <= images.min() <= images.max() <= 1
    assert torch.equal(images[0], images[2])


@pytest.mark.parametrize("name", CLIP_DATASETS)
def test_data_sets_of_clips_have_as_many_classes_as_the_schema_says(name: str) -> None:
    dataset = load_dataset(name, VideoSpec())
    classes = {str(key): value for key, value in NUM_CLIP_CLASSES.items()}
    assert dataset.num_classes == classes[name]
    for split in (dataset.split("train"), dataset.split("eval")):
        assert 0 <= split.labels.min() <= split.labels.max() < dataset.num_classes


@pytest.mark.parametrize("name", CLIP_DATASETS)
@pytest.mark.parametrize(("num_frames", "image_size"), [(5, 14), (32, 32), (2, 224)])
def test_clips_come_in_the_frames_and_the_size_of_the_model(
    name: str, num_frames: int, image_size: int
) -> None:
    split = load_dataset(name, VideoSpec(num_frames=num_frames)).split("train")
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
    split = load_dataset("synthetic", VideoSpec(num_frames=32)).split("train")
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


def test_synthetic_images_are_the_same_every_time_and_differ_by_split() -> None:
    first, second = load_dataset("synthetic"), load_dataset("synthetic")
    assert torch.equal(first.split("train").images, second.split("train").images)
    assert not torch.equal(first.split("train").images, first.split("eval").images)


def test_an_unknown_data_set_is_refused_with_those_there_are() -> None:
    message = "unknown data set 'mnist'; known: digits, synthetic"
    with pytest.raises(SuiteError, match=message):
        load_dataset("mnist")


def test_an_unknown_data_set_of_clips_is_refused_with_those_there_are() -> None:
    message = "unknown data set of clips 'digits'; known: synthetic"
    with pytest.raises(SuiteError, match=message):
        load_dataset("digits", VideoSpec())
