"""Accuracy: every sample counts once, however the split divides."""

import pytest
import torch
from torch import Tensor, nn

from tlbench.accuracy import evaluate as module
from tlbench.accuracy.evaluate import Accuracy, evaluate
from tlbench.data import Split
from tlbench.rank import Rank

CLASSES = 11


class ReadsLogits(nn.Module):
    """A model whose answers are the pixels, so that they can be chosen by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_sizes: list[int] = []
        self.was_training: set[bool] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.batch_sizes.append(len(images))
        self.was_training.add(self.training)
        return images.flatten(1)[:, :CLASSES]


def make_rank(rank: int, world_size: int) -> Rank:
    return Rank(rank, world_size, rank, world_size, "127.0.0.1", 0, "cpu", 1)


@pytest.fixture
def split() -> Split:
    """23 samples with random answers; the labels are partly right."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(23, 3, 2, 2, generator=generator)
    guesses = images.flatten(1)[:, :CLASSES].argsort(dim=1, descending=True)
    places = torch.randint(0, 8, (23,), generator=generator)
    return Split(images, guesses[torch.arange(23), places])


def by_hand(split: Split) -> Accuracy:
    """One sample after the other: how many answers exceed that of the label."""
    places = []
    for image, label in zip(split.images, split.labels, strict=True):
        logits = image.flatten()[:CLASSES].tolist()
        places.append(sum(value > logits[label] for value in logits))
    return Accuracy(
        top1=sum(place == 0 for place in places),
        top5=sum(place < 5 for place in places),
        total=len(places),
    )


def measure(model: nn.Module, split: Split, batch_size: int, rank: Rank) -> Accuracy:
    return evaluate(
        model,
        split,
        image_size=2,
        batch_size=batch_size,
        rank=rank,
        dtype=torch.float32,
    )


@pytest.mark.parametrize("batch_size", [1, 4, 23, 100])
def test_every_sample_counts_once(split: Split, batch_size: int) -> None:
    expected = by_hand(split)
    assert 0 < expected.top1 < expected.top5 < expected.total
    assert measure(ReadsLogits(), split, batch_size, make_rank(0, 1)) == expected


@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 9])
def test_the_shares_of_the_ranks_add_up(
    split: Split, batch_size: int, world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[Tensor] = []

    def keep(counts: Tensor) -> Tensor:
        shares.append(counts)
        return counts

    monkeypatch.setattr(module, "sum_over_ranks", keep)
    models = [ReadsLogits() for _ in range(world_size)]
    for rank, model in enumerate(models):
        measure(model, split, batch_size, make_rank(rank, world_size))
    expected = by_hand(split)
    assert torch.stack(shares).sum(dim=0).tolist() == [expected.top1, expected.top5]
    # ZeRO 3 gathers parameters in every pass, so all ranks must make equally many.
    assert len({tuple(model.batch_sizes) for model in models}) == 1


def test_the_model_is_evaluated_in_evaluation_mode_and_put_back(split: Split) -> None:
    for training in (True, False):
        model = ReadsLogits().train(training)
        measure(model, split, 4, make_rank(0, 1))
        assert model.was_training == {False}
        assert model.training is training


def test_with_fewer_than_five_classes_top5_is_everything() -> None:
    images = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])

    class ThreeClasses(ReadsLogits):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images)[:, :3]

    measured = measure(ThreeClasses(), Split(images, labels), 4, make_rank(0, 1))
    assert measured.top5_percent == 100


def test_percentages() -> None:
    accuracy = Accuracy(top1=3, top5=4, total=8)
    assert (accuracy.top1_percent, accuracy.top5_percent) == (37.5, 50)
