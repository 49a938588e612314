"""Images in tar files, as WebDataset writes them: `KEY.jpg` beside `KEY.cls`.

M images of a split.
"""

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tlbench.data import SplitName
from tlbench.data.image_files import SUFFIXES, decode
from tlbench.data.naming import SPLIT_NAMES, files_of_split
from tlbench.errors import TrialError, UnreadableSampleError

LABELS = (".cls", ".json")
"""How the names of labels end: the number itself, or an object with one as `label`."""


class _Sample(NamedTuple):
    """Where in its shard a sample lies, in bytes."""

    key: str
    image_start: int
    image_size: int
    label_start: int
    label_size: int


@dataclass(frozen=True)
class StoredShards:
    """Labelled images in tar files, each read from where it lies."""

    shards: Sequence[str]
    keys: np.ndarray
    """[M] bytes."""
    places: np.ndarray
    """[M, 5] int64: the shard, then as in `_Sample`."""

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, index: int) -> str:
        shard = Path(self.shards[self.places[index, 0]]).name
        return f"{shard}/{os.fsdecode(self.keys[index])}"

    def label(self, index: int) -> int:
        shard, _, _, start, size = self.places[index].tolist()
        text = self._bytes(shard, start, size)
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        label = value.get("label") if isinstance(value, dict) else value
        if type(label) is not int:
            raise TrialError(
                f"{self.name(index)}: its label is {text[:40]!r}; a whole number would"
                " do, or an object with one as label"
            )
        return label

    def read(self, index: int) -> tuple[list[Image.Image], int]:
        shard, start, size, _, _ = self.places[index].tolist()
        return [decode(BytesIO(self._bytes(shard, start, size)))], self.label(index)

    def _bytes(self, shard: int, start: int, size: int) -> bytes:
        try:
            with Path(self.shards[shard]).open("rb") as file:
                file.seek(start)
                return file.read(size)
        except OSError as error:
            raise UnreadableSampleError(f"{error.strerror}") from error


class TarShards:
    """`ROOT/*.tar` whose names say train or val, or `ROOT/train/*.tar` and so on."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def stored(self, split: SplitName) -> StoredShards:
        found = find_shards(self._root)
        shards = files_of_split(self._root, found, split)
        if not shards:
            raise TrialError(
                f"{self._root}: none of the {len(found)} tar files is for {split};"
                f" their names would have {' or '.join(SPLIT_NAMES[split])} in them"
            )
        samples = [
            (number, *sample)
            for number, shard in enumerate(shards)
            for sample in _samples(shard)
        ]
        return StoredShards(
            [str(shard) for shard in shards],
            np.array([os.fsencode(sample[1]) for sample in samples]),
            np.array([(sample[0], *sample[2:]) for sample in samples]),
        )


def find_shards(root: Path, pattern: str = "*.tar") -> list[Path]:
    """The files in the folder, or in folders of its splits, sorted by their paths."""
    splits = [root / name for names in SPLIT_NAMES.values() for name in names]
    folders = (root, root / "data", *splits)
    return sorted(file for folder in folders for file in folder.glob(pattern))


def _samples(shard: Path) -> Iterator[_Sample]:
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, tarfile.TarInfo] = {}
    for member in _members(shard):
        folder, _, file = member.name.rpartition("/")
        stem, _, ending = file.partition(".")  # WebDataset's keys end at the first dot
        if f".{ending.lower()}" in SUFFIXES:
            images[f"{folder}/{stem}"] = member
        elif f".{ending.lower()}" in LABELS:
            labels.setdefault(f"{folder}/{stem}", member)
    if not images:
        raise TrialError(f"{shard}: there are no images in it")
    for key, image in images.items():
        label = labels.get(key)
        if label is None:
            raise TrialError(
                f"{shard}: {image.name} has no label; {Path(image.name).stem}.cls"
                " beside it would do, or .json"
            )
        yield _Sample(
            key.lstrip("/"),
            image.offset_data,
            image.size,
            label.offset_data,
            label.size,
        )


def _members(shard: Path) -> list[tarfile.TarInfo]:
    try:
        with tarfile.open(shard, "r:") as tar:
            return tar.getmembers()
    except (tarfile.TarError, OSError) as error:
        raise TrialError(f"{shard} cannot be read as a tar file: {error}") from error
