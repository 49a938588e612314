"""Kinetics-400 and -600: the official CSV files beside the videos, or class folders.

`ROOT/train.csv` and `ROOT/val.csv` (or validate.csv; also with a prefix as in
kinetics-400_train.csv, also in `ROOT/annotations/`) have the official columns. A video
is called ID_START_END after the columns, the seconds having six digits, and lies
anywhere under ROOT. Without CSV files, it is `ROOT/train/CLASS/` and `ROOT/val/CLASS/`.
"""

from pathlib import Path

from tlbench.data import SplitName
from tlbench.data.naming import class_numbers
from tlbench.data.video_lists import (
    VideoDataset,
    files_in_class_folders,
    find_videos,
    listed_video,
    read_table,
)
from tlbench.data.videos import VideoFile
from tlbench.errors import TrialError

COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
TABLES: dict[SplitName, tuple[str, ...]] = {
    "train": ("train",),
    "eval": ("val", "validate", "validation"),
}
"""How the names of the CSV files end; that of the test split has no labels."""


class Kinetics(VideoDataset):
    """Ten seconds of YouTube each, with one of 400 or 600 human actions."""

    def _files(self, split: SplitName) -> list[VideoFile]:
        tables = {name: table for name in TABLES if (table := self._table(name))}
        return (
            self._files_of_tables(tables, split)
            if tables
            else files_in_class_folders(self._root, split, self.num_classes)
        )

    def _table(self, split: SplitName) -> Path | None:
        found = [
            file
            for folder in (self._root, self._root / "annotations")
            for file in sorted(folder.glob("*.csv"))
            if file.stem.endswith(TABLES[split])
        ]
        if len(found) > 1:
            listed = ", ".join(str(file.relative_to(self._root)) for file in found)
            raise TrialError(f"{self._root}: one list for {split} is needed: {listed}")
        return found[0] if found else None

    def _files_of_tables(
        self, tables: dict[SplitName, Path], split: SplitName
    ) -> list[VideoFile]:
        if split not in tables:
            names = " or ".join(f"{ending}.csv" for ending in TABLES[split])
            raise TrialError(
                f"{self._root}: the list for {split} is missing, {names};"
                f" there is {', '.join(table.name for table in tables.values())}"
            )
        rows = {name: read_table(table, COLUMNS) for name, table in tables.items()}
        classes = (row["label"] for table in rows.values() for row in table.values())
        labels = class_numbers(classes, self.num_classes, self._root)
        found = find_videos(self._root)
        return [
            listed_video(_name(row, tables[split], line), labels[row["label"]], found)
            for line, row in rows[split].items()
        ]


def _name(row: dict[str, str], table: Path, line: int) -> str:
    try:
        start, end = int(row["time_start"]), int(row["time_end"])
    except ValueError as error:
        raise TrialError(
            f"{table}:{line}: time_start={row['time_start']} and"
            f" time_end={row['time_end']} are not both whole seconds"
        ) from error
    return f"{row['youtube_id']}_{start:06d}_{end:06d}"
