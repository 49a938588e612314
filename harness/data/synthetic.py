"""Random images and clips with random labels, for speed and memory only."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from PIL import Image

from tlbench.data import Split, SplitName
from tlbench.suites.model_spec import VideoSpec

SAMPLES = 64
SIDE = 64
CLIPS = 4
CLIP_SIDE = 32

JPEG_SIZE = (480, 384)
"""Width and height, about those of a photograph in ImageNet."""
FRAME_SIZE = (340, 256)
"""Kinetics is commonly stored with a short side of 256 pixels."""
JPEG_QUALITY = 90
GRAIN = 2.5
"""Pixels from one random value to the next: noise of single pixels would make files
half as large again as photographs of the same size."""


class Synthetic:
    """Noise in the shape of ImageNet: 1,000 classes, no meaning."""

    num_classes = 1000

    def __init__(self, **_: object) -> None:
        """Make noise, which is the same whatever else a case says."""

    def split(self, name: SplitName) -> Split:
        return _noise(name, (SAMPLES, 3, SIDE, SIDE), self.num_classes)

    def stored(self, split: SplitName) -> "JpegNoise":
        return JpegNoise(split, SAMPLES, 1, JPEG_SIZE, self.num_classes)


class SyntheticClips:
    """Noise in the shape of Kinetics-400; few and small, since clips are large."""

    num_classes = 400

    def __init__(self, video: VideoSpec, **_: object) -> None:
        """Make noise in the frames of the model, whatever else a case says."""
        self.num_frames = video.num_frames

    def split(self, name: SplitName) -> Split:
        shape = (CLIPS, 3, self.num_frames, CLIP_SIDE, CLIP_SIDE)
        return _noise(name, shape, self.num_classes)

    def stored(self, split: SplitName) -> "JpegNoise":
        return JpegNoise(split, CLIPS, self.num_frames, FRAME_SIZE, self.num_classes)


class JpegNoise:
    """JPEG files in memory, which cost about what photographs cost to decode.

    A clip is one file a frame. No disk is read.
    """

    def __init__(
        self,
        split: SplitName,
        count: int,
        num_frames: int,
        size: tuple[int, int],
        num_classes: int,
    ) -> None:
        generator = np.random.default_rng(_seed(split))
        self._samples: Sequence[Sequence[bytes]] = [
            [jpeg_noise(generator, size) for _ in range(num_frames)]
            for _ in range(count)
        ]
        self._labels = generator.integers(num_classes, size=count).tolist()

    def __len__(self) -> int:
        return len(self._samples)

    def name(self, index: int) -> str:
        return f"noise {index}"

    def read(self, index: int) -> tuple[list[Image.Image], int]:
        files = self._samples[index]
        frames = [Image.open(BytesIO(file)).convert("RGB") for file in files]
        return frames, self._labels[index]


def jpeg_noise(generator: np.random.Generator, size: tuple[int, int]) -> bytes:
    """A file of coarse noise, `size` being its width and height."""
    width, height = size
    grains = int(height / GRAIN), int(width / GRAIN), 3
    noise = Image.fromarray(generator.integers(256, size=grains, dtype=np.uint8))
    file = BytesIO()
    noise.resize(size, Image.Resampling.BILINEAR).save(
        file, "JPEG", quality=JPEG_QUALITY
    )
    return file.getvalue()


def _noise(name: SplitName, shape: tuple[int, ...], num_classes: int) -> Split:
    generator = torch.Generator().manual_seed(_seed(name))
    images = torch.rand(shape, generator=generator) * 2 - 1
    labels = torch.randint(num_classes, shape[:1], generator=generator)
    return Split(images=images, labels=labels)


def _seed(split: SplitName) -> int:
    return 0 if split == "train" else 1
