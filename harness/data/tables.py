"""Images in tables of Hugging Face `datasets`: saved on disk, or Parquet files."""

import importlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from tlbench.data import SplitName
from tlbench.data.image_files import decode
from tlbench.data.naming import SPLIT_NAMES, files_of_split, split_name
from tlbench.data.shards import find_shards
from tlbench.errors import TrialError, UnreadableSampleError, UnsupportedError

SAVED = "dataset_dict.json"
"""What `DatasetDict.save_to_disk` leaves in its folder."""


@dataclass(frozen=True)
class Parts:
    """What the rows of a table were put together of."""

    names: Sequence[str]
    starts: Sequence[int]
    """The number of the first row of each."""


@dataclass(frozen=True)
class StoredTable:
    """The rows of one split."""

    rows: Any
    """A `datasets.Dataset` whose images are left encoded."""
    image: str
    label_column: str
    labels: Any
    """The same rows without their images."""
    parts: Parts
    """Where the rows come from, one part after another."""

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        part = bisect_right(self.parts.starts, index) - 1
        return f"{self.parts.names[part]}/row {index - self.parts.starts[part]}"

    def label(self, index: int) -> int:
        return int(self.labels[index][self.label_column])

    def read(self, index: int) -> tuple[list[Image.Image], int]:
        row = self.rows[index]
        encoded = row[self.image]
        if encoded is None or (encoded["bytes"] is None and encoded["path"] is None):
            raise UnreadableSampleError("there is no image in it")
        file = (
            encoded["path"] if encoded["bytes"] is None else BytesIO(encoded["bytes"])
        )
        return [decode(file)], int(row[self.label_column])


class Tables:
    """A `DatasetDict` saved at ROOT, or Parquet files in ROOT/ or ROOT/data/."""

    def __init__(self, root: Path, num_classes: int) -> None:
        self._root, self._num_classes = root, num_classes
        self._datasets = _library(root)

    def stored(self, split: SplitName) -> StoredTable:
        saved = (self._root / SAVED).is_file()
        rows, parts = self._saved(split) if saved else self._parquet(split)
        image, label = self._columns(rows.features)
        return StoredTable(
            rows.cast_column(image, self._datasets.Image(decode=False)),
            image,
            label,
            rows.select_columns([label]),
            parts,
        )

    def _saved(self, split: SplitName) -> tuple[Any, Parts]:
        splits = self._datasets.load_from_disk(str(self._root))
        name = split_name(split, splits)
        if name is None:
            raise TrialError(
                f"{self._root}: of the splits {', '.join(splits)} none is for {split};"
                f" it would be called {' or '.join(SPLIT_NAMES[split])}"
            )
        return splits[name], Parts([name], [0])

    def _parquet(self, split: SplitName) -> tuple[Any, Parts]:
        found = find_shards(self._root, "*.parquet")
        files = files_of_split(self._root, found, split)
        if not files:
            raise TrialError(
                f"{self._root}: no Parquet file is for {split}; its name would have"
                f" {' or '.join(SPLIT_NAMES[split])} in it"
            )
        rows = self._datasets.Dataset.from_parquet([str(file) for file in files])
        return rows, Parts(
            [str(file.relative_to(self._root)) for file in files],
            list(accumulate(map(_count_rows, files[:-1]), initial=0)),
        )

    def _columns(self, features: dict[str, Any]) -> tuple[str, str]:
        """The names of the columns of images and of labels."""
        kinds = self._datasets
        images = [n for n, kind in features.items() if isinstance(kind, kinds.Image)]
        labels = [
            n for n, kind in features.items() if isinstance(kind, kinds.ClassLabel)
        ]
        if not labels and "label" in features:
            labels = ["label"]
        if not images or not labels:
            raise TrialError(
                f"{self._root}: of the columns {', '.join(features)} one must be of"
                " images, and one of class labels or called label"
            )
        count = getattr(features[labels[0]], "num_classes", self._num_classes)
        if count != self._num_classes:
            raise TrialError(
                f"{self._root}: {count} classes are there, and {self._num_classes} are"
                " expected"
            )
        return images[0], labels[0]


def _count_rows(file: Path) -> int:
    from pyarrow import parquet  # slow to import, and few trials need it

    return int(parquet.read_metadata(file).num_rows)


def _library(root: Path) -> ModuleType:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise UnsupportedError(
            f"{root}: Hugging Face datasets would read it, which is not installed;"
            " pip install 'tlbench[datasets]' would do"
        ) from error
