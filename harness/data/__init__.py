"""Where samples come from: one small class per data set, imported when it is asked for.

M samples in a split, C channels (3), F frames, S image size.
"""

from dataclasses import dataclass, field
from importlib import import_module
from typing import Literal, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from PIL.Image import Image
from torch import Tensor

from tlbench.errors import TrialError
from tlbench.suites.paths import why_no_path
from tlbench.suites.spec import Case

SplitName = Literal["train", "eval"]
Label = int | tuple[int, ...]
"""One class; or any number of them, or none, where a sample may have several."""

DATASETS: dict[str, str] = {
    "digits": "tlbench.data.digits:Digits",
    "synthetic": "tlbench.data.synthetic:Synthetic",
    "fashion-mnist": "tlbench.data.idx:FashionMnist",
    "mnist": "tlbench.data.idx:Mnist",
    "imagenet-1k": "tlbench.data.images:Images",
    "imagenet-21k": "tlbench.data.imagenet:ImageNet21k",
    "imagenet-real": "tlbench.data.imagenet:ImageNetReal",
    "objectnet": "tlbench.data.imagenet:ObjectNet",
}
CLIP_DATASETS: dict[str, str] = {
    "synthetic": "tlbench.data.synthetic:SyntheticClips",
    "moving-digits": "tlbench.data.moving_digits:MovingDigits",
    "kinetics-400": "tlbench.data.kinetics:Kinetics",
    "kinetics-600": "tlbench.data.kinetics:Kinetics",
    "charades": "tlbench.data.charades:Charades",
    "avid": "tlbench.data.avid:Avid",
}
OWN_IMAGES = "tlbench.data.images:open_own_images"
OWN_CLIPS = "tlbench.data.video_lists:OwnVideos"
"""What reads data of the user's own, by what lies at the path."""

LISTED = 20
"""Most unreadable samples that a message names."""


@dataclass(frozen=True)
class Split:
    """Labelled images or clips in memory, at the resolution they were recorded in."""

    images: Tensor
    """[M, C, H, W], or clips [M, C, F, H, W]; float32 in [-1, 1]."""
    labels: Tensor
    """[M] int64."""

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, image_size: int) -> tuple[Tensor, Tensor]:
        """Images [B, C, S, S] or clips [B, C, F, S, S], scaled to the model's size.

        And their labels [B].
        """
        images = self.images[indices]
        if images.shape[-1] != image_size:
            channels = images.flatten(1, -3)  # those of all frames
            scaled = torch.nn.functional.interpolate(
                channels, size=(image_size, image_size), mode="bilinear", antialias=True
            )
            scaled.clamp_(-1, 1)  # the weights of a pixel add up to 1 but for rounding
            images = torch.unflatten(scaled, 1, images.shape[1:-2])
        return images, self.labels[indices]


class Stored(Protocol):
    """Labelled images or clips as they are stored: a loader reads them one by one."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What a message calls the sample."""
        ...

    def read(self, index: int) -> tuple[list[Image], Label]:
        """The RGB frames of a sample, an image being a single one, and its label.

        To train on, the frames of one clip of a video, drawn by torch's default
        generator; to evaluate on, those of all its clips, one clip after another.

        Raises:
            UnreadableSampleError: The sample is broken, too short or missing.
        """
        ...


class Dataset(Protocol):
    """A labelled set of images or clips with a fixed split.

    Its class is called as `Class(path=, video=, view=, num_classes=)`.
    """

    num_classes: int

    def stored(self, split: SplitName, /) -> Stored: ...


@runtime_checkable
class InMemory(Dataset, Protocol):
    """A data set that is small enough to be held as tensors too."""

    def split(self, name: SplitName, /) -> Split: ...


def open_dataset(case: Case, path: str | None) -> Dataset:
    """Import and open the data set of the case: its images, or clips for a video model.

    Args:
        case: What it is called, and how clips are taken of it.
        path: Where it lies; None only of data that come with tlbench.
    """
    if path is None and not case.data_info.is_embedded:
        raise TrialError(why_no_path(case.data))
    module, attribute = _class_of(case).split(":")
    dataset: Dataset = getattr(import_module(module), attribute)(
        path=path,
        video=case.model.video,
        view=case.view,
        num_classes=case.num_classes,
    )
    return dataset


def _class_of(case: Case) -> str:
    if case.model.video is None:
        return DATASETS.get(case.data, OWN_IMAGES)
    return CLIP_DATASETS.get(case.data, OWN_CLIPS)


# ---------------------------------------------------------------- what is held of it


@dataclass
class Unreadable:
    """The samples of one split that could not be read, as far as this process met any.

    Training takes the next sample in place of such a one, and evaluation leaves it out.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    """Why, by the name of each sample."""

    @property
    def count(self) -> int:
        return len(self.reasons)

    def as_error(self, limit: int) -> TrialError:
        """What to raise where they are more than `view.max_unreadable` allows."""
        return TrialError(
            f"{self.count} samples cannot be read, and view.max_unreadable allows"
            f" {limit}: {self.describe()}"
        )

    def describe(self) -> str:
        """Name the samples, each with its reason; of many the first ones."""
        named = [f"{name} ({reason})" for name, reason in self.reasons.items()]
        rest = f"; {self.count - LISTED} more" if self.count > LISTED else ""
        return "; ".join(named[:LISTED]) + rest


@dataclass
class Held:
    """What a process holds of one split of a data set, from one epoch to the next."""

    stored: Stored
    """Looked up once: the files of a large set take their time to list."""
    split: Split | None
    """None: it is not in memory."""
    unreadable: Unreadable = field(default_factory=Unreadable)


_held: WeakKeyDictionary[Dataset, dict[SplitName, Held]] = WeakKeyDictionary()


def hold(dataset: Dataset, split: SplitName) -> Held:
    """What is held of the split, always the same."""
    splits = _held.setdefault(dataset, {})
    if split not in splits:
        splits[split] = Held(
            dataset.stored(split),
            dataset.split(split) if isinstance(dataset, InMemory) else None,
        )
    return splits[split]


def unreadable(dataset: Dataset, split: SplitName) -> Unreadable:
    """The account of what could not be read of the split so far."""
    return hold(dataset, split).unreadable
