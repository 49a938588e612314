"""What of a sample reaches the model: crops, augmentation and normalisation.

All frames of a clip are varied alike. Random numbers are those of torch's default
generator, which `tlbench.data.epochs` seeds for each sample; timm's are of NumPy and of
Python itself, which are seeded with one of torch's.

B samples of a batch, C channels (3), F frames, K classes, S image size, V views.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.random import mtrand
from PIL import Image
from torch import Tensor

from tlbench.suites.spec import Case
from tlbench.suites.training import Augment, View

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels, which may be fractions."""
Frames = list[Image.Image]

ASPECT_RATIOS = (3 / 4, 4 / 3)
"""Width over height of crops of random shape, evenly spread in its logarithm."""
ATTEMPTS = 10
"""At a crop of random shape that fits; then it is the middle of the sample."""
JITTER = {"brightness": 32 / 255, "contrast": 0.4, "saturation": 0.4, "hue": 0.2}
"""Widest change of each. Source: DeepMind's dmvr, `color_default_augm`, as ViViT has
it; the brightness is multiplied here, and added there."""
MAGNITUDE_LIMIT = 30
"""timm cuts magnitudes off at 10 unless told otherwise; recipes have 15."""
TRANSLATION = 0.45
"""Of the side; the largest of RandAugment, as in timm."""
CUTMIX_SHARE = 0.5
"""How often a batch is cut where it may be mixed, too; as in timm."""


class Pixels:
    """Makes tensors of frames, in the range that the view asks for."""

    def __init__(self, view: View, *, is_clip: bool) -> None:
        mean, deviation = colours(view)
        self._mean = 255 * torch.tensor(mean).view(-1, 1, 1, 1)
        self._deviation = 255 * torch.tensor(deviation).view(-1, 1, 1, 1)
        self._is_clip = is_clip

    def __call__(self, frames: Frames) -> Tensor:
        """[C, S, S] of a single frame, or [C, F, S, S]."""
        sample = torch.empty(3, len(frames), frames[0].height, frames[0].width)
        for number, frame in enumerate(frames):
            pixels = torch.from_numpy(np.array(frame))  # [S, S, C]
            sample[:, number].copy_(pixels.permute(2, 0, 1))
        sample.sub_(self._mean).div_(self._deviation)
        return sample if self._is_clip else sample.squeeze(1)


def colours(view: View) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of each channel, from 0 to 1."""
    if view.normalize == "half":
        return (0.5,) * 3, (0.5,) * 3
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD


class Scaling:
    """Scales samples on their way to the size of the model."""

    def __init__(self, case: Case) -> None:
        self.size = case.model.image_size
        self.short_side = math.floor(self.size / (case.view.crop_fraction or 1))
        """What the short side of a sample is scaled to before it is cropped."""
        self._filter = Image.Resampling[case.view.interpolation.upper()]

    def __call__(
        self, frames: Frames, size: tuple[int, int], box: Box | None = None
    ) -> Frames:
        """The frames, or that box of each, in the size given as width and height."""
        return [frame.resize(size, self._filter, box) for frame in frames]


def scaled_size(frame: Image.Image, short_side: int) -> tuple[int, int]:
    """Width and height once the short side is so long; rounded as torchvision does."""
    width, height = (int(short_side * side / min(frame.size)) for side in frame.size)
    return width, height


# ---------------------------------------------------------------- evaluation


class Views:
    """The views of a sample that evaluation averages over, always the same."""

    def __init__(self, case: Case) -> None:
        is_clip = case.model.video is not None
        self._view, self._scaling = case.view, Scaling(case)
        self._pixels = Pixels(case.view, is_clip=is_clip)
        self._clips = case.view.temporal_clips if is_clip else 1

    @property
    def count(self) -> int:
        return self._clips * self._view.spatial_crops

    def __call__(self, frames: Frames) -> Tensor:
        """[V, C, S, S] of one frame, or [V, C, F, S, S] of those of all clips."""
        length, rest = divmod(len(frames), self._clips)
        if rest or not length:
            raise ValueError(f"{len(frames)} frames make no {self._clips} clips")
        scaled = self._scaling(frames, self._scaled_size(frames[0]))
        views = [
            self._pixels([frame.crop(box) for frame in scaled[first : first + length]])
            for first in range(0, len(frames), length)
            for box in self._crops(scaled[0])
        ]
        return torch.stack(views)

    def _scaled_size(self, frame: Image.Image) -> tuple[int, int]:
        if self._view.crop_fraction is None and self._view.spatial_crops == 1:
            return self._scaling.size, self._scaling.size  # all of it is seen
        return scaled_size(frame, self._scaling.short_side)

    def _crops(self, frame: Image.Image) -> list[Box]:
        """The boxes of S x S pixels; rounded as torchvision's CenterCrop does."""
        room = [side - self._scaling.size for side in frame.size]
        is_wide = room[0] >= room[1]
        boxes: list[Box] = []
        for place in (0.5,) if self._view.spatial_crops == 1 else (0.0, 0.5, 1.0):
            x, y = (place, 0.5) if is_wide else (0.5, place)
            left, top = round(room[0] * x), round(room[1] * y)
            right, bottom = left + self._scaling.size, top + self._scaling.size
            boxes.append((left, top, right, bottom))
        return boxes


