"""Which videos a data set has, and their labels: class folders and CSV tables."""

import csv
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from tlbench.data import Label, SplitName
from tlbench.data.naming import SPLIT_NAMES, class_numbers, split_folders, split_name
from tlbench.data.videos import Sampling, StoredVideos, VideoFile
from tlbench.errors import TrialError
from tlbench.suites.model_spec import VideoSpec
from tlbench.suites.training import View

VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}


class VideoDataset(ABC):
    """Labelled videos in files; how they are listed is what data sets differ in."""

    def __init__(
        self, *, path: str, video: VideoSpec, view: View, num_classes: int
    ) -> None:
        self.num_classes = num_classes
        self._root, self._video, self._view = Path(path), video, view
        self._stored: dict[SplitName, StoredVideos] = {}

    def stored(self, split: SplitName) -> StoredVideos:
        """The videos of a split; they are listed once, which can take minutes.

        Raises:
            TrialError: There are none.
        """
        if split not in self._stored:
            files = self._files(split)
            if not files:
                raise TrialError(
                    f"{self._root}: there are no videos for {split}; their names end in"
                    f" {', '.join(sorted(VIDEO_SUFFIXES))}"
                )
            sampling = Sampling.of(split, self._video, self._view)
            self._stored[split] = StoredVideos(files, sampling)
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
    rows = list(read_table(table, ("path", "label", "split")).values())
    labels = class_numbers((row["label"] for row in rows), classes, table)
    name = split_name(split, {row["split"] for row in rows})
    files = [
        VideoFile(row["path"], labels[row["label"]], str(table.parent / row["path"]))
        for row in rows
        if row["split"] == name
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
    """All videos of `root/SPLIT/CLASS/`, at any depth in it.

    The classes are numbered by their names.
    """
    splits = split_folders(root)
    if split not in splits:
        names = " or ".join(f"{name}/" for name in SPLIT_NAMES[split])
        raise TrialError(
            f"{root}: there is no folder {names} with a folder of each class"
        )
    # A class may be empty in one split, which must not shift the others.
    classes = {name for folder in splits.values() for name in _folders(folder)}
    labels = class_numbers(classes, num_classes, root)
    folder = splits[split]
    return [
        VideoFile(os.path.relpath(file, folder), labels[name], file)
        for name in _folders(folder)
        for file in _videos(folder / name)
    ]


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def find_videos(root: Path) -> dict[str, str]:
    """The path of each video at any depth, by its name without the ending."""
    found: dict[str, str] = {}
    for path in _videos(root):
        stem, _ = os.path.splitext(os.path.basename(path))  # noqa: PTH119, PTH122  # 10^5
        found.setdefault(stem, path)
    return found


def _videos(root: Path) -> Iterator[str]:
    """The paths of the videos at any depth, in a lasting order.

    Links are followed, and no folder is entered twice: a link may lead back.
    """
    entered = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        status = Path(folder).stat()
        place = status.st_dev, status.st_ino
        if place in entered:
            folders.clear()
            continue
        entered.add(place)
        folders.sort()
        for file in sorted(files):
            _, suffix = os.path.splitext(file)  # noqa: PTH122  # of 10^5 files
            if suffix.lower() in VIDEO_SUFFIXES:
                yield f"{folder}/{file}"


def read_table(file: Path, columns: Sequence[str]) -> dict[int, dict[str, str]]:
    """The rows of a CSV file, by the numbers of the lines that they end on.

    Its first line names these columns, and maybe others.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            _check_columns(file, reader.fieldnames or (), columns)
            rows = {}
            for row in reader:
                rows[reader.line_num] = _checked(file, reader.line_num, row, columns)
            return rows
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


def listed_video(name: str, label: Label, found: Mapping[str, str]) -> VideoFile:
    """A video that a list names, among the files that `find_videos` found."""
    path = found.get(name)
    return VideoFile(name, label, path or "", None if path else "the file is missing")
