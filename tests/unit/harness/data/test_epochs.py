"""Batches of training and evaluation: what comes when, whoever loads it."""

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tlbench.data import (
    Dataset,
    Label,
    Split,
    SplitName,
    open_dataset,
    unreadable,
)
from tlbench.data import epochs as epochs_module
from tlbench.data.digits import Digits
from tlbench.data.epochs import Viewed, drawing, training_batches, view_batches
from tlbench.errors import TrialError, UnreadableSampleError
from tlbench.rank import Rank
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case

SIZE = 8
VARIED = {
    "crop": "random",
    "flip": 0.5,
    "rand_augment_layers": 2,
    "rand_augment_magnitude": 9,
    "color_jitter": 0.5,
    "erasing": 0.5,
    "mixup": 0.2,
    "cutmix": 1.0,
}


class Shades:
    """One grey picture a sample, as many shades from black as its place; ten classes.

    Some are missing, some have several classes.
    """

    num_classes = 10

    def __init__(
        self,
        count: int = 40,
        missing: Iterable[int] = (),
        labels: dict[int, Label] | None = None,
    ) -> None:
        self._count, self._missing, self._labels = count, set(missing), labels or {}

    def stored(self, split: SplitName) -> "Shades":
        return self

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return f"{index:03d}.png"

    def read(self, index: int) -> tuple[list[Image.Image], Label]:
        if index in self._missing:
            raise UnreadableSampleError("it is empty")
        shade = Image.new("RGB", (12, 10), (index, index, index))
        return [shade], self._labels.get(index, index % 10)


class Noise(Shades):
    """Coloured noise, another one each."""

    def read(self, index: int) -> tuple[list[Image.Image], Label]:
        generator = np.random.default_rng(index)
        pixels = generator.integers(256, size=(12, 10, 3), dtype=np.uint8)
        return [Image.fromarray(pixels)], index % 10


class Trembling(Shades):
    """Pictures that each reading draws, as a clip begins anywhere."""

    def read(self, index: int) -> tuple[list[Image.Image], Label]:
        shade = int(torch.randint(256, ()))
        return [Image.new("RGB", (10, 10), (shade,) * 3)], 0


def make_case(**changes: Any) -> Case:
    settings = {
        "model": parse_model(f"ViT-d16h2m32l2/4@{SIZE}"),
        "mode": "fit",
        "data": "digits",
        "batch_size": 8,
    }
    return Case.model_validate(settings | changes)


def make_rank(rank: int = 0, world_size: int = 1) -> Rank:
    return Rank(rank, world_size, rank, world_size, "127.0.0.1", 0, "cpu", 1)


def train(
    dataset: Dataset,
    case: Case | None = None,
    rank: Rank | None = None,
    *,
    seed: int = 0,
    epoch: int = 0,
    first_step: int = 0,
) -> list[tuple[Tensor, Tensor]]:
    return list(
        training_batches(
            dataset,
            case or make_case(),
            rank or make_rank(),
            seed=seed,
            epoch=epoch,
            first_step=first_step,
        )
    )


def view(
    dataset: Dataset,
    case: Case | None = None,
    rank: Rank | None = None,
    *,
    batch_size: int = 8,
    indices: list[int] | None = None,
) -> list[Viewed]:
    return list(
        view_batches(
            dataset,
            "eval",
            case or make_case(),
            rank or make_rank(),
            batch_size=batch_size,
            indices=indices,
        )
    )


def shades(images: Tensor) -> list[int]:
    """The places of the samples of `Shades`, read off their pictures."""
    return [round(float(shade)) for shade in (images[:, 0, 0, 0] + 1) * 127.5]


def shown(batches: list[tuple[Tensor, Tensor]]) -> list[int]:
    return [place for images, _ in batches for place in shades(images)]


def counted(batches: list[Viewed]) -> list[int]:
    return [p for batch in batches for p in shades(batch.images[batch.counted])]


