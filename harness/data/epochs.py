"""Batches for training to accuracy and for evaluation, the same whoever loads them.

B samples of this rank in one step, C channels (3), F frames, K classes, S image size, V
views of a sample.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tlbench.data import Dataset, Held, Split, SplitName, Stored, hold
from tlbench.data.loader import PREFETCHED_BATCHES, TIMEOUT_S, Batches
from tlbench.data.samples import Reader, Sample, make_targets, most_unreadable
from tlbench.data.transforms import (
    Variation,
    Views,
    draw_seed,
    is_varied,
    mix,
    timm_draws,
)
from tlbench.rank import Rank
from tlbench.suites.spec import Case
from tlbench.suites.training import View

MAX_WORKERS = 16
"""Processes that load for one rank: what they have made waits in memory."""
PLAIN = View()


@dataclass(frozen=True)
class Viewed:
    """A batch to evaluate: the views of each sample stand together."""

    images: Tensor
    """[B * V, C, S, S], or clips [B * V, C, F, S, S]; float32 on the host."""
    views: int
    labels: Tensor
    """[B] int64; or [B, K] float32, where samples may have several or none."""
    counted: Tensor
    """[B] bool: neither padding nor unreadable."""


class _Batch(NamedTuple):
    """What a process that loads hands over."""

    images: Tensor
    """[B, C, S, S] or [B, C, F, S, S]; of views [B, V, ...]."""
    labels: Tensor
    counted: Tensor
    unreadable: dict[str, str]
    """All that this process could not read so far, and why."""


_Make = Callable[[Tensor], _Batch]
"""Makes a batch of the samples with these indices, [B]."""


def training_batches(
    dataset: Dataset,
    case: Case,
    rank: Rank,
    *,
    seed: int,
    epoch: int,
    first_step: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """This rank's batches of one epoch; the seed and their place in it decide them.

    A last batch that is not full is left out.

    Args:
        dataset: What is trained on.
        case: How samples are varied, and mixed.
        rank: Which part of each batch it is.
        seed: Of the trial.
        epoch: From 0; each has an order and variations of its own.
        first_step: Where to go on in the epoch.

    Yields:
        Images [B, C, S, S] or clips [B, C, F, S, S], float32 on the host, and targets:
        int64 [B]; or float32 [B, K], where samples are mixed, or may have several
        labels or none.
    """
    held = hold(dataset, "train")
    order = _training_order(len(held.stored), case, rank, seed, epoch)
    make: _Make
    if held.split is not None and not is_varied(case.augment) and _is_plain(case.view):
        make = _FromMemory(held.split, case.model.image_size)
    else:
        make = _Varied(held.stored, case, seed, epoch)
    steps = _Steps(make, order)
    if case.augment.mixup or case.augment.cutmix:
        steps = _MixedSteps(make, order, case, (seed, epoch, rank.rank))
    for batch in _load(steps, range(first_step, len(order)), held, case, rank):
        yield batch.images, batch.labels


def view_batches(
    dataset: Dataset,
    split: SplitName,
    case: Case,
    rank: Rank,
    *,
    batch_size: int,
    indices: Sequence[int] | None = None,
) -> Iterator[Viewed]:
    """This rank's share of a split as evaluation sees it, in the order of the samples.

    Each rank gets equally many batches, as sharded parameters (ZeRO 3) demand: the last
    ones are filled up with samples that do not count.

    Args:
        dataset: What is evaluated on.
        split: Which part of it.
        case: What of a sample is seen.
        rank: Which share it is; the batches go round the ranks.
        batch_size: Samples in each batch of each rank.
        indices: Some samples, by their places in the split; None: all of them.
    """
    held = hold(dataset, split)
    chosen = (
        torch.arange(len(held.stored)) if indices is None else torch.tensor(indices)
    )
    make: _Make
    if held.split is not None and _is_plain(case.view):
        make = _FromMemory(held.split, case.model.image_size)
    else:
        make = _Seen(held.stored, case)
    places = _places(len(chosen), rank, batch_size)
    steps = _Steps(make, chosen[places % max(len(chosen), 1)])
    batches = _load(steps, range(len(places)), held, case, rank)
    for batch, is_sample in zip(batches, places < len(chosen), strict=True):
        images = batch.images
        if steps.is_in_memory:
            images = images[:, None]
        yield Viewed(
            images.flatten(0, 1),
            images.shape[1],
            batch.labels,
            batch.counted & is_sample,
        )


def _training_order(
    count: int, case: Case, rank: Rank, seed: int, epoch: int
) -> Tensor:
    """This rank's samples of each step, [steps, B]."""
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    order = torch.randperm(count, generator=generator)
    steps = count // case.global_batch_size
    whole = order[: steps * case.global_batch_size]
    return whole.view(steps, case.global_batch_size)[:, rank.rank :: rank.world_size]


