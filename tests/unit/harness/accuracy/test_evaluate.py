"""Accuracy: every sample counts once, however the split divides."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL.Image import Image
from sklearn.metrics import average_precision_score
from timm.utils import accuracy as timm_accuracy
from torch import Tensor, nn

from tlbench.accuracy import evaluate as module
from tlbench.accuracy.evaluate import Accuracy, evaluate
from tlbench.data import Label, SplitName
from tlbench.data.epochs import Viewed
from tlbench.errors import TrialError
from tlbench.rank import Rank
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case

CLASSES = 11
SAMPLES = 23
MODEL = ModelSpec(
    name="tiny",
    image_size=2,
    patch_size=1,
    embed_dim=8,
    depth=1,
    num_heads=1,
    mlp_dim=8,
)


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


class Answered:
    """Samples whose logits are given, [N, V, CLASSES], in the place of images."""

    num_classes = CLASSES

    def __init__(self, logits: Tensor, labels: Tensor, readable: Tensor | None = None):
        self.logits, self.labels = logits, labels
        self.readable = torch.ones(len(logits)).bool() if readable is None else readable

    def stored(self, split: SplitName) -> "Answered":
        return self

    def __len__(self) -> int:
        return len(self.logits)

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> tuple[list[Image], Label]:
        raise NotImplementedError


def view_batches(
    dataset: Answered,
    split: SplitName,
    case: Case,
    rank: Rank,
    *,
    batch_size: int,
    **_: Any,
) -> list[Viewed]:
    """As the loader shares samples out, without images."""
    per_step = batch_size * rank.world_size
    steps = -(-len(dataset) // per_step)
    places = torch.arange(steps * per_step).view(steps, rank.world_size, batch_size)
    batches = []
    for own in places[:, rank.rank]:
        indices = own % len(dataset)
        images = dataset.logits[indices].flatten(0, 1)
        padded = torch.nn.functional.pad(images, (0, 12 - CLASSES)).view(-1, 3, 2, 2)
        counted = dataset.readable[indices] & (own < len(dataset))
        views = dataset.logits.shape[1]
        batches.append(Viewed(padded, views, dataset.labels[indices], counted))
    return batches


@pytest.fixture(autouse=True)
def _without_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "view_batches", view_batches)


def make_rank(rank: int = 0, world_size: int = 1) -> Rank:
    return Rank(rank, world_size, rank, world_size, "127.0.0.1", 0, "cpu", 1)


def make_case(**changes: Any) -> Case:
    settings = {"model": MODEL, "mode": "evaluate", "data": "own", "classes": CLASSES}
    return Case.model_validate(settings | changes)


CHARADES = Case(model=parse_model("ViViT-Ti/16x2"), mode="evaluate", data="charades")


def measure(
    dataset: Answered,
    case: Case | None = None,
    *,
    model: nn.Module | None = None,
    batch_size: int = 4,
    rank: Rank | None = None,
) -> Accuracy:
    return evaluate(
        model or ReadsLogits(),
        dataset,
        case or make_case(),
        rank=rank or make_rank(),
        dtype=torch.float32,
        batch_size=batch_size,
    )


def random_logits(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def dataset() -> Answered:
    """23 samples with random answers; the labels are partly right."""
    logits = random_logits(SAMPLES, 1, CLASSES)
    guesses = logits[:, 0].argsort(dim=1, descending=True)
    generator = torch.Generator().manual_seed(6)
    places = torch.randint(0, 8, (SAMPLES,), generator=generator)
    return Answered(logits, guesses[torch.arange(SAMPLES), places])


def by_timm(dataset: Answered) -> tuple[float, float]:
    logits, labels = dataset.logits.mean(dim=1), dataset.labels
    chosen = dataset.readable
    top1, top5 = timm_accuracy(logits[chosen], labels[chosen], topk=(1, 5))
    return float(top1), float(top5)


@pytest.mark.parametrize("batch_size", [1, 4, 23, 100])
def test_top1_and_top5_are_those_of_timm(dataset: Answered, batch_size: int) -> None:
    found = measure(dataset, batch_size=batch_size)
    assert found.total == SAMPLES
    assert (found.top1_percent, found.top5_percent) == pytest.approx(by_timm(dataset))
    assert 0 < (found.top1_percent or 0) < (found.top5_percent or 0) < 100


def test_samples_that_cannot_be_read_do_not_count(dataset: Answered) -> None:
    dataset.readable[[0, 7, 22]] = False
    found = measure(dataset)
    assert found.total == SAMPLES - 3
    assert (found.top1_percent, found.top5_percent) == pytest.approx(by_timm(dataset))


def test_logits_are_averaged_over_the_views() -> None:
    logits = random_logits(SAMPLES, 3, CLASSES)
    dataset = Answered(logits, logits.sum(dim=1).argmax(dim=1))
    assert (logits[:, 0].argmax(dim=1) != dataset.labels).any()
    assert measure(dataset).top1_percent == 100


def test_the_views_of_a_sample_do_not_make_a_batch_larger() -> None:
    view = {"spatial_crops": 3}
    dataset = Answered(random_logits(SAMPLES, 3, CLASSES), torch.zeros(SAMPLES).long())
    model = ReadsLogits()
    measure(dataset, make_case(view=view), model=model, batch_size=7)
    assert set(model.batch_sizes) == {6}
    model = ReadsLogits()
    measure(dataset, make_case(view=view), model=model, batch_size=2)
    assert set(model.batch_sizes) == {1, 2}


class Exchange:
    """Ranks that run one after the other: twice, so that each sees the first sums."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._sums: list[Tensor] = []
        self._place, self._is_known = 0, False
        monkeypatch.setattr(module, "sum_over_ranks", self)

    def __call__(self, values: Tensor) -> Tensor:
        place, self._place = self._place, self._place + 1
        if self._is_known:
            return self._sums[place]
        if place == len(self._sums):
            self._sums.append(torch.zeros_like(values))
        self._sums[place] += values
        # No zeros, which some of the sums are divided by.
        return values if values.ndim > 1 else values + 1

    def of_ranks(self, world_size: int, run: Any) -> list[Any]:
        found: list[Any] = []
        for self._is_known in (False, True):
            found = []
            for number in range(world_size):
                self._place = 0
                found.append(run(make_rank(number, world_size)))
        return found