def use_workers(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(epochs_module, "_workers", lambda rank: workers)


def equal(a: list[tuple[Tensor, Tensor]], b: list[tuple[Tensor, Tensor]]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, y)
        for first, second in zip(a, b, strict=True)
        for x, y in zip(first, second, strict=True)
    )


# ---------------------------------------------------------------- training


def test_an_epoch_has_every_sample_once_in_an_order_of_its_own() -> None:
    epochs = [shown(train(Shades(40), epoch=epoch)) for epoch in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(40))] * 2
    assert epochs[0] != epochs[1]
    assert shown(train(Shades(40), seed=1)) != epochs[0]


def test_a_last_batch_that_is_not_full_is_left_out() -> None:
    batches = train(Shades(23))
    assert [len(labels) for _, labels in batches] == [8, 8]


def test_labels_go_with_their_images() -> None:
    for images, labels in train(Shades(40)):
        assert labels.dtype == torch.int64
        assert [place % 10 for place in shades(images)] == labels.tolist()
        assert images.dtype == torch.float32
        assert images.shape == (8, 3, SIZE, SIZE)


def test_the_ranks_share_each_batch_of_one_rank() -> None:
    whole = train(Shades(40))
    spread = make_case(parallelism={"world_size": 2})
    parts = [train(Shades(40), spread, make_rank(rank, 2)) for rank in range(2)]
    for (images, _), (first, _), (second, _) in zip(whole, *parts, strict=True):
        assert shades(first) == shades(images)[::2]
        assert shades(second) == shades(images)[1::2]


def test_plain_digits_come_from_memory_as_they_did_before_augmentation() -> None:
    generator = torch.Generator().manual_seed(3 * 100_003 + 2)
    order = torch.randperm(1442, generator=generator)[8:16]
    images, labels = train(Digits(), seed=3, epoch=2)[1]
    expected, expected_labels = Digits().split("train").batch(order, SIZE)
    assert torch.equal(images, expected)
    assert torch.equal(labels, expected_labels)


def test_digits_in_memory_and_stored_are_the_same() -> None:
    case = make_case(model=parse_model("ViT-d16h2m32l2/4@28"))
    in_memory = train(Digits(), case)
    stored = train(Digits(), case.model_copy(update={"augment": NO_FLIP}))
    for (a, labels), (b, same) in zip(in_memory, stored, strict=True):
        assert torch.equal(labels, same)
        # Shades are rounded to bytes when stored, and when scaled along either side.
        assert torch.allclose(a, b, atol=3 * 0.5 * 2 / 255)


# Asks for what no sample meets: it changes nothing but where samples come from.
NO_FLIP = make_case(augment={"flip": 1e-9}).augment


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_workers_makes_the_same_batches(
    monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    case = make_case(augment=VARIED)
    use_workers(monkeypatch, 0)
    expected = train(Noise(48), case, seed=5)
    use_workers(monkeypatch, workers)
    found = train(Noise(48), case, seed=5, first_step=2)
    assert equal(found, expected[2:])


def test_every_epoch_and_seed_varies_and_mixes_anew() -> None:
    case = make_case(augment={"crop": "random", "mixup": 1.0})

    def mixed_shares(seed: int = 0, epoch: int = 0) -> list[float]:
        batches = train(Shades(16), case, seed=seed, epoch=epoch)
        targets = torch.cat([targets for _, targets in batches])
        return sorted(targets.flatten().tolist())

    assert mixed_shares() == mixed_shares()
    assert mixed_shares() != mixed_shares(epoch=1)
    assert mixed_shares() != mixed_shares(seed=1)


def test_what_reading_draws_is_decided_too(monkeypatch: pytest.MonkeyPatch) -> None:
    use_workers(monkeypatch, 0)
    first = shown(train(Trembling(16), seed=1))
    use_workers(monkeypatch, 2)
    torch.manual_seed(99)
    assert shown(train(Trembling(16), seed=1)) == first
    assert len(set(first)) > 8


def test_loading_leaves_the_random_numbers_of_training_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_workers(monkeypatch, 0)
    case = make_case(augment=VARIED)

    def numbers() -> tuple[float, float, float]:
        return float(torch.rand(())), float(np.random.rand()), random.random()

    def seed_all() -> None:
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)

    seed_all()
    expected = [numbers(), numbers()]
    seed_all()
    batches = training_batches(Noise(), case, make_rank(), seed=0, epoch=0)
    found = []
    for _ in range(2):
        next(batches)
        found.append(numbers())
    assert found == expected