def _places(count: int, rank: Rank, batch_size: int) -> Tensor:
    """This rank's places of each step, [steps, B]; from `count` on they are padding."""
    per_step = batch_size * rank.world_size
    steps = -(-count // per_step)
    places = torch.arange(steps * per_step)
    return places.view(steps, rank.world_size, batch_size)[:, rank.rank]


def _is_plain(view: View) -> bool:
    """Whether samples in memory look that way without further ado."""
    return all(
        getattr(view, name) == getattr(PLAIN, name)
        for name in ("normalize", "crop_fraction", "interpolation", "spatial_crops")
    )


# ---------------------------------------------------------------- making batches


class _FromMemory:
    """Samples that lie in memory, as they are."""

    def __init__(self, split: Split, image_size: int) -> None:
        self._split, self._image_size = split, image_size

    def __call__(self, indices: Tensor) -> _Batch:
        images, labels = self._split.batch(indices, self._image_size)
        return _Batch(images, labels, torch.ones(len(indices), dtype=torch.bool), {})


class _Varied:
    """Stored samples, each varied by random numbers of its own."""

    def __init__(self, stored: Stored, case: Case, seed: int, epoch: int) -> None:
        self._reader, self._variation = Reader(stored, case), Variation(case)
        self._num_classes = case.num_classes
        self._seed, self._epoch = seed, epoch

    def __call__(self, indices: Tensor) -> _Batch:
        images, labels = [], []
        for index in indices.tolist():
            with drawing(self._seed, self._epoch, index):
                frames, label = self._reader.read_or_next(index)
                images.append(self._variation(frames))
            labels.append(label)
        return _Batch(
            torch.stack(images),
            make_targets(labels, self._num_classes),
            torch.ones(len(indices), dtype=torch.bool),
            self._reader.unreadable.reasons,
        )


class _Seen:
    """The views of stored samples; an unreadable one is black, and does not count."""

    def __init__(self, stored: Stored, case: Case) -> None:
        self._reader, self._views = Reader(stored, case), Views(case)
        self._num_classes = case.num_classes
        self._black = torch.zeros(self._views.count, *case.model.sample_shape)

    def __call__(self, indices: Tensor) -> _Batch:
        samples = [self._read(index) for index in indices.tolist()]
        labels = [sample[1] for sample in samples if sample is not None]
        # What stands in for the label of an unreadable one is of the others' kind.
        stand_in = () if any(isinstance(label, tuple) for label in labels) else 0
        return _Batch(
            torch.stack(
                [self._black if s is None else self._views(s[0]) for s in samples]
            ),
            make_targets(
                [stand_in if s is None else s[1] for s in samples], self._num_classes
            ),
            torch.tensor([sample is not None for sample in samples]),
            self._reader.unreadable.reasons,
        )

    def _read(self, index: int) -> Sample | None:
        # Of a training video a clip is drawn: the same one whoever loads it, and when.
        with drawing(0, index):
            return self._reader.read(index)


class _Steps(torch.utils.data.Dataset[_Batch]):
    """The batch of each step, made when it is asked for."""

    def __init__(self, make: _Make, order: Tensor) -> None:
        """Take the samples from `order`, [steps, B]."""
        self._make, self._order = make, order

    @property
    def is_in_memory(self) -> bool:
        """Whether there is hardly any work to share out."""
        return isinstance(self._make, _FromMemory)

    def __getitem__(self, step: int) -> _Batch:
        return self._make(self._order[step])


class _MixedSteps(_Steps):
    """The same with the samples of each batch mixed."""

    def __init__(
        self, make: _Make, order: Tensor, case: Case, key: tuple[int, int, int]
    ) -> None:
        super().__init__(make, order)
        self._augment, self._num_classes = case.augment, case.num_classes
        self._key = key

    def __getitem__(self, step: int) -> _Batch:
        batch = super().__getitem__(step)
        targets = batch.labels
        if targets.ndim == 1:
            targets = torch.nn.functional.one_hot(targets, self._num_classes).float()
        with drawing(*self._key, step), timm_draws(draw_seed()):
            images, targets = mix(batch.images, targets, self._augment)
        return batch._replace(images=images, labels=targets)


@contextmanager
def drawing(seed: int, *place: int) -> Iterator[None]:
    """Draw numbers that the seed and the place decide, and disturb no others.

    By torch's default generator, which dropout on a CPU draws from, too.
    """
    state = torch.get_rng_state()
    sequence = np.random.SeedSequence(seed, spawn_key=place)
    torch.default_generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
    try:
        yield
    finally:
        torch.set_rng_state(state)


# ---------------------------------------------------------------- loading


def _load(
    steps: _Steps, numbers: range, held: Held, case: Case, rank: Rank
) -> Iterator[_Batch]:
    """The batches of these steps, in order; what they could not read is counted."""
    workers = 0 if steps.is_in_memory else _workers(rank)
    loader = DataLoader(
        steps,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=rank.device == "cuda",
        timeout=TIMEOUT_S if workers else 0,
        prefetch_factor=PREFETCHED_BATCHES if workers else None,
        generator=torch.Generator(),  # its numbers decide nothing, and torch's do
    )
    limit = most_unreadable(held.stored, case)
    with Batches(loader) as batches:
        for _ in numbers:
            batch = batches.take()
            held.unreadable.reasons.update(batch.unreadable)
            if held.unreadable.count > limit:
                raise held.unreadable.as_error(limit)
            yield batch


def _workers(rank: Rank) -> int:
    """This rank's share of the cores of its machine."""
    cores = len(os.sched_getaffinity(0))
    return min(max(cores // rank.local_world_size, 1), MAX_WORKERS)


def _as_it_is(batch: Any) -> Any:
    return batch
