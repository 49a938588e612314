"""Clips of video files: which frames they are made of, and how those are decoded.

F frames of a clip, N frames of a video.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import av
import torch
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from tlbench.data import Label, SplitName
from tlbench.errors import UnreadableSampleError
from tlbench.suites.model_spec import VideoSpec
from tlbench.suites.training import View

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
EXACT_SEEK = frozenset({MP4, "matroska,webm"})
"""Formats, by FFmpeg's names, whose index leads to every frame decoding can begin
with; in others, seeking may end anywhere."""
SEEK_PAYS = 4
"""Frames to be skipped that make up for what the decoder forgets when it seeks."""


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video make a sample: one clip anywhere, or several in order.

    As ViViT's own loader (DeepMind's dmvr) has it: a clip is F x stride frames long,
    and a shorter video is played again from its start.
    """

    num_frames: int
    stride: int = 1
    clips: int | None = None
    """Evenly spread over the video, a single one being its middle; None: one that
    starts anywhere, by torch's default generator."""

    @classmethod
    def of(cls, split: SplitName, video: VideoSpec, view: View) -> Self:
        clips = None if split == "train" else view.temporal_clips
        return cls(video.num_frames, view.frame_stride, clips)

    def indices(self, available: int) -> list[int]:
        """The frames of all clips, one clip after another, of a video of N frames."""
        return [
            (start + step * self.stride) % available
            for start in self._starts(available)
            for step in range(self.num_frames)
        ]

    def _starts(self, available: int) -> list[int]:
        if self.clips is None:
            reach = available - (self.num_frames - 1) * self.stride
            return [int(torch.randint(reach if reach > 0 else available, ()))]
        latest = max(0, available - self.num_frames * self.stride)
        if self.clips == 1:
            return [latest // 2]
        return [latest * clip // (self.clips - 1) for clip in range(self.clips)]


class VideoFile(NamedTuple):
    """One labelled video of a data set."""

    name: str
    label: Label
    path: str
    problem: str | None = None
    """Why it cannot be read, where that is known before it is opened."""


@dataclass(frozen=True)
class StoredVideos:
    """Labelled video files, of which a loader reads clips."""

    files: Sequence[VideoFile]
    sampling: Sampling

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files[index].name

    def label(self, index: int) -> Label:
        """Known without reading the video."""
        return self.files[index].label

    def read(self, index: int) -> tuple[list[Image.Image], Label]:
        file = self.files[index]
        if file.problem is not None:
            raise UnreadableSampleError(file.problem)
        return read_frames(file.path, self.sampling), file.label


def read_frames(path: str, sampling: Sampling) -> list[Image.Image]:
    """Decode the frames that `sampling` asks for, and as few others as that takes.

    Raises:
        UnreadableSampleError: There is no such file, it is no video, has no picture
            or ends too soon.
    """
    try:
        return _read_frames(path, sampling)
    except av.FFmpegError as error:
        raise UnreadableSampleError(error.strerror or str(error)) from error


def _read_frames(path: str, sampling: Sampling) -> list[Image.Image]:
    with _open(path) as container:
        stream = _video_stream(container)
        timetable = _read_timetable(container, stream)
        if timetable is None:
            return _read_by_counting(path, sampling)
        indices = sampling.indices(len(timetable.times))
        times = [timetable.times[index] for index in indices]
        images: dict[int, Image.Image] = {}
        if container.format.name in EXACT_SEEK:
            for keyframe, run in timetable.runs(sorted(set(indices))):
                container.seek(keyframe, stream=stream)
                images |= _pick(_by_time(container.decode(stream)), run)
    if len(images) < len(set(times)):
        images = _pick(_by_time(_decode_all(path)), set(times))
    return _in_order(images, times)


@dataclass(frozen=True)
class Timetable:
    """When the frames of a video are shown, which takes no decoding to know."""

    times: list[int]
    """Of the N frames, rising, in the stream's own unit."""
    keyframes: list[int]
    """Of the frames that decoding can begin with, rising."""

    def runs(self, indices: Sequence[int]) -> list[tuple[int, set[int]]]:
        """How to decode these rising frames: where to seek to, and the times to keep.

        A frame begins a run of its own where seeking skips enough frames.
        """
        runs: list[tuple[int, set[int]]] = []
        previous = -1
        for index in indices:
            keyframe = self._keyframe_before(self.times[index])
            skipped = bisect_left(self.times, keyframe) - previous - 1
            if not runs or skipped >= SEEK_PAYS:
                runs.append((keyframe, set()))
            runs[-1][1].add(self.times[index])
            previous = index
        return runs

    def _keyframe_before(self, time: int) -> int:
        return self.keyframes[max(0, bisect_right(self.keyframes, time) - 1)]


def _open(path: str) -> InputContainer:
    # Titles in the encoding of some telephone are no reason to lose the video.
    return av.open(path, metadata_errors="replace")


def _video_stream(container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if Disposition.attached_pic in stream.disposition:  # the cover of a song
            continue
        if stream.codec_context is None:
            raise UnreadableSampleError("nothing here decodes its video stream")
        # The cores of this process: one of several that load, or of a rank's share.
        stream.codec_context.thread_count = torch.get_num_threads()
        stream.thread_type = "AUTO"
        return stream
    raise UnreadableSampleError("it has no video stream")


def _read_timetable(container: InputContainer, stream: VideoStream) -> Timetable | None:
    """Read all packets of the stream; None: they do not say when frames are shown."""
    packets = [
        (packet.pts, packet.is_keyframe, packet.is_discard)
        for packet in container.demux(stream)
        if packet.size and not packet.is_corrupt
    ]
    expected = len(stream.index_entries)
    if container.format.name == MP4 and len(packets) < expected:
        raise UnreadableSampleError(
            f"it is cut short: {len(packets)} of its {expected} frames are there"
        )
    # Frames from before a cut are still in the file: decoded with, but not shown.
    times = [time for time, _, is_discarded in packets if not is_discarded]
    if not times:
        raise UnreadableSampleError("it has no frames")
    known = {time for time in times if time is not None}
    starts = {time for time, is_start, _ in packets if is_start and time is not None}
    if len(known) < len(times) or not starts:
        return None
    return Timetable(sorted(known), sorted(starts))


def _read_by_counting(path: str, sampling: Sampling) -> list[Image.Image]:
    available = sum(1 for _ in _decode_all(path))
    if not available:
        raise UnreadableSampleError("it has no frames")
    indices = sampling.indices(available)
    return _in_order(_pick(enumerate(_decode_all(path)), set(indices)), indices)


def _decode_all(path: str) -> Iterator[VideoFrame]:
    with _open(path) as container:
        yield from container.decode(_video_stream(container))


def _by_time(frames: Iterable[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
    return ((frame.pts, frame) for frame in frames if frame.pts is not None)


def _pick(
    frames: Iterable[tuple[int, VideoFrame]], wanted: Collection[int]
) -> dict[int, Image.Image]:
    """Keep the wanted ones of these numbered frames, and end with the last of them."""
    converter = VideoReformatter()  # one for all: each sets up its tables anew
    last = max(wanted)
    images = {}
    for number, frame in frames:
        if number in wanted:
            images[number] = _upright_image(frame, converter)
        if number >= last:
            break
    return images


def _upright_image(frame: VideoFrame, converter: VideoReformatter) -> Image.Image:
    threads = torch.get_num_threads()  # by itself, one for every core
    picture = converter.reformat(frame, format="rgb24", threads=threads)
    image = Image.fromarray(picture.to_ndarray())
    # Telephones store frames as the sensor lies, and how far to turn them.
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _in_order(
    images: dict[int, Image.Image], numbers: Sequence[int]
) -> list[Image.Image]:
    missing = set(numbers) - images.keys()
    if missing:
        raise UnreadableSampleError(
            f"{len(missing)} of the {len(set(numbers))} frames cannot be decoded"
        )
    size = images[numbers[0]].size
    # A recording may change its size midway; as with FFmpeg, the first one counts.
    return [
        images[number] if images[number].size == size else images[number].resize(size)
        for number in numbers
    ]
