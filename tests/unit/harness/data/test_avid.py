"""AViD: the official JSON lists, and what is odd in them."""

import json
from pathlib import Path

import pytest

from support.videos import write_video
from tlbench.data.avid import Avid
from tlbench.errors import TrialError, UnreadableSampleError
from tlbench.suites.model_spec import VideoSpec
from tlbench.suites.training import View

TRAIN = {"aaaaaaaa.mp4": "origami", "bbbbbbbb.mp4": "archery", "cccccccc.mp4": "none"}
VAL = {"dddddddd.mp4": "origami", "eeeeeeee.mp4": "mascara", "ffffffff.mp4": "none"}


def open_avid(root: Path, num_classes: int = 3) -> Avid:
    video = VideoSpec(num_frames=2)
    return Avid(path=str(root), video=video, view=View(), num_classes=num_classes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "avid_train.json").write_text(json.dumps(TRAIN))
    (tmp_path / "dataset" / "avid_val.json").write_text(json.dumps(VAL))
    (tmp_path / "videos").mkdir()
    for name in ("aaaaaaaa", "cccccccc", "dddddddd"):
        write_video(tmp_path / "videos" / f"{name}.mp4", 3)
    return tmp_path


def test_classes_are_numbered_by_their_names(root: Path) -> None:
    train, held_out = open_avid(root).stored("train"), open_avid(root).stored("eval")
    assert [train.read(index)[1] for index in (0, 2)] == [2, 1]
    assert held_out.read(0)[1] == 2


def test_a_listed_video_that_is_not_there_is_unreadable(root: Path) -> None:
    with pytest.raises(UnreadableSampleError, match="the file is missing"):
        open_avid(root).stored("train").read(1)


def test_a_class_that_training_does_not_have_makes_a_video_unreadable(
    root: Path,
) -> None:
    stored = open_avid(root).stored("eval")
    assert (len(stored), stored.name(1)) == (3, "eeeeeeee.mp4")
    message = r"'mascara' is no class of avid_train\.json"
    with pytest.raises(UnreadableSampleError, match=message):
        stored.read(1)


def test_videos_of_no_activity_are_left_out_where_that_is_one_class_too_many(
    root: Path,
) -> None:
    avid = open_avid(root, num_classes=2)
    assert [len(avid.stored("train")), len(avid.stored("eval"))] == [2, 2]
    assert avid.stored("train").read(0)[1] == 1


@pytest.mark.parametrize("num_classes", [1, 4, 887])
def test_other_classes_than_the_data_set_has_are_refused(
    root: Path, num_classes: int
) -> None:
    with pytest.raises(TrialError, match=f"and {num_classes} are expected"):
        open_avid(root, num_classes).stored("train")


@pytest.mark.parametrize("text", ["[1, 2]", '{"a.mp4": {"label": 3}}', "a.mp4 3"])
def test_a_list_of_another_form_is_refused(root: Path, text: str) -> None:
    (root / "dataset" / "avid_train.json").write_text(text)
    with pytest.raises(TrialError, match=r"avid_train\.json (is no JSON|does not map)"):
        open_avid(root).stored("train")


def test_a_missing_list_is_named(root: Path) -> None:
    (root / "dataset" / "avid_val.json").unlink()
    with pytest.raises(TrialError, match=r"there is no avid_val\.json"):
        open_avid(root).stored("eval")