# ---------------------------------------------------------------- training


class Variation:
    """One random variation of a sample, as `augment` of the case says."""

    def __init__(self, case: Case) -> None:
        self._augment = case.augment
        self._scaling = Scaling(case)
        self._pixels = Pixels(case.view, is_clip=case.model.video is not None)
        self._rand_augment = _rand_augment(case)
        self._recolour = _recolouring(case.augment)
        self._erase = _erasing(case.augment)

    def __call__(self, frames: Frames) -> Tensor:
        """[C, S, S] of a single frame, or [C, F, S, S]."""
        size = self._scaling.size, self._scaling.size
        frames = self._scaling(frames, size, self._box(frames[0]))
        if _happens(self._augment.flip):
            mirror = Image.Transpose.FLIP_LEFT_RIGHT
            frames = [frame.transpose(mirror) for frame in frames]
        if self._rand_augment is not None:
            frames = _alike(self._rand_augment, frames)
        if self._recolour is not None:
            frames = self._recolour(frames)
        sample = self._pixels(frames)
        if self._erase is not None and _happens(self._augment.erasing):
            with timm_draws(draw_seed()):
                self._erase(sample.flatten(0, -3))  # the same place in all frames
        return sample

    def _box(self, frame: Image.Image) -> Box:
        """What becomes the whole sample."""
        match self._augment.crop:
            case "random":
                return self._random_box(frame)
            case "corner":
                return self._corner_box(frame)
            case _:
                return 0, 0, *frame.size

    def _corner_box(self, frame: Image.Image) -> Box:
        """The pixels that make up S x S ones, anywhere, once the frame is scaled."""
        share, x, y = torch.rand(3).tolist()
        scale = _between(self._augment.min_scale, self._augment.max_scale, share)
        short_side = round(self._scaling.short_side * scale)
        # A crop has to fit, however small the scale.
        side = (
            min(frame.size) * self._scaling.size / max(short_side, self._scaling.size)
        )
        left, top = (frame.width - side) * x, (frame.height - side) * y
        return left, top, left + side, top + side

    def _random_box(self, frame: Image.Image) -> Box:
        """A box of random area and shape, drawn as torchvision and timm do."""
        width, height = frame.size
        narrowest, widest = map(math.log, ASPECT_RATIOS)
        for _ in range(ATTEMPTS):
            share, shape, x, y = torch.rand(4).tolist()
            area = width * height * _between(self._augment.min_area, 1.0, share)
            ratio = math.exp(_between(narrowest, widest, shape))
            wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if wide <= width and high <= height:
                left, top = (width - wide) * x, (height - high) * y
                return left, top, left + wide, top + high
        return _central_box(width, height)


