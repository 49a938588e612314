"""Which videos a data set has, and their labels: class folders and CSV tables."""

import csv
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from tlbench.data import Label, SplitName
from tlbench.data.videos import Sampling, StoredVideos, VideoFile
from tlbench.errors import TrialError
from tlbench.suites.model_spec import VideoSpec
from tlbench.suites.training import View

VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
SPLIT_NAMES: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "eval": ("val", "validate", "validation", "eval", "test"),
}
"""What folders and tables of a split are called, the likeliest first."""


class VideoDataset(ABC):
    """Labelled videos in files; how they are listed is what data sets differ in."""

    def __init__(
        self, *, path: str, video: VideoSpec, view: View, num_classes: int
    ) -> None:
        self.num_classes = num_classes
        self._root, self._video, self._view = Path(path), video, view
        self._stored: dict[SplitName, StoredVideos] = {}

    def stored(self, split: SplitName) -> StoredVideos:
        """The videos of a split; they are listed once, which can take minutes."""
        if split not in self._stored:
            sampling = Sampling.of(split, self._video, self._view)
            self._stored[split] = StoredVideos(self._files(split), sampling)
        return self._stored[split]

    @abstractmethod
    def _files(self, split: SplitName) -> list[VideoFile]: ...


class OwnVideos(VideoDataset):
    """Videos of the user's own: class folders of each split, or one CSV table.

    The table has the columns path (from the table's folder), label and split.
    """

    def _files(self, split: SplitName) -> list[VideoFile]:
        if self._root.is_file():
            return _files_of_table(self._root, split, self.num_classes)
        return files_in_class_folders(self._root, split, self.num_classes)


def _files_of_table(table: Path, split: SplitName, classes: int) -> list[VideoFile]:
    rows = read_table(table, ("path", "label", "split"))
    labels = class_numbers((row["label"] for row in rows), classes, table)
    files = [
        VideoFile(row["path"], labels[row["label"]], str(table.parent / row["path"]))
        for row in rows
        if row["split"] in SPLIT_NAMES[split]
    ]
    if not files:
        raise TrialError(
            f"{table}: no line is for {split}; its split would be"
            f" {' or '.join(SPLIT_NAMES[split])}"
        )
    return files


def files_in_class_folders(
    root: Path, split: SplitName, num_classes: int
) -> list[VideoFile]:
    """All videos of `root/SPLIT/CLASS/`, the classes numbered by their names."""
    folder = _split_folder(root, split)
    # A class may be empty in one split, which must not shift the others.
    all_folders = (_folders(_split_folder(root, name)) for name in _splits_at(root))
    names = {name for folders in all_folders for name in folders}
    labels = class_numbers(names, num_classes, root)
    return [
        VideoFile(f"{name}/{file.name}", labels[name], str(file))
        for name in _folders(folder)
        for file in sorted((folder / name).iterdir())
        if file.suffix.lower() in VIDEO_SUFFIXES
    ]


def _splits_at(root: Path) -> list[SplitName]:
    return [
        split
        for split, names in SPLIT_NAMES.items()
        if any((root / name).is_dir() for name in names)
    ]


def _split_folder(root: Path, split: SplitName) -> Path:
    for name in SPLIT_NAMES[split]:
        if (root / name).is_dir():
            return root / name
    names = " or ".join(f"{name}/" for name in SPLIT_NAMES[split])
    raise TrialError(f"{root}: there is no folder {names} with a folder of each class")


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def find_videos(root: Path) -> dict[str, str]:
    """The path of each video at any depth, by its name without the ending."""
    found: dict[str, str] = {}
    for folder, folders, files in os.walk(root, followlinks=True):
        folders.sort()  # of several of one name, always the same one is taken
        for file in sorted(files):
            stem, suffix = os.path.splitext(file)  # noqa: PTH122  # of 10^5 files
            if suffix.lower() in VIDEO_SUFFIXES:
                found.setdefault(stem, f"{folder}/{file}")
    return found


def read_table(file: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file whose first line names these columns, and maybe others."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            _check_columns(file, reader.fieldnames or (), columns)
            return [_checked(file, reader.line_num, row, columns) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrialError(f"{file} cannot be read: {error}") from error


def _check_columns(
    file: Path, present: Collection[str], columns: Sequence[str]
) -> None:
    missing = [column for column in columns if column not in present]
    if missing:
        raise TrialError(
            f"{file}:1: no column {', '.join(missing)}; needed are"
            f" {', '.join(columns)}, and there are {', '.join(present) or 'none'}"
        )


def _checked(
    file: Path, line: int, row: dict[str, str], columns: Sequence[str]
) -> dict[str, str]:
    for column in columns:
        if row[column] is None:  # a line that ends too soon
            raise TrialError(f"{file}:{line}: nothing stands under {column}")
    return row


def class_numbers(
    names: Iterable[str], num_classes: int, where: Path
) -> dict[str, int]:
    """Number the classes by the alphabet, as published models do.

    Names that are numbers themselves stand for those.
    """
    classes = sorted(set(names))
    if all(name.isdecimal() and int(name) < num_classes for name in classes):
        return {name: int(name) for name in classes}
    if len(classes) != num_classes:
        raise TrialError(
            f"{where}: {len(classes)} classes are there, and {num_classes} are expected"
        )
    return {name: number for number, name in enumerate(classes)}


def listed_video(name: str, label: Label, found: Mapping[str, str]) -> VideoFile:
    """A video that a list names, among the files that `find_videos` found."""
    path = found.get(name)
    return VideoFile(name, label, path or "", None if path else "the file is missing")
