"""What data sets call their splits and classes, whatever their samples are."""

import re
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from tlbench.data import SplitName
from tlbench.errors import TrialError

SPLIT_NAMES: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "eval": ("val", "validate", "validation", "eval", "test"),
}
"""What folders and tables of a split are called, the likeliest first."""


def split_name(split: SplitName, present: Container[str]) -> str | None:
    """The likeliest name of the split among those that are there, if any is."""
    return next((name for name in SPLIT_NAMES[split] if name in present), None)


def split_folders(root: Path) -> dict[SplitName, Path]:
    """The folders of those splits that have one."""
    folders: dict[SplitName, Path] = {}
    for split, names in SPLIT_NAMES.items():
        name = split_name(split, {name for name in names if (root / name).is_dir()})
        if name is not None:
            folders[split] = root / name
    return folders


def files_of_split(root: Path, files: Sequence[Path], split: SplitName) -> list[Path]:
    """Those files whose names, or those of their folders, say that split.

    Of several words for it the likeliest counts: `test-*` beside `validation-*` is
    another split, often one without labels.
    """
    words = {
        file: set(re.split(r"[^a-z]+", str(file.relative_to(root)).lower()))
        for file in files
    }
    name = split_name(split, {word for said in words.values() for word in said})
    return [file for file in files if name in words[file]]


def class_numbers(
    names: Iterable[str], num_classes: int, where: Path
) -> dict[str, int]:
    """Number the classes by the alphabet, as published models do.

    Names that are numbers themselves stand for those.
    """
    classes = sorted(set(names))
    if all(name.isdecimal() and int(name) < num_classes for name in classes):
        return _own_numbers(classes, where)
    if len(classes) != num_classes:
        raise TrialError(
            f"{where}: {len(classes)} classes are there, and {num_classes} are expected"
        )
    return {name: number for number, name in enumerate(classes)}


def _own_numbers(classes: Sequence[str], where: Path) -> dict[str, int]:
    names: dict[int, str] = {}
    for name in classes:
        other = names.setdefault(int(name), name)
        if other != name:
            raise TrialError(f"{where}: {other} and {name} are two names of one class")
    return {name: number for number, name in names.items()}
