"""ImageNet-21k, and the two harder tests of models of ImageNet-1k: ReaL and ObjectNet.

ImageNet-1k itself needs nothing of its own: 1,000 class folders sorted by their WordNet
ids are its classes.
"""

import json
import re
from collections.abc import Collection
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from timm.data import ImageNetInfo

from tlbench.data import SplitName
from tlbench.data.image_files import (
    Numbering,
    StoredFiles,
    label_images,
    list_images,
    open_folder,
    stored_files,
)
from tlbench.data.images import Images
from tlbench.data.naming import split_folders
from tlbench.errors import TrialError

REAL_LABELS = "real.json"
VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.")
"""The images of ImageNet's validation have numbers from 1; so have those labels."""
MAPPINGS = "mappings"
OBJECTNET_BORDER = 2
"""Pixels that ObjectNet's own loader cuts off; the outermost one is painted red."""


class ImageNet21k(Images):
    """Folders of WordNet ids, as many as there are.

    They are numbered as the public checkpoints of the ViT papers are, which have 21,843
    classes; two of those have no image.
    """

    def _numbering(self, root: Path) -> Numbering:
        return partial(_synset_numbers, root)


def _synset_numbers(root: Path, names: Collection[str]) -> dict[str, int]:
    synsets = ImageNetInfo("imagenet-21k-goog").label_names()
    unknown = sorted(set(names).difference(synsets))
    if unknown:
        raise TrialError(
            f"{root}: {len(unknown)} folders are no classes of ImageNet-21k, as"
            f" {unknown[0]}; they would be called by WordNet ids, as {synsets[0]}"
        )
    return {synset: n for n, synset in enumerate(synsets) if synset in names}


class ImageNetReal:
    """The images of ImageNet's validation with all labels that fit them (ReaL).

    An image that none fits has none, and does not count.
    """

    def __init__(self, *, path: str, num_classes: int, **_: object) -> None:
        """Look for `ROOT/val/`, or images in ROOT itself, at any depth."""
        self.num_classes = num_classes
        self._root = open_folder(path)

    def stored(self, split: SplitName) -> StoredFiles:
        del split  # it is for evaluation only
        folder = split_folders(self._root).get("eval", self._root)
        label_sets = _real_labels(self._root)
        return stored_files(
            folder,
            [
                (name, label_sets[_val_number(folder / name, len(label_sets)) - 1])
                for name in list_images(folder)
            ],
        )


def _real_labels(root: Path) -> list[tuple[int, ...]]:
    """Those of ROOT/real.json, or else timm's copy."""
    file = root / REAL_LABELS
    if file.is_file():
        value = _read_json(file)
    else:
        copy = files("timm.data") / "_info" / "imagenet_real_labels.json"
        value = json.loads(copy.read_text())
    is_right = isinstance(value, list) and all(isinstance(v, list) for v in value)
    if not is_right:
        raise TrialError(f"{file}: it is no list of the lists of labels of each image")
    return [tuple(labels) for labels in value]


def _val_number(image: Path, count: int) -> int:
    match = VAL_NAME.match(image.name)
    if match is None or not 1 <= int(match[1]) <= count:
        raise TrialError(
            f"{image}: labels are found by names from ILSVRC2012_val_00000001.JPEG to"
            f" ILSVRC2012_val_{count:08d}.JPEG"
        )
    return int(match[1])


class ObjectNet:
    """Photographs of 113 classes that ImageNet has too, from unusual sides.

    As ObjectNet's own scoring has it, a model may answer with any of its 1,000 classes;
    right are those that the class of the image stands for, sometimes several.
    """

    def __init__(self, *, path: str, num_classes: int, **_: object) -> None:
        """Look for `ROOT/images/FOLDER/` and `ROOT/mappings/`, as published."""
        self.num_classes = num_classes
        self._root = open_folder(path)

    def stored(self, split: SplitName) -> StoredFiles:
        del split  # it is for evaluation only
        images = self._root / "images"
        label_sets = _imagenet_classes(self._root / MAPPINGS)
        missing = [name for name in label_sets if not (images / name).is_dir()]
        if missing:
            raise TrialError(
                f"{images}: of {len(label_sets)} folders {len(missing)} are missing, as"
                f" {missing[0]}/"
            )
        places = {name: place for place, name in enumerate(label_sets)}
        sets = list(label_sets.values())
        found = label_images(images, places)
        return stored_files(
            images, [(name, sets[place]) for name, place in found], OBJECTNET_BORDER
        )


def _imagenet_classes(mappings: Path) -> dict[str, tuple[int, ...]]:
    """What ImageNet-1k calls the classes of the folders that it has too."""
    labels = _read_json(mappings / "folder_to_objectnet_label.json")
    overlap = _read_json(mappings / "objectnet_to_imagenet_1k.json")
    lines = _read_json(mappings / "pytorch_to_imagenet_2012_id.json")
    names = _read_text(mappings / "imagenet_to_label_2012_v2").splitlines()
    try:
        numbers = {names[line].strip(): int(n) for n, line in lines.items()}
        return {
            folder: tuple(sorted(numbers[n.strip()] for n in overlap[label].split(";")))
            for folder, label in labels.items()
            if label in overlap
        }
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise TrialError(
            f"{mappings}: its files do not fit together: {error}"
        ) from error


def _read_json(file: Path) -> Any:
    try:
        return json.loads(_read_text(file))
    except ValueError as error:
        raise TrialError(f"{file} is no JSON: {error}") from error


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise TrialError(f"{file} cannot be read: {error.strerror}") from error
