"""Clips of videos: exactly the frames that were asked for, or why there are none."""

import random
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from PIL import Image

from support.videos import (
    BAR,
    BITS,
    HEIGHT,
    frame_number,
    frame_numbers,
    painted,
    write_sound,
    write_video,
)
from tlbench.data import videos
from tlbench.data.videos import Sampling, StoredVideos, VideoFile, read_frames
from tlbench.errors import UnreadableSampleError
from tlbench.suites.model_spec import VideoSpec
from tlbench.suites.training import View


@dataclass(frozen=True)
class Picked(Sampling):
    """Frames that a test names itself."""

    num_frames: int = 0
    chosen: tuple[int, ...] = ()

    def indices(self, available: int) -> list[int]:
        return [index % available for index in self.chosen]


def picked(*indices: int) -> Picked:
    return Picked(chosen=indices)


# ------------------------------------------------------------------ which frames


def test_the_only_clip_of_evaluation_is_the_middle_of_the_video() -> None:
    assert Sampling(4, stride=2, clips=1).indices(20) == [6, 8, 10, 12]


def test_clips_are_spread_evenly_from_the_first_frame_to_the_last() -> None:
    assert Sampling(2, stride=2, clips=3).indices(20) == [0, 2, 8, 10, 16, 18]


@pytest.mark.parametrize("clips", [1, 4])
def test_a_short_video_is_played_again_from_its_start(clips: int) -> None:
    assert Sampling(5, stride=2, clips=clips).indices(6) == [0, 2, 4, 0, 2] * clips


def test_a_clip_for_training_starts_anywhere_and_stays_inside() -> None:
    torch.manual_seed(0)
    sampling = Sampling(4, stride=3)
    clips = [sampling.indices(15) for _ in range(300)]
    assert {clip[0] for clip in clips} == set(range(15 - 9))
    assert all(np.diff(clip).tolist() == [3, 3, 3] for clip in clips)


def test_a_short_video_may_start_anywhere_in_training() -> None:
    torch.manual_seed(0)
    clips = [Sampling(4, stride=3).indices(5) for _ in range(200)]
    assert {clip[0] for clip in clips} == set(range(5))
    assert all((clip[1] - clip[0]) % 5 == 3 for clip in clips)


def test_the_generator_of_torch_decides_where_a_clip_starts() -> None:
    sampling = Sampling(4)
    torch.manual_seed(7)
    first = [sampling.indices(100) for _ in range(5)]
    torch.manual_seed(7)
    assert [sampling.indices(100) for _ in range(5)] == first


def test_the_suite_says_how_clips_are_taken() -> None:
    video, view = VideoSpec(num_frames=8), View(frame_stride=2, temporal_clips=4)
    assert Sampling.of("train", video, view) == Sampling(8, 2, None)
    assert Sampling.of("eval", video, view) == Sampling(8, 2, 4)


# ------------------------------------------------------------- how they are decoded


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "ts"])
@pytest.mark.parametrize(
    "options", [{"bf": "0"}, {"bf": "3", "x264-params": "open-gop=1"}]
)
def test_exactly_the_frames_asked_for_are_decoded(
    tmp_path: Path, suffix: str, options: dict[str, str]
) -> None:
    path = write_video(tmp_path / f"video.{suffix}", 100, options=options)
    choice = random.Random(0)
    for _ in range(20):
        wanted = choice.sample(range(100), 6)
        assert frame_numbers(read_frames(str(path), picked(*wanted))) == wanted


def test_frames_are_found_in_a_file_that_does_not_say_when_they_are_shown(
    tmp_path: Path,
) -> None:
    path = write_video(tmp_path / "video.h264", 60)
    assert frame_numbers(read_frames(str(path), picked(59, 0, 31))) == [59, 0, 31]


def test_frames_are_found_in_an_avi_file(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "video.avi", 60, codec="mpeg4", options={"b": "2M", "bf": "2"}
    )
    assert frame_numbers(read_frames(str(path), picked(40, 7, 41))) == [40, 7, 41]


def test_frames_are_counted_whatever_the_time_between_them(tmp_path: Path) -> None:
    times = np.cumsum([7 + 53 * (number % 3) for number in range(50)]).tolist()
    path = write_video(tmp_path / "video.mp4", 50, times=times)
    assert frame_numbers(read_frames(str(path), picked(1, 25, 49))) == [1, 25, 49]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg cuts the file")
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_are_counted_from_where_a_file_was_cut(
    tmp_path: Path, suffix: str
) -> None:
    whole = write_video(tmp_path / "whole.mp4", 100, options={"bf": "2"})
    cut = tmp_path / f"cut.{suffix}"  # packets from before the cut are still in it
    options = ["-ss", "0.5", "-i", str(whole), "-t", "2", "-c", "copy", str(cut)]
    subprocess.run(["ffmpeg", "-v", "error", *options], check=True)
    with av.open(str(cut)) as container:
        shown = [
            frame_number(Image.fromarray(frame.to_ndarray(format="rgb24")))
            for frame in container.decode(video=0)
        ]
    for index in range(0, len(shown), 5):
        assert frame_numbers(read_frames(str(cut), picked(index))) == [shown[index]]


