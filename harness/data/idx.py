"""MNIST-style idx files: small grey pictures of one byte a pixel, held in memory.

M pictures of H x W pixels.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tlbench.data import Split, SplitName
from tlbench.errors import TrialError

PREFIXES: dict[SplitName, str] = {"train": "train", "eval": "t10k"}
UNSIGNED_BYTES = 8
"""The code of the type; idx has others, which no such data set uses."""


class Idx:
    """`train-images-idx3-ubyte` and its three companions, compressed by gzip or not."""

    folder = "*"
    """What the folder around `raw/` may be called, where torchvision has put them."""

    def __init__(self, *, path: str, num_classes: int, **_: object) -> None:
        """Name the files; a clip or a view of them is not to be had."""
        self.num_classes = num_classes
        self._root = Path(path)
        self._arrays: dict[SplitName, tuple[np.ndarray, np.ndarray]] = {}

    def split(self, name: SplitName) -> Split:
        pictures, labels = self._read(name)
        grey = torch.from_numpy(pictures.astype(np.float32)).unsqueeze(1)
        # The three channels share their memory: of 60,000 pictures it is much.
        return Split(
            images=grey.div_(127.5).sub_(1).expand(-1, 3, -1, -1),
            labels=torch.from_numpy(labels.astype(np.int64)),
        )

    def stored(self, split: SplitName) -> "StoredPictures":
        return StoredPictures(*self._read(split))

    def _read(self, split: SplitName) -> tuple[np.ndarray, np.ndarray]:
        if split not in self._arrays:
            self._arrays[split] = self._checked(split)
        return self._arrays[split]

    def _checked(self, split: SplitName) -> tuple[np.ndarray, np.ndarray]:
        pictures = read_idx(self._find(f"{PREFIXES[split]}-images?idx3-ubyte"), 3)
        labels = read_idx(self._find(f"{PREFIXES[split]}-labels?idx1-ubyte"), 1)
        if len(pictures) != len(labels):
            raise TrialError(
                f"{self._root}: {len(pictures)} pictures are there for {split}, and"
                f" {len(labels)} labels"
            )
        if len(labels) and labels.max() >= self.num_classes:
            raise TrialError(
                f"{self._root}: a label is {labels.max()}, and {self.num_classes}"
                f" classes are numbered from 0 to {self.num_classes - 1}"
            )
        return pictures, labels

    def _find(self, name: str) -> Path:
        found = _matches(self._root, name, self.folder)
        shown = name.replace("?", "-")
        if not found:
            raise TrialError(
                f"{self._root}: there is no {shown}, nor one with .gz after it"
            )
        folders = sorted({str(file.parent) for file in found})
        if len(folders) > 1:
            raise TrialError(
                f"{self._root}: {shown} is in {' and in '.join(folders)}; the path of"
                " one of them would do"
            )
        return found[0]


class Mnist(Idx):
    """Handwritten digits."""

    folder = "MNIST"


class FashionMnist(Idx):
    """Photographs of clothes."""

    folder = "FashionMNIST"


class StoredPictures:
    """The same pictures one by one; there is nothing to decode."""

    def __init__(self, pictures: np.ndarray, labels: np.ndarray) -> None:
        """Take the bytes, [M, H, W], and the labels, [M]."""
        self._pictures, self._labels = pictures, labels

    def __len__(self) -> int:
        return len(self._labels)

    def name(self, index: int) -> str:
        return f"picture {index}"

    def label(self, index: int) -> int:
        return int(self._labels[index])

    def read(self, index: int) -> tuple[list[Image.Image], int]:
        picture = Image.fromarray(self._pictures[index]).convert("RGB")
        return [picture], self.label(index)


def has_idx_files(root: Path) -> bool:
    """Whether the folder holds such files to train on or to evaluate on."""
    return any(
        _matches(root, f"{prefix}-images?idx3-ubyte") for prefix in PREFIXES.values()
    )


def read_idx(file: Path, dimensions: int) -> np.ndarray:
    """The unsigned bytes of an idx file of so many dimensions.

    Its header is two zeros, the type, the number of dimensions, and the length of each
    in four bytes, the highest first.
    """
    try:
        content = (
            gzip.decompress(file.read_bytes())
            if file.suffix == ".gz"
            else file.read_bytes()
        )
    except (OSError, EOFError, zlib.error) as error:
        raise TrialError(f"{file} cannot be read: {error}") from error
    start = 4 + 4 * dimensions
    expected = bytes((0, 0, UNSIGNED_BYTES, dimensions))
    if content[:4] != expected or len(content) < start:
        begins = content[:4].hex(" ") or "nothing"
        raise TrialError(
            f"{file}: an idx file of {dimensions} dimensions begins with"
            f" {expected.hex(' ')}, and this one with {begins}"
        )
    lengths = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    values = np.frombuffer(content, np.uint8, offset=start)
    if len(values) != math.prod(lengths):
        raise TrialError(
            f"{file}: its header promises {' x '.join(map(str, lengths))} bytes, and"
            f" there are {len(values)}"
        )
    return values.reshape(lengths)


def _matches(root: Path, name: str, folder: str = "*") -> list[Path]:
    """The files of that name, where torchvision too puts them (MNIST/raw/).

    Those nearest to the root count.
    """
    for place in ("", "raw/", f"{folder}/raw/"):
        found = [
            file
            for ending in ("", ".gz")
            for file in sorted(root.glob(f"{place}{name}{ending}"))
        ]
        if found:
            return found
    return []
