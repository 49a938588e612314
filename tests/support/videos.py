"""Small video files whose frames can be told apart: each has its number painted in."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from PIL import Image

BITS = 8
BAR = 16
"""Width of the bar of one bit of the number, which is white or black, in pixels."""
HEIGHT = 48


def write_video(
    path: Path,
    num_frames: int,
    *,
    codec: str = "libx264",
    keyframe_distance: int = 12,
    times: list[int] | None = None,
    options: Mapping[str, str] | None = None,
    movflags: str = "",
    title: str = "",
) -> Path:
    """Encode frames 0, 1, ... as H.264, or by another codec.

    Args:
        path: Its ending decides the container.
        num_frames: At most 256.
        codec: FFmpeg's name of the encoder.
        keyframe_distance: Frames from one that decoding can begin with to the next.
        times: When each is shown, in 1/1000 s; None: at an even rate.
        options: Of the encoder.
        movflags: Of an MP4 file.
        title: Of the film.
    """
    container_options = {"movflags": movflags} if movflags else {}
    with av.open(str(path), "w", options=container_options) as container:
        container.metadata["title"] = title
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = BITS * BAR, HEIGHT
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = keyframe_distance
        stream.options = dict(options or {})
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(painted(number), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path, *, cover: bool = False) -> Path:
    """Encode a second of silence, with no picture or with that of a record's cover."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        if cover:
            _add_cover(container)
        silence = np.zeros((1, 1024), np.float32)
        for _ in range(16):
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _add_cover(container: OutputContainer) -> None:
    stream = container.add_stream("mjpeg")
    stream.width, stream.height, stream.pix_fmt = BITS * BAR, HEIGHT, "yuvj420p"
    stream.disposition = Disposition.attached_pic
    frame = av.VideoFrame.from_ndarray(painted(0), format="rgb24")
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def painted(number: int) -> np.ndarray:
    """The bits of the number from left to right as white and black bars."""
    bits = [(number >> bit) & 1 for bit in reversed(range(BITS))]
    row = np.repeat(np.array(bits, np.uint8) * 255, BAR)
    return np.broadcast_to(row[None, :, None], (HEIGHT, BITS * BAR, 3)).copy()


def frame_number(image: Image.Image) -> int:
    """The number painted into a decoded frame, if it lies upright."""
    grey = np.asarray(image.convert("L"), float)
    bars = grey.mean(axis=0).reshape(BITS, BAR).mean(axis=1) > 127
    return int("".join("1" if bar else "0" for bar in bars), 2)


def frame_numbers(images: list[Image.Image]) -> list[int]:
    return [frame_number(image) for image in images]
