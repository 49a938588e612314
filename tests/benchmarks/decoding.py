"""Images per second of our pipeline, beside timm's own loader on the same JPEG files.

Files of the size of ImageNet's, made here as class folders. Both sides read, decode,
crop, augment and normalise by one thread of this process, so that no core is idle and
none is shared, and take turns batch by batch; the ratio is that of the batches of one
round. Their random numbers differ, and both sides see each file equally often.

    PYTHONPATH=tests/benchmarks python tests/benchmarks/decoding.py --rounds 60
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, count, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data import create_dataset, create_loader

from tlbench.data import Dataset, epochs, open_dataset
from tlbench.data.epochs import training_batches, view_batches
from tlbench.data.synthetic import JPEG_SIZE, jpeg_noise
from tlbench.rank import Rank
from tlbench.statistics import compare_ratio
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case
from turns import take_turns

CLASSES, FILES_PER_CLASS, BATCH_SIZE, SIZE = 4, 32, 32, 224
TARGET = 0.02
"""Within so much the two are as fast as each other."""
RANK = Rank(0, 1, 0, 1, "127.0.0.1", 0, "cpu", 1)
TIMM = {"interpolation": "bilinear", "use_prefetcher": False, "num_workers": 0}
PLAIN = {"crop": "random", "flip": 0.5}
RICH = PLAIN | {
    "rand_augment_layers": 2,
    "rand_augment_magnitude": 9,
    "erasing": 0.25,
}
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "decoding, random crop, flip": (
        {"augment": PLAIN},
        {"is_training": True, "color_jitter": None},
    ),
    "the same, RandAugment, erasing": (
        {"augment": RICH},
        {"is_training": True, "auto_augment": "rand-m9-n2", "re_prob": 0.25},
    ),
    "evaluation, central crop": (
        {"view": {"crop_fraction": 0.875}},
        {"is_training": False, "crop_pct": 0.875},
    ),
}
"""What is done: our settings of a case, and timm's."""


def write_files(root: Path) -> None:
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in range(CLASSES):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(FILES_PER_CLASS):
                file = folder / f"{number}.jpeg"
                file.write_bytes(jpeg_noise(generator, JPEG_SIZE))


def our_batches(root: Path, settings: dict[str, Any]) -> Iterator[object]:
    case = Case.model_validate(
        {
            "model": parse_model(f"ViT-Ti/16@{SIZE}"),
            "mode": "fit",
            "data": "noise",
            "classes": CLASSES,
            "batch_size": BATCH_SIZE,
            **settings,
        }
    )
    dataset = open_dataset(case, str(root))
    return chain.from_iterable(_epoch(dataset, case, epoch) for epoch in count())


def _epoch(dataset: Dataset, case: Case, epoch: int) -> Iterator[object]:
    if case.augment.crop == "whole":
        return view_batches(dataset, "eval", case, RANK, batch_size=BATCH_SIZE)
    return training_batches(dataset, case, RANK, seed=0, epoch=epoch)


def timms_batches(root: Path, settings: dict[str, Any]) -> Iterator[object]:
    split = "train" if settings["is_training"] else "val"
    files = create_dataset("", str(root / split))
    loader = create_loader(files, SIZE, BATCH_SIZE, **settings, **TIMM)
    return chain.from_iterable(repeat(loader))


def turn(batches: Iterator[object]) -> Callable[[], float]:
    def seconds() -> float:
        start = time.perf_counter()
        next(batches)
        return time.perf_counter() - start

    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    epochs._workers = lambda rank: 0  # in this script only: one thread does it all
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_files(root)
        for way, (ours, timms) in WAYS.items():
            sides = {
                "tlbench": turn(our_batches(root, ours)),
                "timm": turn(timms_batches(root, timms)),
            }
            rates = take_turns(sides, rounds, BATCH_SIZE)
            ratio = compare_ratio(
                rates["timm"], rates["tlbench"], "higher", band=TARGET
            )
            low, high = ratio.interval or (float("nan"), float("nan"))
            is_as_fast = ratio.verdict in ("better", "equivalent")
            rate = np.median(list(rates["tlbench"].values()))
            print(
                f"{way}: {rate:.0f} images per second, {ratio.value:.3f} x those of"
                f" timm, 95 % interval {low:.3f} to {high:.3f} ({rounds} rounds);"
                f" at least as fast: {is_as_fast}"
            )


if __name__ == "__main__":
    main()
