"""Moving digits: the same for ever, on known paths, and told apart by time alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tlbench.data import Split
from tlbench.data.digits import Digits
from tlbench.data.moving_digits import MOTIONS, MovingDigits
from tlbench.suites.datasets import CLIPS
from tlbench.suites.model_spec import VideoSpec
from tlbench.suites.training import View

FRAMES = 6
STEPS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
"""Signs of what each motion adds to y and x."""


def open_clips(num_frames: int = FRAMES, temporal_clips: int = 1) -> MovingDigits:
    video = VideoSpec(num_frames=num_frames, tubelet_size=1)
    view = View(temporal_clips=temporal_clips)
    return MovingDigits(video=video, view=view, num_classes=40)


@pytest.fixture(scope="module")
def dataset() -> MovingDigits:
    return open_clips()


@pytest.fixture(scope="module")
def train(dataset: MovingDigits) -> Split:
    return dataset.split("train")


@pytest.fixture(scope="module")
def held_out(dataset: MovingDigits) -> Split:
    return dataset.split("eval")


def grey(split: Split, index: int) -> Tensor:
    """[F, S, S] from 0 to 1."""
    return (split.images[index, 0] + 1) / 2


def mass_centre(frame: Tensor) -> tuple[float, float]:
    """Centre of mass of an image [S, S], as parts of its side."""
    middles = (torch.arange(len(frame)) + 0.5) / len(frame)
    mass = frame.sum()
    y, x = (frame.sum(1) * middles).sum() / mass, (frame.sum(0) * middles).sum() / mass
    return float(y), float(x)


def test_there_are_as_many_clips_as_the_schema_says(
    train: Split, held_out: Split
) -> None:
    info = CLIPS["moving-digits"]
    assert (len(train), len(held_out)) == (info.train_samples, info.eval_samples)
    assert train.images.shape[1:] == (3, FRAMES, 32, 32)


def test_every_class_has_its_share_in_both_splits(
    train: Split, held_out: Split
) -> None:
    for split in (train, held_out):
        counts = split.labels.bincount(minlength=40).view(10, 4)
        digits = counts.sum(dim=1, keepdim=True)
        assert (counts * 4 - digits).abs().max() <= 2  # one digit more or less


def test_clips_of_a_split_show_the_digits_of_that_split(held_out: Split) -> None:
    digits = Digits().split("eval")
    for index in range(0, len(held_out), 37):
        frame = grey(held_out, index)[0]
        rows, columns = frame.nonzero().unbind(1)
        shown = frame[
            rows.min() : rows.max() + 1 : 2, columns.min() : columns.max() + 1
        ]
        digit = (digits.images[index // 2, 0] + 1) / 2
        rows, columns = digit.nonzero().unbind(1)
        inked = digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert torch.equal(shown[:, ::2], inked)
        assert digits.labels[index // 2] == held_out.labels[index] // 4


def test_the_motion_is_that_of_the_class(dataset: MovingDigits, train: Split) -> None:
    for index in range(0, len(train), 29):
        motion = MOTIONS[int(train.labels[index]) % 4]
        steps = dataset.positions("train", index).diff(dim=0)
        assert steps.sign().tolist() == [list(STEPS[motion])] * (FRAMES - 1)


def test_the_digit_is_where_the_positions_say(
    dataset: MovingDigits, train: Split
) -> None:
    for index in range(0, len(train), 29):
        positions = dataset.positions("train", index)
        found = torch.tensor([mass_centre(frame) for frame in grey(train, index)])
        # Ink is not spread evenly over a digit, but moves exactly as the digit does.
        assert torch.allclose(found.diff(dim=0), positions.diff(dim=0), atol=1e-5)
        assert (found - positions).abs().max() < 0.11


def test_two_classes_share_their_frames_and_differ_in_their_order(train: Split) -> None:
    for index in range(0, len(train), 58):
        back, forth = train.images[index], train.images[index + 1]
        assert torch.equal(back.flip(1), forth)
        assert train.labels[index] + 1 == train.labels[index + 1]


def test_starts_and_lanes_tell_nothing_about_the_class(
    dataset: MovingDigits, train: Split
) -> None:
    for motion in range(4):
        indices = (train.labels % 4 == motion).nonzero().flatten().tolist()
        centres = torch.stack(
            [dataset.positions("train", index).mean(dim=0) for index in indices[::5]]
        )
        assert (centres.mean(dim=0) - 0.5).abs().max() < 0.03


def test_a_digit_stays_on_the_canvas(dataset: MovingDigits) -> None:
    for index in range(0, 710, 11):
        positions = dataset.positions("eval", index)
        assert positions.min() >= 8 / 32
        assert positions.max() <= 24 / 32


def test_the_clips_are_the_same_for_ever(train: Split, held_out: Split) -> None:
    again = open_clips().split("eval")
    assert torch.equal(again.images, held_out.images)
    # Worked out by hand: digit 0 is the first of its class, digit 10 the second.
    assert open_clips(3).stored("train").corners(0) == [(0, 12), (0, 6), (0, 0)]
    assert open_clips(3).stored("train").corners(1) == [(0, 0), (0, 6), (0, 12)]
    assert open_clips(3).stored("train").corners(20) == [(12, 0), (6, 0), (0, 0)]


def test_stored_clips_are_those_in_memory(dataset: MovingDigits, train: Split) -> None:
    stored = dataset.stored("train")
    assert len(stored) == len(train)
    for index in range(0, len(train), 97):
        frames, label = stored.read(index)
        read = torch.from_numpy(np.stack([np.asarray(frame) for frame in frames]))
        found = read.permute(3, 0, 1, 2) / 127.5 - 1
        assert torch.allclose(found, train.images[index], atol=1.01 / 255)
        assert label == train.labels[index]


def test_the_name_of_a_clip_says_what_moves_where(dataset: MovingDigits) -> None:
    assert dataset.stored("train").name(1) == "digit 0 moving right"


def test_evaluation_has_all_its_temporal_clips_and_training_has_one() -> None:
    clips = open_clips(4, temporal_clips=3)
    frames, _ = clips.stored("eval").read(5)
    assert len(frames) == 12
    assert frames[:4] == frames[4:8] == frames[8:]
    assert len(clips.stored("train").read(5)[0]) == 4


@pytest.mark.parametrize("num_frames", [1, 2, 32])
def test_a_clip_has_the_frames_of_the_model(num_frames: int) -> None:
    clips = open_clips(num_frames)
    assert clips.stored("eval").frames(3).shape == (num_frames, 32, 32)
    assert clips.positions("eval", 3).shape == (num_frames, 2)
