"""Random images and clips with random labels, for speed and memory only."""

import torch

from tlbench.data import Split, SplitName

SAMPLES = 64
SIDE = 64
CLIPS = 4
CLIP_SIDE = 32


class Synthetic:
    """Noise in the shape of ImageNet: 1,000 classes, no meaning."""

    num_classes = 1000

    def split(self, name: SplitName) -> Split:
        return _noise(name, (SAMPLES, 3, SIDE, SIDE), self.num_classes)


class SyntheticClips:
    """Noise in the shape of Kinetics-400; few and small, since clips are large."""

    num_classes = 400

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames

    def split(self, name: SplitName) -> Split:
        shape = (CLIPS, 3, self.num_frames, CLIP_SIDE, CLIP_SIDE)
        return _noise(name, shape, self.num_classes)


def _noise(name: SplitName, shape: tuple[int, ...], num_classes: int) -> Split:
    generator = torch.Generator().manual_seed(0 if name == "train" else 1)
    images = torch.rand(shape, generator=generator) * 2 - 1
    labels = torch.randint(num_classes, shape[:1], generator=generator)
    return Split(images=images, labels=labels)
