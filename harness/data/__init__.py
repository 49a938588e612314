"""Where samples come from: one small class per data set, imported when it is asked for.

M samples in a split, C channels (3), S image size.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Literal, Protocol

import torch
from torch import Tensor

from tlbench.errors import SuiteError

SplitName = Literal["train", "eval"]

DATASETS: dict[str, str] = {
    "digits": "tlbench.data.digits:Digits",
    "synthetic": "tlbench.data.synthetic:Synthetic",
}


@dataclass(frozen=True)
class Split:
    """Labelled images in memory, at the resolution at which they were recorded."""

    images: Tensor
    """[M, C, H, W] float32 in [-1, 1]."""
    labels: Tensor
    """[M] int64."""

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, image_size: int) -> tuple[Tensor, Tensor]:
        """Images [B, C, S, S] scaled to the model's size, and labels [B]."""
        images = self.images[indices]
        if images.shape[-1] != image_size:
            images = torch.nn.functional.interpolate(
                images, size=(image_size, image_size), mode="bilinear", antialias=True
            )
        return images, self.labels[indices]


class Dataset(Protocol):
    """A labelled set of images with a fixed split."""

    num_classes: int

    def split(self, name: SplitName) -> Split: ...


def load_dataset(name: str) -> Dataset:
    """Import and open the data set called `name`."""
    if name not in DATASETS:
        raise SuiteError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    module, attribute = DATASETS[name].split(":")
    dataset: Dataset = getattr(import_module(module), attribute)()
    return dataset
