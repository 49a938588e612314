"""Clips per second of our decoding, beside plain PyAV loops over the same files.

Files as people hold Kinetics: ten seconds of H.264 with a short side of 256 pixels,
made here. All sides decode the same frames on one core, and take turns file by file;
the ratio is that of the turns of one round.

    PYTHONPATH=tests/benchmarks python tests/benchmarks/video_decoding.py --rounds 40

One plain loop decodes from the start up to the last frame it needs. The other one
seeks, and trusts that frames come at an even rate: quick, and wrong where they do not.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from tlbench.data.videos import Sampling, read_frames
from tlbench.statistics import compare_ratio
from turns import take_turns

FILES, SECONDS, RATE = 8, 10, 30
SIZE = (340, 256)
GRAIN = 8
"""Pixels from one random value to the next."""
SPEED = 2
"""Pixels that the picture moves from frame to frame."""
CLIPS = {
    "training, 32 frames, stride 2": Sampling(32, stride=2),
    "evaluation, 4 clips of 32 frames, stride 2": Sampling(32, stride=2, clips=4),
}


def write_file(
    path: Path, keyframe_distance: int, generator: np.random.Generator
) -> None:
    """Noise that moves sideways: it takes about as many bits as a film."""
    width, height = SIZE
    frames = SECONDS * RATE
    grains = height // GRAIN, (width + frames * SPEED) // GRAIN, 3
    noise = Image.fromarray(generator.integers(256, size=grains, dtype=np.uint8))
    wall = noise.resize((width + frames * SPEED, height), Image.Resampling.BICUBIC)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = keyframe_distance
        for number in range(frames):
            left = number * SPEED
            image = wall.crop((left, 0, left + width, height))
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def as_people_do(frame: av.VideoFrame) -> Image.Image:
    image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]  # PyAV's gap
    return image


def plain_loop(path: str, sampling: Sampling) -> list[Image.Image]:
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        indices = sampling.indices(stream.frames)
        wanted, images = set(indices), {}
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                images[index] = as_people_do(frame)
            if len(images) == len(wanted):
                break
    return [images[index] for index in indices]


def seeking_loop(path: str, sampling: Sampling) -> list[Image.Image]:
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        indices = sampling.indices(stream.frames)
        assert stream.time_base is not None
        step = round(1 / (RATE * stream.time_base))
        wanted, images = set(indices), {}
        container.seek(min(wanted) * step, stream=stream)
        for frame in container.decode(stream):
            assert frame.pts is not None
            if (index := frame.pts // step) in wanted:
                images[index] = as_people_do(frame)
            if len(images) == len(wanted):
                break
    return [images[index] for index in indices]


def timed(
    read: Callable[[str, Sampling], list[Image.Image]],
    files: list[str],
    sampling: Sampling,
) -> Callable[[], float]:
    """What reads the next file, and gives the seconds it took."""
    turns = cycle(enumerate(files * 7))  # starts anew differ from file to file

    def read_time_s() -> float:
        number, path = next(turns)
        torch.manual_seed(number)  # every side draws the same clips
        start = time.perf_counter()
        read(path, sampling)
        return time.perf_counter() - start

    return read_time_s


def report(title: str, files: list[str], sampling: Sampling, rounds: int) -> None:
    sides = {
        "tlbench": timed(read_frames, files, sampling),
        "plain loop": timed(plain_loop, files, sampling),
        "seeking loop": timed(seeking_loop, files, sampling),
    }
    rates = take_turns(sides, rounds, sampling.clips or 1)
    print(title)
    for name, found in rates.items():
        print(f"  {name}: {np.median(list(found.values())):.1f} clips/s")
    for peer in ("plain loop", "seeking loop"):
        ratio = compare_ratio(rates[peer], rates["tlbench"], "higher")
        low, high = ratio.interval or (float("nan"), float("nan"))
        print(
            f"  tlbench over {peer}: {ratio.value:.3f} x,"
            f" 95 % interval {low:.3f} to {high:.3f} ({rounds} rounds)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    # One core for all sides, as every worker of a busy loader has: FFmpeg would help
    # itself to all cores.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for distance in (250, 12):
            files = [f"{folder}/{distance}_{number}.mp4" for number in range(FILES)]
            for file in files:
                write_file(Path(file), distance, generator)
            size_kib = sum(Path(file).stat().st_size for file in files) / FILES / 1024
            for what, sampling in CLIPS.items():
                title = f"{what}; keyframe every {distance}, {size_kib:.0f} KiB a file"
                report(title, files, sampling, rounds)


if __name__ == "__main__":
    main()
