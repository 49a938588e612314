"""The 1,797 real handwritten digits that scikit-learn ships (UCI, 8 x 8 grey)."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tlbench.data import Split, SplitName
from tlbench.errors import TrialError

EVERY_FIFTH = 5


class Digits:
    """Digits in three equal channels; every fifth of each class is for evaluation."""

    num_classes = 10

    def __init__(self, **_: object) -> None:
        """Open the digits, which are everywhere the same, whatever else a case says."""
        table = np.loadtxt(_digits_file(), delimiter=",", dtype=np.float32)
        self._pixels, self._labels = table[:, :-1], table[:, -1].astype(np.int64)

    def split(self, name: SplitName) -> Split:
        chosen = self._is_in(name)
        grey = torch.from_numpy(self._pixels[chosen]).view(-1, 1, 8, 8)
        return Split(
            images=(grey / 8 - 1).expand(-1, 3, -1, -1).contiguous(),  # 0..16 stored
            labels=torch.from_numpy(self._labels[chosen]),
        )

    def stored(self, split: SplitName) -> "StoredDigits":
        chosen = self._is_in(split)
        return StoredDigits(self._pixels[chosen], self._labels[chosen])

    def _is_in(self, split: SplitName) -> np.ndarray:
        is_held_out = _is_for_evaluation(self._labels)
        return is_held_out if split == "eval" else ~is_held_out


class StoredDigits:
    """Grey pictures of one byte a pixel; there is nothing to decode."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        shades = np.rint(pixels * (255 / 16)).astype(np.uint8)
        self._pictures, self._labels = shades.reshape(-1, 8, 8), labels

    def __len__(self) -> int:
        return len(self._labels)

    def name(self, index: int) -> str:
        return f"digit {index}"

    def read(self, index: int) -> tuple[list[Image.Image], int]:
        picture = Image.fromarray(self._pictures[index]).convert("RGB")
        return [picture], int(self._labels[index])


def _is_for_evaluation(labels: np.ndarray) -> np.ndarray:
    """Mark every fifth sample of each class: stratified, and the same for ever."""
    marks = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        marks[np.flatnonzero(labels == label)[EVERY_FIFTH - 1 :: EVERY_FIFTH]] = True
    return marks


def _digits_file() -> Path:
    # Importing scikit-learn for this one file would cost each trial half a second.
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise TrialError("data set digits: scikit-learn, which ships it, is missing")
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
