"""What data sets are called, and what is known of each before it is opened.

Sizes and classes: `docs/data.md` names the source of each.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["images", "clips"]


@dataclass(frozen=True)
class DataInfo:
    """One data set, as one kind of model reads it."""

    num_classes: int
    train_samples: int | None = None
    """None: nothing to train on, or nobody knows before it is opened."""
    eval_samples: int | None = None
    is_embedded: bool = False
    """Whether it comes with tlbench or a library; all others lie at a path."""
    is_multilabel: bool = False
    """Whether a sample may have several labels, or none."""
    has_meaning: bool = True
    """False: the labels are random, for speed and memory only."""
    is_eval_only: bool = False


IMAGES: dict[str, DataInfo] = {
    "digits": DataInfo(10, 1_442, 355, is_embedded=True),
    "synthetic": DataInfo(1000, is_embedded=True, has_meaning=False),
    "fashion-mnist": DataInfo(10, 60_000, 10_000),
    "mnist": DataInfo(10, 60_000, 10_000),
    "imagenet-1k": DataInfo(1000, 1_281_167, 50_000),
    "imagenet-21k": DataInfo(21_843),
    "imagenet-real": DataInfo(1000, None, 50_000, is_eval_only=True),
    "objectnet": DataInfo(1000, None, None, is_eval_only=True),
}
CLIPS: dict[str, DataInfo] = {
    "synthetic": DataInfo(400, is_embedded=True, has_meaning=False),
    "moving-digits": DataInfo(40, 2_884, 710, is_embedded=True),
    "kinetics-400": DataInfo(400, 214_834, 17_637),
    "kinetics-600": DataInfo(600, 363_213, 27_676),
    "charades": DataInfo(157, is_multilabel=True),
    "avid": DataInfo(887),
}
KINDS: dict[Kind, dict[str, DataInfo]] = {"images": IMAGES, "clips": CLIPS}
