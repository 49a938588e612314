"""The loader: every sample once an epoch, as the model wants it, and clear failures."""

import multiprocessing
import os
import time
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tlbench.data import Label, Stored, synthetic
from tlbench.data import loader as loader_module
from tlbench.data.digits import Digits
from tlbench.data.loader import Batch, Batches, Feed, Samples, make_loader
from tlbench.data.synthetic import JPEG_SIZE, Synthetic, SyntheticClips
from tlbench.errors import TrialError, UnreadableSampleError
from tlbench.rank import Rank
from tlbench.suites.model_spec import VideoSpec
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case

CPU = torch.device("cpu")


class Grey:
    """One grey picture a label, a shade brighter than the one before."""

    def __init__(self, count: int = 12, num_frames: int = 1) -> None:
        self._count, self._num_frames = count, num_frames

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return f"grey {index}"

    def read(self, index: int) -> tuple[list[Image.Image], Label]:
        shade = Image.new("RGB", (10, 8), (index, index, index))
        return [shade] * self._num_frames, index


class Slow(Grey):
    def read(self, index: int) -> tuple[list[Image.Image], Label]:
        time.sleep(0.01)
        return super().read(index)


class Stuck(Grey):
    def read(self, index: int) -> tuple[list[Image.Image], Label]:
        time.sleep(3600)
        return super().read(index)


class Deadly(Grey):
    def read(self, index: int) -> tuple[list[Image.Image], Label]:
        os._exit(3)


class Broken(Grey):
    def read(self, index: int) -> tuple[list[Image.Image], Label]:
        raise ValueError(f"sample {index} cannot be decoded")


class Gaps(Grey):
    """Some of the pictures are missing."""

    def __init__(self, missing: frozenset[int], count: int = 12) -> None:
        super().__init__(count)
        self._missing = missing

    def read(self, index: int) -> tuple[list[Image.Image], Label]:
        if index in self._missing:
            raise UnreadableSampleError("there is no such file")
        return super().read(index)


class Several(Grey):
    """The sample n has the classes n and n + 1; the first has none."""

    def read(self, index: int) -> tuple[list[Image.Image], Label]:
        frames, _ = super().read(index)
        return frames, (index, index + 1) if index else ()


def make_case(**changes: Any) -> Case:
    settings = {
        "model": parse_model("ViT-d16h2m32l2/4@8"),
        "mode": "infer",
        "batch_size": 4,
        "input": {"kind": "loader"},
    }
    return Case.model_validate(settings | changes)


def make_batches(
    stored: Stored, workers: int = 0, rank: Rank | None = None, seed: int = 0
) -> Batches[Batch]:
    case = make_case(input={"kind": "loader", "workers": workers})
    return Batches(make_loader(case, stored, rank or make_rank(), seed))


def make_rank(rank: int = 0, world_size: int = 1) -> Rank:
    return Rank(rank, world_size, rank, world_size, "127.0.0.1", 0, "cpu", 1)


def labels(batches: Batches[Batch], count: int) -> list[int]:
    with batches:
        return [label for _ in range(count) for label in batches.take()[1].tolist()]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_comes_once_an_epoch_and_epochs_never_end(workers: int) -> None:
    found = labels(make_batches(Grey(12), workers), 9)
    epochs = [found[:12], found[12:24], found[24:]]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 3
    assert epochs[0] != epochs[1]


def test_the_order_is_that_of_the_seed_whoever_loads() -> None:
    first = labels(make_batches(Grey(), seed=1), 3)
    assert labels(make_batches(Grey(), seed=1), 3) == first
    assert labels(make_batches(Grey(), workers=2, seed=1), 3) == first
    assert labels(make_batches(Grey(), seed=2), 3) != first


def test_ranks_share_the_batch_and_draw_their_own_samples() -> None:
    ranks = [make_rank(number, 2) for number in range(2)]
    found = [labels(make_batches(Grey(), rank=rank), 6) for rank in ranks]
    assert [len(of_rank) for of_rank in found] == [12, 12]
    assert found[0] != found[1]


def test_the_workers_end_with_the_block() -> None:
    with make_batches(Grey(), workers=2) as batches:
        batches.take()
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("image_size", [8, 28])
def test_digits_are_those_of_the_split(image_size: int) -> None:
    model = parse_model(f"ViT-d16h2m32l2/4@{image_size}")
    samples = Samples(Digits().stored("train"), make_case(model=model))
    images, expected = (
        Digits().split("train").batch(torch.tensor([3, 1441]), image_size)
    )
    found = [samples[3], samples[1441]]
    assert [label for _, label in found] == expected.tolist()
    # Shades are rounded to bytes when stored, and when scaled along either side.
    assert torch.allclose(
        torch.stack([image for image, _ in found]), images, atol=3 * 0.5 * 2 / 255
    )


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_an_image_has_the_size_and_the_range_of_the_model(mode: str) -> None:
    image, label = Samples(Synthetic().stored("train"), make_case(mode=mode))[0]
    assert image.shape == (3, 8, 8)
    assert image.dtype == torch.float32
    assert -1 <= image.min() < image.max() <= 1
    assert 0 <= label < 1000


