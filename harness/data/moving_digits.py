"""Clips of scikit-learn's real digits that move in a known way: they come with tlbench.

D digits and M clips of a split, C channels (3), F frames, S side of the canvas.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tlbench.data import Split, SplitName
from tlbench.data.digits import Digits
from tlbench.suites.model_spec import VideoSpec
from tlbench.suites.training import View

MOTIONS = ("left", "right", "up", "down")
SIDE = 32
ENLARGED = 2
"""Pixels of a clip to a side of a pixel of the digit."""
DIGIT_SIDE = 8 * ENLARGED
ROOM = SIDE - DIGIT_SIDE
"""The furthest that the corner of a digit can lie from the edge."""
TRAVEL = 12
"""Pixels from the first frame to the last."""


class MovingDigits:
    """Digits that move left, right, up or down: ten digits x four motions.

    Every digit comes twice, there and back on one path: the frames of both clips are
    the same, in reverse order, so that nothing but time tells the two classes apart.
    A clip always has the frames of the model, whatever `view.frame_stride` says.
    """

    def __init__(
        self, *, path: str | None = None, video: VideoSpec, view: View, num_classes: int
    ) -> None:
        self.num_classes = num_classes
        self._num_frames, self._clips = video.num_frames, view.temporal_clips
        self._stored: dict[SplitName, StoredMovingDigits] = {}

    def split(self, name: SplitName) -> Split:
        stored = self.stored(name)
        grey = torch.stack([stored.frames(index) for index in range(len(stored))])
        labels = [stored.label(index) for index in range(len(stored))]
        return Split(
            images=grey[:, None].expand(-1, 3, -1, -1, -1),  # one channel of memory
            labels=torch.tensor(labels),
        )

    def stored(self, name: SplitName) -> "StoredMovingDigits":
        if name not in self._stored:
            digits = Digits().split(name)
            self._stored[name] = StoredMovingDigits(
                digits.images[:, 0],
                digits.labels.tolist(),
                self._num_frames,
                repeats=1 if name == "train" else self._clips,
            )
        return self._stored[name]

    def positions(self, name: SplitName, index: int) -> Tensor:
        """Centre of the digit in each frame, [F, 2]: y and x in parts of the side."""
        corners = self.stored(name).corners(index)
        return (torch.tensor(corners) + DIGIT_SIDE / 2) / SIDE


@dataclass(frozen=True)
class StoredMovingDigits:
    """The clips of one split, painted when they are asked for."""

    digits: Tensor
    """[D, 8, 8] in [-1, 1]."""
    labels: list[int]
    """Of the D digits."""
    num_frames: int
    repeats: int
    """Temporal clips of each sample: all of them alike, since none is longer."""

    def __len__(self) -> int:
        return 2 * len(self.labels)

    def name(self, index: int) -> str:
        return f"digit {index // 2} moving {self._motion(index)}"

    def read(self, index: int) -> tuple[list[Image.Image], int]:
        shades = torch.round((self.frames(index) + 1) * 127.5).to(torch.uint8)
        images = [Image.fromarray(frame).convert("RGB") for frame in shades.numpy()]
        return images * self.repeats, self.label(index)

    def label(self, index: int) -> int:
        motion = MOTIONS.index(self._motion(index))
        return self.labels[index // 2] * len(MOTIONS) + motion

    def frames(self, index: int) -> Tensor:
        """The grey frames of one clip, [F, S, S] in [-1, 1]."""
        digit = self.digits[index // 2]
        digit = digit.repeat_interleave(ENLARGED, 0).repeat_interleave(ENLARGED, 1)
        frames = torch.full((self.num_frames, SIDE, SIDE), -1.0)
        for frame, (top, left) in zip(frames, self.corners(index), strict=True):
            frame[top : top + DIGIT_SIDE, left : left + DIGIT_SIDE] = digit
        return frames

    def corners(self, index: int) -> list[tuple[int, int]]:
        """Top and left of the digit in each of the F frames, in pixels."""
        place = self._places[index // 2]
        # Start and lane go through all pairs of them, in every class alike.
        start, lane = place // 2 % (ROOM - TRAVEL + 1), place // 2 * 7 % (ROOM + 1)
        way = np.linspace(start, start + TRAVEL, self.num_frames).round().astype(int)
        path = way.tolist() if index % 2 else way[::-1].tolist()
        is_sideways = place % 2 == 0
        return [(lane, step) if is_sideways else (step, lane) for step in path]

    def _motion(self, index: int) -> str:
        """Left or up is the way back of right or down."""
        is_upright = self._places[index // 2] % 2
        return MOTIONS[2 * is_upright + index % 2]

    @cached_property
    def _places(self) -> list[int]:
        """The place of each digit among those of its class, from 0."""
        seen = [0] * 10
        places = []
        for label in self.labels:
            places.append(seen[label])
            seen[label] += 1
        return places
