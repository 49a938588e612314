"""Images in files: how one is decoded, and how those of class folders are listed.

M images of a split.
"""

import os
from collections import Counter
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from timm.data.readers.reader_image_folder import find_images_and_targets

from tlbench.data import Label, SplitName
from tlbench.data.naming import SPLIT_NAMES, split_folders
from tlbench.errors import TrialError, UnreadableSampleError

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
HELD_OUT = 5
"""Where nobody has split the images, every fifth of each class is for evaluation."""

Numbering = Callable[[Collection[str]], dict[str, int]]
"""Gives the classes of these names their numbers."""


def open_folder(path: str) -> Path:
    """The folder at the path.

    Raises:
        TrialError: There is none.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise TrialError(f"there is no folder {path}")
    return folder


def decode(file: str | BinaryIO) -> Image.Image:
    """The image in RGB, whatever it is stored in.

    Raises:
        UnreadableSampleError: It is missing, or broken.
    """
    try:
        with Image.open(file) as image:
            return _in_rgb(image)
    except FileNotFoundError as error:
        raise UnreadableSampleError("the file is missing") from error
    # What Pillow raises depends on the format and on where the file breaks off.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableSampleError(f"it cannot be decoded: {error}") from error


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.format, image.mode) == ("PPM", "I"):
        # Pillow would cut off what is above 255; of colours it takes the high byte.
        high_bytes = np.asarray(image) >> 8
        return Image.fromarray(high_bytes.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnreadableSampleError(
            f"its pixels are of mode {image.mode}, and nothing says how bright any is"
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # or Pillow warns of each such image
    return image.convert("RGB")


@dataclass(frozen=True)
class StoredFiles:
    """Labelled image files, which a loader reads one by one."""

    folder: str
    names: np.ndarray
    """[M] bytes, paths from the folder: the processes that load share an array, and
    would each copy millions of strings."""
    labels: Sequence[Label]
    border: int = 0
    """Pixels at each edge that are no part of the image."""

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return os.fsdecode(self.names[index])

    def label(self, index: int) -> Label:
        return self.labels[index]

    def read(self, index: int) -> tuple[list[Image.Image], Label]:
        image = decode(f"{self.folder}/{self.name(index)}")
        return [_inside(image, self.border)], self.labels[index]


def _inside(image: Image.Image, border: int) -> Image.Image:
    if not border:
        return image
    if min(image.size) <= 2 * border:
        raise UnreadableSampleError(
            f"it is {image.width} x {image.height} pixels, of which {border} at each"
            " edge do not count"
        )
    return image.crop((border, border, image.width - border, image.height - border))


def stored_files(
    folder: Path, labelled: Iterable[tuple[str, Label]], border: int = 0
) -> StoredFiles:
    """The files of these names, paths from the folder, and their labels.

    Raises:
        TrialError: There are none.
    """
    files = list(labelled)
    if not files:
        raise TrialError(
            f"{folder}: there are no images in it; their names end in"
            f" {', '.join(sorted(SUFFIXES))}"
        )
    names = np.array([os.fsencode(name) for name, _ in files])
    return StoredFiles(str(folder), names, [label for _, label in files], border)


def list_images(folder: Path) -> list[str]:
    """All images at any depth, as paths from the folder, in a lasting order."""
    found, _ = find_images_and_targets(str(folder), SUFFIXES)
    return [os.path.relpath(path, folder) for path, _ in found]


def label_images(folder: Path, classes: Mapping[str, int]) -> list[tuple[str, int]]:
    """All images of these classes, at any depth in the folders called so.

    Returns:
        Paths from the folder and the numbers of their classes, in a lasting order.
    """
    # timm goes by the innermost folder, and leaves out what is in CLASS/images/.
    labelled = ((name, name.partition(os.sep)[0]) for name in list_images(folder))
    return [(name, classes[label]) for name, label in labelled if label in classes]


class ClassFolders:
    """`ROOT/train/CLASS/` and `ROOT/val/CLASS/`, or `ROOT/CLASS/` with both in one."""

    def __init__(self, root: Path, numbering: Numbering) -> None:
        self._root, self._numbering = root, numbering

    def stored(self, split: SplitName) -> StoredFiles:
        folders = split_folders(self._root)
        if not folders:
            classes = self._numbering(_class_names(self._root))
            images = label_images(self._root, classes)
            return stored_files(self._root, _part(images, split))
        if split not in folders:
            names = " or ".join(f"{name}/" for name in SPLIT_NAMES[split])
            raise TrialError(f"{self._root}: there is no folder {names}")
        classes = self._numbering(_same_classes(list(folders.values())))
        return stored_files(folders[split], label_images(folders[split], classes))


def has_split_classes(root: Path) -> bool:
    """Whether there are folders in a folder of a split."""
    return any(
        entry.is_dir()
        for folder in split_folders(root).values()
        for entry in folder.iterdir()
    )


def _same_classes(folders: Sequence[Path]) -> set[str]:
    first, *others = [_class_names(folder) for folder in folders]
    for other in others:
        if first != other:
            names = sorted(first ^ other)
            raise TrialError(
                f"{folders[0].parent}: {folders[0].name}/ and {folders[1].name}/ have"
                f" different classes; {len(names)} are in one only, as {names[0]}"
            )
    return first


def _class_names(folder: Path) -> set[str]:
    with os.scandir(folder) as entries:
        names = {entry.name for entry in entries if entry.is_dir()}
    if not names:
        raise TrialError(f"{folder}: there are no folders of classes in it")
    return names


def _part(
    images: Iterable[tuple[str, int]], split: SplitName
) -> Iterator[tuple[str, int]]:
    """The images of one split, where nobody has split them."""
    seen: Counter[int] = Counter()
    for name, number in images:
        seen[number] += 1
        if (seen[number] % HELD_OUT == 0) == (split == "eval"):
            yield name, number