def _happens(share: float) -> bool:
    return float(torch.rand(())) < share


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def _central_box(width: int, height: int) -> Box:
    """The largest box in the middle whose shape is none too narrow."""
    narrowest, widest = ASPECT_RATIOS
    wide, high = min(width, height * widest), min(height, width / narrowest)
    left, top = (width - wide) / 2, (height - high) / 2
    return left, top, left + wide, top + high


def is_varied(augment: Augment) -> bool:
    """Whether samples are varied one by one, and not only mixed."""
    return augment.model_copy(update={"mixup": 0.0, "cutmix": 0.0}) != Augment()


def _rand_augment(case: Case) -> Callable[[Image.Image], Image.Image] | None:
    augment = case.augment
    if not augment.rand_augment_layers:
        return None
    from timm.data.auto_augment import rand_augment_transform

    mean, _ = colours(case.view)
    words = [
        "rand",
        f"m{augment.rand_augment_magnitude}",
        f"n{augment.rand_augment_layers}",
        f"mmax{MAGNITUDE_LIMIT}",
    ]
    settings = {
        "translate_const": int(case.model.image_size * TRANSLATION),
        "img_mean": tuple(round(255 * value) for value in mean),
        "interpolation": Image.Resampling[case.view.interpolation.upper()],
    }
    transform: Callable[[Image.Image], Image.Image] = rand_augment_transform(
        "-".join(words), settings
    )
    return transform


def _alike(transform: Callable[[Image.Image], Image.Image], frames: Frames) -> Frames:
    """Transform all frames by the same random numbers."""
    seed, varied = draw_seed(), []
    for frame in frames:
        with timm_draws(seed):
            varied.append(transform(frame))
    return varied


@contextmanager
def timm_draws(number: int) -> Iterator[None]:
    """Let timm draw random numbers that `number` decides, and disturb nobody else's."""
    generator, state = mtrand.get_bit_generator(), random.getstate()
    # To seed NumPy's own and to put it back takes ten times as long.
    mtrand.set_bit_generator(np.random.PCG64(number))
    random.seed(number)
    try:
        yield
    finally:
        mtrand.set_bit_generator(generator)
        random.setstate(state)


def draw_seed() -> int:
    """A seed for `timm_draws`, of torch's default generator."""
    return int(torch.randint(2**32, ()))


def _recolouring(augment: Augment) -> Callable[[Frames], Frames] | None:
    if not augment.color_jitter and not augment.grayscale:
        return None
    from torchvision.transforms import v2

    transform: Callable[[Frames], Frames] = v2.Compose(
        [
            v2.RandomApply([v2.ColorJitter(**JITTER)], p=augment.color_jitter),
            v2.RandomGrayscale(p=augment.grayscale),
        ]
    )
    return transform


def _erasing(augment: Augment) -> Callable[[Tensor], Any] | None:
    if not augment.erasing:
        return None
    from timm.data.random_erasing import RandomErasing

    erasing: Callable[[Tensor], Any] = RandomErasing(1.0, device="cpu")
    return erasing


# ---------------------------------------------------------------- mixing


def mix(images: Tensor, targets: Tensor, augment: Augment) -> tuple[Tensor, Tensor]:
    """Mix each sample of a batch with the one as far from its other end, as timm does.

    Args:
        images: [B, C, ..., S, S].
        targets: [B, K], the shares of the classes.
        augment: Its mixup and cutmix, of which one is drawn for the whole batch.
    """
    from timm.data.mixup import cutmix_bbox_and_lam

    is_cut = augment.cutmix > 0 and (
        augment.mixup == 0 or np.random.rand() < CUTMIX_SHARE
    )
    alpha = augment.cutmix if is_cut else augment.mixup
    share, others = float(np.random.beta(alpha, alpha)), images.flip(0)
    if is_cut:
        box, share = cutmix_bbox_and_lam(images.shape, share)
        top, bottom, left, right = box
        images[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    else:
        images = torch.lerp(others, images, share)
    return images, torch.lerp(targets.flip(0), targets, share)
