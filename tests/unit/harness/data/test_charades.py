"""Charades: the official lists, whose videos have several labels, or none."""

from pathlib import Path

import pytest

from support.videos import write_video
from tlbench.data.charades import Charades
from tlbench.errors import TrialError, UnreadableSampleError
from tlbench.suites.model_spec import VideoSpec
from tlbench.suites.training import View

HEADER = (
    "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,"
    "length\n"
)
ROWS = (
    '46GP8,HR43,Kitchen,6,7,Yes,"A person cooks, then eats.",food;stove,A person'
    " cooks.,c092 11.90 21.20;c147 0.00 12.60;c092 0 3,24.83\n"
    "N11GT,0KZ7,Stairs,5,6,No,,,,,18.33\n"
    "0BX9N,XXN8,Living room,7,7,Yes,,,,c156 0.00 5.00,13.0\n"
)


def open_charades(root: Path) -> Charades:
    video = VideoSpec(num_frames=2)
    return Charades(path=str(root), video=video, view=View(), num_classes=157)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The list of training as it is published, and two of its three videos."""
    (tmp_path / "Charades_v1_train.csv").write_text(HEADER + ROWS)
    (tmp_path / "Charades_v1_480").mkdir()
    for name in ("46GP8", "N11GT"):
        write_video(tmp_path / "Charades_v1_480" / f"{name}.mp4", 5)
    return tmp_path


def test_the_labels_are_the_set_of_all_actions_of_the_video(root: Path) -> None:
    stored = open_charades(root).stored("train")
    assert [stored.name(index) for index in range(3)] == ["46GP8", "N11GT", "0BX9N"]
    assert stored.read(0)[1] == (92, 147)


def test_a_video_without_actions_has_no_label(root: Path) -> None:
    frames, label = open_charades(root).stored("train").read(1)
    assert (len(frames), label) == (2, ())


def test_a_listed_video_that_is_not_there_is_unreadable(root: Path) -> None:
    with pytest.raises(UnreadableSampleError, match="the file is missing"):
        open_charades(root).stored("train").read(2)


def test_evaluation_is_the_official_test_list(root: Path) -> None:
    (root / "Charades").mkdir()
    (root / "Charades" / "Charades_v1_test.csv").write_text(
        HEADER + ROWS.splitlines(keepends=True)[0]
    )
    assert len(open_charades(root).stored("eval")) == 1


@pytest.mark.parametrize(
    "action", ["c157 0.00 1.00", "c92 0.00 1.00", "c092", "c092 0.00", "092 0 1", "x"]
)
def test_actions_of_another_form_are_refused(root: Path, action: str) -> None:
    text = HEADER + ROWS.replace("c156 0.00 5.00", f"c001 0.00 1.00;{action}")
    (root / "Charades_v1_train.csv").write_text(text)
    with pytest.raises(TrialError, match=f"video 0BX9N: action '{action}' is not a"):
        open_charades(root).stored("train")


def test_a_list_without_actions_is_refused(root: Path) -> None:
    (root / "Charades_v1_train.csv").write_text(HEADER.replace("actions", "labels"))
    with pytest.raises(TrialError, match=r"train\.csv:1: no column actions"):
        open_charades(root).stored("train")


def test_a_missing_list_is_named(root: Path) -> None:
    with pytest.raises(TrialError, match=r"there is no Charades_v1_test\.csv"):
        open_charades(root).stored("eval")
