"""Images of the user's own, and how the layout is told in which images are held."""

from functools import partial
from pathlib import Path
from typing import Protocol

from tlbench.data import Dataset, SplitName, Stored
from tlbench.data.idx import Idx, has_idx_files
from tlbench.data.image_files import (
    ClassFolders,
    Numbering,
    has_split_classes,
    open_folder,
)
from tlbench.data.naming import class_numbers
from tlbench.data.shards import TarShards, find_shards
from tlbench.data.tables import SAVED, Tables


class Layout(Protocol):
    """One of the forms in which labelled images are held."""

    def stored(self, split: SplitName, /) -> Stored: ...


class Images:
    """Labelled images in whatever layout lies at the path."""

    def __init__(self, *, path: str, num_classes: int, **_: object) -> None:
        """Look what lies there; a view changes nothing of what is stored."""
        self.num_classes = num_classes
        self._layout = _open_layout(
            open_folder(path), num_classes, self._numbering(Path(path))
        )

    def stored(self, split: SplitName) -> Stored:
        return self._layout.stored(split)

    def _numbering(self, root: Path) -> Numbering:
        return partial(class_numbers, num_classes=self.num_classes, where=root)


def open_own_images(*, path: str, num_classes: int, **_: object) -> Dataset:
    """Images of the user's own: in idx files, or as ImageNet is held."""
    if has_idx_files(open_folder(path)):
        return Idx(path=path, num_classes=num_classes)
    return Images(path=path, num_classes=num_classes)


def _open_layout(root: Path, num_classes: int, numbering: Numbering) -> Layout:
    if (root / SAVED).is_file():
        return Tables(root, num_classes)
    # Beside them, people keep the archives that they come from.
    if has_split_classes(root):
        return ClassFolders(root, numbering)
    if find_shards(root, "*.parquet"):
        return Tables(root, num_classes)
    if find_shards(root):
        return TarShards(root)
    return ClassFolders(root, numbering)
