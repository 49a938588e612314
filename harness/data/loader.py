"""Batches of torch's DataLoader: stored samples, decoded when they are asked for.

B samples of this rank in one step, C channels (3), F frames, K classes, S image size.
"""

import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from tlbench.data import Stored
from tlbench.data.samples import Reader, make_targets
from tlbench.errors import TrialError
from tlbench.measure.timing import Moment, moment, seconds_between
from tlbench.rank import Rank
from tlbench.suites.spec import Case

Batch = tuple[Tensor, Tensor]
"""Images [B, C, S, S] or clips [B, C, F, S, S], and labels [B], or [B, K] where a
sample may have several of the K classes."""
Item = TypeVar("Item")

PREFETCHED_BATCHES = 2
"""Batches that each worker makes ahead; torch's own default."""
TIMEOUT_S = 300.0
"""A batch that takes longer is not coming any more."""


class Samples(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Stored samples made ready for a model: [C, S, S] or [C, F, S, S] in [-1, 1]."""

    def __init__(self, stored: Stored, case: Case) -> None:
        self._stored = stored
        self._reader = Reader(stored, case)
        self._num_classes = case.num_classes
        self._is_clip = case.model.video is not None
        self._transform = _transform(case)

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """The sample, or the next one that can be read: only speed is measured."""
        frames, label = self._reader.read_or_next(index)
        images = self._transform(frames)  # all frames alike
        sample = torch.stack(images, dim=1) if self._is_clip else images[0]
        return sample, make_targets([label], self._num_classes)[0]


def _transform(case: Case) -> Callable[..., list[Tensor]]:
    """What ViTs are commonly trained and evaluated on: random or central crops."""
    from torchvision.transforms import v2  # slow to import, and few trials need it

    size = case.model.image_size
    crop = (
        [v2.Resize(size), v2.CenterCrop(size)]
        if case.mode == "infer"
        else [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()]
    )
    transform: Callable[..., list[Tensor]] = v2.Compose(
        [
            *crop,
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
            v2.ToPureTensor(),
        ]
    )
    return transform


def make_loader(case: Case, stored: Stored, rank: Rank, seed: int) -> DataLoader[Batch]:
    """Endless batches of this rank, in an order that the seed decides."""
    samples, workers = Samples(stored, case), case.input.workers
    generator = torch.Generator().manual_seed(seed * 100_003 + rank.rank)
    return DataLoader(
        samples,
        batch_size=case.global_batch_size // rank.world_size,
        sampler=RandomSampler(samples, num_samples=sys.maxsize, generator=generator),
        num_workers=workers,
        pin_memory=rank.device == "cuda",
        drop_last=True,
        timeout=TIMEOUT_S if workers else 0,
        prefetch_factor=PREFETCHED_BATCHES if workers else None,
        generator=generator,
    )


class Batches(Generic[Item]):
    """The batches of a loader, one after another; its workers end with the block."""

    def __init__(self, loader: DataLoader[Item]) -> None:
        self._loader = loader
        self._iterator: Iterator[Item] | None = None

    def __enter__(self) -> Self:
        self._iterator = iter(self._loader)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._iterator = None  # torch ends its workers when nobody holds it

    def take(self) -> Item:
        """The next batch, once it is there."""
        if self._iterator is None:
            raise ValueError("batches are taken inside the block only")
        try:
            return next(self._iterator)
        except (MemoryError, torch.OutOfMemoryError):
            raise  # known by what it is
        except Exception as error:  # a worker died, hung, or met any error itself
            if self._loader.num_workers == 0:
                raise
            what = str(error).strip().rpartition("\n")[2]  # of its traceback, say
            raise TrialError(
                f"the loader (workers: {self._loader.num_workers}) failed: {what}"
            ) from error


class Feed(Batches[Batch]):
    """Batches on the device of a rank, and how long each was waited for."""

    def __init__(
        self, loader: DataLoader[Batch], device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__(loader)
        self._device, self._dtype = device, dtype
        self._waits: list[tuple[Moment, Moment]] = []

    def take(self) -> Batch:
        start = moment(self._device)
        images, labels = super().take()
        self._waits.append((start, moment(self._device)))
        # Two steps: a copy that also converts would wait for the host.
        images = images.to(self._device, non_blocking=True).to(self._dtype)
        return images, labels.to(self._device, non_blocking=True)

    def waits_s(self) -> list[float]:
        """Seconds that the device stood still for each batch taken."""
        return [seconds_between(start, end) for start, end in self._waits]