@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 9])
def test_all_ranks_find_what_one_would(
    dataset: Answered, batch_size: int, world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = measure(dataset)
    models = [ReadsLogits() for _ in range(world_size)]
    found = Exchange(monkeypatch).of_ranks(
        world_size,
        lambda rank: measure(
            dataset, model=models[rank.rank], batch_size=batch_size, rank=rank
        ),
    )
    assert found == [expected] * world_size
    # ZeRO 3 gathers parameters in every pass, so all ranks must make equally many.
    assert len({tuple(model.batch_sizes) for model in models}) == 1


def several_labels(count: int = CLASSES, seed: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(SAMPLES, count, generator=generator) < 0.2).float()


def test_an_answer_is_right_that_is_any_of_the_labels() -> None:
    logits, labels = random_logits(SAMPLES, 1, CLASSES), several_labels()
    labels[4] = 0  # as ReaL has it of images that show none of the classes
    found = measure(Answered(logits, labels))
    answers = zip(logits[:, 0].tolist(), labels.tolist(), strict=True)
    asked = [(scores, of) for scores, of in answers if any(of)]
    right = [of[scores.index(max(scores))] for scores, of in asked]
    unlabelled = SAMPLES - len(asked)
    assert unlabelled >= 1
    assert found.total == len(asked)
    assert found.top1_percent == pytest.approx(100 * sum(right) / len(asked))
    assert found.notes == {
        "unlabelled": f"{unlabelled} samples have no label, and do not count"
    }


def test_without_any_label_there_is_no_accuracy() -> None:
    dataset = Answered(random_logits(4, 1, CLASSES), torch.zeros(4, CLASSES))
    with pytest.raises(TrialError, match="no sample of own has a label"):
        measure(dataset)


# ---------------------------------------------------------------- several labels


class Repeats(nn.Module):
    """157 logits out of the 11 that a sample has."""

    def forward(self, images: Tensor) -> Tensor:
        logits = images.flatten(1)[:, :CLASSES]
        return torch.cat([logits * number for number in range(1, 16)], dim=1)[:, :157]


@pytest.fixture
def charades() -> Answered:
    labels = torch.zeros(SAMPLES, 157)
    labels[:, :150] = several_labels(150)
    labels[3] = 0  # nothing happens in this video
    return Answered(random_logits(SAMPLES, 1, CLASSES), labels)


def by_sklearn(dataset: Answered) -> float:
    logits = Repeats()(dataset.logits[:, 0]).numpy()
    labels = dataset.labels.numpy()
    present = labels.any(axis=0)
    return 100 * float(
        average_precision_score(labels[:, present], logits[:, present], average="macro")
    )


def by_definition(dataset: Answered) -> float:
    """The mean precision at the ranks of the positives, class by class."""
    logits = Repeats()(dataset.logits[:, 0]).numpy()
    means = []
    for scores, labels in zip(logits.T, dataset.labels.numpy().T, strict=True):
        sorted_labels = labels[np.argsort(-scores)]
        if labels.any():
            precisions = sorted_labels.cumsum() / np.arange(1, SAMPLES + 1)
            means.append(precisions[sorted_labels > 0].mean())
    return 100 * float(np.mean(means))


def test_the_mean_average_precision_is_that_of_scikit_learn_and_of_its_definition(
    charades: Answered,
) -> None:
    found = measure(charades, CHARADES, model=Repeats())
    assert found.map_percent == pytest.approx(by_sklearn(charades), rel=1e-12)
    assert found.map_percent == pytest.approx(by_definition(charades), rel=1e-9)
    assert (found.top1_percent, found.total) == (None, SAMPLES)
    absent = 157 - int(charades.labels.any(dim=0).sum())
    assert absent >= 7
    assert found.notes == {"classes": f"{absent} of 157 have no sample; left out"}


def test_two_ranks_find_the_same_mean_average_precision(
    charades: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = measure(charades, CHARADES, model=Repeats())
    found = Exchange(monkeypatch).of_ranks(
        2, lambda rank: measure(charades, CHARADES, model=Repeats(), rank=rank)
    )
    assert found == [expected, expected]


# ---------------------------------------------------------------- the model


def test_the_model_is_evaluated_in_evaluation_mode_and_put_back(
    dataset: Answered,
) -> None:
    for training in (True, False):
        model = ReadsLogits().train(training)
        measure(dataset, model=model)
        assert model.was_training == {False}
        assert model.training is training


@pytest.mark.parametrize("answer", [torch.nan, torch.inf, -torch.inf])
def test_answers_that_are_not_finite_are_no_accuracy(
    dataset: Answered, answer: float
) -> None:
    dataset.logits[5, 0, 2] = answer
    with pytest.raises(TrialError, match="answers are not finite numbers"):
        measure(dataset)


def test_with_fewer_than_five_classes_top5_is_everything() -> None:
    class ThreeClasses(ReadsLogits):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images)[:, :3]

    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    dataset = Answered(random_logits(6, 1, CLASSES), labels)
    measured = measure(dataset, make_case(classes=3), model=ThreeClasses())
    assert measured.top5_percent == 100


def test_an_accuracy_has_the_metrics_that_mean_something() -> None:
    shares = Accuracy(8, top1_percent=37.5, top5_percent=50.0)
    assert shares.metrics == {"top1_percent": 37.5, "top5_percent": 50.0, "n_eval": 8}
    assert Accuracy(8, map_percent=9.0).metrics == {"map_percent": 9.0, "n_eval": 8}