def test_a_frame_that_is_asked_for_twice_comes_twice(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", 6)
    found = read_frames(str(path), Sampling(4, stride=2, clips=2))
    assert frame_numbers(found) == [0, 2, 4, 0] * 2


def test_only_the_frames_after_a_keyframe_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(
        tmp_path / "video.mp4", 120, keyframe_distance=10, options={"sc_threshold": "0"}
    )
    decoded = 0
    by_time = videos._by_time

    def counting(frames: Iterable[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        nonlocal decoded
        for pair in by_time(frames):
            decoded += 1
            yield pair

    monkeypatch.setattr(videos, "_by_time", counting)
    read_frames(str(path), picked(62, 64, 95))
    assert decoded == 5 + 6  # 60 to 64, and 90 to 95


def test_frames_have_the_colours_that_went_in(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", 10, options={"crf": "1"})
    (image,) = read_frames(str(path), picked(5))
    assert image.mode == "RGB"
    assert image.size == (BITS * BAR, HEIGHT)
    assert np.abs(np.asarray(image, float) - painted(5)).mean() < 2


def test_a_video_that_a_telephone_turned_is_turned_upright(tmp_path: Path) -> None:
    upright = write_video(tmp_path / "upright.mp4", 10)
    turned = tmp_path / "turned.mp4"
    with av.open(str(upright)) as source, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    (image,) = read_frames(str(turned), picked(5))
    assert image.size == (HEIGHT, BITS * BAR)
    assert frame_numbers([image.rotate(-90, expand=True)]) == [5]


@pytest.mark.parametrize("indices", [(2, 15), (15, 2)])
def test_all_frames_have_the_size_of_the_first_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indices: tuple[int, int]
) -> None:
    parts = [write_video(tmp_path / "small.h264", 10)]
    monkeypatch.setattr("support.videos.HEIGHT", 2 * HEIGHT)
    parts.append(write_video(tmp_path / "large.h264", 10))
    video = tmp_path / "both.h264"
    video.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = read_frames(str(video), picked(*indices))
    height = HEIGHT if indices[0] < 10 else 2 * HEIGHT
    assert {frame.size for frame in frames} == {(BITS * BAR, height)}
    assert frame_numbers(frames) == [index % 10 for index in indices]


def test_a_title_in_another_encoding_does_no_harm(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", 10, title="Caf? am See")
    path.write_bytes(path.read_bytes().replace(b"Caf?", b"Caf\xe9"))
    assert frame_numbers(read_frames(str(path), picked(3))) == [3]


# ------------------------------------------------------------------ what is refused


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSampleError, match="No such file"):
        read_frames(str(tmp_path / "gone.mp4"), picked(0))


@pytest.mark.parametrize("content", [b"", b"<html>Not found</html>" * 100])
def test_a_file_that_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "page.mp4").write_bytes(content)
    with pytest.raises(UnreadableSampleError, match="Invalid data found"):
        read_frames(str(tmp_path / "page.mp4"), picked(0))


def test_a_file_with_sound_only_is_refused(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "sound.mp4")
    with pytest.raises(UnreadableSampleError, match="it has no video stream"):
        read_frames(str(path), picked(0))


def test_a_codec_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", 10)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"abc1"))
    with pytest.raises(UnreadableSampleError, match="nothing here decodes"):
        read_frames(str(path), picked(3))


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "song.mp4", cover=True)
    with pytest.raises(UnreadableSampleError, match="it has no video stream"):
        read_frames(str(path), picked(0))


def test_a_download_that_broke_off_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", 50, movflags="+faststart")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(UnreadableSampleError, match=r"cut short: \d+ of its 50 frames"):
        read_frames(str(path), picked(0))


def test_a_download_that_broke_off_before_its_index_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", 50)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableSampleError, match="Invalid data found"):
        read_frames(str(path), picked(0))


# ------------------------------------------------------------------ stored videos


def test_a_stored_video_has_its_clip_and_its_label(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", 20)
    stored = StoredVideos([VideoFile("wave", (3, 5), str(path))], Sampling(2, 4, 1))
    frames, label = stored.read(0)
    assert (len(stored), stored.name(0), label) == (1, "wave", (3, 5))
    assert frame_numbers(frames) == [6, 10]


def test_a_stored_video_that_is_known_to_be_missing_is_refused() -> None:
    stored = StoredVideos([VideoFile("wave", 3, "", "the file is missing")], picked(0))
    with pytest.raises(UnreadableSampleError, match="the file is missing"):
        stored.read(0)
