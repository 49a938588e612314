"""Charades: the official CSV files beside the videos.

`ROOT/Charades_v1_train.csv` and `ROOT/Charades_v1_test.csv` (also in `ROOT/Charades/`,
as their archive has them) list the actions of each video, which lies anywhere under
ROOT as ID.mp4; the archive of the videos makes `Charades_v1_480/`.
"""

import re
from pathlib import Path

from tlbench.data import SplitName
from tlbench.data.video_lists import VideoDataset, find_videos, listed_video, read_table
from tlbench.data.videos import VideoFile
from tlbench.errors import TrialError

TABLES: dict[SplitName, str] = {
    "train": "Charades_v1_train.csv",
    "eval": "Charades_v1_test.csv",
}
ACTION = re.compile(r"c(\d{3}) \d+(?:\.\d+)? \d+(?:\.\d+)?")
"""Class, and from when to when in seconds, as in `c092 11.90 21.20`."""


class Charades(VideoDataset):
    """Half a minute at home each, in which several of 157 actions may happen, or none.

    The labels are all actions of the whole video, wherever the clip lies: so the
    data set is scored.
    """

    def _files(self, split: SplitName) -> list[VideoFile]:
        table = self._table(split)
        rows = read_table(table, ("id", "actions"))
        found = find_videos(self._root)
        return [
            listed_video(row["id"], self._labels(row, table), found)
            for row in rows.values()
        ]

    def _table(self, split: SplitName) -> Path:
        for folder in (self._root, self._root / "Charades"):
            if (folder / TABLES[split]).is_file():
                return folder / TABLES[split]
        raise TrialError(f"{self._root}: there is no {TABLES[split]}")

    def _labels(self, row: dict[str, str], table: Path) -> tuple[int, ...]:
        """The classes of `c092 11.90 21.20;c147 0.00 12.60`, each once, rising."""
        labels = set()
        for action in filter(None, row["actions"].split(";")):
            match = ACTION.fullmatch(action)
            if match is None or int(match[1]) >= self.num_classes:
                raise TrialError(
                    f"{table}: video {row['id']}: action {action!r} is not a class"
                    f" below c{self.num_classes:03d} and two times in seconds"
                )
            labels.add(int(match[1]))
        return tuple(sorted(labels))
