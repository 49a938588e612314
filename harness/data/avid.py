"""AViD, anonymised videos from diverse countries: the official JSON lists.

`ROOT/avid_train.json` and `ROOT/avid_val.json` (also in `ROOT/dataset/`, as their
repository has them) map file names to classes, `{"yrpxojhg.mp4": "playing harmonica"}`;
the videos lie anywhere under ROOT.
"""

import json
from pathlib import Path

from tlbench.data import SplitName
from tlbench.data.naming import class_numbers
from tlbench.data.video_lists import VideoDataset, find_videos, listed_video
from tlbench.data.videos import VideoFile
from tlbench.errors import TrialError

LISTS: dict[SplitName, str] = {"train": "avid_train.json", "eval": "avid_val.json"}
NO_ACTIVITY = "none"
"""A class where it is one of the 887; where it would be one more, left out."""


class Avid(VideoDataset):
    """Short videos from all over the world, with one of 887 activities."""

    def _files(self, split: SplitName) -> list[VideoFile]:
        # The classes of both splits: the list for evaluation has fewer, and a misprint.
        activities = set(self._read("train").values())
        if len(activities) > self.num_classes:
            activities.discard(NO_ACTIVITY)
        labels = class_numbers(activities, self.num_classes, self._root)
        found = find_videos(self._root)
        return [
            listed_video(Path(name).stem, labels[activity], found)
            if activity in labels
            else VideoFile(name, 0, "", f"{activity!r} is no class of {LISTS['train']}")
            for name, activity in self._read(split).items()
            if activity in labels or activity != NO_ACTIVITY
        ]

    def _read(self, split: SplitName) -> dict[str, str]:
        for folder in (self._root, self._root / "dataset"):
            if (folder / LISTS[split]).is_file():
                return _read_list(folder / LISTS[split])
        raise TrialError(f"{self._root}: there is no {LISTS[split]}")


def _read_list(file: Path) -> dict[str, str]:
    try:
        listed = json.loads(file.read_bytes())
    except ValueError as error:
        raise TrialError(f"{file} is no JSON: {error}") from error
    if not isinstance(listed, dict) or not all(
        isinstance(activity, str) for activity in listed.values()
    ):
        raise TrialError(f"{file} does not map file names to classes")
    return listed
