"""Kinetics as people hold it: the official lists, or class folders, and wrong ones."""

from pathlib import Path

import pytest

from support.videos import frame_numbers, write_video
from tlbench.data.kinetics import Kinetics
from tlbench.errors import TrialError, UnreadableSampleError
from tlbench.suites.model_spec import VideoSpec
from tlbench.suites.training import View

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
TRAIN = (
    'abseiling,-3B32lodo2M,59,69,train,0\n"clean and jerk",_dbcJuKJQNs,40,50,train,0\n'
)
VAL = 'zumba,0wR5jVB-WPk,417,427,val,0\n"clean and jerk",gone1234567,0,10,val,0\n'


def open_kinetics(root: Path, num_classes: int = 3) -> Kinetics:
    video, view = VideoSpec(num_frames=2), View(frame_stride=3)
    return Kinetics(path=str(root), video=video, view=view, num_classes=num_classes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The lists as they are published, and three of the four videos."""
    (tmp_path / "train.csv").write_text(HEADER + TRAIN)
    (tmp_path / "val.csv").write_text(HEADER + VAL)
    for name in (
        "train/-3B32lodo2M_000059_000069",
        "train/_dbcJuKJQNs_000040_000050",
        "val/0wR5jVB-WPk_000417_000427",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_video(tmp_path / f"{name}.mp4", 12)
    return tmp_path


def test_videos_are_found_by_the_names_that_the_columns_give(root: Path) -> None:
    stored = open_kinetics(root).stored("train")
    assert [stored.name(0), stored.name(1)] == [
        "-3B32lodo2M_000059_000069",
        "_dbcJuKJQNs_000040_000050",
    ]
    first, second = stored.read(0), stored.read(1)
    assert (len(first[0]), first[1], second[1]) == (2, 0, 1)


def test_evaluation_reads_the_middle_of_its_videos(root: Path) -> None:
    frames, label = open_kinetics(root).stored("eval").read(0)
    assert (frame_numbers(frames), label) == ([3, 6], 2)


def test_a_listed_video_that_is_not_there_is_unreadable(root: Path) -> None:
    stored = open_kinetics(root).stored("eval")
    assert (len(stored), stored.name(1)) == (2, "gone1234567_000000_000010")
    with pytest.raises(UnreadableSampleError, match="the file is missing"):
        stored.read(1)


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("kinetics-400_train.csv", "kinetics-400_val.csv"),
        ("annotations/kinetics_600_train.csv", "annotations/kinetics_600_val.csv"),
        ("train.csv", "validate.csv"),
    ],
)
def test_the_lists_may_have_any_of_their_published_names(
    root: Path, train: str, val: str
) -> None:
    (root / "annotations").mkdir()
    (root / "train.csv").rename(root / train)
    (root / "val.csv").rename(root / val)
    assert len(open_kinetics(root).stored("train")) == 2
    assert len(open_kinetics(root).stored("eval")) == 2


def test_videos_may_lie_in_folders_of_their_classes(root: Path) -> None:
    (root / "train" / "abseiling").mkdir()
    video = root / "train" / "-3B32lodo2M_000059_000069.mp4"
    video.rename(root / "train" / "abseiling" / video.name)
    assert open_kinetics(root).stored("train").read(0)[1] == 0


def test_without_lists_the_class_folders_are_read(root: Path) -> None:
    for name in ("train.csv", "val.csv"):
        (root / name).unlink()
    for split, label in (("train", "abseiling"), ("train", "jerk"), ("val", "zumba")):
        (root / split / label).mkdir()
    for index, name in enumerate(("abseiling", "jerk")):
        file = sorted((root / "train").glob("*.mp4"))[0]
        file.rename(root / "train" / name / file.name)
        assert open_kinetics(root).stored("train").read(index)[1] == index
    file = next((root / "val").glob("*.mp4"))
    file.rename(root / "val" / "zumba" / file.name)
    stored = open_kinetics(root).stored("eval")
    assert stored.name(0) == f"zumba/{file.name}"
    assert stored.read(0)[1] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "label,youtube_id,start,end,split\n",
            r"train\.csv:1: no column time_start, time_end; needed are label,",
        ),
        ("", r"train\.csv:1: no column .*; needed are .*, and there are none"),
        (HEADER + "abseiling,-3B32lodo2M,59\n", r"train\.csv:2: nothing .* time_end"),
        (
            HEADER + TRAIN + "zumba,0wR5jVB-WPk,0:59,1:09,train,0\n",
            r"train\.csv:4: time_start=0:59 and time_end=1:09 are not both whole",
        ),
        (
            HEADER + '"clean\n\nand jerk",_dbcJuKJQNs,40,50,train,0\n\n'
            "zumba,0wR5jVB-WPk,0:59,1:09,train,0\n",
            r"train\.csv:6: time_start=0:59",
        ),
    ],
)
def test_a_list_of_another_form_is_refused(root: Path, text: str, message: str) -> None:
    (root / "train.csv").write_text(text)
    with pytest.raises(TrialError, match=message):
        open_kinetics(root).stored("train")


def test_a_list_that_is_no_text_is_refused(root: Path) -> None:
    (root / "train.csv").write_bytes(b"PK\x03\x04\xff\xfe\x00")
    with pytest.raises(TrialError, match=r"train\.csv cannot be read"):
        open_kinetics(root).stored("train")


def test_lists_with_other_classes_than_the_data_set_are_refused(root: Path) -> None:
    message = "3 classes are there, and 400 are expected"
    with pytest.raises(TrialError, match=message):
        open_kinetics(root, num_classes=400).stored("train")


def test_a_list_that_is_missing_is_named(root: Path) -> None:
    (root / "val.csv").unlink()
    with pytest.raises(TrialError, match=r"for eval is missing, val\.csv or .*train"):
        open_kinetics(root).stored("eval")


def test_two_lists_for_one_split_are_refused(root: Path) -> None:
    (root / "kinetics-600_train.csv").write_text(HEADER)
    with pytest.raises(TrialError, match=r"kinetics-600_train\.csv, train\.csv"):
        open_kinetics(root).stored("train")


def test_a_folder_with_neither_lists_nor_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match="there is no folder train/"):
        open_kinetics(tmp_path).stored("train")