def test_training_crops_at_random_and_inference_does_not() -> None:
    stored = Synthetic().stored("train")
    trained, inferred = (
        Samples(stored, make_case(mode=mode)) for mode in ("train", "infer")
    )
    assert not torch.equal(trained[0][0], trained[0][0])
    assert torch.equal(inferred[0][0], inferred[0][0])


def test_the_frames_of_a_clip_are_cropped_alike() -> None:
    model = parse_model("ViViT-d16h2m32l2/4x2@8")
    assert model.video is not None
    num_frames = model.video.num_frames
    noise = Synthetic().stored("train")

    class Still:
        def __len__(self) -> int:
            return 1

        def name(self, index: int) -> str:
            return noise.name(index)

        def read(self, index: int) -> tuple[list[Image.Image], Label]:
            frames, label = noise.read(index)
            return frames * num_frames, label

    clip, _ = Samples(Still(), make_case(model=model, mode="train"))[0]
    assert clip.shape == (3, num_frames, 8, 8)
    assert torch.equal(clip[:, :1].expand_as(clip), clip)


def test_the_next_sample_stands_in_for_one_that_cannot_be_read() -> None:
    case = make_case(view={"max_unreadable": 0.5}, mode="evaluate", data="digits")
    gaps = Gaps(frozenset({3, 4, 11}))
    samples = Samples(gaps, case.model_copy(update={"mode": "infer"}))
    labels = [int(samples[index][1]) for index in (2, 3, 4, 5, 11)]
    assert labels == [2, 5, 5, 5, 0]


def test_a_sample_of_several_classes_has_a_one_for_each() -> None:
    samples = Samples(Several(), make_case())
    assert samples[0][1].nonzero().flatten().tolist() == []
    assert samples[7][1].nonzero().flatten().tolist() == [7, 8]
    assert samples[7][1].shape == (1000,)


def test_clips_are_stored_frame_by_frame() -> None:
    stored = SyntheticClips(VideoSpec(num_frames=3)).stored("train")
    frames, label = stored.read(0)
    assert [frame.size for frame in frames] == [(340, 256)] * 3
    assert len({frame.tobytes() for frame in frames}) == 3
    assert 0 <= label < 400


def test_the_stored_noise_is_as_large_as_photographs() -> None:
    (image,), _ = Synthetic().stored("train").read(0)
    assert image.size == JPEG_SIZE
    file = synthetic.jpeg_noise(np.random.default_rng(1), JPEG_SIZE)
    assert len(file) == pytest.approx(110_000, rel=0.05)


def test_a_feed_gives_batches_of_the_precision_and_times_its_waits() -> None:
    loader = make_loader(make_case(), Slow(), make_rank(), 0)
    with Feed(loader, CPU, torch.bfloat16) as feed:
        images, _ = feed.take()
        feed.take()
    assert images.dtype == torch.bfloat16
    waits = feed.waits_s()
    assert len(waits) == 2
    assert min(waits) >= 4 * 0.01  # four samples a batch


def test_a_worker_that_dies_is_told() -> None:
    message = r"the loader \(workers: 1\) failed: DataLoader worker .* exited"
    with (
        pytest.raises(TrialError, match=message),
        make_batches(Deadly(), workers=1) as batches,
    ):
        batches.take()


def test_an_error_in_a_worker_is_told() -> None:
    message = r"the loader \(workers: 1\) failed: ValueError: sample \d+ cannot be"
    with (
        pytest.raises(TrialError, match=message),
        make_batches(Broken(), workers=1) as batches,
    ):
        batches.take()


def test_without_workers_an_error_keeps_its_kind() -> None:
    with (
        pytest.raises(ValueError, match="cannot be decoded"),
        make_batches(Broken()) as batches,
    ):
        batches.take()


@pytest.mark.slow
def test_a_loader_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "TIMEOUT_S", 1)
    message = r"the loader \(workers: 1\) failed: DataLoader timed out after 1 sec"
    with (
        pytest.raises(TrialError, match=message),
        make_batches(Stuck(), workers=1) as batches,
    ):
        batches.take()


def test_batches_are_taken_inside_the_block_only() -> None:
    with pytest.raises(ValueError, match="inside the block only"):
        make_batches(Grey()).take()


@pytest.mark.gpu
def test_batches_come_to_the_gpu_out_of_pinned_memory() -> None:
    if not torch.cuda.is_available():
        pytest.skip("this machine has no NVIDIA GPU")
    rank = Rank(0, 1, 0, 1, "127.0.0.1", 0, "cuda", 1)
    case = make_case(input={"kind": "loader", "workers": 1})
    loader = make_loader(case, Slow(), rank, 0)
    with Batches(loader) as batches:
        images, labels = batches.take()
        assert images.is_pinned()
        assert labels.is_pinned()
    with Feed(loader, torch.device("cuda"), torch.bfloat16) as feed:
        for _ in range(4):
            images, labels = feed.take()
    assert images.device.type == labels.device.type == "cuda"
    assert images.dtype == torch.bfloat16
    # The loader makes a batch in 40 ms, and the GPU has nothing else to do.
    assert feed.waits_s()[-1] == pytest.approx(4 * 0.01, rel=0.5)