def test_random_numbers_differ_by_seed_and_place() -> None:
    def number(*key: int) -> float:
        with drawing(*key):
            return float(torch.rand(()))

    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0, 0), (0, 0)]
    assert len({number(*key) for key in keys}) == len(keys)


def test_mixed_targets_are_shares_of_the_classes() -> None:
    for images, targets in train(Shades(40), make_case(augment={"mixup": 1.0})):
        assert targets.shape == (8, 10)
        assert targets.sum(dim=1).tolist() == pytest.approx([1] * 8)
        assert images.shape == (8, 3, SIZE, SIZE)


def test_several_labels_are_ones_and_no_label_is_none() -> None:
    dataset = Shades(8, labels={1: (3, 7), 2: ()})
    ((images, targets),) = train(dataset)
    assert targets.dtype == torch.float32
    by_place = dict(zip(shades(images), targets, strict=True))
    assert by_place[1].nonzero().flatten().tolist() == [3, 7]
    assert by_place[2].sum() == 0
    assert by_place[5].nonzero().flatten().tolist() == [5]


@pytest.mark.parametrize("label", [10, -1, (2, 10)])
def test_a_label_beyond_the_classes_is_told(
    monkeypatch: pytest.MonkeyPatch, label: Label
) -> None:
    use_workers(monkeypatch, 0)
    with pytest.raises(TrialError, match=r"003.png has the label .* from 0 to 9"):
        train(Shades(8, labels={3: label}))


# ---------------------------------------------------------------- unreadable samples


