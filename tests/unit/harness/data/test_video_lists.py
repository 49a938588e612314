"""Videos of the user's own: class folders, or one table, and what is wrong in them."""

from pathlib import Path

import pytest

from support.videos import write_video
from tlbench.data.video_lists import OwnVideos, find_videos
from tlbench.errors import TrialError, UnreadableSampleError
from tlbench.suites.model_spec import VideoSpec
from tlbench.suites.training import View


def open_videos(path: Path, num_classes: int = 2) -> OwnVideos:
    video = VideoSpec(num_frames=2)
    return OwnVideos(path=str(path), video=video, view=View(), num_classes=num_classes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Class folders of two splits."""
    for name in ("train/run/b.mp4", "train/run/a.MKV", "train/wave/c.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / name, 4)
    (tmp_path / "test" / "run").mkdir(parents=True)
    (tmp_path / "test" / "wave").mkdir()
    write_video(tmp_path / "test" / "wave" / "d.mp4", 4)
    (tmp_path / "train" / "run" / "notes.txt").write_text("not a video")
    return tmp_path


def labelled(dataset: OwnVideos, split: str) -> dict[str, object]:
    stored = dataset.stored("train" if split == "train" else "eval")
    return {stored.name(index): stored.read(index)[1] for index in range(len(stored))}


def test_class_folders_are_numbered_by_their_names(root: Path) -> None:
    assert labelled(open_videos(root), "train") == {
        "run/a.MKV": 0,
        "run/b.mp4": 0,
        "wave/c.mp4": 1,
    }


def test_a_class_that_a_split_lacks_keeps_its_number(root: Path) -> None:
    (root / "test" / "run").rmdir()
    assert labelled(open_videos(root), "eval") == {"wave/d.mp4": 1}


def test_a_missing_split_is_named(root: Path) -> None:
    (root / "test").rename(root / "held_out")
    with pytest.raises(TrialError, match="no folder val/ or validate/ or"):
        open_videos(root).stored("eval")


def test_other_classes_than_the_suite_says_are_refused(root: Path) -> None:
    with pytest.raises(TrialError, match="2 classes are there, and 5 are expected"):
        open_videos(root, num_classes=5).stored("train")


def test_a_table_says_where_videos_lie(root: Path) -> None:
    table = root / "videos.csv"
    table.write_text(
        "split,path,label\ntrain,train/wave/c.mp4,up\nval,test/wave/d.mp4,up\n"
        "train,train/run/b.mp4,down\ntrain,gone.mp4,down\n"
    )
    stored = open_videos(table).stored("train")
    assert [stored.read(index)[1] for index in (0, 1)] == [1, 0]
    with pytest.raises(UnreadableSampleError, match="No such file"):
        stored.read(2)
    assert labelled(open_videos(table), "eval") == {"test/wave/d.mp4": 1}


def test_labels_that_are_numbers_stand_for_themselves(root: Path) -> None:
    table = root / "videos.csv"
    table.write_text(
        "path,label,split\ntrain/wave/c.mp4,10,train\ntrain/run/b.mp4,9,train\n"
    )
    found = labelled(open_videos(table, num_classes=12), "train")
    assert found == {"train/wave/c.mp4": 10, "train/run/b.mp4": 9}


def test_a_table_without_lines_for_a_split_is_refused(root: Path) -> None:
    table = root / "videos.csv"
    table.write_text("path,label,split\na.mp4,0,train\n")
    with pytest.raises(TrialError, match="no line is for eval; its split would be val"):
        open_videos(table).stored("eval")


def test_videos_are_listed_once(root: Path) -> None:
    dataset = open_videos(root)
    assert dataset.stored("train") is dataset.stored("train")


def test_videos_are_found_at_any_depth_and_through_links(root: Path) -> None:
    (root / "elsewhere").mkdir()
    (root / "elsewhere" / "linked").symlink_to(root / "train" / "wave")
    (root / "train" / "wave" / "c.mp4").rename(root / "train" / "wave" / "e.f.webm")
    found = find_videos(root)
    assert set(found) == {"a", "b", "d", "e.f"}
    assert found["e.f"] == f"{root}/elsewhere/linked/e.f.webm"


def test_a_link_that_leads_back_is_not_followed_for_ever(root: Path) -> None:
    (root / "train" / "run" / "back").symlink_to(root / "train")
    (root / "back").symlink_to(root)
    assert find_videos(root)["a"] == f"{root}/train/run/a.MKV"
    assert labelled(open_videos(root), "eval") == {"wave/d.mp4": 1}


def test_a_video_deeper_in_a_class_is_of_that_class(root: Path) -> None:
    (root / "train" / "run" / "part 1").mkdir()
    (root / "train" / "run" / "a.MKV").rename(root / "train/run/part 1/a.MKV")
    assert labelled(open_videos(root), "train") == {
        "run/b.mp4": 0,
        "run/part 1/a.MKV": 0,
        "wave/c.mp4": 1,
    }


def test_class_folders_without_videos_are_refused(root: Path) -> None:
    (root / "test" / "wave" / "d.mp4").unlink()
    with pytest.raises(
        TrialError, match=f"{root}: there are no videos for eval; their"
    ):
        open_videos(root).stored("eval")


def test_of_two_splits_in_a_table_the_likelier_counts(root: Path) -> None:
    table = root / "videos.csv"
    table.write_text(
        "path,label,split\ntest/wave/d.mp4,1,validation\ntrain/run/b.mp4,0,test\n"
    )
    assert labelled(open_videos(table), "eval") == {"test/wave/d.mp4": 1}
