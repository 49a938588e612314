"""Random images with random labels, for speed and memory only."""

import torch

from tlbench.data import Split, SplitName

SAMPLES = 64
SIDE = 64


class Synthetic:
    """Noise in the shape of ImageNet: 1,000 classes, no meaning."""

    num_classes = 1000

    def split(self, name: SplitName) -> Split:
        generator = torch.Generator().manual_seed(0 if name == "train" else 1)
        images = torch.rand(SAMPLES, 3, SIDE, SIDE, generator=generator) * 2 - 1
        labels = torch.randint(self.num_classes, (SAMPLES,), generator=generator)
        return Split(images=images, labels=labels)
