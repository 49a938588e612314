"""Where samples come from: one small class per data set, imported when it is asked for.

M samples in a split, C channels (3), F frames, S image size.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Literal, Protocol

import torch
from PIL.Image import Image
from torch import Tensor

from tlbench.errors import SuiteError
from tlbench.suites.model_spec import VideoSpec

SplitName = Literal["train", "eval"]

DATASETS: dict[str, str] = {
    "digits": "tlbench.data.digits:Digits",
    "synthetic": "tlbench.data.synthetic:Synthetic",
}
CLIP_DATASETS: dict[str, str] = {
    "synthetic": "tlbench.data.synthetic:SyntheticClips",
}
"""The same for models of clips; each class is given the frames of a clip."""


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
            images = torch.unflatten(scaled, 1, images.shape[1:-2])
        return images, self.labels[indices]


class Stored(Protocol):
    """Labelled images or clips as they are stored: a loader reads them one by one."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[list[Image], int]:
        """The frames of a sample, an image being a single one, and its label."""
        ...


class Dataset(Protocol):
    """A labelled set of images or clips with a fixed split."""

    num_classes: int

    def split(self, name: SplitName) -> Split: ...


class StoredDataset(Dataset, Protocol):
    """A data set that a loader can read as well."""

    def stored(self) -> Stored:
        """The samples for training."""
        ...


def load_dataset(name: str, video: VideoSpec | None = None) -> StoredDataset:
    """Import and open the data set called `name`: its images, or clips for `video`."""
    known = DATASETS if video is None else CLIP_DATASETS
    if name not in known:
        kind = "data set" if video is None else "data set of clips"
        raise SuiteError(f"unknown {kind} {name!r}; known: {', '.join(known)}")
    module, attribute = known[name].split(":")
    arguments = () if video is None else (video.num_frames,)
    dataset: StoredDataset = getattr(import_module(module), attribute)(*arguments)
    return dataset