@pytest.mark.parametrize("workers", [0, 2])
def test_training_takes_the_next_readable_sample(
    monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    use_workers(monkeypatch, workers)
    dataset = Shades(40, missing=[4, 5, 39])
    case = make_case(view={"max_unreadable": 0.1})
    places = sorted(shown(train(dataset, case)))
    whole = set(range(40)) - {4, 5, 39}
    assert places == sorted([*whole, 6, 6, 0])
    account = unreadable(dataset, "train")
    assert account.reasons == dict.fromkeys(
        ["004.png", "005.png", "039.png"], "it is empty"
    )
    train(dataset, case, epoch=1)
    assert account.count == 3  # each is counted once


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_does_not_count_what_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    use_workers(monkeypatch, workers)
    dataset = Shades(40, missing=[4, 5])
    batches = view(dataset, make_case(view={"max_unreadable": 0.05}))
    assert counted(batches) == [place for place in range(40) if place not in (4, 5)]
    assert unreadable(dataset, "eval").count == 2
    assert unreadable(dataset, "train").count == 0


@pytest.mark.parametrize("use", [train, view])
def test_more_unreadable_samples_than_allowed_fail_with_their_list(use: Any) -> None:
    case = make_case(view={"max_unreadable": 0.05})  # two of forty
    message = (
        r"3 samples cannot be read, and view.max_unreadable allows 2:"
        r" .*0\d\d.png \(it is empty\).*\(it is empty\)"
    )
    with pytest.raises(TrialError, match=message):
        use(Shades(40, missing=[1, 17, 33]), case)


def test_a_long_run_of_unreadable_samples_fails_too() -> None:
    case = make_case(view={"max_unreadable": 0.1})
    with pytest.raises(TrialError, match="5 samples cannot be read"):
        train(Shades(40, missing=range(20)), case)


def test_not_all_samples_may_be_unreadable_whatever_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_workers(monkeypatch, 0)
    case = make_case(view={"max_unreadable": 1.0})
    with pytest.raises(TrialError, match=r"8 samples cannot be read, .* allows 7"):
        train(Shades(8, missing=range(8)), case)


# ---------------------------------------------------------------- evaluation


@pytest.mark.parametrize(("world_size", "count"), [(1, 40), (1, 37), (3, 40), (3, 3)])
def test_every_sample_counts_once_and_ranks_have_equally_many_batches(
    world_size: int, count: int
) -> None:
    ranks = [make_rank(number, world_size) for number in range(world_size)]
    shares = [view(Shades(count), rank=rank) for rank in ranks]
    assert len({len(batches) for batches in shares}) == 1
    assert sorted(p for batches in shares for p in counted(batches)) == [*range(count)]
    assert {len(batch.labels) for batches in shares for batch in batches} == {8}


def test_some_samples_can_be_chosen() -> None:
    batches = view(Shades(40), indices=[31, 5, 5, 12], batch_size=3)
    assert counted(batches) == [31, 5, 5, 12]
    labels = torch.cat([batch.labels[batch.counted] for batch in batches])
    assert labels.tolist() == [1, 5, 5, 2]


def test_what_is_drawn_of_a_sample_to_look_at_is_drawn_once_and_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a training video a clip: features do not depend on who loads it, or when."""
    use_workers(monkeypatch, 0)
    first = counted(view(Trembling(16)))
    use_workers(monkeypatch, 2)
    torch.manual_seed(99)
    some = counted(view(Trembling(16), indices=[9, 3], batch_size=1))
    assert some == [first[9], first[3]]
    assert len(set(first)) > 8


def test_of_no_samples_there_are_no_batches() -> None:
    assert view(Shades(40), indices=[]) == []


def test_digits_in_memory_have_one_view() -> None:
    batches = view(Digits(), batch_size=100)
    images = torch.cat([batch.images[batch.counted] for batch in batches])
    labels = torch.cat([batch.labels[batch.counted] for batch in batches])
    split = Digits().split("eval")
    assert {batch.views for batch in batches} == {1}
    assert torch.equal(images, split.images)
    assert torch.equal(labels, split.labels)


def test_the_views_of_a_sample_stand_together() -> None:
    case = make_case(view={"spatial_crops": 3})
    (batch,) = view(Shades(4), case, batch_size=4)
    assert batch.views == 3
    assert batch.images.shape == (12, 3, SIZE, SIZE)
    assert shades(batch.images) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert batch.labels.tolist() == [0, 1, 2, 3]


def test_samples_without_labels_are_seen_as_such() -> None:
    dataset = Shades(4, missing=[1], labels={0: (1, 2), 2: (), 3: (9,)})
    case = make_case(view={"max_unreadable": 0.25})
    (batch,) = view(dataset, case, batch_size=4)
    assert batch.labels.shape == (4, 10)
    assert batch.labels.sum(dim=1).tolist() == [2, 0, 0, 1]
    assert batch.counted.tolist() == [True, False, True, True]


def test_a_view_that_is_not_plain_is_made_of_stored_samples() -> None:
    dataset = open_dataset(make_case(), None)
    plain = view(dataset)[0].images
    (first, *_) = view(dataset, make_case(view={"normalize": "imagenet"}))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)  # of ImageNet, by timm
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = ((plain + 1) / 2 - mean) / deviation
    half_a_shade = 0.5 / 255 / 0.224
    assert torch.allclose(first.images, expected, atol=half_a_shade)


def test_a_split_in_memory_serves_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnlyInMemory(Shades):
        def split(self, name: SplitName) -> Split:
            return Split(torch.zeros(40, 3, 4, 4), torch.arange(40) % 10)

        def read(self, index: int) -> tuple[list[Image.Image], Label]:
            raise AssertionError("nothing has to be read")

    assert len(train(OnlyInMemory(40))) == 5
    assert len(view(OnlyInMemory(40))) == 5
